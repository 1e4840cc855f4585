"""Service Functions: each call becomes one or more operations of the Lambda API, asked of the control process."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc.aio import ServicerContext

from gateway.model.arn import parse_function_name
from gateway.model.errors import ApiError
from gateway.rpc import functions_pb2 as pb
from gateway.rpc.callers import Callers, message_of
from gateway.rpc.host_service import Reports
from gateway.rpc.statuses import refuse, refuse_argument

SERVICE = "forklight.v1.Functions"
PLACEHOLDER_ROLE = "arn:aws:iam::123456789012:role/forklight"
TAG_PREFIX = "forklight:"
WRONG_REVISION = (
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
)
SETTLE_POLL_S = 0.02
MAX_PAGE = 50  # functions, as the Lambda API has it

M = TypeVar("M", bound=Message)
Params = dict[str, Any]


class ControlCalls(Reports, Protocol):
    """Operations of the Lambda API by name, answered by the control process."""

    async def call(
        self,
        region: str,
        operation: str,
        params: Params,
        body: bytes = b"",
        zip_in_body: bool = False,
        caller: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The operation's output.  Members are AWS's; ``zip_in_body``: ``body`` is (Code.)ZipFile; ``caller``: who asks.

        Raises ApiError: what the operation answered, or 503 when the control process is away.
        """
        ...


