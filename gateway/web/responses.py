"""Errors on the wire: JSON, in the two forms of it that AWS's services have, or XML where a caller speaks to IAM or STS."""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

from gateway.model.errors import ApiError
from gateway.web.request import Request
from gateway.web.sigv4 import claimed_identity

QUERY_NAMESPACES = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}
# These speak JSON 1.1: the operation in X-Amz-Target.
JSON_SERVICES = frozenset(("ecr", "events", "logs"))
JSON_11 = "application/x-amz-json-1.1"
# What these services call what stands in front of every service.
_QUERY_CODES = {
    "AccessDeniedException": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "IncompleteSignatureException": "IncompleteSignature",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "NotImplementedException": "NotImplemented",
    "ServiceException": "ServiceFailure",
    "UnknownOperationException": "InvalidAction",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "ValidationException": "ValidationError",
}


def respond_error(request: Request, error: ApiError, request_id: str) -> None:
    """As AWS's rest-json services do: the code in a header, the message in the body; or as its query services do."""
    claimed = claimed_identity(request.headers.get(b"authorization", b""))
    if claimed is not None and claimed.service in QUERY_NAMESPACES:
        body = query_error(claimed.service, error, request_id)
        request.respond(
            error.status, f"Content-Type: text/xml\r\nx-amzn-RequestId: {request_id}\r\n".encode(), body
        )
        return
    if claimed is not None and claimed.service in JSON_SERVICES:
        kind = (
            f"Content-Type: {JSON_11}\r\nx-amzn-RequestId: {request_id}\r\nx-amzn-ErrorType: {error.code}\r\n"
        )
        request.respond(error.status, kind.encode("latin-1", "replace"), json_error(error))
        return
    head = f"Content-Type: application/json\r\nx-amzn-RequestId: {request_id}\r\nx-amzn-ErrorType: {error.code}\r\n"
    for name, value in error.headers.items():
        head += f"{name}: {value}\r\n"
    request.respond(error.status, head.encode("latin-1", "replace"), error.body())


def json_error(error: ApiError) -> bytes:
    """The body of an error of a service that speaks JSON 1.1: it names the error."""
    return json.dumps({"__type": error.code, "message": error.message}, ensure_ascii=False).encode()


def query_error(service: str, error: ApiError, request_id: str) -> bytes:
    """The body of an error of a service that speaks XML."""
    kind = "Sender" if error.status < 500 else "Receiver"
    code = _QUERY_CODES.get(error.code, error.code)
    return (
        f'<ErrorResponse xmlns="{QUERY_NAMESPACES[service]}"><Error><Type>{kind}</Type><Code>{escape(code)}</Code>'
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{escape(request_id)}</RequestId></ErrorResponse>"
    ).encode("utf-8", "replace")
