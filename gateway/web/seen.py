"""What conditions of policies may ask of an HTTP request, besides whose it is."""

from __future__ import annotations

from gateway.web.request import Request

_MOST = 1024  # characters of a header


def seen(request: Request) -> dict[str, list[str]]:
    """By key of conditions, in lower case."""
    found = {}
    if request.source_ip:
        found["aws:sourceip"] = [request.source_ip]
    for header, key in ((b"user-agent", "aws:useragent"), (b"referer", "aws:referer")):
        value = request.headers.get(header)
        if value is not None:
            found[key] = [value.decode("latin-1")[:_MOST]]
    return found