class FunctionService:
    """Create, Update, Get, List and Delete.  ``region`` is that of names which are not ARNs."""

    def __init__(self, control: ControlCalls, region: str, callers: Callers | None = None) -> None:
        self._control = control
        self._region = region
        self._callers = callers or Callers(None)
        # Of the call under way: each has a task of its own.
        self._caller: ContextVar[dict[str, Any]] = ContextVar("caller")

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Method handlers by full method name, with bytes for messages."""
        return {
            f"/{SERVICE}/Create": self._unary(pb.CreateFunctionRequest, self._create),
            f"/{SERVICE}/Update": self._unary(pb.UpdateFunctionRequest, self._update),
            f"/{SERVICE}/Get": self._unary(pb.GetFunctionRequest, self._get),
            f"/{SERVICE}/List": self._unary(pb.ListFunctionsRequest, self._list),
            f"/{SERVICE}/Delete": self._unary(pb.DeleteFunctionRequest, self._delete),
        }

    async def _create(self, request: pb.CreateFunctionRequest) -> pb.Function:
        params: Params = {
            "FunctionName": request.function_name,
            "Runtime": request.runtime,
            "Handler": request.handler,
            "Role": request.role or PLACEHOLDER_ROLE,
            "Code": {},
            **_configuration(request),
        }
        if request.description:
            params["Description"] = request.description
        tags = _setting_tags(request)
        if tags:
            params["Tags"] = tags
        region = self._region_of(request.function_name)
        await self._call(region, "CreateFunction", params, request.zip_file, True)
        return _function(await self._settled(region, request.function_name))

    async def _update(self, request: pb.UpdateFunctionRequest) -> pb.Function:
        """Settings first, then configuration, then code: up to three operations, each when the one before is through."""
        region, name = self._region_of(request.function_name), request.function_name
        result = (await self._call(region, "GetFunction", {"FunctionName": name}))["Configuration"]
        guard = {"RevisionId": request.revision_id} if request.revision_id else {}
        if guard and result.get("RevisionId") != request.revision_id:
            raise ApiError("PreconditionFailedException", WRONG_REVISION)
        tags = _setting_tags(request)
        configuration = _configuration(request)
        for member in ("runtime", "handler", "description"):
            if request.HasField(member):
                configuration[member.capitalize()] = getattr(request, member)
        if tags:
            resource = {"Resource": result["FunctionArn"], "Tags": tags}
            await self._call(region, "TagResource", resource)
            result = await self._settled(region, name)
            guard = {}  # the revision has moved, by us
        if configuration:
            params = {"FunctionName": name, **configuration, **guard}
            await self._call(region, "UpdateFunctionConfiguration", params)
            result = await self._settled(region, name)
            guard = {}
        if request.HasField("zip_file"):
            params = {"FunctionName": name, **guard}
            await self._call(region, "UpdateFunctionCode", params, request.zip_file, True)
            result = await self._settled(region, name)
        return _function(result)

    async def _settled(self, region: str, name: str) -> dict[str, Any]:
        """The function's configuration once no change is under way; the caller's deadline is the only limit."""
        while True:
            found = await self._call(region, "GetFunction", {"FunctionName": name})
            configuration: dict[str, Any] = found["Configuration"]
            if (
                configuration.get("State") != "Pending"
                and configuration.get("LastUpdateStatus") != "InProgress"
            ):
                return configuration
            await asyncio.sleep(SETTLE_POLL_S)

    async def _get(self, request: pb.GetFunctionRequest) -> pb.Function:
        params = _named(request)
        result = await self._call(self._region_of(request.function_name), "GetFunction", params)
        return _function(result["Configuration"])

    async def _list(self, request: pb.ListFunctionsRequest) -> pb.ListFunctionsResponse:
        if not 0 <= request.max_items <= MAX_PAGE:
            raise ApiError("InvalidParameterValueException", f"max_items must be between 0 and {MAX_PAGE}")
        params: Params = {"MaxItems": request.max_items or MAX_PAGE}
        if request.marker:
            params["Marker"] = request.marker
        result = await self._call(self._region, "ListFunctions", params)
        return pb.ListFunctionsResponse(
            functions=[_function(configuration) for configuration in result.get("Functions") or ()],
            next_marker=result.get("NextMarker") or "",
        )

    async def _delete(self, request: pb.DeleteFunctionRequest) -> pb.DeleteFunctionResponse:
        params = _named(request)
        await self._call(self._region_of(request.function_name), "DeleteFunction", params)
        return pb.DeleteFunctionResponse()

    async def _call(
        self, region: str, operation: str, params: Params, body: bytes = b"", zip_in_body: bool = False
    ) -> dict[str, Any]:
        """On behalf of who called. Raises ApiError."""
        caller = self._caller.get()
        return await self._control.call(region, operation, params, body, zip_in_body, caller)

    def _unary(
        self, request_type: type[M], method: Callable[[M], Awaitable[Message]]
    ) -> grpc.RpcMethodHandler:
        async def handle(message: bytes, context: ServicerContext) -> bytes:
            try:
                request = request_type.FromString(message)
            except DecodeError:
                await refuse_argument(context, f"The message is not a {request_type.DESCRIPTOR.name}.")
            try:
                who = self._callers.who(context)
                self._caller.set(message_of(who, context))
                response = await method(request)
            except ApiError as error:
                await _refuse(context, error)
            return response.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)

    def _region_of(self, function_name: str) -> str:
        """The region of an ARN, else ours.  Raises ApiError for a malformed name."""
        return parse_function_name(function_name).region or self._region


async def _refuse(context: ServicerContext, error: ApiError) -> NoReturn:
    await refuse(context, error)


def _named(request: pb.GetFunctionRequest | pb.DeleteFunctionRequest) -> Params:
    params = {"FunctionName": request.function_name}
    if request.qualifier:
        params["Qualifier"] = request.qualifier
    return params


def _configuration(request: pb.CreateFunctionRequest | pb.UpdateFunctionRequest) -> Params:
    """The members that CreateFunction and UpdateFunctionConfiguration spell alike, where they are set."""
    params: Params = {}
    # In a creation 0 means the default; in an update a field that is set to 0 is refused by validation.
    if request.memory_size or (_optional(request) and request.HasField("memory_size")):
        params["MemorySize"] = request.memory_size
    if request.timeout or (_optional(request) and request.HasField("timeout")):
        params["Timeout"] = request.timeout
    if request.ephemeral_storage or (_optional(request) and request.HasField("ephemeral_storage")):
        params["EphemeralStorage"] = {"Size": request.ephemeral_storage}
    if request.HasField("environment"):
        params["Environment"] = {"Variables": dict(request.environment.variables)}
    return params


def _optional(request: pb.CreateFunctionRequest | pb.UpdateFunctionRequest) -> bool:
    return isinstance(request, pb.UpdateFunctionRequest)


# Our settings: message field, and the enum whose value names are the tag's values in capitals.
_SETTINGS = (("isolation", pb.Isolation), ("snapshot", pb.Snapshot), ("network", pb.Network))


def _setting_tags(request: pb.CreateFunctionRequest | pb.UpdateFunctionRequest) -> dict[str, str]:
    """The settings that are set, as the tags in which the Lambda API carries them.  Raises ApiError."""
    tags = {}
    for field, enum in _SETTINGS:
        number = getattr(request, field)
        if number == 0:
            continue
        if number not in enum.values():
            raise ApiError("InvalidParameterValueException", f"{number} is not a value of {field}")
        tags[TAG_PREFIX + field] = enum.Name(number).removeprefix(field.upper() + "_").lower()
    return tags


def _function(configuration: Mapping[str, Any]) -> pb.Function:
    """A Function message of a FunctionConfiguration structure, whose member Forklight has our settings."""
    function = pb.Function(
        function_name=configuration.get("FunctionName", ""),
        function_arn=configuration.get("FunctionArn", ""),
        version=configuration.get("Version", ""),
        runtime=configuration.get("Runtime") or "",
        handler=configuration.get("Handler") or "",
        description=configuration.get("Description") or "",
        memory_size=configuration.get("MemorySize", 0),
        timeout=configuration.get("Timeout", 0),
        ephemeral_storage=(configuration.get("EphemeralStorage") or {}).get("Size", 0),
        code_size=configuration.get("CodeSize", 0),
        code_sha256=_text(configuration.get("CodeSha256")),
        revision_id=configuration.get("RevisionId") or "",
        last_modified=configuration.get("LastModified") or "",
        state=configuration.get("State") or "",
        state_reason=configuration.get("StateReason") or "",
        last_update_status=configuration.get("LastUpdateStatus") or "",
        last_update_status_reason=configuration.get("LastUpdateStatusReason") or "",
    )
    variables = (configuration.get("Environment") or {}).get("Variables")
    if variables is not None:
        function.environment.SetInParent()
        function.environment.variables.update(variables)
    settings = configuration.get("Forklight") or {}
    for field, enum in _SETTINGS:
        name = f"{field}_{settings.get(field.capitalize())}".upper()
        if name in enum.keys():  # noqa: SIM118 - an enum wrapper is not a mapping
            setattr(function, field, enum.Value(name))
    return function


def _text(value: str | bytes | None) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value or ""
