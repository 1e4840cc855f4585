"""Signatures that are forged, replayed or expired, names that want to be paths, packages that want out: a real server, from outside.

The function has been called before, so the fast path knows the key and the target: it must refuse what Python would refuse.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.support.deploy import ROLE, function
from tests.support.packages import entry, package, package_of, symlink
from tests.support.server import Server

COUNT = (
    "calls = 0\ndef handler(event, context):\n    global calls\n    calls += 1\n    return [calls, event]\n"
)


@dataclass
class Target:
    server: Server
    name: str

    def signed(
        self, body: bytes = b"{}", *, at: datetime | None = None, name: str = "", **changes: str
    ) -> bytes:
        """As boto3 does it; ``at``: by a client whose clock says that. ``changes``: key, secret, region, service."""
        path = f"/2015-03-31/functions/{name or self.name}/invocations"
        host = self.server.http
        request = AWSRequest("POST", f"http://{host}{path}", data=body, headers={"Host": host})
        keys = Credentials(
            changes.get("key", self.server.access_key), changes.get("secret", self.server.secret_key)
        )
        auth = SigV4Auth(keys, changes.get("service", "lambda"), changes.get("region", self.server.region))
        with mock.patch("botocore.auth.get_current_datetime", return_value=at or datetime.now(UTC)):
            auth.add_auth(request)
        return self.plain(path, request.headers.items(), body)

    def presigned(self, expires_s: int = 60, at: datetime | None = None) -> tuple[str, str]:
        """Path with query, and host."""
        host = self.server.http
        path = f"/2015-03-31/functions/{self.name}/invocations"
        request = AWSRequest("POST", f"http://{host}{path}")
        keys = Credentials(self.server.access_key, self.server.secret_key)
        with mock.patch("botocore.auth.get_current_datetime", return_value=at or datetime.now(UTC)):
            SigV4QueryAuth(keys, "lambda", self.server.region, expires=expires_s).add_auth(request)
        return str(request.url).partition(host)[2], host

    @staticmethod
    def plain(path: str, headers: Any, body: bytes = b"{}") -> bytes:
        lines = [f"{name}: {value}" for name, value in headers]
        return (
            "\r\n".join([f"POST {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""]).encode()
            + body
        )

    def ask(self, *requests: bytes) -> list[tuple[int, str, bytes]]:
        """Status, error type and body of each, one after the other on one connection."""
        host, _, port = self.server.http.rpartition(":")
        answers = []
        with socket.create_connection((host, int(port)), timeout=30) as sock, sock.makefile("rb") as lines:
            for request in requests:
                sock.sendall(request)
                status = int(lines.readline().split()[1])
                headers = {}
                while (line := lines.readline().strip()) != b"":
                    name, _, value = line.decode().partition(": ")
                    headers[name.lower()] = value
                body = lines.read(int(headers.get("content-length", "0")))
                answers.append((status, headers.get("x-amzn-errortype", ""), body))
                if headers.get("connection") == "close":
                    break
        return answers


@pytest.fixture(scope="module")
def target(server: Server) -> Iterator[Target]:
    with function(server.client(), COUNT, Timeout=20) as name:
        made = Target(server, name)
        for _ in range(4):  # of each door, so that it knows its way
            assert {status for status, _, _ in made.ask(*[made.signed()] * 4)} == {200}
        yield made


def _now() -> datetime:
    return datetime.now(UTC)


def _cut(data: bytes, mark: bytes, new: bytes, size: int) -> bytes:
    at = data.index(mark) + len(mark)
    return data[:at] + new + data[at + size :]


def _without(data: bytes, name: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    return (
        b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(name)) + b"\r\n\r\n" + body
    )


FORGERIES: dict[str, tuple[Callable[[Target], bytes], int, str]] = {
    "no signature": (lambda t: _without(t.signed(), b"Authorization"), 403, "MissingAuthenticationTokenException"),
    "zeros": (lambda t: _cut(t.signed(), b"Signature=", b"0" * 64, 64), 403, "InvalidSignatureException"),
    "empty": (lambda t: _cut(t.signed(), b"Signature=", b"", 64), 403, "IncompleteSignatureException"),
    "cut short": (lambda t: _cut(t.signed(), b"Signature=", b"", 1), 403, "InvalidSignatureException"),
    "longer": (lambda t: _cut(t.signed(), b"Signature=", b"0", 0), 403, "InvalidSignatureException"),
    "in capitals": (
        lambda t: (d := t.signed()).replace(d.split(b"Signature=")[1][:64], d.split(b"Signature=")[1][:64].upper()), 403,
        "InvalidSignatureException",
    ),
    "of another body": (lambda t: t.signed(b"[1]").replace(b"\r\n\r\n[1]", b"\r\n\r\n[2]"), 403, "InvalidSignatureException"),
    "of another function": (lambda t: t.signed(name="other").replace(b"/other/", f"/{t.name}/".encode()), 403, "InvalidSignatureException"),
    "of another host": (lambda t: t.signed().replace(b"Host: ", b"Host: x"), 403, "InvalidSignatureException"),
    "of another method": (lambda t: t.signed().replace(b"POST", b"PUT", 1), 403, "InvalidSignatureException"),
    "of another query": (lambda t: t.signed().replace(b"/invocations", b"/invocations?Qualifier=1"), 403, "InvalidSignatureException"),
    "of another secret": (lambda t: t.signed(secret="guess"), 403, "InvalidSignatureException"),
    "of an unknown key": (lambda t: t.signed(key="AKIANOBODY"), 403, "UnrecognizedClientException"),
    "of another service": (lambda t: t.signed(service="logs"), 403, "InvalidSignatureException"),
    "two": (
        lambda t: t.signed().replace(b"Content-Length", b"Authorization: AWS4-HMAC-SHA256 x\r\nContent-Length", 1), 400, "BadRequest",
    ),
    "an hour old": (lambda t: t.signed(at=_now() - timedelta(hours=1)), 403, "InvalidSignatureException"),
    "six minutes old": (lambda t: t.signed(at=_now() - timedelta(minutes=6)), 403, "InvalidSignatureException"),
    "of the next hour": (lambda t: t.signed(at=_now() + timedelta(hours=1)), 403, "InvalidSignatureException"),
    "of yesterday with today's date": (
        lambda t: _cut(t.signed(at=_now() - timedelta(days=1)), b"X-Amz-Date: ", _now().strftime("%Y%m%dT%H%M%SZ").encode(), 16), 403,
        "InvalidSignatureException",
    ),
    "with a date that is none": (lambda t: _cut(t.signed(), b"X-Amz-Date: ", b"20269999T999999Z", 16), 403, "IncompleteSignatureException"),
    "without a date": (lambda t: _without(t.signed(), b"X-Amz-Date"), 403, "IncompleteSignatureException"),
    "a bearer token": (lambda t: _cut(t.signed(), b"Authorization: ", b"Bearer " + t.server.token.encode() + b" ", 0), 403, ""),
    "a signature of version 2": (lambda t: t.signed().replace(b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA1"), 403, "IncompleteSignatureException"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_signature_is_refused_and_nothing_runs(target: Target, what: str) -> None:
    make, status, error = FORGERIES[what]
    good = target.signed()
    before, refused, *after = target.ask(good, make(target), good)
    assert refused[0] == status, refused
    assert refused[1] == error or not error, refused
    if after:  # the connection is as good as it was, and nothing ran in between
        assert json.loads(after[0][2])[0] == json.loads(before[2])[0] + 1


def test_a_replay_is_taken_as_long_as_its_date_is_and_no_longer(target: Target) -> None:
    """As with AWS: SigV4 has no nonce, its date bounds a replay. TLS is what keeps requests from being overheard."""
    old = target.signed(at=_now() - timedelta(minutes=4, seconds=30))
    assert [status for status, _, _ in target.ask(old, old)] == [200, 200]
    expired = target.signed(at=_now() - timedelta(minutes=5, seconds=2))
    assert target.ask(expired)[0][:2] == (403, "InvalidSignatureException")


def test_presigned_requests_expire(target: Target) -> None:
    path, host = target.presigned()
    assert target.ask(target.plain(path, [("Host", host)], b""))[0][0] == 200
    path, host = target.presigned(60, _now() - timedelta(seconds=62))
    status, error, body = target.ask(target.plain(path, [("Host", host)], b""))[0]
    assert (status, error) == (403, "InvalidSignatureException")
    assert b"expired" in body
    path, host = target.presigned(1)
    time.sleep(2.1)
    assert target.ask(target.plain(path, [("Host", host)], b""))[0][0] == 403


@pytest.mark.parametrize(("old", "new"), [
    ("X-Amz-Expires=60", "X-Amz-Expires=86400"), ("X-Amz-Expires=60", "X-Amz-Expires=99999999999"),
    ("X-Amz-Expires=60", "X-Amz-Expires=-1"),
    ("X-Amz-Expires=60", "X-Amz-Expires=60&X-Amz-Expires=86400"), ("X-Amz-Signature=", "X-Amz-Signature=0"),
    ("/functions/", "/functions/x"),
    ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=none"), ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
])  # fmt: skip
def test_presigned_requests_cannot_be_changed(target: Target, old: str, new: str) -> None:
    path, host = target.presigned()
    assert old in path
    assert target.ask(target.plain(path.replace(old, new), [("Host", host)], b""))[0][0] == 403


NAMES = [
    "..", ".", "../../etc/passwd", "..%2F..%2Fetc%2Fpasswd", "%2e%2e%2f%2e%2e%2f", "a/b", "a%2Fb", "a\\b", "a%00b", "a%0d%0aX:y",
    "/etc/passwd",
    "%2Fetc%2Fpasswd", "-rf", "~root", "$(id)", "a;b", "a b", "a:b:c", "x" * 65, "\u0430dmin", "CON", "a'--", "*",
    "arn:aws:lambda:../..:1:function:x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_checked_and_never_a_path(target: Target, name: str) -> None:
    path = f"/2015-03-31/functions/{name}/invocations"
    try:
        raw = path.encode("ascii")
    except UnicodeEncodeError:
        raw = path.encode()
    host = target.server.http
    request = AWSRequest("POST", f"http://{host}{raw.decode('latin-1')}", data=b"{}", headers={"Host": host})
    keys = Credentials(target.server.access_key, target.server.secret_key)
    SigV4Auth(keys, "lambda", target.server.region).add_auth(request)
    head = b"POST " + raw + b" HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items()).encode()
    status, error, _ = target.ask(head + b"Content-Length: 2\r\n\r\n{}")[0]
    # Not a name, no such function, or not what was signed once it is read as a target; never anything that ran.
    assert (status, error) in {
        (400, "ValidationException"), (400, "InvalidParameterValueException"), (400, "BadRequest"),
        (404, "ResourceNotFoundException"),
        (403, "InvalidSignatureException"), (403, "UnknownOperationException"), (404, "UnknownOperationException"),
        (400, "UnknownOperationException"),
    }, (status, error)  # fmt: skip


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/x", "a\0b", "a\nb", ".x", "x" * 65, "", "$LATEST"])
def test_a_function_cannot_be_made_under_such_a_name(target: Target, name: str) -> None:
    client = target.server.client(parameter_validation=False)
    before = _tree(target.server)
    with pytest.raises(ClientError) as refused:
        client.create_function(
            FunctionName=name,
            Role=ROLE,
            Runtime="python3.11",
            Handler="index.handler",
            Code={"ZipFile": package()},
        )
    assert refused.value.response["Error"]["Code"] in (
        "ValidationException",
        "InvalidParameterValueException",
    )
    assert _tree(target.server) == before


def _tree(server: Server) -> set[str]:
    """Names of the state folder's first levels, and what is beside it."""
    top = server.state_dir
    found = {path.name for path in top.parent.iterdir()}
    return found | {str(path.relative_to(top)) for path in top.iterdir()}


