"""One HTTP request as the router sees it, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_BODILESS = frozenset((204, 304))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that HTTP itself, or a limit, does not let through."""

    status: int
    code: str
    message: str


class Carrier(Protocol):
    """The way back to the client."""

    @property
    def protocol(self) -> str:
        """As in a request line: "HTTP/1.1"."""
        ...

    @property
    def source_ip(self) -> str:
        """Whoever is at the other end; empty when that is not known."""
        ...

    def finish(self, request: Request, status: int, headers: bytes, body: bytes | None) -> None:
        """The response: its status, further header lines, its body (None: it can have none)."""
        ...

    def begin_body(self, request: Request, status: int, headers: bytes) -> None:
        """The same without its body, which comes in pieces."""
        ...

    def push(self, request: Request, piece: bytes) -> bool:
        """One of them.  Whether the client takes more."""
        ...

    def end_body(self, request: Request) -> None:
        """No more of them."""
        ...

    def cut_body(self, request: Request) -> None:
        """The rest never comes, and the client is to see that."""
        ...


class Request:
    """``respond`` is called exactly once, at any time.  ``on_abandon`` is called when the client went first."""

    __slots__ = (
        "_carrier",
        "body",
        "charge",
        "headers",
        "keep_alive",
        "method",
        "old",
        "on_abandon",
        "on_writable",
        "refusal",
        "target",
        "verified_region",
    )

    def __init__(
        self,
        carrier: Carrier,
        method: bytes,
        target: bytes,
        headers: dict[bytes, bytes],
        body: bytes,
        keep_alive: bool,
        old: bool,
    ) -> None:
        self._carrier = carrier
        self.method = method
        self.target = target  # as it arrived, with the query
        self.headers = headers  # lower-case names; repeated ones joined by commas
        self.body = body
        self.keep_alive = keep_alive
        self.old = old  # HTTP/1.0
        self.verified_region = ""  # set: its sender is let through already, and names this region
        self.charge = 0  # bytes of it that the server counts
        self.refusal: Refusal | None = None
        self.on_abandon: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None  # of a body in pieces: the client takes more again

    @property
    def source_ip(self) -> str:
        """Address of the client; empty when that is not known."""
        return self._carrier.source_ip

    @property
    def protocol(self) -> str:
        """As in a request line: "HTTP/1.1"."""
        return self._carrier.protocol

    def respond(self, status: int, headers: bytes, body: bytes | None) -> None:
        """``headers``: complete lines, each with its CRLF, without Content-Length, Date and Connection.  ``body`` None: of an answer to
        HEAD, whose length is among the headers."""
        self.on_abandon = None
        self._carrier.finish(self, status, headers, None if status in _BODILESS else body)

    def begin(self, status: int, headers: bytes) -> None:
        """Instead of ``respond``: a response whose body comes in pieces (`push`), until `end`."""
        self._carrier.begin_body(self, status, headers)

    def push(self, piece: bytes) -> bool:
        """The next of it, not empty.  False: the client is behind; ``on_writable`` is called when it takes more."""
        return self._carrier.push(self, piece)

    def end(self) -> None:
        """That was all."""
        self.on_abandon = self.on_writable = None
        self._carrier.end_body(self)

    def cut(self) -> None:
        """Instead of ``end``: what was pushed is not all there should have been."""
        self.on_abandon = self.on_writable = None
        self._carrier.cut_body(self)

    def abandon(self) -> None:
        """The client hung up."""
        self.on_writable = None
        callback, self.on_abandon = self.on_abandon, None
        if callback is not None:
            callback()


def ip_of(peer: object) -> str:
    """The address in what a transport calls its peer's name; IPv4 also where it comes as IPv6."""
    return str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else ""
