package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.LambdaLogger;
import com.amazonaws.services.lambda.runtime.logging.LogLevel;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.LinkedHashMap;
import java.util.Map;

/** Handlers that are methods, for the tests. */
public class App {
    private static int count;

    public static Object handle(Map<String, Object> event, Context context) throws Exception {
        switch (String.valueOf(event.get("do"))) {
            case "raise":
                throw new IllegalStateException("no");
            case "cause":
                throw new Exception(null, new RuntimeException("below"));
            case "overflow":
                return overflow(1);
            case "exit":
                System.exit(5);
                return null;
            case "sleep":
                Thread.sleep(60000);
                return null;
            case "large":
                return "x".repeat((int) event.get("bytes"));
            case "logs":
                return logs(context.getLogger());
            case "memory":
                return Runtime.getRuntime().maxMemory();
            default:
                return echo(event, context);
        }
    }

    private static int overflow(int depth) {
        return overflow(depth + 1) + 1;
    }

    private static Object logs(LambdaLogger logger) {
        logger.log("two\nlines");
        logger.log("a warning", LogLevel.WARN);
        logger.log("deep", LogLevel.DEBUG);
        System.out.println("plain ä");
        System.out.print("no end");
        return null;
    }

    private static Object echo(Map<String, Object> event, Context context) {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("event", event);
        answer.put("id", context.getAwsRequestId());
        answer.put("name", context.getFunctionName());
        answer.put("memory", context.getMemoryLimitInMB());
        answer.put("remaining", context.getRemainingTimeInMillis());
        answer.put("custom", context.getClientContext() == null ? null : context.getClientContext().getCustom());
        answer.put("env", System.getenv());
        answer.put("java", System.getProperty("java.specification.version"));
        answer.put("count", ++count);
        return answer;
    }

    public void stream(InputStream in, OutputStream out, Context context) throws Exception {
        out.write('"');
        out.write(Integer.toString(in.readAllBytes().length).getBytes());
        out.write('"');
    }

    public String text(String text) {
        return text + "!";
    }

    public void text(String text, int other, int more) {}

    public Long nothing() {
        return null;
    }
}
