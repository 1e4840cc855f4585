package forklight.runtime;

import java.lang.reflect.AccessibleObject;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;

/** The properties of a class: getters and setters, public fields, components of records. Names are the JSON's. */
final class Beans {
    private static final Map<Class<?>, Beans> KNOWN = new ConcurrentHashMap<>();

    /** How one property is set; of records nothing but the type counts. */
    static final class Property {
        final Type type;
        private final Method setter;
        private final Field field;

        private Property(Type type, Method setter, Field field) {
            this.type = type;
            this.setter = setter;
            this.field = field;
        }

        void set(Object owner, Object value) throws Throwable {
            if (setter == null) {
                field.set(owner, value);
                return;
            }
            try {
                setter.invoke(owner, value);
            } catch (InvocationTargetException error) {
                throw error.getCause();
            }
        }
    }

    final boolean isRecord;
    /** By name; the case of letters counts only where two names differ in nothing else. */
    private final Map<String, Property> properties = new LinkedHashMap<>();
    private final Map<String, Property> byAnyCase = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
    private final Map<String, AccessibleObject> readers = new LinkedHashMap<>();
    private final Constructor<?> constructor;

    static Beans of(Class<?> type) {
        return KNOWN.computeIfAbsent(type, Beans::new);
    }

    private Beans(Class<?> type) {
        isRecord = type.getSuperclass() != null && type.getSuperclass().getName().equals("java.lang.Record");
        constructor = isRecord ? ofRecord(type) : ofBean(type);
        byAnyCase.putAll(properties);
    }

    Property property(String name) {
        Property exact = properties.get(name);
        return exact != null ? exact : byAnyCase.get(name);
    }

    /** In the order of a record's constructor. */
    Map<String, Property> properties() {
        return properties;
    }

    /** `values`: of a record its components in order, else none. */
    Object make(Object... values) throws Throwable {
        if (constructor == null) {
            throw new IllegalArgumentException("no public or package constructor without parameters");
        }
        try {
            return constructor.newInstance(values);
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }

    Map<String, Object> valuesOf(Object owner) {
        Map<String, Object> values = new LinkedHashMap<>();
        readers.forEach((name, reader) -> values.put(name, read(reader, owner)));
        return values;
    }

    private static Object read(AccessibleObject reader, Object owner) {
        try {
            return reader instanceof Field ? ((Field) reader).get(owner) : ((Method) reader).invoke(owner);
        } catch (InvocationTargetException error) {
            throw new IllegalStateException(reader + " has failed", error.getCause());
        } catch (IllegalAccessException error) {
            throw new IllegalStateException(error);
        }
    }

    // ---- looking at a class ----------------------------------------------------------------------------------------

    private Constructor<?> ofRecord(Class<?> type) {
        try {
            // Records are younger than the oldest Java that this runs on.
            Object[] components = (Object[]) Class.class.getMethod("getRecordComponents").invoke(type);
            Class<?>[] parameters = new Class<?>[components.length];
            for (int i = 0; i < components.length; i++) {
                Class<?> known = components[i].getClass();
                String name = (String) known.getMethod("getName").invoke(components[i]);
                parameters[i] = (Class<?>) known.getMethod("getType").invoke(components[i]);
                properties.put(name, new Property((Type) known.getMethod("getGenericType").invoke(components[i]), null, null));
                readers.put(name, open((Method) known.getMethod("getAccessor").invoke(components[i])));
            }
            return open(type.getDeclaredConstructor(parameters));
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }

    private Constructor<?> ofBean(Class<?> type) {
        for (Field field : type.getFields()) {
            if (!Modifier.isStatic(field.getModifiers())) {
                properties.put(field.getName(), new Property(field.getGenericType(), null, open(field)));
                readers.put(field.getName(), field);
            }
        }
        for (Method method : inOrder(type.getMethods())) {
            if (Modifier.isStatic(method.getModifiers()) || method.isBridge() || method.getDeclaringClass() == Object.class) {
                continue;
            }
            String name = method.getName();
            if (method.getParameterCount() == 1 && name.length() > 3 && name.startsWith("set")) {
                Type wanted = method.getGenericParameterTypes()[0];
                properties.put(decapitalized(name.substring(3)), new Property(wanted, open(method), null));
            } else if (method.getParameterCount() == 0 && isGetter(method)) {
                readers.put(decapitalized(name.substring(name.startsWith("is") ? 2 : 3)), open(method));
            }
        }
        if (Modifier.isAbstract(type.getModifiers())) {
            return null;
        }
        try {
            return open(type.getDeclaredConstructor());
        } catch (NoSuchMethodException error) {
            return null;
        }
    }

    private static boolean isGetter(Method method) {
        String name = method.getName();
        Class<?> result = method.getReturnType();
        if (name.startsWith("is") && name.length() > 2) {
            return result == boolean.class;
        }
        return name.startsWith("get") && name.length() > 3 && result != void.class;
    }

    /** A class's methods come in any order: by name, so that answers look the same each time. */
    private static Iterable<Method> inOrder(Method[] methods) {
        Map<String, Method> sorted = new TreeMap<>();
        for (Method method : methods) {
            sorted.put(method.getName() + method.getParameterCount() + method, method);
        }
        return sorted.values();
    }

    /** All capitals at the beginning: "URLs" is "urls", "FooBar" is "fooBar". */
    private static String decapitalized(String name) {
        int end = 0;
        while (end < name.length() && Character.isUpperCase(name.charAt(end))) {
            end++;
        }
        return name.substring(0, end).toLowerCase(Locale.ROOT) + name.substring(end);
    }

    private static <T extends AccessibleObject> T open(T member) {
        member.setAccessible(true);
        return member;
    }
}
