package com.amazonaws.services.lambda.runtime.logging;

/** UNDEFINED: of a message that was logged without a level; it is never filtered. */
public enum LogLevel {
    UNDEFINED,
    TRACE,
    DEBUG,
    INFO,
    WARN,
    ERROR,
    FATAL
}
