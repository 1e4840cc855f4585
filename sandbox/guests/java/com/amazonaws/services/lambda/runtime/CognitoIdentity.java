package com.amazonaws.services.lambda.runtime;

/** Who called through AWS's mobile SDKs. */
public interface CognitoIdentity {
    String getIdentityId();

    String getIdentityPoolId();
}
