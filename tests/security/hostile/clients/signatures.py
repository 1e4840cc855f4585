"""Signatures that are missing, forged, old, or somebody else's."""

from __future__ import annotations

import time

from tests.security.hostile.arena import Arena
from tests.security.hostile.clients.wire import Signed, exchange, invoke_path, refused


def _canary(arena: Arena, **fields: object) -> Signed:
    return Signed(arena.target, invoke_path(arena.canary), b'"x"', **fields)  # type: ignore[arg-type]


def a_good_one_is_taken(arena: Arena) -> None:
    """Else all refusals below would mean nothing."""
    got = exchange(arena.target, _canary(arena).request())
    assert got.statuses == [200], got


def none(arena: Arena) -> None:
    host = {"host": "x"}
    for path, method in (
        ("/2015-03-31/functions", "GET"),
        (invoke_path(arena.canary), "POST"),
        ("/forklight/v1/isolation", "GET"),
        ("/forklight/v1/", "GET"),
        ("/", "POST"),
        ("/metrics", "GET"),
    ):
        got = exchange(arena.target, Signed(arena.target, path, method=method).request(host))
        assert got.statuses and got.statuses[0] in (403, 404), (path, got)


def of_another_secret(arena: Arena) -> None:
    refused(arena.target, _canary(arena, secret="x" * 40).request(), 403)


def of_an_unknown_key(arena: Arena) -> None:
    for key in ("AKIAIOSFODNN7EXAMPLE", "x", "../../etc/passwd", "%00", "A" * 500):
        refused(arena.target, _canary(arena, key=key).request(), 403, 400)


def over_another_body(arena: Arena) -> None:
    signed = _canary(arena)
    refused(arena.target, signed.request(body=b'"y"'), 403)
    head = signed.head()
    head["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
    refused(arena.target, signed.request(head, body=b'"y"'), 403)


def over_another_path_or_method(arena: Arena) -> None:
    signed = _canary(arena)
    refused(arena.target, signed.request(path=invoke_path("another")), 403)
    refused(arena.target, signed.request(path=signed.path + "?Qualifier=1"), 403)
    refused(arena.target, signed.request().replace(b"POST ", b"PUT ", 1), 403)
    refused(
        arena.target,
        signed.request(path=f"/2015-03-31/functions/{arena.canary}").replace(b"POST ", b"DELETE ", 1),
        403,
    )


def of_another_time(arena: Arena) -> None:
    for shift in (-3600, -900, 900, 3600, -86400 * 365, 86400 * 365 * 10):
        refused(arena.target, _canary(arena, now=time.time() + shift).request(), 403)


def of_another_day_than_its_scope(arena: Arena) -> None:
    signed = _canary(arena)
    head = signed.head()
    today = head["x-amz-date"][:8]
    head["authorization"] = head["authorization"].replace(today, "20200101", 1)
    refused(arena.target, signed.request(head), 403)


def of_another_service(arena: Arena) -> None:
    for service in ("s3", "logs", "forklight", "", "lambda/aws4_request", "LAMBDA"):
        refused(arena.target, _canary(arena, service=service).request(), 403, 400)


def without_the_headers_that_count(arena: Arena) -> None:
    signed = _canary(arena)
    for names in (["x-amz-date"], ["host"], [], ["x-amz-content-sha256"]):
        got = exchange(arena.target, signed.request(signed.head(names=names)))
        assert got.statuses and (got.statuses[0] == 403 or names == ["host"]), (names, got)


def that_are_no_signatures(arena: Arena) -> None:
    good = _canary(arena).head()
    prefix, signature = good["authorization"].rsplit("=", 1)
    for value in (
        prefix + "=", prefix + "=" + "0" * 64, prefix + "=" + signature.upper(), prefix + "=" + signature[:-1], prefix + "=" + signature + "0",
        prefix, "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=", "Bearer " + arena.target.token + "x", "Basic eDp4",
        "AWS4-HMAC-SHA1" + good["authorization"][16:], "AWS4-ECDSA-P256-SHA256" + good["authorization"][16:], good["authorization"] + ", Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Signature=" + signature + "," * 5000, "\xff" * 100, good["authorization"].replace("aws4_request", "aws4_request/x"),
    ):  # fmt: skip
        refused(arena.target, _canary(arena).request({**good, "authorization": value}), 403, 400)


def twice(arena: Arena) -> None:
    good = _canary(arena)
    head = good.head()
    request = good.request(head).replace(
        b"\r\n", b"\r\nauthorization: " + head["authorization"].encode() + b"\r\n", 1
    )
    refused(arena.target, request, 400, 403)


def presigned_and_expired(arena: Arena) -> None:
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = Credentials(arena.target.access_key, arena.target.secret_key)
    url = f"{arena.target.url}/2015-03-31/functions/{arena.canary}"
    request = AWSRequest("GET", url)
    botocore.auth.SigV4QueryAuth(keys, "lambda", arena.target.region, expires=1).add_auth(request)
    path = request.url.split("/", 3)[3]
    host, port = arena.target.address
    bytes_of = f"GET /{path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode
    assert exchange(arena.target, bytes_of()).statuses in ([200], [403])
    time.sleep(2.1)
    refused(arena.target, bytes_of(), 403)
    longer = f"GET /{path.replace('X-Amz-Expires=1', 'X-Amz-Expires=604800')} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
    refused(arena.target, longer.encode(), 403)


ALL = [
    a_good_one_is_taken, none, of_another_secret, of_an_unknown_key, over_another_body, over_another_path_or_method,
    of_another_time, of_another_day_than_its_scope, of_another_service, without_the_headers_that_count,
    that_are_no_signatures, twice, presigned_and_expired,
]  # fmt: skip
