package forklight.runtime;

import java.lang.reflect.Array;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collection;
import java.util.Collections;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Queue;
import java.util.Set;
import java.util.SortedMap;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;

/** What Json.parse has found as a value of a handler's type. Members that a class does not have are passed over, as on Lambda. */
final class Reading {
    private static final List<String> MAKERS = Arrays.asList("parse", "fromString", "valueOf", "of", "create", "forName");

    private Reading() {}

    static Object convert(Object value, Type type) throws Throwable {
        Class<?> raw = Types.raw(type);
        if (raw == Optional.class) {
            return Optional.ofNullable(convert(value, argument(type, Optional.class, 0)));
        }
        if (value == null || (value.equals("") && !CharSequence.class.isAssignableFrom(raw) && raw != Object.class)) {
            return raw.isPrimitive() ? Array.get(Array.newInstance(raw, 1), 0) : null;
        }
        if (raw == Object.class || raw == value.getClass()) {
            return value;
        }
        if (raw == String.class || raw == CharSequence.class) {
            return text(value);
        }
        if (raw == boolean.class || raw == Boolean.class) {
            return value instanceof String ? Boolean.valueOf((String) value) : (Boolean) expect(value, Boolean.class, raw);
        }
        if (raw.isPrimitive() || Number.class.isAssignableFrom(raw) || raw == Character.class) {
            return number(value, raw);
        }
        if (raw == byte[].class) {
            return Base64.getDecoder().decode(text(value));
        }
        if (raw == ByteBuffer.class) {
            return ByteBuffer.wrap(Base64.getDecoder().decode(text(value)));
        }
        if (raw.isArray()) {
            return array(value, type instanceof GenericArrayType ? ((GenericArrayType) type).getGenericComponentType() : raw.getComponentType());
        }
        if (Collection.class.isAssignableFrom(raw) || raw == Iterable.class) {
            return collection(value, type, raw);
        }
        if (Map.class.isAssignableFrom(raw)) {
            return map(value, type, raw);
        }
        return value instanceof Map ? bean(Json.objectOf(value), type, raw) : scalar(value, raw);
    }

    private static Object bean(Map<String, Object> members, Type type, Class<?> raw) throws Throwable {
        Beans beans = Beans.of(raw);
        Map<TypeVariable<?>, Type> known = Types.variablesOf(type);
        if (!beans.isRecord) {
            Object made = beans.make();
            for (Map.Entry<String, Object> member : members.entrySet()) {
                Beans.Property property = beans.property(member.getKey());
                if (property != null) {
                    property.set(made, convert(member.getValue(), Types.resolve(property.type, known)));
                }
            }
            return made;
        }
        Map<String, Object> values = new LinkedHashMap<>();
        for (Map.Entry<String, Beans.Property> component : beans.properties().entrySet()) {
            values.put(component.getKey(), convert(members.get(component.getKey()), Types.resolve(component.getValue().type, known)));
        }
        return beans.make(values.values().toArray());
    }

