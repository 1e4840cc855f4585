"""Bearer tokens: does a call's metadata carry one that this host has given out?"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256

Metadata = Iterable[tuple[str, str | bytes]]

MAX_TOKEN = 512  # characters; ours are far shorter, and nobody makes us hash a megabyte
_MEMO = 64  # header values
# What a call without one is told.
REFUSAL = "A valid token is needed in the metadata: authorization: Bearer <token>"
REFUSAL_METADATA = (("www-authenticate", "Bearer"),)


class BearerTokens:
    """The tokens of this host, known by their digests only.

    ``digests`` is asked at every call, so that a token given out or withdrawn counts at once: lower-case SHA-256
    in hexadecimal. A changed collection must be a new object.
    """

    def __init__(self, digests: Callable[[], Collection[str]]) -> None:
        self._digests = digests
        # Header values that were accepted under `_valid_for`. A look-up compares strings only after their keyed 64-bit
        # hashes were equal, so its time says nothing about a guess.
        self._accepted: set[str] = set()
        self._valid_for: Collection[str] = ()

    def accept(self, metadata: Metadata) -> bool:
        """True if exactly one ``authorization: Bearer <token>`` is there and the token is one of ours."""
        header: str | None = None
        for key, value in metadata:
            if key == "authorization":
                if header is not None or not isinstance(value, str):
                    return False
                header = value
        if header is None:
            return False
        digests = self._digests()
        if digests is not self._valid_for:
            self._accepted.clear()
            self._valid_for = digests
        if header in self._accepted:
            return True
        if not _known(header, digests):
            return False
        if len(self._accepted) < _MEMO:
            self._accepted.add(header)
        return True


def _known(header: str, digests: Collection[str]) -> bool:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN:
        return False
    presented = sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    known = False
    # Every digest is compared, each in constant time: the answer's time does not tell which one was near.
    for digest in digests:
        known |= hmac.compare_digest(presented, digest)
    return known
