package forklight.runtime;

import com.amazonaws.services.lambda.runtime.CustomPojoSerializer;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.lang.reflect.Type;
import java.util.Iterator;
import java.util.ServiceLoader;

/** Between JSON and the types of a handler: by the function's own serializer where it has one, else by ours. */
final class Objects {
    private final CustomPojoSerializer own;

    Objects(ClassLoader loader) {
        Iterator<CustomPojoSerializer> found = ServiceLoader.load(CustomPojoSerializer.class, loader).iterator();
        own = found.hasNext() ? found.next() : null;
        if (found.hasNext()) {
            throw Fault.of("Too many serializers provided by implementations of CustomPojoSerializer: only one is expected");
        }
    }

    Object read(byte[] json, Type type) {
        try {
            if (own != null) {
                return own.fromJson(new ByteArrayInputStream(json), type);
            }
            return Reading.convert(Json.parse(json), type);
        } catch (Throwable error) {
            throw new RuntimeException("An error occurred during JSON parsing", Fault.filter(error));
        }
    }

    byte[] write(Object value, Type type) {
        try {
            if (own == null || type == void.class || type == Void.class) {
                return Json.write(value);
            }
            ByteArrayOutputStream out = new ByteArrayOutputStream(1024);
            own.toJson(value, out, type);
            return out.toByteArray();
        } catch (Throwable error) {
            throw new RuntimeException("An error occurred during JSON serialization of response", error);
        }
    }
}
