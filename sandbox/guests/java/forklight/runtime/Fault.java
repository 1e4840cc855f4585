package forklight.runtime;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** An error as Lambda tells it: to the caller and in the log. */
final class Fault extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final String OURS = Fault.class.getPackage().getName() + ".";

    /** No further event can be served. */
    final boolean fatal;

    private final String kind;
    private final String trace;
    private final List<String> frames;

    private Fault(String message, String kind, String trace, List<String> frames, boolean fatal) {
        super(message, null, false, false);
        this.kind = kind;
        this.trace = trace;
        this.frames = frames;
        this.fatal = fatal;
    }

    /** Something is wrong with what the function is made of. */
    static Fault of(String message) {
        return new Fault(message, null, null, null, false);
    }

    static Fault of(String message, Throwable cause, boolean fatal) {
        return new Fault(message, cause.getClass().getName(), traceOf(cause), null, fatal);
    }

    /** As `of`, in the words of what was thrown. */
    static Fault of(Throwable cause, boolean fatal) {
        return of(messageOf(cause), cause, fatal);
    }

    /** By the function's own code. */
    static Fault thrown(Throwable cause) {
        String trace = traceOf(cause);
        List<String> frames = new ArrayList<>();
        for (StackTraceElement frame : cause.getStackTrace()) {
            frames.add(frame.toString());
        }
        return new Fault(messageOf(cause), cause.getClass().getName(), trace, frames, false);
    }

    byte[] json() {
        Map<String, Object> document = new LinkedHashMap<>();
        document.put("errorMessage", getMessage());
        if (kind != null) {
            document.put("errorType", kind);
        }
        if (frames != null) {
            document.put("stackTrace", frames);
        }
        return Json.write(document);
    }

    String report() {
        if (kind == null) {
            return getMessage() + "\n";
        }
        return getMessage() + ": " + kind + "\n" + trace + "\n";
    }

    /** Takes the frames of this runtime away, of causes too. Returns what it was given. */
    static <T extends Throwable> T filter(T thrown) {
        filter(thrown, Collections.newSetFromMap(new IdentityHashMap<>()));
        return thrown;
    }

    private static void filter(Throwable thrown, Set<Throwable> seen) {
        if (thrown == null || !seen.add(thrown)) {
            return;
        }
        StackTraceElement[] frames = thrown.getStackTrace();
        int end = frames.length;
        for (int i = 0; i < frames.length; i++) {
            if (frames[i].getClassName().startsWith(OURS)) {
                end = withoutReflection(frames, i);
                break;
            }
        }
        thrown.setStackTrace(Arrays.copyOf(frames, end));
        filter(thrown.getCause(), seen);
        for (Throwable suppressed : thrown.getSuppressed()) {
            filter(suppressed, seen);
        }
    }

    private static int withoutReflection(StackTraceElement[] frames, int end) {
        while (end > 0 && isReflection(frames[end - 1].getClassName())) {
            end--;
        }
        return end;
    }

    private static boolean isReflection(String name) {
        return name.startsWith("java.lang.reflect.") || name.startsWith("jdk.internal.reflect.");
    }

    private static String messageOf(Throwable thrown) {
        String message = thrown.getLocalizedMessage();
        return message == null ? thrown.getClass().getName() : message;
    }

    private static String traceOf(Throwable thrown) {
        StringWriter text = new StringWriter();
        filter(thrown).printStackTrace(new PrintWriter(text));
        return text.toString();
    }
}
