"""SigV4 for load clients: whole HTTP/1.1 requests as bytes, signed once, or fast enough to sign each one.

Written apart from the gateway's own verifier, so that a mistake in one is not repeated in the other; the tests compare
it with botocore.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass(slots=True)
class Signer:
    """Signs requests for one host with one key. The derived key is kept for the day."""

    host: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    service: str = "lambda"
    _day: str = ""
    _key: bytes = field(default=b"", repr=False)

    def _signing_key(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self.secret_key}".encode()
            for part in (day, self.region, self.service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return self._key

    def request(
        self, path: str, body: bytes = b"", method: str = "POST", headers: dict[str, str] | None = None
    ) -> bytes:
        """A signed request. `path` is percent-encoded already and has no query string."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        signed = {
            "host": self.host,
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            "x-amz-date": now,
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        names = ";".join(sorted(signed))
        canonical_headers = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        # Every service but S3 encodes the (already encoded) path once more.
        canonical = "\n".join(
            (method, quote(path, safe="/-_.~"), "", canonical_headers, names, signed["x-amz-content-sha256"])
        )
        scope = f"{now[:8]}/{self.region}/{self.service}/aws4_request"
        text = "\n".join(("AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signature = hmac.new(self._signing_key(now[:8]), text.encode(), "sha256").hexdigest()
        signed["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        signed["content-length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in signed.items()
        )
        return head.encode() + b"\r\n" + body

    def invoke(self, function: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
        """A signed Invoke."""
        return self.request(f"/2015-03-31/functions/{function}/invocations", body, headers=headers)


def plain_request(host: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """The same request without a signature, for peers that ask for none."""
    lines = {
        "host": host,
        "content-type": "application/json",
        **(headers or {}),
        "content-length": str(len(body)),
    }
    return (
        f"POST {path} HTTP/1.1\r\n".encode()
        + "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        + b"\r\n"
        + body
    )
