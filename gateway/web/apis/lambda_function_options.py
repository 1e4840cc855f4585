"""Operations on a function's runtime management and recursion configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.function_options import RuntimeManagement
from gateway.model.arn import function_arn
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.lambda_documents import runtime_version_arn

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class OptionOperations:
    def __init__(self, server: ControlServer) -> None:
        self._options = server.options
        self._functions = server.functions

    def handlers(self) -> Handlers:
        return {
            "PutRuntimeManagementConfig": self._manage,
            "GetRuntimeManagementConfig": self._management,
            "PutFunctionRecursionConfig": self._put_loop,
            "GetFunctionRecursionConfig": self._loop,
        }

    async def _manage(self, call: Call) -> Params:
        name, qualifier = call.name()
        wanted = RuntimeManagement(call.params["UpdateRuntimeOn"], call.params.get("RuntimeVersionArn"))
        present = runtime_version_arn(self._functions.get(call.region, name, qualifier).function)
        await self._options.manage_runtime(call.region, name, qualifier, wanted, present)
        return await self._management(call)

    async def _management(self, call: Call) -> Params:
        name, qualifier = call.name()
        found = self._options.runtime_management(call.region, name, qualifier)
        return {
            "UpdateRuntimeOn": found.update_on,
            "FunctionArn": function_arn(call.region, name, qualifier),
            "RuntimeVersionArn": found.arn,
        }

    async def _put_loop(self, call: Call) -> Params:
        await self._options.put_recursive_loop(call.region, call.whole(), call.params["RecursiveLoop"])
        return await self._loop(call)

    async def _loop(self, call: Call) -> Params:
        return {"RecursiveLoop": self._options.recursive_loop(call.region, call.whole())}
