"""Operations on tags: of functions, event source mappings and code signing configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.arn import not_found, resolve_reference
from gateway.model.errors import ApiError
from gateway.web.apis.lambda_call import Call, Handlers, Params

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class TagOperations:
    def __init__(self, server: ControlServer) -> None:
        self._registry = server.registry
        self._functions = server.functions
        self._mappings = server.mappings
        self._signing = server.code_signing

    def handlers(self) -> Handlers:
        return {"TagResource": self._tag, "UntagResource": self._untag, "ListTags": self._list}

    async def _tag(self, call: Call) -> Params:
        await self._retag(call, call.params["Tags"], ())
        return {}

    async def _untag(self, call: Call) -> Params:
        await self._retag(call, {}, tuple(call.params["TagKeys"]))
        return {}

    async def _list(self, call: Call) -> Params:
        arn: str = call.params["Resource"]
        kind, name = _parts(arn)
        if kind == "event-source-mapping":
            return {"Tags": self._mappings.get(call.region, name).tags}
        if kind == "code-signing-config":
            return {"Tags": self._signing.get(call.region, arn).tags}
        return {"Tags": self._functions.get(call.region, self._function(call)).function.tags}

    async def _retag(self, call: Call, add: dict[str, str], remove: tuple[str, ...]) -> None:
        arn: str = call.params["Resource"]
        kind, name = _parts(arn)

        def changed(tags: dict[str, str]) -> dict[str, str]:
            return {key: value for key, value in {**tags, **add}.items() if key not in remove}

        if kind == "event-source-mapping":
            await self._mappings.retag(call.region, name, changed)
        elif kind == "code-signing-config":
            await self._signing.retag(call.region, arn, changed)
        else:
            await self._functions.retag(call.region, self._function(call), add, remove)

    def _function(self, call: Call) -> str:
        """The function that an ARN means; what is left has no tags here. Raises ApiError."""
        arn: str = call.params["Resource"]
        if ":function:" not in arn:
            raise ApiError(
                "NotImplementedException",
                "Only functions, event source mappings and code signing configs can be tagged on this host.",
            )
        name, qualifier = resolve_reference(call.region, arn, None)
        if qualifier is not None:
            if self._registry.get(call.region, name) is None:
                raise not_found(call.region, name, qualifier)
            raise ApiError(
                "InvalidParameterValueException",
                "Tags on function aliases and versions are not supported. Please specify a function ARN.",
            )
        return name


def _parts(arn: str) -> tuple[str, str]:
    """Kind and name of the resource."""
    parts = arn.split(":")
    return (parts[5], parts[-1]) if len(parts) > 6 else ("", "")
