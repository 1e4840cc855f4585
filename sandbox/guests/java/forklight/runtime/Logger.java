package forklight.runtime;

import com.amazonaws.services.lambda.runtime.LambdaLogger;
import com.amazonaws.services.lambda.runtime.logging.LogLevel;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.format.DateTimeFormatterBuilder;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Each call one event, in the text or the JSON format, from the function's level on. Line ends travel as \r, and the host turns them
 * back.
 */
final class Logger implements LambdaLogger {
    private final boolean asJson = "JSON".equalsIgnoreCase(System.getenv("AWS_LAMBDA_LOG_FORMAT"));
    private final LogLevel least = level(System.getenv("AWS_LAMBDA_LOG_LEVEL"));
    private final PrintStream out = System.out;
    private volatile Invocation invocation;

    void setInvocation(Invocation current) {
        invocation = current;
    }

    @Override
    public void log(String message) {
        log(message, LogLevel.UNDEFINED);
    }

    @Override
    public void log(byte[] message) {
        log(message, LogLevel.UNDEFINED);
    }

    @Override
    public void log(String message, LogLevel level) {
        if (isWanted(level)) {
            write(asJson ? json(message, level) : level == LogLevel.UNDEFINED ? message : "[" + level + "] " + message);
        }
    }

    /** Bytes are never formatted. */
    @Override
    public void log(byte[] message, LogLevel level) {
        if (isWanted(level)) {
            write(new String(message, StandardCharsets.UTF_8));
        }
    }

    /** An error that ends an invocation or the initialisation. */
    void failure(String report) {
        log(report, asJson ? LogLevel.ERROR : LogLevel.UNDEFINED);
    }

    private boolean isWanted(LogLevel level) {
        return level == LogLevel.UNDEFINED || level.compareTo(least) >= 0;
    }

    private void write(String message) {
        String text = String.valueOf(message);
        int end = text.endsWith("\n") ? text.length() - 1 : text.length();
        String line = text.substring(0, end).replace('\n', '\r') + "\n";
        byte[] bytes = line.getBytes(StandardCharsets.UTF_8);
        out.write(bytes, 0, bytes.length);
        out.flush();
    }

    private String json(String message, LogLevel level) {
        Map<String, Object> record = new LinkedHashMap<>();
        record.put("timestamp", new DateTimeFormatterBuilder().appendInstant(3).toFormatter().format(Instant.now()));
        record.put("level", level.name());
        record.put("message", message);
        Invocation current = invocation;
        if (current != null) {
            record.put("AWSRequestId", current.getAwsRequestId());
            if (current.getTenantId() != null) {
                record.put("tenantId", current.getTenantId());
            }
        }
        return new String(Json.write(record), StandardCharsets.UTF_8);
    }

    private static LogLevel level(String name) {
        for (LogLevel level : LogLevel.values()) {
            if (level.name().equalsIgnoreCase(name)) {
                return level;
            }
        }
        return LogLevel.UNDEFINED;
    }
}
