"""Errors on the wire: one shape for the whole HTTP door."""

from __future__ import annotations

from gateway.model.errors import ApiError
from gateway.web.request import Request


def respond_error(request: Request, error: ApiError, request_id: str) -> None:
    """As AWS's rest-json services do: the code in a header, the message in the body."""
    head = f"Content-Type: application/json\r\nx-amzn-RequestId: {request_id}\r\nx-amzn-ErrorType: {error.code}\r\n"
    for name, value in error.headers.items():
        head += f"{name}: {value}\r\n"
    request.respond(error.status, head.encode("latin-1", "replace"), error.body())
