package forklight.runtime;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/**
 * Finding the handler: `package.Class::method`, or the name of a class that is a RequestHandler or a RequestStreamHandler.
 * What cannot be found is told at each invocation; what its own code throws while it is made ends the process.
 */
final class Handlers {
    private Handlers() {}

    /** Throws Fault (fatal). */
    static Handler load(String name, ClassLoader loader) {
        int colons = name.lastIndexOf("::");
        String className = colons < 0 ? name : name.substring(0, colons);
        String method = colons < 0 ? null : name.substring(colons + 2);
        if (className.isEmpty() || (method != null && method.isEmpty())) {
            return fails(Fault.of("Invalid handler: `" + name + "'"));
        }
        Class<?> found;
        try {
            found = Class.forName(className, true, loader);
        } catch (ClassNotFoundException error) {
            return fails(Fault.of("Class not found: " + className, error, false));
        } catch (NoClassDefFoundError error) {
            return fails(Fault.of(loading(className, error), error, false));
        } catch (Throwable error) {
            throw Fault.of(loading(className, error), error, true);
        }
        try {
            Objects objects = new Objects(loader);
            return method == null ? ofInterface(found, objects) : ofMethod(found, method, objects);
        } catch (Fault fault) {
            if (fault.fatal) {
                throw fault;
            }
            return fails(fault);
        } catch (NoClassDefFoundError error) {
            return fails(Fault.of("Error loading method " + method + " on class " + className, error, false));
        }
    }

    private static String loading(String className, Throwable error) {
        return "Error loading class " + className + (error.getMessage() == null ? "" : ": " + error.getMessage());
    }

    private static Handler fails(Fault fault) {
        return (event, invocation) -> {
            throw fault;
        };
    }

    // ---- classes ---------------------------------------------------------------------------------------------------

    private static Handler ofInterface(Class<?> found, Objects objects) {
        if (RequestStreamHandler.class.isAssignableFrom(found)) {
            RequestStreamHandler handler = (RequestStreamHandler) make(found);
            return (event, invocation) -> {
                ByteArrayOutputStream out = new ByteArrayOutputStream(1024);
                handler.handleRequest(new ByteArrayInputStream(event), out, invocation);
                return out.toByteArray();
            };
        }
        if (!RequestHandler.class.isAssignableFrom(found)) {
            throw Fault.of("Class does not implement an appropriate handler interface: " + found.getName());
        }
        Type[] types = Types.argumentsOf(found, RequestHandler.class);
        if (types == null) {
            throw Fault.of("Class " + found.getName() + " does not implement RequestHandler with concrete type parameters");
        }
        for (Type type : types) {
            if (type instanceof TypeVariable && Types.raw(type) == Object.class) {
                throw Fault.of(
                        "Class " + found.getName() + " does not implement RequestHandler with concrete type parameters: parameter "
                                + type + " has no upper bound.");
            }
        }
        @SuppressWarnings("unchecked")
        RequestHandler<Object, Object> handler = (RequestHandler<Object, Object>) make(found);
        return (event, invocation) -> {
            Object input = objects.read(event, types[0]);
            return objects.write(handler.handleRequest(input, invocation), types[1]);
        };
    }

    private static Object make(Class<?> found) {
        Constructor<?> constructor;
        try {
            constructor = found.getConstructor();
        } catch (NoSuchMethodException error) {
            boolean inner = found.getEnclosingClass() != null && !Modifier.isStatic(found.getModifiers());
            String why = inner ? "cannot be instantiated because it is a non-static inner class" : "has no public zero-argument constructor";
            Exception told = new Exception("Class " + found.getName() + " " + why, inner ? null : error);
            throw Fault.of(told, false);
        }
        try {
            return constructor.newInstance();
        } catch (InvocationTargetException error) {
            throw Fault.of(error.getCause() == null ? error : error.getCause(), true);
        } catch (ReflectiveOperationException error) {
            throw Fault.of(error, false);
        }
    }

    // ---- methods ---------------------------------------------------------------------------------------------------

    /** The best of its overloads: no bridge, most parameters, a Context at the end counting as one more. */
    private static Handler ofMethod(Class<?> found, String name, Objects objects) {
        List<Method> methods = new ArrayList<>();
        for (Method method : found.getMethods()) {
            if (method.getName().equals(name)) {
                methods.add(method);
            }
        }
        methods.sort(Comparator.comparing(Method::isBridge).thenComparing(Comparator.comparingInt(Handlers::weight).reversed()));
        for (Method method : methods) {
            if (isFit(method.getGenericParameterTypes())) {
                return call(method, Modifier.isStatic(method.getModifiers()) ? null : make(found), objects);
            }
            System.err.println("Ignoring an overload of method " + name + " because a handler's signature is not like this: " + method);
        }
        throw Fault.of("No public method named " + name + " with appropriate method signature found on class " + found.getName());
    }

    private static int weight(Method method) {
        Class<?>[] types = method.getParameterTypes();
        return types.length + (types.length > 0 && types[types.length - 1] == Context.class ? 1 : 0);
    }

    /** (event?, Context?) or (InputStream?, OutputStream?, Context?). */
    private static boolean isFit(Type[] types) {
        int count = types.length;
        if (count > 0 && types[count - 1] == Context.class) {
            count--;
        }
        if (count > 0 && types[count - 1] == OutputStream.class) {
            count--;
            return count == 0 || (count == 1 && types[0] == InputStream.class);
        }
        return count == 0 || (count == 1 && types[0] != Context.class);
    }

    private static Handler call(Method method, Object instance, Objects objects) {
        method.setAccessible(true); // a public method of a class that is not
        Type[] types = method.getGenericParameterTypes();
        Type result = method.getGenericReturnType();
        boolean streams = false;
        for (Type type : types) {
            streams |= type == InputStream.class || type == OutputStream.class;
        }
        boolean raw = streams;
        return (event, invocation) -> {
            ByteArrayOutputStream out = new ByteArrayOutputStream(1024);
            Object[] values = new Object[types.length];
            for (int i = 0; i < types.length; i++) {
                if (types[i] == Context.class) {
                    values[i] = invocation;
                } else if (types[i] == InputStream.class) {
                    values[i] = new ByteArrayInputStream(event);
                } else if (types[i] == OutputStream.class) {
                    values[i] = out;
                } else {
                    values[i] = objects.read(event, types[i]);
                }
            }
            Object answer;
            try {
                answer = method.invoke(instance, values);
            } catch (InvocationTargetException error) {
                throw error.getCause() == null ? error : error.getCause();
            }
            return raw ? out.toByteArray() : objects.write(answer, result);
        };
    }
}
