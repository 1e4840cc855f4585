"""AWS-form errors as gRPC statuses."""

from __future__ import annotations

from typing import NoReturn

import grpc
from grpc.aio import ServicerContext

from gateway.model.errors import ApiError

_BY_CODE: dict[str, grpc.StatusCode] = {
    "PreconditionFailedException": grpc.StatusCode.FAILED_PRECONDITION,
    "CodeStorageExceededException": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "ResourceConflictException": grpc.StatusCode.FAILED_PRECONDITION,
    "MissingAuthenticationTokenException": grpc.StatusCode.UNAUTHENTICATED,
}
_BY_HTTP_STATUS: dict[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    402: grpc.StatusCode.RESOURCE_EXHAUSTED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def status_of(error: ApiError) -> grpc.StatusCode:
    """The gRPC status code that says what an AWS-form error says."""
    if error.code == "ResourceConflictException" and "already exist" in error.message:
        return grpc.StatusCode.ALREADY_EXISTS
    code = _BY_CODE.get(error.code)
    return code or _BY_HTTP_STATUS.get(error.status, grpc.StatusCode.INTERNAL)


async def refuse(context: ServicerContext, error: ApiError) -> NoReturn:
    """End the call with the status of ``error``; the name of the error travels in the trailing metadata."""
    await context.abort(status_of(error), error.message, (("x-amzn-errortype", error.code),))
    raise AssertionError("abort returned")


async def refuse_argument(context: ServicerContext, message: str) -> NoReturn:
    """End the call with INVALID_ARGUMENT."""
    await refuse(context, ApiError("InvalidParameterValueException", message))
