package forklight.runtime;

import com.amazonaws.services.lambda.runtime.Client;
import com.amazonaws.services.lambda.runtime.ClientContext;
import com.amazonaws.services.lambda.runtime.CognitoIdentity;
import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.LambdaLogger;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** The Context of one event, made of the Runtime API's headers. */
final class Invocation implements Context {
    private final Map<String, String> headers;
    private final LambdaLogger logger;

    Invocation(Map<String, String> headers, LambdaLogger logger) {
        this.headers = headers;
        this.logger = logger;
    }

    @Override
    public String getAwsRequestId() {
        return headers.get("lambda-runtime-aws-request-id");
    }

    @Override
    public String getLogGroupName() {
        return System.getenv("AWS_LAMBDA_LOG_GROUP_NAME");
    }

    @Override
    public String getLogStreamName() {
        return System.getenv("AWS_LAMBDA_LOG_STREAM_NAME");
    }

    @Override
    public String getFunctionName() {
        return System.getenv("AWS_LAMBDA_FUNCTION_NAME");
    }

    @Override
    public String getFunctionVersion() {
        return System.getenv("AWS_LAMBDA_FUNCTION_VERSION");
    }

    @Override
    public String getInvokedFunctionArn() {
        return headers.get("lambda-runtime-invoked-function-arn");
    }

    @Override
    public CognitoIdentity getIdentity() {
        Map<String, Object> found = object("lambda-runtime-cognito-identity");
        if (found == null) {
            return null;
        }
        return new CognitoIdentity() {
            @Override
            public String getIdentityId() {
                return text(found, "cognitoIdentityId");
            }

            @Override
            public String getIdentityPoolId() {
                return text(found, "cognitoIdentityPoolId");
            }
        };
    }

    @Override
    public ClientContext getClientContext() {
        Map<String, Object> found = object("lambda-runtime-client-context");
        if (found == null) {
            return null;
        }
        return new ClientContext() {
            @Override
            public Client getClient() {
                return client(Json.objectOf(found, "client"));
            }

            @Override
            public Map<String, String> getCustom() {
                return texts(Json.objectOf(found, "custom"));
            }

            @Override
            public Map<String, String> getEnvironment() {
                return texts(Json.objectOf(found, "env"));
            }
        };
    }

    @Override
    public int getRemainingTimeInMillis() {
        long left = Long.parseLong(headers.get("lambda-runtime-deadline-ms")) - System.currentTimeMillis();
        return (int) Math.max(0, Math.min(left, Integer.MAX_VALUE));
    }

    @Override
    public int getMemoryLimitInMB() {
        return Integer.parseInt(System.getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"));
    }

    @Override
    public LambdaLogger getLogger() {
        return logger;
    }

    @Override
    public String getTenantId() {
        return headers.get("lambda-runtime-aws-tenant-id");
    }

    @Override
    public String getXrayTraceId() {
        return headers.get("lambda-runtime-trace-id");
    }

    private Map<String, Object> object(String header) {
        String value = headers.get(header);
        if (value == null || value.isEmpty()) {
            return null;
        }
        return Json.objectOf(Json.parse(value.getBytes(StandardCharsets.UTF_8)));
    }

    private static Client client(Map<String, Object> found) {
        if (found == null) {
            return null;
        }
        return new Client() {
            @Override
            public String getInstallationId() {
                return text(found, "installation_id");
            }

            @Override
            public String getAppTitle() {
                return text(found, "app_title");
            }

            @Override
            public String getAppVersionName() {
                return text(found, "app_version_name");
            }

            @Override
            public String getAppVersionCode() {
                return text(found, "app_version_code");
            }

            @Override
            public String getAppPackageName() {
                return text(found, "app_package_name");
            }
        };
    }

    private static String text(Map<String, Object> found, String name) {
        Object value = found.get(name);
        return value == null ? null : value.toString();
    }

    private static Map<String, String> texts(Map<String, Object> found) {
        if (found == null) {
            return null;
        }
        Map<String, String> texts = new LinkedHashMap<>();
        found.forEach((name, value) -> texts.put(name, value == null ? null : value.toString()));
        return texts;
    }
}
