"""Operations on layers and their permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.control.function_rules import invalid
from gateway.control.layers import LayerDraft, parse_version_arn, resolve_layer, statement_text
from gateway.model.errors import ApiError
from gateway.model.layer import LayerVersion, layer_arn
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.lambda_packages import Packages
from gateway.web.apis.paging import page
from gateway.web.apis.presigned import layer_url

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class LayerOperations:
    def __init__(self, server: ControlServer, packages: Packages) -> None:
        self._server = server
        self._packages = packages
        self._layers = server.layers

    def handlers(self) -> Handlers:
        return {
            "PublishLayerVersion": self._publish,
            "GetLayerVersion": self._get,
            "GetLayerVersionByArn": self._get_by_arn,
            "ListLayers": self._list,
            "ListLayerVersions": self._list_versions,
            "DeleteLayerVersion": self._delete,
            "AddLayerVersionPermission": self._allow,
            "RemoveLayerVersionPermission": self._disallow,
            "GetLayerVersionPolicy": self._policy,
        }

    async def _publish(self, call: Call) -> Params:
        asked = call.params
        name = asked["LayerName"]
        if ":" in name:
            name = resolve_layer(call.region, name)
        package = await self._packages.of(call.region, asked["Content"])
        if package is None:
            raise invalid("Please provide a source for the layer's content.")
        draft = LayerDraft(
            package=package,
            description=asked.get("Description") or "",
            licence=asked.get("LicenseInfo"),
            runtimes=tuple(asked.get("CompatibleRuntimes") or ()),
            architectures=tuple(asked.get("CompatibleArchitectures") or ()),
        )
        return self._with_content(call, await self._layers.publish(call.region, name, draft))

    async def _get(self, call: Call) -> Params:
        return self._with_content(call, self._layers.get(call.region, *_named(call)))

    async def _get_by_arn(self, call: Call) -> Params:
        name, number = parse_version_arn(call.region, call.params["Arn"])
        return self._with_content(call, self._layers.get(call.region, name, number))

    async def _list(self, call: Call) -> Params:
        newest = [
            fitting[0]
            for name in self._layers.names(call.region)
            if (fitting := _fitting(self._layers.versions(call.region, name), call.params))
        ]
        found, marker = page(newest, lambda version: (version.name,), call.params)
        return {
            "Layers": [
                {
                    "LayerName": version.name,
                    "LayerArn": layer_arn(version.region, version.name),
                    "LatestMatchingVersion": _listed(version),
                }
                for version in found
            ],
            "NextMarker": marker,
        }

    async def _list_versions(self, call: Call) -> Params:
        name = resolve_layer(call.region, call.params["LayerName"])
        fitting = _fitting(self._layers.versions(call.region, name), call.params)
        found, marker = page(fitting, lambda version: (-version.number,), call.params)
        return {"LayerVersions": [_listed(version) for version in found], "NextMarker": marker}

    async def _delete(self, call: Call) -> Params:
        await self._layers.delete(call.region, *_named(call))
        return {}

    async def _allow(self, call: Call) -> Params:
        asked = call.params
        statement: dict[str, Any] = {
            "Sid": asked["StatementId"],
            "Effect": "Allow",
            "Principal": _principal(asked["Principal"]),
            "Action": asked["Action"],
        }
        if organisation := asked.get("OrganizationId"):
            statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": organisation}}
        name, number = _named(call)
        revision = await self._layers.allow(call.region, name, number, statement, asked.get("RevisionId"))
        arn = f"{layer_arn(call.region, name)}:{number}"
        return {"Statement": statement_text({**statement, "Resource": arn}), "RevisionId": revision}

    async def _disallow(self, call: Call) -> Params:
        sid, revision = call.params["StatementId"], call.params.get("RevisionId")
        await self._layers.disallow(call.region, *_named(call), sid, revision)
        return {}

    async def _policy(self, call: Call) -> Params:
        policy, revision = self._layers.policy(call.region, *_named(call))
        return {"Policy": policy, "RevisionId": revision}

    def _with_content(self, call: Call, version: LayerVersion) -> Params:
        key = self._server.credentials.keys[0]
        location = layer_url(key, call.region, call.base_url, version.name, version.number)
        return {
            **_described(version),
            "LayerArn": layer_arn(version.region, version.name),
            "Content": {
                "Location": location,
                "CodeSha256": version.code.shown,
                "CodeSize": version.code.size,
            },
        }


def _named(call: Call) -> tuple[str, int]:
    return resolve_layer(call.region, call.params["LayerName"]), call.params["VersionNumber"]


def _fitting(versions: list[LayerVersion], params: Params) -> list[LayerVersion]:
    """Those for the runtime and the architecture that are asked for."""
    runtime, architecture = params.get("CompatibleRuntime"), params.get("CompatibleArchitecture")
    return [
        version
        for version in versions
        if (runtime is None or runtime in version.runtimes)
        and (architecture is None or architecture in version.architectures)
    ]


def _described(version: LayerVersion) -> Params:
    document: Params = {
        "LayerVersionArn": version.arn,
        "Version": version.number,
        "Description": version.description,
        "CreatedDate": version.created,
        "LicenseInfo": version.licence,
    }
    if version.runtimes:
        document["CompatibleRuntimes"] = list(version.runtimes)
    if version.architectures:
        document["CompatibleArchitectures"] = list(version.architectures)
    return document


def _listed(version: LayerVersion) -> Params:
    """In lists AWS leaves out a description that there is not (moto's test of it is verified there)."""
    document = _described(version)
    if not version.description:
        del document["Description"]
    return document


def _principal(text: str) -> Any:
    """Everybody, an account, or one that is named in full."""
    if text == "*":
        return text
    if text.isdigit():
        return {"AWS": f"arn:aws:iam::{text}:root"}
    if text.startswith("arn:"):
        return {"AWS": text}
    raise ApiError("InvalidParameterValueException", "The provided principal was invalid.")
