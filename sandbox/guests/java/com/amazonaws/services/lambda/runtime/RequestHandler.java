package com.amazonaws.services.lambda.runtime;

/** A function of an object made from JSON, whose result is written as JSON. */
public interface RequestHandler<I, O> {
    O handleRequest(I input, Context context);
}
