"""Operations on versions and aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.aliases import AliasChange
from gateway.control.registry import Entry
from gateway.model.alias import Alias
from gateway.model.arn import LATEST
from gateway.web.apis import lambda_documents as documents
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.paging import Key, page

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class VersionOperations:
    def __init__(self, server: ControlServer) -> None:
        self._functions = server.functions
        self._aliases = server.aliases

    def handlers(self) -> Handlers:
        return {
            "PublishVersion": self._publish,
            "ListVersionsByFunction": self._list_versions,
            "CreateAlias": self._create_alias,
            "GetAlias": self._get_alias,
            "UpdateAlias": self._update_alias,
            "DeleteAlias": self._delete_alias,
            "ListAliases": self._list_aliases,
        }

    async def _publish(self, call: Call) -> Params:
        wanted = call.params
        entry = await self._functions.publish(
            call.region, call.whole(), wanted.get("Description"), wanted.get("CodeSha256"), wanted.get("RevisionId")
        )  # fmt: skip
        return documents.just_published(entry)

    async def _list_versions(self, call: Call) -> Params:
        family = self._functions.family(call.region, call.name()[0])
        entries, marker = page(family, version_order, call.params)
        return {
            "Versions": [documents.configuration(entry, entry.function.version) for entry in entries],
            "NextMarker": marker,
        }

    async def _create_alias(self, call: Call) -> Params:
        name = call.params["Name"]
        return _alias(await self._aliases.create(call.region, call.whole(), name, _change(call.params)))

    async def _get_alias(self, call: Call) -> Params:
        return _alias(self._aliases.get(call.region, call.whole(), call.params["Name"]))

    async def _update_alias(self, call: Call) -> Params:
        alias = await self._aliases.update(
            call.region, call.whole(), call.params["Name"], _change(call.params), call.params.get("RevisionId")
        )  # fmt: skip
        return _alias(alias)

    async def _delete_alias(self, call: Call) -> Params:
        await self._aliases.delete(call.region, call.whole(), call.params["Name"])
        return {}

    async def _list_aliases(self, call: Call) -> Params:
        found = self._aliases.of(call.region, call.whole(), call.params.get("FunctionVersion"))
        aliases, marker = page(found, lambda alias: (alias.name,), call.params)
        return {"Aliases": [_alias(alias) for alias in aliases], "NextMarker": marker}


def version_order(entry: Entry) -> Key:
    """The unpublished version first, then in order of publication."""
    version = entry.function.version
    return (0 if version == LATEST else int(version),)


def _change(params: Params) -> AliasChange:
    routing = params.get("RoutingConfig")
    return AliasChange(
        version=params.get("FunctionVersion"),
        description=params.get("Description"),
        weights=None if routing is None else routing.get("AdditionalVersionWeights") or {},
    )


def _alias(alias: Alias) -> Params:
    """AliasConfiguration."""
    document: Params = {
        "AliasArn": alias.arn,
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision,
    }
    if alias.weights:
        document["RoutingConfig"] = {"AdditionalVersionWeights": alias.weights}
    return document
