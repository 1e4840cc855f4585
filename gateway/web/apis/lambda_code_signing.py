"""Operations on code signing configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.code_signing import SigningChange, SigningConfig, signing_config_arn
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.paging import page

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class CodeSigningOperations:
    def __init__(self, server: ControlServer) -> None:
        self._signing = server.code_signing

    def handlers(self) -> Handlers:
        return {
            "CreateCodeSigningConfig": self._create,
            "GetCodeSigningConfig": self._get,
            "UpdateCodeSigningConfig": self._update,
            "DeleteCodeSigningConfig": self._delete,
            "ListCodeSigningConfigs": self._list,
            "ListFunctionsByCodeSigningConfig": self._users,
            "PutFunctionCodeSigningConfig": self._use,
            "GetFunctionCodeSigningConfig": self._of_function,
            "DeleteFunctionCodeSigningConfig": self._leave,
        }

    async def _create(self, call: Call) -> Params:
        config = await self._signing.create(call.region, _change(call.params), call.params.get("Tags") or {})
        return {"CodeSigningConfig": _document(call, config)}

    async def _get(self, call: Call) -> Params:
        config = self._signing.get(call.region, call.params["CodeSigningConfigArn"])
        return {"CodeSigningConfig": _document(call, config)}

    async def _update(self, call: Call) -> Params:
        arn = call.params["CodeSigningConfigArn"]
        config = await self._signing.update(call.region, arn, _change(call.params))
        return {"CodeSigningConfig": _document(call, config)}

    async def _delete(self, call: Call) -> Params:
        await self._signing.delete(call.region, call.params["CodeSigningConfigArn"])
        return {}

    async def _list(self, call: Call) -> Params:
        found, marker = page(self._signing.of(call.region), lambda config: (config.name,), call.params)
        return {
            "CodeSigningConfigs": [_document(call, config) for config in found],
            "NextMarker": marker,
        }

    async def _users(self, call: Call) -> Params:
        found = self._signing.users(call.region, call.params["CodeSigningConfigArn"])
        arns, marker = page(found, lambda arn: (arn,), call.params)
        return {"FunctionArns": arns, "NextMarker": marker}

    async def _use(self, call: Call) -> Params:
        name, arn = call.whole(), call.params["CodeSigningConfigArn"]
        await self._signing.use(call.region, name, arn)
        return {"CodeSigningConfigArn": arn, "FunctionName": name}

    async def _of_function(self, call: Call) -> Params:
        """Nothing but empty answers says that there is none, as on Lambda."""
        name = call.whole()
        arn = self._signing.of_function(call.region, name)
        return {} if arn is None else {"CodeSigningConfigArn": arn, "FunctionName": name}

    async def _leave(self, call: Call) -> Params:
        await self._signing.leave(call.region, call.whole())
        return {}


def _change(params: Params) -> SigningChange:
    publishers = params.get("AllowedPublishers")
    return SigningChange(
        publishers=None if publishers is None else tuple(publishers["SigningProfileVersionArns"]),
        policy=(params.get("CodeSigningPolicies") or {}).get("UntrustedArtifactOnDeployment"),
        description=params.get("Description"),
    )


def _document(call: Call, config: SigningConfig) -> Params:
    """CodeSigningConfig."""
    return {
        "CodeSigningConfigId": config.name,
        "CodeSigningConfigArn": signing_config_arn(call.region, config.name),
        "Description": config.description,
        "AllowedPublishers": {"SigningProfileVersionArns": list(config.publishers)},
        "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": config.policy},
        "LastModified": config.modified,
    }