def _bomb() -> bytes:
    return package_of([(entry("index.py"), COUNT), (entry("zeros"), bytes(260 * 1024 * 1024))])


PACKAGES: dict[str, Callable[[], bytes]] = {
    "a bomb": _bomb,
    "a path out": lambda: package({"../evil.py": "x"}),
    "an absolute path": lambda: package({"/tmp/evil.py": "x"}),
    "a link out": lambda: package_of([(entry("index.py"), COUNT), symlink("data", "/etc/shadow")]),
    "a link up": lambda: package_of([(entry("index.py"), COUNT), symlink("a/b", "../../x")]),
    "a file behind a link": lambda: package_of([symlink("d", "/tmp"), (entry("d/evil.py"), "x")]),
    "a device": lambda: package_of([(entry("index.py"), COUNT), (entry("null", kind=stat.S_IFCHR), "")]),
    "a pipe": lambda: package_of([(entry("index.py"), COUNT), (entry("pipe", kind=stat.S_IFIFO), "")]),
    "no zip": lambda: b"PK\x03\x04 nothing",
}


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_hostile_package_is_refused(target: Target, kind: str) -> None:
    client = target.server.client()
    before = _tree(target.server)
    with pytest.raises(ClientError) as refused:
        client.create_function(
            FunctionName="hostile-package", Role=ROLE, Runtime="python3.11", Handler="index.handler",
            Code={"ZipFile": PACKAGES[kind]()},
        )  # fmt: skip
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 413)
    assert _tree(target.server) == before
    assert not os.path.exists("/tmp/evil.py")


def test_set_user_id_means_nothing(target: Target) -> None:
    source = "import os\ndef handler(event, context):\n    return [oct(os.stat('tool').st_mode), os.geteuid() == os.getuid()]\n"
    files = [(entry("index.py"), source), (entry("tool", mode=0o6755), "#!/bin/sh\nid\n")]
    client = target.server.client()
    client.create_function(
        FunctionName="set-uid",
        Role=ROLE,
        Runtime="python3.11",
        Handler="index.handler",
        Code={"ZipFile": package_of(files)},
    )
    try:
        client.get_waiter("function_active_v2").wait(FunctionName="set-uid")
        answer = json.loads(client.invoke(FunctionName="set-uid")["Payload"].read())
        assert answer == ["0o100755", True]
    finally:
        client.delete_function(FunctionName="set-uid")
