"""Bearer tokens: does a call's metadata carry one that this host has given out?"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from hashlib import sha256

Metadata = Iterable[tuple[str, str | bytes]]

MAX_TOKEN = 512  # characters; ours are far shorter, and nobody makes us hash a megabyte


class BearerTokens:
    """The tokens of this host, known by their digests only.

    ``digests`` is asked at every call, so that a token given out or withdrawn counts at once: lower-case SHA-256
    in hexadecimal. It must be cheap.
    """

    def __init__(self, digests: Callable[[], Iterable[str]]) -> None:
        self._digests = digests

    def accept(self, metadata: Metadata) -> bool:
        """True if exactly one ``authorization: Bearer <token>`` is there and the token is one of ours."""
        token: str | None = None
        for key, value in metadata:
            if key == "authorization":
                if token is not None or not isinstance(value, str):
                    return False
                scheme, _, token = value.partition(" ")
                if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN:
                    return False
        if token is None:
            return False
        presented = sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        known = False
        # Every digest is compared, each in constant time: the answer's time does not tell which one was near.
        for digest in self._digests():
            known |= hmac.compare_digest(presented, digest)
        return known
