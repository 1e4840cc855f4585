"""AWS-form errors: one exception class and one table of codes.

The table says for each code the HTTP status, whose fault it is ("User" or "Service"), and under which member
the message travels: the Lambda service model spells it ``message`` for some exceptions and ``Message`` for
others, and clients read exactly that member.  Codes with no ``Type`` member (model-constraint failures and
everything that the signature check says) carry only the message.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

Fault = Literal["User", "Service"]


@dataclass(frozen=True, slots=True)
class ErrorForm:
    """How one error code looks on the wire."""

    status: int
    fault: Fault | None  # None: the body has no Type member
    message_member: Literal["message", "Message"]


_LOWER: Final = "message"
_CAPITAL: Final = "Message"

ERROR_FORMS: dict[str, ErrorForm] = {
    # Lambda, from the service model
    "InvalidParameterValueException": ErrorForm(400, "User", _LOWER),
    "InvalidRequestContentException": ErrorForm(400, "User", _LOWER),
    "CodeStorageExceededException": ErrorForm(400, "User", _LOWER),
    "CodeVerificationFailedException": ErrorForm(400, "User", _CAPITAL),
    "InvalidCodeSignatureException": ErrorForm(400, "User", _CAPITAL),
    "NoPublishedVersionException": ErrorForm(400, "User", _CAPITAL),
    "PolicyLengthExceededException": ErrorForm(400, "User", _LOWER),
    "RecursiveInvocationException": ErrorForm(400, "User", _CAPITAL),
    "ResourceInUseException": ErrorForm(400, "User", _CAPITAL),
    "SnapStartException": ErrorForm(400, "User", _CAPITAL),
    "ServiceQuotaExceededException": ErrorForm(402, "User", _CAPITAL),
    "CodeSigningConfigNotFoundException": ErrorForm(404, "User", _CAPITAL),
    "ProvisionedConcurrencyConfigNotFoundException": ErrorForm(404, "User", _LOWER),
    "ResourceNotFoundException": ErrorForm(404, "User", _CAPITAL),
    "SnapStartTimeoutException": ErrorForm(408, "User", _CAPITAL),
    "ResourceConflictException": ErrorForm(409, "User", _LOWER),
    "SnapStartNotReadyException": ErrorForm(409, "User", _CAPITAL),
    "PreconditionFailedException": ErrorForm(412, "User", _LOWER),
    "RequestEntityTooLargeException": ErrorForm(413, None, _LOWER),
    "RequestTooLargeException": ErrorForm(413, "User", _LOWER),
    "UnsupportedMediaTypeException": ErrorForm(415, "User", _LOWER),
    "TooManyRequestsException": ErrorForm(429, "User", _LOWER),
    "ServiceException": ErrorForm(500, "Service", _CAPITAL),
    "InvalidRuntimeException": ErrorForm(502, "Service", _CAPITAL),
    "InvalidZipFileException": ErrorForm(502, "Service", _CAPITAL),
    "ResourceNotReadyException": ErrorForm(502, "Service", _LOWER),
    # EventBridge and its Scheduler
    "ConflictException": ErrorForm(409, "User", _CAPITAL),
    "InvalidEventPatternException": ErrorForm(400, "User", _LOWER),
    "LimitExceededException": ErrorForm(400, "User", _LOWER),
    "ResourceAlreadyExistsException": ErrorForm(400, "User", _LOWER),
    # what stands in front of every AWS service
    "ValidationException": ErrorForm(400, None, _LOWER),
    "SerializationException": ErrorForm(400, None, _LOWER),
    "MissingAuthenticationTokenException": ErrorForm(403, None, _LOWER),
    "IncompleteSignatureException": ErrorForm(403, None, _LOWER),
    "InvalidSignatureException": ErrorForm(403, None, _LOWER),
    "UnrecognizedClientException": ErrorForm(403, None, _LOWER),
    "ExpiredTokenException": ErrorForm(403, None, _LOWER),
    "AccessDeniedException": ErrorForm(403, None, _CAPITAL),
    "UnknownOperationException": ErrorForm(404, None, _CAPITAL),
    "MethodNotAllowedException": ErrorForm(405, None, _LOWER),
    "InternalFailure": ErrorForm(500, None, _LOWER),
    "NotImplementedException": ErrorForm(501, None, _LOWER),
    "ServiceUnavailableException": ErrorForm(503, "Service", _CAPITAL),
}

_UNKNOWN_FORM = ErrorForm(500, "Service", _CAPITAL)


class ApiError(Exception):
    """A request refused in AWS's own form.

    ``status`` is the HTTP status (the table's, unless the caller says otherwise), ``members`` are further
    members of the JSON body (``Reason`` for instance), ``headers`` further response headers.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        members: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        form = ERROR_FORMS.get(code, _UNKNOWN_FORM)
        self.code = code
        self.message = message
        self.status = form.status if status is None else status
        self.type: Fault | None = form.fault
        self.members = members or {}
        self.headers = headers or {}

    def body(self) -> bytes:
        """The JSON body as the AWS service would write it."""
        form = ERROR_FORMS.get(self.code, _UNKNOWN_FORM)
        document: dict[str, str] = {}
        if form.fault is not None:
            document["Type"] = form.fault
        document[form.message_member] = self.message
        document.update(self.members)
        return json.dumps(document, ensure_ascii=False).encode()


def too_many_requests(reason: str = "ConcurrentInvocationLimitExceeded") -> ApiError:
    """429 as Lambda throttles: the reason is one of the service model's ThrottleReason values."""
    return ApiError(
        "TooManyRequestsException", "Rate Exceeded.", members={"Reason": reason}, headers={"Retry-After": "1"}
    )


def service_unavailable(message: str) -> ApiError:
    """503 ServiceException: this host cannot run the function now; nothing of it ran."""
    return ApiError("ServiceException", message, status=503)


def constraint_failure(value: str, path: str, constraint: str) -> ApiError:
    """400 ValidationException for one failed model constraint; ``constraint`` starts at "Member must"."""
    return ApiError(
        "ValidationException",
        f"1 validation error detected: Value '{value}' at '{path}' failed to satisfy constraint: {constraint}",
    )
