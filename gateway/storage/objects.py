"""Objects of an S3 endpoint that the operator has named, read one at a time: a signed GET (SigV4), path style. Blocks."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import socket
import ssl
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import unescape

from gateway.storage.aws_credentials import Credentials
from gateway.storage.cut_off import CutOff

AWS: Final = "aws"  # as an endpoint: AWS's own
SILENCE_S: Final = 20.0  # of a connection, at the most
WHOLE_S: Final = 120.0  # for one object
_PIECE: Final = 1024 * 1024
_MOST_ERROR: Final = 65_536  # bytes of an error document
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


class ObjectError(Exception):
    """S3 has refused it. ``code`` and ``message`` are S3's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class ObjectTooLarge(Exception):
    """It has more bytes than are wanted."""


class ObjectStore:
    """``endpoint``: a URL, or "aws". Without ``credentials`` requests are not signed."""

    def __init__(self, endpoint: str, credentials: Credentials | None) -> None:
        self._endpoint = endpoint
        self._credentials = credentials

    def get(self, region: str, bucket: str, key: str, version: str | None, most: int) -> bytes:
        """Raises ObjectError, ObjectTooLarge, and OSError when nobody answers as S3 does."""
        base = urlsplit(f"https://s3.{region}.amazonaws.com" if self._endpoint == AWS else self._endpoint)
        path = f"{base.path.rstrip('/')}/{quote(bucket, safe='')}/{quote(key, safe='/~')}"
        query = "" if version is None else f"versionId={quote(version, safe='')}"
        headers = {"Host": base.netloc, "x-amz-content-sha256": _EMPTY}
        if self._credentials is not None:
            _sign(self._credentials, region, path, query, headers)
        secure = base.scheme == "https"
        sock = socket.create_connection(
            (base.hostname or "", base.port or (443 if secure else 80)), SILENCE_S
        )
        connection = http.client.HTTPConnection(base.hostname or "", base.port)
        connection.sock = sock
        watch = CutOff(sock, WHOLE_S, "the object")
        watch.start()
        try:
            if secure:
                connection.sock = _context().wrap_socket(sock, server_hostname=base.hostname)
            connection.request("GET", f"{path}?{query}" if query else path, headers=headers)
            with connection.getresponse() as response:
                if response.status != 200:
                    refusal = response.read(_MOST_ERROR)
                    watch.check()
                    raise _refusal(response.status, refusal)
                found = _read(response, most)
                watch.check()
                return found
        except (http.client.HTTPException, OSError) as error:
            watch.check()
            if isinstance(error, OSError):
                raise
            raise OSError(f"it does not answer as S3 does: {type(error).__name__}") from error
        finally:
            watch.over.set()
            connection.close()


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    if response.length is not None and response.length > most:
        raise ObjectTooLarge
    pieces: list[bytes] = []
    size = 0
    while piece := response.read(_PIECE):
        size += len(piece)
        if size > most:
            raise ObjectTooLarge
        pieces.append(piece)
    if response.length:
        raise ConnectionError("the object ended before its end")
    return b"".join(pieces)


def _refusal(status: int, document: bytes) -> ObjectError:
    """By pattern: a parser of XML can be made to work without end."""
    text = document.decode("utf-8", "replace")
    code, message = re.search(r"<Code>([^<]{1,200})<", text), re.search(r"<Message>([^<]{1,1000})<", text)
    return ObjectError(
        unescape(code[1]) if code else f"HTTP{status}",
        unescape(message[1]) if message else http.client.responses.get(status, "no reason given"),
    )


def _sign(credentials: Credentials, region: str, path: str, query: str, headers: dict[str, str]) -> None:
    """Adds what says who asks. S3's canonical path is the path itself."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers["x-amz-date"] = moment
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token
    lines = sorted((name.lower(), value) for name, value in headers.items())
    names = ";".join(name for name, _ in lines)
    fields = "".join(f"{name}:{value}\n" for name, value in lines)
    canonical = f"GET\n{path}\n{query}\n{fields}\n{names}\n{_EMPTY}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