    /** A value that is no object of a class that is none of JSON's: enums, dates, and what can be made of a text. */
    private static Object scalar(Object value, Class<?> raw) throws Throwable {
        if (raw.isEnum()) {
            for (Object constant : raw.getEnumConstants()) {
                if (((Enum<?>) constant).name().equals(text(value))) {
                    return constant;
                }
            }
            throw new IllegalArgumentException("\"" + value + "\" is none of " + Arrays.toString(raw.getEnumConstants()));
        }
        if (raw == Date.class) {
            return value instanceof Number
                    ? new Date(((Number) value).longValue())
                    : Date.from(java.time.OffsetDateTime.parse(text(value)).toInstant());
        }
        if (value instanceof Number && raw == java.time.Instant.class) {
            BigDecimal seconds = new BigDecimal(value.toString());
            return java.time.Instant.ofEpochSecond(0, seconds.movePointRight(9).longValue());
        }
        for (String name : MAKERS) {
            for (Class<?> parameter : new Class<?>[] {CharSequence.class, String.class}) {
                Method maker;
                try {
                    maker = raw.getMethod(name, parameter);
                } catch (NoSuchMethodException error) {
                    continue;
                }
                if (Modifier.isStatic(maker.getModifiers()) && raw.isAssignableFrom(maker.getReturnType())) {
                    try {
                        return maker.invoke(null, text(value));
                    } catch (InvocationTargetException error) {
                        throw error.getCause();
                    }
                }
            }
        }
        try {
            return raw.getConstructor(String.class).newInstance(text(value));
        } catch (NoSuchMethodException error) {
            throw wrong(value, raw);
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }

    private static Object number(Object value, Class<?> raw) {
        if (raw == char.class || raw == Character.class) {
            String text = text(value);
            if (text.length() != 1) {
                throw wrong(value, raw);
            }
            return text.charAt(0);
        }
        if (!(value instanceof Number || value instanceof String)) {
            throw wrong(value, raw);
        }
        BigDecimal exact = new BigDecimal(value.toString());
        BigInteger whole = exact.toBigInteger();
        if (raw == double.class || raw == Double.class || raw == Number.class) {
            return exact.doubleValue();
        } else if (raw == float.class || raw == Float.class) {
            return exact.floatValue();
        } else if (raw == long.class || raw == Long.class) {
            return whole.longValueExact();
        } else if (raw == int.class || raw == Integer.class) {
            return whole.intValueExact();
        } else if (raw == short.class || raw == Short.class) {
            return whole.shortValueExact();
        } else if (raw == byte.class || raw == Byte.class) {
            return whole.byteValueExact();
        } else if (raw == BigInteger.class) {
            return whole;
        } else if (raw == BigDecimal.class) {
            return exact;
        }
        throw wrong(value, raw);
    }

    private static Object array(Object value, Type component) throws Throwable {
        List<?> items = items(value);
        Object array = Array.newInstance(Types.raw(component), items.size());
        for (int i = 0; i < items.size(); i++) {
            Array.set(array, i, convert(items.get(i), component));
        }
        return array;
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private static Object collection(Object value, Type type, Class<?> raw) throws Throwable {
        Type item = argument(type, raw == Iterable.class ? Iterable.class : Collection.class, 0);
        Collection made;
        if (!raw.isInterface() && !Modifier.isAbstract(raw.getModifiers())) {
            made = (Collection) raw.getConstructor().newInstance();
        } else if (SortedSet.class.isAssignableFrom(raw)) {
            made = new TreeSet();
        } else if (Set.class.isAssignableFrom(raw)) {
            made = new LinkedHashSet();
        } else if (Queue.class.isAssignableFrom(raw)) {
            made = new ArrayDeque();
        } else {
            made = new ArrayList();
        }
        for (Object each : items(value)) {
            made.add(convert(each, item));
        }
        return made;
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private static Object map(Object value, Type type, Class<?> raw) throws Throwable {
        Map<String, Object> members = Json.objectOf(value);
        if (members == null) {
            throw wrong(value, raw);
        }
        Map made;
        if (!raw.isInterface() && !Modifier.isAbstract(raw.getModifiers())) {
            made = (Map) raw.getConstructor().newInstance();
        } else {
            made = SortedMap.class.isAssignableFrom(raw) ? new TreeMap() : new LinkedHashMap();
        }
        Type keys = argument(type, Map.class, 0);
        Type values = argument(type, Map.class, 1);
        for (Map.Entry<String, Object> member : members.entrySet()) {
            made.put(convert(member.getKey(), keys), convert(member.getValue(), values));
        }
        return made;
    }

    /** A single value stands for a list of one, as on Lambda. */
    private static List<?> items(Object value) {
        return value instanceof List ? (List<?>) value : Collections.singletonList(value);
    }

    private static Type argument(Type type, Class<?> of, int index) {
        Type[] arguments = Types.argumentsOf(type, of);
        return arguments == null ? Object.class : arguments[index];
    }

    private static String text(Object value) {
        if (value instanceof Map || value instanceof List) {
            throw wrong(value, String.class);
        }
        return value.toString();
    }

    private static Object expect(Object value, Class<?> wanted, Class<?> raw) {
        if (!wanted.isInstance(value)) {
            throw wrong(value, raw);
        }
        return value;
    }

    private static IllegalArgumentException wrong(Object value, Class<?> raw) {
        String kind = value instanceof Map ? "an object" : value instanceof List ? "an array" : value instanceof String ? "a string"
                : value instanceof Boolean ? "a boolean" : "a number";
        return new IllegalArgumentException(raw.getName() + " cannot be made of " + kind);
    }
}
