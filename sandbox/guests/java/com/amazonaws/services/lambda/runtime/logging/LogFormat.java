package com.amazonaws.services.lambda.runtime.logging;

/** How the lines of LambdaLogger are written. */
public enum LogFormat {
    JSON,
    TEXT
}
