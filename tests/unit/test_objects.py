"""Objects of S3: what is asked for, how it is signed, and what does not answer as S3 does."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from gateway.storage import objects
from gateway.storage.aws_credentials import Credentials, credentials_in, read_credentials
from gateway.storage.objects import ObjectError, ObjectStore, ObjectTooLarge

KEYS = Credentials("AKID", "secret", "token")
REFUSAL = (
    b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>It is &lt;not&gt; there.</Message></Error>"
)


class Bucket(http.server.ThreadingHTTPServer):
    """Answers every request with `status`, `headers` and `body`; keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.headers, self.body = 200, {"Content-Length": "4"}, b"body"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.drips: tuple[bytes, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Bucket

    def do_GET(self) -> None:
        if self.server.drips is not None:
            self._drip(*self.server.drips)
            return
        self.server.asked.append((self.path, dict(self.headers.items())))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def _drip(self, start: bytes, again: bytes) -> None:
        """This at once, and that for as long as somebody reads it."""
        try:
            self.connection.sendall(start)
            while True:
                self.connection.sendall(again)
                time.sleep(0.01)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def bucket() -> Iterator[Bucket]:
    with Bucket() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


@pytest.mark.parametrize("base", ["", "/below"])
@pytest.mark.parametrize(
    ("key", "version"), [("code.zip", None), ("a b/ä+~(1).zip", "v/1+2="), ("/lead//../x", None)]
)
def test_requests_are_signed_as_botocore_signs_them(base: str, key: str, version: str | None) -> None:
    with bucket() as server:
        store = ObjectStore(server.url + base, KEYS)
        assert store.get("eu-west-1", "my-bucket", key, version, 4) == b"body"
        path, headers = server.asked[0]
        assert path.startswith(f"{base}/my-bucket/") and headers["x-amz-security-token"] == "token"
        request = AWSRequest("GET", server.url + path)
        for name in ("Host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"):
            request.headers[name] = headers[name]
        request.context["timestamp"] = headers["x-amz-date"]
        signer = S3SigV4Auth(BotoCredentials(KEYS.access_key_id, KEYS.secret_access_key), "s3", "eu-west-1")
        canonical = signer.canonical_request(request)
        signature = signer.signature(signer.string_to_sign(request, canonical), request)
        assert headers["Authorization"].endswith(f", Signature={signature}")


def test_without_credentials_nothing_is_signed() -> None:
    with bucket() as server:
        assert ObjectStore(server.url, None).get("eu-west-1", "b", "k", None, 4) == b"body"
        assert "Authorization" not in server.asked[0][1]


def test_what_is_no_object() -> None:
    with bucket() as server:
        store = ObjectStore(server.url, KEYS)

        def get(status: int, headers: dict[str, str], body: bytes) -> bytes:
            server.status, server.headers, server.body = status, headers, body
            return store.get("eu-west-1", "b", "k", None, 4)

        with pytest.raises(ObjectTooLarge):
            get(200, {"Content-Length": "5"}, b"large")
        with pytest.raises(ObjectTooLarge):
            get(200, {}, b"large")
        with pytest.raises(OSError, match=r"ended before its end|does not answer"):
            get(200, {"Content-Length": "4"}, b"ab")
        with pytest.raises(ObjectError) as caught:
            get(404, {"Content-Length": str(len(REFUSAL))}, REFUSAL)
        assert (caught.value.code, caught.value.message) == ("NoSuchKey", "It is <not> there.")
        with pytest.raises(ObjectError) as caught:  # nobody follows it
            get(302, {"Location": "http://127.0.0.1:1/", "Content-Length": "0"}, b"")
        assert caught.value.code == "HTTP302"
        url = server.url
    with pytest.raises(OSError, match="refused"):
        ObjectStore(url, KEYS).get("eu-west-1", "b", "k", None, 4)


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),  # its end would be the connection's
        (b"HTTP/1.1 404 No\r\nContent-Length: 60000\r\n\r\n", b"x"),
    ],
)
def test_who_drips_is_cut_off(start: bytes, again: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent for long, and never done: the whole has a limit, whichever part it is."""
    monkeypatch.setattr(objects, "WHOLE_S", 0.2)
    with bucket() as server:
        server.drips = (start, again)
        with pytest.raises(TimeoutError, match="did not arrive within"):
            ObjectStore(server.url, KEYS).get("eu-west-1", "b", "k", None, 1 << 30)


def test_credentials(tmp_path: Any) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n")
    assert read_credentials(str(file)) == Credentials("a", "b%c")
    assert read_credentials(None) is None
    file.write_text("[other]\n")
    with pytest.raises(ValueError, match="no section"):
        read_credentials(str(file))
    found = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": ""}
    assert credentials_in(found) == Credentials("a", "b")
    assert credentials_in({"AWS_ACCESS_KEY_ID": "a"}) is None
