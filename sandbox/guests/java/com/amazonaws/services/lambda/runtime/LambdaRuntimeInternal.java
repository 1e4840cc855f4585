package com.amazonaws.services.lambda.runtime;

/** How aws-lambda-java-log4j2 says that it is there. */
public final class LambdaRuntimeInternal {
    private static volatile boolean useLog4jAppender;

    private LambdaRuntimeInternal() {}

    public static void setUseLog4jAppender(boolean wanted) {
        useLog4jAppender = wanted;
    }

    public static boolean getUseLog4jAppender() {
        return useLog4jAppender;
    }
}
