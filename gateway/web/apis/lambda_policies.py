"""Operations on resource policies of functions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.control.policies import Grant
from gateway.web.apis.lambda_call import Call, Handlers, Params

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class PolicyOperations:
    def __init__(self, server: ControlServer) -> None:
        self._policies = server.policies

    def handlers(self) -> Handlers:
        return {"AddPermission": self._add, "RemovePermission": self._remove, "GetPolicy": self._get}

    async def _add(self, call: Call) -> Params:
        asked = call.params
        grant = Grant(
            sid=asked["StatementId"],
            action=asked["Action"],
            principal=asked["Principal"],
            source_arn=asked.get("SourceArn"),
            source_account=asked.get("SourceAccount"),
            organisation=asked.get("PrincipalOrgID"),
            event_source_token=asked.get("EventSourceToken"),
            url_auth_type=asked.get("FunctionUrlAuthType"),
            via_url=asked.get("InvokedViaFunctionUrl"),
        )
        statement = await self._policies.add(call.region, *call.name(), grant, asked.get("RevisionId"))
        return {"Statement": json.dumps(statement, separators=(",", ":"))}

    async def _remove(self, call: Call) -> Params:
        sid, revision = call.params["StatementId"], call.params.get("RevisionId")
        await self._policies.remove(call.region, *call.name(), sid, revision)
        return {}

    async def _get(self, call: Call) -> Params:
        policy, revision = self._policies.get(call.region, *call.name())
        return {"Policy": policy, "RevisionId": revision}
