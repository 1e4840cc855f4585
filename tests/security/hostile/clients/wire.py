"""Raw bytes to a door and back, and signed requests whose every part can be bent."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from tests.security.hostile.target import Target

PATIENCE_S = 60.0
# How long a second answer, which there must not be, has time to come.
QUIET_S = 0.1
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) ")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back on one connection until it was closed, or a moment after a whole answer."""

    data: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in _STATUS.findall(self.data)]


def connect(target: Target) -> socket.socket:
    return socket.create_connection(target.address, PATIENCE_S)


def exchange(target: Target, data: bytes, *, last: bool = False) -> Exchange:
    """Sends all (as far as the door takes it) and reads. `last`: says that nothing follows, so that a door need not wait for it."""
    with connect(target) as sock:
        try:
            sock.sendall(data)
            if last:
                sock.shutdown(socket.SHUT_WR)
        except OSError:  # closed while we were still sending
            pass
        received = b""
        while True:
            sock.settimeout(QUIET_S if _is_whole(received) else PATIENCE_S)
            try:
                chunk = sock.recv(65536)
            except TimeoutError:
                return Exchange(received, False)
            except OSError:
                return Exchange(received, True)
            if not chunk:
                return Exchange(received, True)
            received += chunk


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(end) and (length is None or len(body) >= int(length[1]))


def refused(target: Target, data: bytes, *statuses: int) -> None:
    """One refusal (or none at all) and the end of the connection; never a success."""
    got = exchange(target, data, last=True)
    assert len(got.statuses) <= 1, got
    assert all(status in (statuses or range(400, 505)) for status in got.statuses), (data[:200], got)


@dataclass(slots=True)
class Signed:
    """A request with a signature. Change a field and sign, or sign and change a field."""

    target: Target
    path: str
    body: bytes = b""
    method: str = "POST"
    service: str = "lambda"
    secret: str = ""
    key: str = ""
    now: float = 0.0
    region: str = ""

    def head(self, extra: Mapping[str, str] | None = None, names: list[str] | None = None) -> dict[str, str]:
        """Headers with Authorization. `names`: which of them are signed."""
        host, port = self.target.address
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.now or None))
        headers = {
            "host": f"{host}:{port}",
            "x-amz-content-sha256": hashlib.sha256(self.body).hexdigest(),
            "x-amz-date": stamp,
            **(extra or {}),
        }
        signed = sorted(headers) if names is None else names
        path, _, query = self.path.partition("?")
        canonical = "\n".join(
            (
                self.method,
                quote(path, safe="/-_.~"),
                query,
                "".join(f"{name}:{headers[name]}\n" for name in signed),
                ";".join(signed),
                headers["x-amz-content-sha256"],
            )
        )
        region = self.region or self.target.region
        scope = f"{stamp[:8]}/{region}/{self.service}/aws4_request"
        text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret or self.target.secret_key}".encode()
        for part in (stamp[:8], region, self.service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, text.encode(), "sha256").hexdigest()
        credential = f"{self.key or self.target.access_key}/{scope}"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={';'.join(signed)}, Signature={signature}"
        )
        return headers

    def request(
        self, headers: Mapping[str, str] | None = None, *, path: str = "", body: bytes | None = None
    ) -> bytes:
        """The bytes. What is given replaces what was signed."""
        sent = self.body if body is None else body
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or self.head()).items())
        start = f"{self.method} {path or self.path} HTTP/1.1\r\n"
        return f"{start}{lines}content-length: {len(sent)}\r\n\r\n".encode("latin-1") + sent


def invoke_path(name: str) -> str:
    return f"/2015-03-31/functions/{name}/invocations"
