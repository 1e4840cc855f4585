package com.amazonaws.services.lambda.runtime;

/** Gives the logger to code that has no Context. */
public final class LambdaRuntime {
    private static volatile LambdaLogger logger;

    private LambdaRuntime() {}

    public static LambdaLogger getLogger() {
        return logger;
    }

    /** For the runtime itself. */
    public static void setLogger(LambdaLogger wanted) {
        logger = wanted;
    }
}
