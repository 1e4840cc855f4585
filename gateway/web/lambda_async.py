"""InvokeAsync: what Invoke with InvocationType Event has replaced, and older clients still call."""

from __future__ import annotations

import re
from urllib.parse import unquote

from gateway.web.lambda_invoke import InvokeCall, InvokeRoute
from gateway.web.sigv4 import Target

_PATH = re.compile(r"/2014-11-13/functions/([^/]+)/invoke-async/?")


def match_invoke_async(target: Target) -> InvokeRoute | None:
    """The route of an InvokeAsync request, or None when the target is another operation's."""
    match = _PATH.fullmatch(target.path.decode("latin-1"))
    return None if match is None else InvokeRoute(target, unquote(match[1]), None, AsyncCall)


class AsyncCall(InvokeCall):
    """One InvokeAsync request on its way."""

    __slots__ = ()

    def start(self, route: InvokeRoute, region: str, nonce: bytes) -> None:
        """Validate and keep.  Raises ApiError."""
        self._request.headers[b"x-amz-invocation-type"] = b"Event"  # its signature has been verified
        super().start(route, region, nonce)
