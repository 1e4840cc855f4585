"""Who makes a gRPC call, and whether he may: the token was accepted before; here it is told whose it is."""

from __future__ import annotations

from typing import Any

from grpc.aio import ServicerContext

from gateway.model.authority import ROOT, Authority, Who
from gateway.model.bearer import key_of


def message_of(who: Who, context: ServicerContext) -> dict[str, Any]:
    """As the control process is told who asks."""
    return {"root": True} if who.is_root else {"key": who.key, "seen": _seen(context)}


class Callers:
    """``authority`` None: no token is needed, and everybody may do everything."""

    def __init__(self, authority: Authority | None) -> None:
        self._authority = authority

    def who(self, context: ServicerContext) -> Who:
        """Raises ApiError when the token's key has been revoked meanwhile."""
        authority = self._authority
        if authority is None:
            return ROOT
        known: str | None = getattr(context, "bearer_key", None)  # our own engine has read it already
        if known is not None:
            return authority.who(known) if known else ROOT
        for name, value in context.invocation_metadata() or ():
            if name == "authorization" and isinstance(value, str):
                key = key_of(value.partition(" ")[2])
                return authority.who(key) if key else ROOT
        return ROOT

    def check_invoke(self, context: ServicerContext, region: str, name: str, qualifier: str | None) -> None:
        """Raises ApiError."""
        who = self.who(context)
        if self._authority is not None and not who.is_root:
            self._authority.check_invoke(who, region, name, qualifier, lambda: _seen(context))


def _seen(context: ServicerContext) -> dict[str, list[str]]:
    """By key of conditions. Of a peer as gRPC writes it: ipv4:127.0.0.1:1234, ipv6:[::1]:1234."""
    kind, _, rest = str(context.peer()).partition(":")
    address = rest.rpartition(":")[0].strip("[]").removeprefix("%5B").removesuffix("%5D")
    found = {"aws:sourceip": [address.removeprefix("::ffff:")]} if kind in ("ipv4", "ipv6") else {}
    for name, value in context.invocation_metadata() or ():
        if name == "user-agent" and isinstance(value, str):
            found["aws:useragent"] = [value]
    return found
