"""The function URLs of this host as a door knows them, by the host name that a request is for: ID.lambda-url.REGION, whatever follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gateway.model.function_url import HOST_PART, ID_LENGTH, UrlView

_PART = HOST_PART.encode()
_END = ID_LENGTH + len(_PART)


class UrlTable:
    """Look-ups never leave the process."""

    def __init__(self) -> None:
        self._urls: dict[bytes, UrlView] = {}

    def find(self, host: bytes) -> UrlView | None:
        """`host`: the header's value. None: there is no such URL, or this is no name of one (`is_for_urls`)."""
        host = host.lower()
        url = self._urls.get(host[:ID_LENGTH])
        if url is None or not is_for_urls(host) or not host[_END:].startswith(url.region.encode() + b"."):
            return None
        return url

    def replace_all(self, urls: Iterable[UrlView]) -> None:
        self._urls = {url.url_id.encode(): url for url in urls}

    def put(self, url: UrlView) -> None:
        self._urls[url.url_id.encode()] = url

    def remove(self, url_id: str) -> None:
        self._urls.pop(url_id.encode(), None)

    def function_deleted(self, region: str, name: str) -> None:
        for url in self._of(region, name):
            self.remove(url.url_id)

    def alias_deleted(self, region: str, name: str, alias: str) -> None:
        """Its URL stays; the policy that let anybody in is gone."""
        for url in self._of(region, name):
            if url.qualifier == alias:
                self.put(replace(url, public=False))

    def _of(self, region: str, name: str) -> list[UrlView]:
        return [url for url in self._urls.values() if (url.region, url.name) == (region, name)]


def is_for_urls(host: bytes) -> bool:
    """Whether a host name is that of a function URL, of one that exists or not."""
    return host[ID_LENGTH:_END].lower() == _PART
