package forklight.runtime;

import java.lang.reflect.Array;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.util.HashMap;
import java.util.Map;

/** Generic types: what stands for which variable. */
final class Types {
    private Types() {}

    /** The class that values of this type have at least. */
    static Class<?> raw(Type type) {
        if (type instanceof Class) {
            return (Class<?>) type;
        }
        if (type instanceof ParameterizedType) {
            return (Class<?>) ((ParameterizedType) type).getRawType();
        }
        if (type instanceof GenericArrayType) {
            return Array.newInstance(raw(((GenericArrayType) type).getGenericComponentType()), 0).getClass();
        }
        if (type instanceof WildcardType) {
            return raw(((WildcardType) type).getUpperBounds()[0]);
        }
        return raw(((TypeVariable<?>) type).getBounds()[0]);
    }

    /** What `type`, or what it inherits from, puts for the parameters of `wanted`; null where it says nothing of them. */
    static Type[] argumentsOf(Type type, Class<?> wanted) {
        return argumentsOf(type, wanted, new HashMap<>());
    }

    /** The variables of a parameterized type. */
    static Map<TypeVariable<?>, Type> variablesOf(Type type) {
        Map<TypeVariable<?>, Type> known = new HashMap<>();
        bind(type, known);
        return known;
    }

    static Type resolve(Type type, Map<TypeVariable<?>, Type> known) {
        if (type instanceof TypeVariable) {
            return known.getOrDefault(type, type);
        }
        if (type instanceof WildcardType) {
            return resolve(((WildcardType) type).getUpperBounds()[0], known);
        }
        if (type instanceof ParameterizedType) {
            Type[] arguments = ((ParameterizedType) type).getActualTypeArguments();
            Type[] resolved = new Type[arguments.length];
            for (int i = 0; i < arguments.length; i++) {
                resolved[i] = resolve(arguments[i], known);
            }
            return new Parameterized(raw(type), resolved);
        }
        return type;
    }

    private static Type[] argumentsOf(Type type, Class<?> wanted, Map<TypeVariable<?>, Type> known) {
        Class<?> raw = raw(type);
        if (raw == wanted) {
            return type instanceof ParameterizedType ? ((ParameterizedType) resolve(type, known)).getActualTypeArguments() : null;
        }
        bind(type, known);
        for (Type parent : raw.getGenericInterfaces()) {
            if (wanted.isAssignableFrom(raw(parent))) {
                return argumentsOf(parent, wanted, known);
            }
        }
        Type parent = raw.getGenericSuperclass();
        return parent != null && wanted.isAssignableFrom(raw(parent)) ? argumentsOf(parent, wanted, known) : null;
    }

    private static void bind(Type type, Map<TypeVariable<?>, Type> known) {
        if (type instanceof ParameterizedType) {
            Type[] arguments = ((ParameterizedType) type).getActualTypeArguments();
            TypeVariable<?>[] variables = raw(type).getTypeParameters();
            for (int i = 0; i < variables.length; i++) {
                known.put(variables[i], resolve(arguments[i], known));
            }
        }
    }

    private static final class Parameterized implements ParameterizedType {
        private final Class<?> raw;
        private final Type[] arguments;

        Parameterized(Class<?> raw, Type[] arguments) {
            this.raw = raw;
            this.arguments = arguments;
        }

        @Override
        public Type[] getActualTypeArguments() {
            return arguments.clone();
        }

        @Override
        public Type getRawType() {
            return raw;
        }

        @Override
        public Type getOwnerType() {
            return raw.getDeclaringClass();
        }
    }
}
