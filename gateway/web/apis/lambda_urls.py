"""Operations on function URLs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.control.function_urls import UrlChange
from gateway.model.errors import constraint_failure
from gateway.model.function_url import HOST_PART, FunctionUrl
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.paging import page

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")


class UrlOperations:
    def __init__(self, server: ControlServer) -> None:
        self._urls = server.urls
        self._domain = server.settings.url_domain

    def handlers(self) -> Handlers:
        return {
            "CreateFunctionUrlConfig": self._create,
            "UpdateFunctionUrlConfig": self._update,
            "GetFunctionUrlConfig": self._get,
            "DeleteFunctionUrlConfig": self._delete,
            "ListFunctionUrlConfigs": self._list,
        }

    async def _create(self, call: Call) -> Params:
        url = await self._urls.create(call.region, *call.name(), _change(call.params))
        document = self._document(call, url)
        del document["LastModifiedTime"]
        return document

    async def _update(self, call: Call) -> Params:
        url = await self._urls.update(call.region, *call.name(), _change(call.params))
        return self._document(call, url)

    async def _get(self, call: Call) -> Params:
        return self._document(call, self._urls.get(call.region, *call.name()))

    async def _delete(self, call: Call) -> Params:
        await self._urls.delete(call.region, *call.name())
        return {}

    async def _list(self, call: Call) -> Params:
        found = self._urls.of(call.region, call.whole())
        urls, marker = page(found, lambda url: (url.qualifier,), call.params)
        return {
            "FunctionUrlConfigs": [self._document(call, url) for url in urls],
            "NextMarker": marker,
        }

    def _document(self, call: Call, url: FunctionUrl) -> Params:
        """FunctionUrlConfig."""
        return {
            "FunctionUrl": self._address(call, url),
            "FunctionArn": url.arn,
            "AuthType": url.auth_type,
            "Cors": url.cors,
            "CreationTime": url.created,
            "LastModifiedTime": url.modified,
            "InvokeMode": url.invoke_mode,
        }

    def _address(self, call: Call, url: FunctionUrl) -> str:
        """On the port where the caller has found us."""
        base = urlsplit(call.base_url)
        port = f":{base.port}" if base.port else ""
        return f"{base.scheme}://{url.url_id}{HOST_PART}{url.region}.{self._domain}{port}/"


def _change(params: Params) -> UrlChange:
    """Raises ApiError."""
    cors = params.get("Cors")
    for member, values in (cors or {}).items():
        for value in values if isinstance(values, list) else ():
            if _CONTROL.search(value):  # each becomes a line of an answer's head
                raise constraint_failure(
                    value, f"cors.{member[0].lower()}{member[1:]}", "Member must have no control characters"
                )
    return UrlChange(params.get("AuthType"), params.get("InvokeMode"), cors)
