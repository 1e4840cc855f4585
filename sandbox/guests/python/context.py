"""The `context` argument of a handler: names and behaviour of awslambdaric's LambdaContext."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

from . import response_stream
from .response_stream import ResponseStream

# Only these fields of a client context's "w3c" member are shown, and only when they are text.
_TRACE_FIELDS = ("traceparent", "tracestate", "baggage")


class CognitoIdentity:
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self, fields: dict[str, object] | None) -> None:
        self.cognito_identity_id = fields.get("cognitoIdentityId") if fields else None
        self.cognito_identity_pool_id = fields.get("cognitoIdentityPoolId") if fields else None

    def __repr__(self) -> str:
        return _describe(self, self.__slots__)


class Client:
    __slots__ = ("app_package_name", "app_title", "app_version_code", "app_version_name", "installation_id")

    def __init__(self, fields: dict[str, object]) -> None:
        for name in self.__slots__:
            setattr(self, name, fields.get(name))

    def __repr__(self) -> str:
        return _describe(self, self.__slots__)


class ClientContext:
    __slots__ = ("client", "custom", "env")

    def __init__(self, fields: dict[str, object]) -> None:
        self.custom = fields.get("custom")
        self.env = fields.get("env")
        client = fields.get("client")
        self.client = Client(client) if isinstance(client, dict) else None

    def __repr__(self) -> str:
        return _describe(self, ("custom", "env", "client"))


class LambdaContext:
    """One per invocation. `deadline_ms` is in milliseconds of the epoch."""

    def __init__(
        self,
        request_id: str,
        deadline_ms: int,
        arn: str | None = None,
        client_context: dict[str, object] | None = None,
        identity: dict[str, object] | None = None,
        tenant_id: str | None = None,
    ) -> None:
        known = _environment
        self.aws_request_id = request_id
        self.log_group_name = known[0]
        self.log_stream_name = known[1]
        self.function_name = known[2]
        self.memory_limit_in_mb = known[3]
        self.function_version = known[4]
        self.invoked_function_arn = arn
        self.tenant_id = tenant_id
        self._trace_fields = _take_trace_fields(client_context) if client_context else None
        self.client_context = None if client_context is None else ClientContext(client_context)
        self.identity = CognitoIdentity(identity)
        self._epoch_deadline_time_in_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._epoch_deadline_time_in_ms - int(time.time() * 1000))

    @property
    def response_stream(self) -> ResponseStream:
        """Where to write an answer that is to leave while the handler runs; what the handler returns then counts no more, unless it is
        an iterator: its pieces follow. Raises RuntimeError when the invocation is over."""
        return response_stream.open_for(self.aws_request_id)

    def w3c(self) -> dict[str, str]:
        """The W3C trace context at invoke time."""
        return dict(self._trace_fields or {})

    def log(self, msg: object) -> None:
        for handler in logging.getLogger().handlers:
            sink = getattr(handler, "log_sink", None)
            if sink is not None:
                sink.log(str(msg))
                return
        sys.stdout.write(str(msg))

    def __repr__(self) -> str:
        return _describe(
            self,
            (
                "aws_request_id",
                "log_group_name",
                "log_stream_name",
                "function_name",
                "memory_limit_in_mb",
                "function_version",
                "invoked_function_arn",
                "client_context",
                "identity",
                "tenant_id",
            ),
        )


def _take_trace_fields(client_context: dict[str, object]) -> dict[str, str]:
    fields = client_context.pop("w3c", None)
    if not isinstance(fields, dict):
        return {}
    return {name: fields[name] for name in _TRACE_FIELDS if isinstance(fields.get(name), str)}


def _describe(value: object, names: tuple[str, ...]) -> str:
    fields = ",".join(f"{name}={getattr(value, name, None)}" for name in names)
    return f"{type(value).__name__}([{fields}])"


# What every context of this worker says alike: read once, because each look-up in os.environ costs as much as the rest.
_environment: list[str | None] = [None] * 5


def read_environment(variables: Mapping[str, str]) -> None:
    """To be called whenever the platform has changed os.environ."""
    _environment[:] = [
        variables.get("AWS_LAMBDA_LOG_GROUP_NAME"),
        variables.get("AWS_LAMBDA_LOG_STREAM_NAME"),
        variables.get("AWS_LAMBDA_FUNCTION_NAME"),
        variables.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
        variables.get("AWS_LAMBDA_FUNCTION_VERSION"),
    ]
