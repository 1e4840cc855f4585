package forklight.runtime;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON (RFC 8259) to maps, lists, strings, booleans, null and numbers (Integer, Long or BigInteger, as large as it must be, and Double),
 * and objects of any kind back (see Writing).
 */
final class Json {
    private static final int DEEPEST = 1000;

    private final String text;
    private int at;
    private int depth;

    private Json(String text) {
        this.text = text;
    }

    /** Throws IllegalArgumentException. */
    static Object parse(byte[] json) {
        Json reader = new Json(new String(json, StandardCharsets.UTF_8));
        Object value = reader.value();
        reader.skip();
        if (reader.at < reader.text.length()) {
            throw reader.wrong("nothing more");
        }
        return value;
    }

    static byte[] write(Object value) {
        StringBuilder out = new StringBuilder();
        new Writing(out).value(value);
        return out.toString().getBytes(StandardCharsets.UTF_8);
    }

    /** Of a value that is an object; null for anything else. */
    @SuppressWarnings("unchecked")
    static Map<String, Object> objectOf(Object value) {
        return value instanceof Map ? (Map<String, Object>) value : null;
    }

    static Map<String, Object> objectOf(Map<String, Object> owner, String name) {
        return objectOf(owner.get(name));
    }

    private Object value() {
        skip();
        char next = peek();
        switch (next) {
            case '{':
                return object();
            case '[':
                return array();
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> object() {
        Map<String, Object> members = new LinkedHashMap<>();
        begin();
        if (!takes('}')) {
            do {
                skip();
                if (peek() != '"') {
                    throw wrong("a member's name");
                }
                String name = string();
                if (!takes(':')) {
                    throw wrong("':'");
                }
                members.put(name, value());
            } while (takes(','));
            if (!takes('}')) {
                throw wrong("',' or '}'");
            }
        }
        depth--;
        return members;
    }

    private List<Object> array() {
        List<Object> items = new ArrayList<>();
        begin();
        if (!takes(']')) {
            do {
                items.add(value());
            } while (takes(','));
            if (!takes(']')) {
                throw wrong("',' or ']'");
            }
        }
        depth--;
        return items;
    }

    private void begin() {
        at++;
        if (++depth > DEEPEST) {
            throw new IllegalArgumentException("nested deeper than " + DEEPEST);
        }
    }

    private String string() {
        int start = ++at;
        int end = start;
        while (end < text.length() && text.charAt(end) != '"' && text.charAt(end) != '\\') {
            check(text.charAt(end++));
        }
        StringBuilder found = new StringBuilder(text.substring(start, end));
        for (at = end; peek() != '"'; ) {
            char next = text.charAt(at++);
            check(next);
            found.append(next == '\\' ? escape() : next);
        }
        at++;
        return found.toString();
    }

    private char escape() {
        char next = peek();
        at++;
        switch (next) {
            case '"':
            case '\\':
            case '/':
                return next;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int end = at + 4; at < end; at++) {
                    int digit = Character.digit(peek(), 16);
                    if (digit < 0) {
                        throw wrong("a hexadecimal digit");
                    }
                    code = code * 16 + digit;
                }
                return (char) code;
            default:
                throw wrong("an escape");
        }
    }

    private void check(char character) {
        if (character < ' ') {
            throw wrong("no control character within a string");
        }
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw wrong("a value");
        }
        at += word.length();
        return value;
    }

    private Object number() {
        int start = at;
        boolean whole = true;
        if (peek() == '-') {
            at++;
        }
        int first = at;
        digits();
        if (at > first + 1 && text.charAt(first) == '0') {
            throw wrong("no leading zero");
        }
        if (at < text.length() && text.charAt(at) == '.') {
            whole = false;
            at++;
            digits();
        }
        if (at < text.length() && (text.charAt(at) | 32) == 'e') {
            whole = false;
            at++;
            if (peek() == '-' || peek() == '+') {
                at++;
            }
            digits();
        }
        String found = text.substring(start, at);
        if (!whole) {
            double value = Double.parseDouble(found);
            return Double.isInfinite(value) ? (Object) new BigDecimal(found) : (Object) value;
        }
        if (found.length() > 18) {
            BigInteger large = new BigInteger(found);
            return large.bitLength() < 64 ? (Object) large.longValue() : (Object) large;
        }
        long value = Long.parseLong(found);
        return (int) value == value ? (Object) (int) value : (Object) value;
    }

    private void digits() {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        if (at == start) {
            throw wrong("a value");
        }
    }

    private boolean takes(char wanted) {
        skip();
        if (peek() != wanted) {
            return false;
        }
        at++;
        return true;
    }

    private char peek() {
        if (at >= text.length()) {
            throw new IllegalArgumentException("the JSON ends too early");
        }
        return text.charAt(at);
    }

    private void skip() {
        while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    private IllegalArgumentException wrong(String expected) {
        return new IllegalArgumentException("expected " + expected + " at character " + at + " of the JSON");
    }
}
