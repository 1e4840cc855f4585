package forklight.runtime;

import java.lang.reflect.Array;
import java.nio.ByteBuffer;
import java.util.Base64;
import java.util.Calendar;
import java.util.Collection;
import java.util.Date;
import java.util.Iterator;
import java.util.Map;
import java.util.Optional;

/** Objects as JSON: what has properties (see Beans) is an object, dates are milliseconds, bytes base64; the rest as one expects. */
final class Writing {
    private static final int DEEPEST = 1000;

    private final StringBuilder out;
    private int depth;

    Writing(StringBuilder out) {
        this.out = out;
    }

    void value(Object value) {
        if (value == null || value instanceof Boolean) {
            out.append(value);
        } else if (value instanceof Number) {
            number((Number) value);
        } else if (value instanceof CharSequence || value instanceof Character) {
            string(value.toString());
        } else if (value instanceof Enum) {
            string(((Enum<?>) value).name());
        } else if (value instanceof Optional) {
            value(((Optional<?>) value).orElse(null));
        } else if (value instanceof Date) {
            out.append(((Date) value).getTime());
        } else if (value instanceof Calendar) {
            out.append(((Calendar) value).getTimeInMillis());
        } else if (value instanceof byte[]) {
            string(Base64.getEncoder().encodeToString((byte[]) value));
        } else if (value instanceof char[]) {
            string(new String((char[]) value));
        } else if (value instanceof ByteBuffer) {
            string(Base64.getEncoder().encodeToString(bytesOf((ByteBuffer) value)));
        } else if (isWrittenAsText(value.getClass())) {
            string(value.toString());
        } else {
            nested(value);
        }
    }

    /** Of the platform, with no properties that mean something: UUID, URI, java.time.*, Class and so on. */
    private static boolean isWrittenAsText(Class<?> type) {
        boolean known = Map.class.isAssignableFrom(type) || Collection.class.isAssignableFrom(type) || type.isArray();
        return !known && (type.getName().startsWith("java.") || type.getName().startsWith("org.joda.time."));
    }

    private void nested(Object value) {
        if (++depth > DEEPEST) {
            throw new IllegalArgumentException("nested deeper than " + DEEPEST + ": does an object hold itself?");
        }
        if (value instanceof Map) {
            map((Map<?, ?>) value);
        } else if (value instanceof Iterable) {
            items(((Iterable<?>) value).iterator());
        } else if (value.getClass().isArray()) {
            out.append('[');
            for (int i = 0; i < Array.getLength(value); i++) {
                out.append(i > 0 ? "," : "");
                value(Array.get(value, i));
            }
            out.append(']');
        } else {
            map(Beans.of(value.getClass()).valuesOf(value));
        }
        depth--;
    }

    private void items(Iterator<?> items) {
        out.append('[');
        while (items.hasNext()) {
            value(items.next());
            out.append(items.hasNext() ? "," : "");
        }
        out.append(']');
    }

    private void map(Map<?, ?> map) {
        out.append('{');
        String separator = "";
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            out.append(separator);
            separator = ",";
            Object key = entry.getKey();
            string(key instanceof Enum ? ((Enum<?>) key).name() : String.valueOf(key));
            out.append(':');
            value(entry.getValue());
        }
        out.append('}');
    }

    /** JSON has no NaN: as a string, like AWS's. */
    private void number(Number value) {
        boolean odd = (value instanceof Double || value instanceof Float) && !Double.isFinite(value.doubleValue());
        if (odd) {
            string(value.toString());
        } else {
            out.append(value);
        }
    }

    private void string(String text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char character = text.charAt(i);
            if (character == '"' || character == '\\') {
                out.append('\\').append(character);
            } else if (character < ' ') {
                int found = "\b\t\n\f\r".indexOf(character);
                if (found >= 0) {
                    out.append('\\').append("btnfr".charAt(found));
                } else {
                    out.append(String.format("\\u%04x", (int) character));
                }
            } else {
                out.append(character);
            }
        }
        out.append('"');
    }

    private static byte[] bytesOf(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes;
    }
}
