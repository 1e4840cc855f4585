"""Images of other registries, by the OCI distribution protocol: those that the operator has named, and no other address. Blocks.

A registry's answers are a stranger's. Redirects are followed, and tokens asked for, only where the operator has named the address, too.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from gateway.model.image import MANIFEST_TYPES, MAX_MANIFEST, BadImage, Descriptor, Manifest, Reference
from gateway.storage.cut_off import CutOff
from gateway.storage.images import ImageStore

SILENCE_S: Final = 20.0  # of a connection
WHOLE_S: Final = 900.0  # for one blob
SMALL_S: Final = 60.0  # for a manifest, or a token
_PIECE: Final = 1024 * 1024
_MOST_ERROR: Final = 65_536  # bytes of an error, or of a token's answer
_REDIRECTS: Final = 4
_MOST_TOKENS: Final = 1000  # that are remembered
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryDenied(Exception):
    """It wants other credentials than ours, or none will do."""


class NoImage(Exception):
    """It has no such image or blob."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    response: http.client.HTTPResponse
    connection: http.client.HTTPConnection
    watch: CutOff

    def close(self) -> None:
        self.response.close()  # the connection has let go of it where the registry closes
        self.connection.close()
        self.watch.over.set()


class RegistryClient:
    """Of one registry at `base`, an URL of `allowed`. `credentials`: "USER:PASSWORD" by host, for those that want some."""

    def __init__(self, base: str, allowed: Iterable[str], credentials: Mapping[str, str]) -> None:
        self._base = base.rstrip("/")
        self._allowed = {_origin(urlsplit(url)) for url in allowed}
        self._credentials = credentials
        self._tokens: dict[str, str] = {}  # by repository: the Authorization header that it took last

    def manifest(self, reference: Reference, store: ImageStore) -> str:
        """Have manifest and configuration in the store; the manifest's digest. Raises BadImage, NoImage, RegistryDenied, OSError."""
        name = reference.digest or reference.tag
        data = self._small(reference.repository, f"manifests/{name}", ", ".join(MANIFEST_TYPES))
        manifest = Manifest.parse(data)
        digest = store.put(data)
        if reference.digest and digest != reference.digest:
            raise BadImage(f"the registry has sent {digest} for {reference.digest}")
        self.blob(reference.repository, manifest.config, store)
        return digest

    def layers(self, reference: Reference, manifest: Manifest, store: ImageStore) -> None:
        """Have them all in the store. Raises the same."""
        for layer in manifest.layers:
            self.blob(reference.repository, layer, store)

    def blob(self, repository: str, blob: Descriptor, store: ImageStore) -> None:
        if store.touch(blob.digest) is not None:
            return
        upload = store.begin()
        try:
            left = blob.size

            def keep(piece: bytes) -> None:
                nonlocal left
                left -= len(piece)
                if left < 0:
                    raise BadImage(f"the registry has sent more than {blob.size} bytes for {blob.digest}")
                store.append(upload, piece)

            self._get(repository, f"blobs/{blob.digest}", "*/*", keep, WHOLE_S)
            finished, upload = upload, ""
            store.finish(finished, blob.digest)
        finally:
            if upload:
                store.cancel(upload)

    # ---- requests ----------------------------------------------------------------------------------------------

    def _small(self, repository: str, path: str, accept: str) -> bytes:
        pieces: list[bytes] = []
        size = 0

        def keep(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size > MAX_MANIFEST:
                raise BadImage(f"its manifest is larger than {MAX_MANIFEST} bytes")
            pieces.append(piece)

        self._get(repository, path, accept, keep, SMALL_S)
        return b"".join(pieces)

    def _get(
        self, repository: str, path: str, accept: str, keep: Callable[[bytes], None], limit_s: float
    ) -> None:
        url = f"{self._base}/v2/{repository}/{path}"
        try:
            token = self._tokens.get(repository)
            answer = self._ask(url, accept, token, limit_s)
            if answer.status == 401:
                answer.close()
                token = self._authorize(answer.headers.get("www-authenticate", ""), repository)
                if len(self._tokens) >= _MOST_TOKENS:
                    self._tokens.clear()
                self._tokens[repository] = token
                answer = self._ask(url, accept, token, limit_s)
            for _ in range(_REDIRECTS):
                if answer.status not in (301, 302, 303, 307, 308):
                    break
                answer.close()
                url = self._checked(urljoin(url, answer.headers.get("location", "")))
                own = _origin(urlsplit(url)) == _origin(urlsplit(self._base))
                answer = self._ask(url, accept, token if own else None, limit_s)
            try:
                _read(answer, keep)
                answer.watch.check()
            finally:
                answer.close()
        except http.client.HTTPException as error:
            raise OSError(f"it does not answer as a registry does: {type(error).__name__}") from error

    def _ask(self, url: str, accept: str, authorization: str | None, limit_s: float) -> _Answer:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(host, parts.port)  # which knows the Host header
        connection.sock = socket.create_connection((host, port), SILENCE_S)
        watch = CutOff(connection.sock, limit_s, "what it was asked for")
        watch.start()
        headers = {"Accept": accept, "User-Agent": "forklight"}
        if authorization:
            headers["Authorization"] = authorization
        try:
            if secure:
                context = ssl.create_default_context()
                context.set_alpn_protocols(["http/1.1"])
                connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            watch.check()
        except BaseException:
            connection.close()
            watch.over.set()
            watch.check()
            raise
        found = {name.lower(): value for name, value in response.getheaders()}
        return _Answer(response.status, found, response, connection, watch)

    def _checked(self, url: str) -> str:
        """Raises OSError for an address that the operator has not named, or that is none."""
        try:
            origin = _origin(urlsplit(url))
        except ValueError:
            origin = "what is no address"
        if origin not in self._allowed or not url.isascii():
            raise OSError(f"it refers to {origin}, which serve --image-registry does not name")
        return url

    def _authorize(self, challenge: str, repository: str) -> str:
        """The Authorization header that a 401 asks for. Raises RegistryDenied, OSError."""
        scheme, _, rest = challenge.partition(" ")
        own = self._credentials.get(urlsplit(self._base).netloc)
        basic = f"Basic {base64.b64encode(own.encode()).decode()}" if own else None
        if scheme.lower() == "basic" and basic:
            return basic
        params = dict(_CHALLENGE.findall(rest[:4096]))
        if scheme.lower() != "bearer" or not params.get("realm"):
            raise RegistryDenied("it wants credentials (serve --image-credentials)")
        query = {"scope": f"repository:{repository}:pull"}
        if params.get("service"):
            query["service"] = params["service"]
        realm = self._checked(params["realm"])
        answer = self._ask(
            f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", "application/json", basic, SMALL_S
        )
        try:
            data = answer.response.read(_MOST_ERROR)
            answer.watch.check()
        finally:
            answer.close()
        if answer.status != 200:
            raise RegistryDenied(f"it gives no token: status {answer.status}")
        try:
            document: dict[str, Any] = json.loads(data)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise OSError("its token is none")
        return f"Bearer {token}"


def _read(answer: _Answer, keep: Callable[[bytes], None]) -> None:
    if answer.status in (401, 403):
        raise RegistryDenied(f"it refuses: status {answer.status}")
    if answer.status == 404:
        raise NoImage
    if answer.status != 200:
        raise OSError(f"it answers with status {answer.status}")
    while piece := answer.response.read(_PIECE):
        keep(piece)


def _origin(parts: SplitResult) -> str:
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def check_registry(url: str) -> str:
    """The host of a registry's URL, as names of images begin. Raises ValueError."""
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.username
    ):
        raise ValueError(f"{url}: not https://HOST[:PORT]")
    _origin(parts)
    return parts.netloc.lower()


def read_credentials(path: str | None) -> dict[str, str]:
    """ "USER:PASSWORD" by host, of a file as docker keeps it. Raises OSError, ValueError."""
    if path is None:
        return {}
    document = json.loads(Path(path).read_text())
    found = {}
    for name, entry in (document.get("auths") or {}).items():
        if isinstance(entry, dict) and entry.get("auth"):
            host = urlsplit(name).netloc if "//" in name else name.partition("/")[0]
            found[host.lower()] = base64.b64decode(entry["auth"]).decode()
    return found
