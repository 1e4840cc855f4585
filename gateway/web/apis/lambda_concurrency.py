"""Operations on reserved and provisioned concurrency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.concurrency import Provision
from gateway.model.arn import function_arn
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.paging import page

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class ConcurrencyOperations:
    def __init__(self, server: ControlServer) -> None:
        self._concurrency = server.concurrency

    def handlers(self) -> Handlers:
        return {
            "PutFunctionConcurrency": self._reserve,
            "GetFunctionConcurrency": self._reserved,
            "DeleteFunctionConcurrency": self._release,
            "PutProvisionedConcurrencyConfig": self._provision,
            "GetProvisionedConcurrencyConfig": self._provision_of,
            "ListProvisionedConcurrencyConfigs": self._provisions,
            "DeleteProvisionedConcurrencyConfig": self._unprovision,
        }

    async def _reserve(self, call: Call) -> Params:
        count = call.params["ReservedConcurrentExecutions"]
        await self._concurrency.reserve(call.region, call.whole(), count)
        return {"ReservedConcurrentExecutions": count}

    async def _reserved(self, call: Call) -> Params:
        return {"ReservedConcurrentExecutions": self._concurrency.reserved(call.region, call.whole())}

    async def _release(self, call: Call) -> Params:
        await self._concurrency.release(call.region, call.whole())
        return {}

    async def _provision(self, call: Call) -> Params:
        name, qualifier = call.name()
        count = call.params["ProvisionedConcurrentExecutions"]
        return _shown(await self._concurrency.provision(call.region, name, str(qualifier), count))

    async def _provision_of(self, call: Call) -> Params:
        name, qualifier = call.name()
        return _shown(self._concurrency.provision_of(call.region, name, str(qualifier)))

    async def _provisions(self, call: Call) -> Params:
        name = call.whole()
        found, marker = page(
            self._concurrency.provisions(call.region, name),
            lambda provision: (provision.qualifier,),
            call.params,
        )
        return {
            "ProvisionedConcurrencyConfigs": [
                {"FunctionArn": function_arn(call.region, name, provision.qualifier), **_shown(provision)}
                for provision in found
            ],
            "NextMarker": marker,
        }

    async def _unprovision(self, call: Call) -> Params:
        name, qualifier = call.name()
        await self._concurrency.unprovision(call.region, name, str(qualifier))
        return {}


def _shown(provision: Provision) -> Params:
    document: Params = {
        "RequestedProvisionedConcurrentExecutions": provision.requested,
        "AvailableProvisionedConcurrentExecutions": provision.available,
        "AllocatedProvisionedConcurrentExecutions": provision.available,
        "Status": provision.status,
        "LastModified": provision.modified,
    }
    if provision.status == "FAILED":
        document["StatusReason"] = "FUNCTION_ERROR_INIT_FAILURE"
    return document
