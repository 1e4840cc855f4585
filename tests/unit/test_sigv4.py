"""Signatures made by botocore's own signer are accepted; anything changed afterwards is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.model.errors import ApiError
from gateway.web.sigv4 import Verifier, canonical_path, canonical_query, parse_target

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
MISMATCH = "The request signature we calculated does not match"

Parts = tuple[bytes, bytes, dict[bytes, bytes], bytes]


@pytest.fixture
def verifier() -> Verifier:
    made = Verifier()
    made.set_keys({KEY: SECRET, "AKIDOTHER": "another secret"})
    return made


def signed(
    path: str = "/2015-03-31/functions/f/invocations",
    *,
    method: str = "POST",
    body: bytes = b'{"a": 1}',
    headers: dict[str, str] | None = None,
    service: str = "lambda",
    region: str = "eu-west-1",
    key: str = KEY,
    secret: str = SECRET,
    signer: Callable[..., Any] = SigV4Auth,
    **options: Any,
) -> Parts:
    """A request as it arrives: method, raw target, headers by lower-case name, body."""
    request = AWSRequest(method, f"http://127.0.0.1:8080{path}", data=body, headers=headers or {})
    signer(Credentials(key, secret), service, region, **options).add_auth(request)
    split = urlsplit(request.url)
    target = split.path + (f"?{split.query}" if split.query else "")
    found = {name.lower().encode(): str(value).encode() for name, value in request.headers.items()}
    found.setdefault(b"host", b"127.0.0.1:8080")
    return method.encode(), target.encode(), found, body


def verify(verifier: Verifier, parts: Parts) -> Any:
    method, target, headers, body = parts
    return verifier.verify(method, parse_target(target), headers, body)


def refusal(verifier: Verifier, parts: Parts) -> ApiError:
    with pytest.raises(ApiError) as caught:
        verify(verifier, parts)
    assert caught.value.status == 403
    return caught.value


def test_identity_of_a_signed_request(verifier: Verifier) -> None:
    identity = verify(verifier, signed())
    assert (identity.access_key, identity.region, identity.service) == (KEY, "eu-west-1", "lambda")


ODD_PATHS = [
    "/",
    "",
    "/a",
    "/a/",
    "//a//b",
    "/a/./b/../c",
    "/a/b/..",
    "/./",
    "/../../etc",
    "/2015-03-31/functions/f%3A1/invocations",
    "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af/invocations",
    "/2015-03-31/functions/arn:aws:lambda:us-east-1:000000000000:function:f/invocations",
    "/with%20space/and+plus",
    "/%e2%82%ac/%E2%82%AC",
    "/tilde~under_dash-dot.",
    "/paren()!*'",
    "/semi;colon,comma=equals&amp",
    "/%25already",
    "/a%2Fb",
    "/@$",
]
ODD_QUERIES = [
    "Qualifier=%24LATEST",
    "b=2&a=1",
    "a=2&a=1&a=10",
    "empty=&none",
    "A=1&a=1&B=1",
    "a-b=1&a=1&a.b=1&a_b=1",
    "Marker=x%20y%2Fz&MaxItems=10",
    "%C3%A9=%E2%82%AC",
    "k=%3D%26%3D",
    "sp=a%20b&tilde=~",
]


@pytest.mark.parametrize("path", ODD_PATHS)
@pytest.mark.parametrize("query", ["", *ODD_QUERIES[:3]])
def test_odd_paths(verifier: Verifier, path: str, query: str) -> None:
    verify(verifier, signed(path + (f"?{query}" if query else ""), method="GET", body=b""))


@pytest.mark.parametrize("query", ODD_QUERIES)
def test_odd_queries(verifier: Verifier, query: str) -> None:
    verify(verifier, signed(f"/p?{query}", method="DELETE", body=b""))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Amz-Client-Context", "eyJhIjoxfQ=="),
        ("X-Amz-Tenant-Id", "a  b   c"),
        ("X-Amz-Meta", "  padded  "),
        ("X-Amz-Meta", "tab\tand  spaces"),
        ("X-Amz-Meta", ""),
        ("Content-Type", "application/x-amz-json-1.1"),
        ("X-Amz-Target", "Logs_20140328.GetLogEvents"),
    ],
)
def test_odd_headers(verifier: Verifier, name: str, value: str) -> None:
    verify(verifier, signed(headers={name: value}))


@pytest.mark.parametrize("body", [b"", b"{}", b"\x00\xff" * 1000, b"x" * 1_000_000])
def test_bodies(verifier: Verifier, body: bytes) -> None:
    verify(verifier, signed(body=body))


def test_signature_with_payload_hash_header(verifier: Verifier) -> None:
    verify(verifier, signed(signer=botocore.auth.S3SigV4Auth, service="lambda"))


def test_claimed_payload_hash_must_be_the_bodys(verifier: Verifier) -> None:
    method, target, headers, _ = signed(signer=botocore.auth.S3SigV4Auth, service="lambda")
    assert MISMATCH in refusal(verifier, (method, target, headers, b"other")).message
    headers[b"x-amz-content-sha256"] = b"UNSIGNED-PAYLOAD"
    assert MISMATCH in refusal(verifier, (method, target, headers, b"other")).message


@pytest.mark.parametrize(
    "what", ["method", "path", "query", "body", "header", "host", "date", "signature", "key"]
)
def test_anything_changed_is_refused(verifier: Verifier, what: str) -> None:
    method, target, headers, body = signed("/p?a=1", headers={"X-Amz-Invocation-Type": "DryRun"})
    verify(verifier, (method, target, headers, body))
    if what == "method":
        method = b"PUT"
    elif what == "path":
        target = b"/q?a=1"
    elif what == "query":
        target = b"/p?a=2"
    elif what == "body":
        body += b" "
    elif what == "header":
        headers[b"x-amz-invocation-type"] = b"RequestResponse"
    elif what == "host":
        headers[b"host"] = b"elsewhere"
    elif what == "date":
        second = int(headers[b"x-amz-date"][13:15])
        headers[b"x-amz-date"] = headers[b"x-amz-date"][:13] + b"%02dZ" % ((second + 1) % 60)
    elif what == "signature":
        last = headers[b"authorization"][-1:]
        headers[b"authorization"] = headers[b"authorization"][:-1] + (b"0" if last != b"0" else b"1")
    elif what == "key":
        headers[b"authorization"] = headers[b"authorization"].replace(KEY.encode(), b"AKIDOTHER")
    error = refusal(verifier, (method, target, headers, body))
    assert error.code == "InvalidSignatureException"
    assert MISMATCH in error.message


def test_wrong_secret(verifier: Verifier) -> None:
    assert MISMATCH in refusal(verifier, signed(secret="wrong")).message


def test_unknown_key(verifier: Verifier) -> None:
    error = refusal(verifier, signed(key="AKIDNOBODY"))
    assert (error.code, error.message) == (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )


def test_keys_are_replaced_at_once(verifier: Verifier) -> None:
    parts = signed()
    verify(verifier, parts)
    verifier.set_keys({})
    assert refusal(verifier, parts).code == "UnrecognizedClientException"


def test_no_signature(verifier: Verifier) -> None:
    error = refusal(verifier, (b"GET", b"/p", {b"host": b"h"}, b""))
    assert (error.code, error.message) == (
        "MissingAuthenticationTokenException",
        "Missing Authentication Token",
    )
    bearer = {b"host": b"h", b"authorization": b"Bearer x"}
    assert refusal(verifier, (b"GET", b"/p", bearer, b"")).code == "MissingAuthenticationTokenException"


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        (
            "AWS4-HMAC-SHA256",
            "requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization",
        ),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host", "requires 'Signature' parameter"),
        (
            "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=0",
            "exactly 5 slash-delimited elements",
        ),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", "Unsupported AWS 'algorithm'"),
        ("AWS4-HMAC-SHA256 Credential=a, Credential=b, SignedHeaders=host, Signature=0", "twice"),
    ],
)
def test_incomplete(verifier: Verifier, authorization: str, message: str) -> None:
    headers = {b"host": b"h", b"x-amz-date": b"20260101T000000Z", b"authorization": authorization.encode()}
    error = refusal(verifier, (b"GET", b"/p", headers, b""))
    assert error.code == "IncompleteSignatureException"
    assert message in error.message


@pytest.mark.parametrize(
    ("credential", "signed_headers", "message"),
    [
        (f"{KEY}/{{day}}/us-east-1/lambda/aws4", "host;x-amz-date", "valid terminator"),
        (f"{KEY}/{{day}}/US EAST/lambda/aws4_request", "host;x-amz-date", "valid region"),
        (f"{KEY}/{{day}}/us-east-1/lambda/aws4_request", "x-amz-date", "'Host' or ':authority' must be"),
        (f"{KEY}/{{day}}/us-east-1/lambda/aws4_request", "host", "'X-Amz-Date' must be"),
        (f"{KEY}/20200101/us-east-1/lambda/aws4_request", "host;x-amz-date", "does not match YYYYMMDD"),
    ],
)
def test_bad_scope(verifier: Verifier, credential: str, signed_headers: str, message: str) -> None:
    now = datetime.now(UTC)
    credential = credential.format(day=f"{now:%Y%m%d}")
    authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed_headers}, Signature=00"
    headers = {
        b"host": b"h",
        b"x-amz-date": f"{now:%Y%m%dT%H%M%SZ}".encode(),
        b"authorization": authorization.encode(),
    }
    error = refusal(verifier, (b"GET", b"/p", headers, b""))
    assert error.code == "InvalidSignatureException"
    assert message in error.message


@pytest.mark.parametrize(
    ("skew_s", "message"), [(301, "Signature expired: "), (-302, "Signature not yet current: ")]
)
def test_clock_skew_above_five_minutes(verifier: Verifier, skew_s: int, message: str) -> None:
    parts = signed()
    with mock.patch("gateway.web.sigv4.time.time", return_value=time.time() + skew_s):
        error = refusal(verifier, parts)
    assert error.code == "InvalidSignatureException"
    assert error.message.startswith(message)
    assert "5 min.)" in error.message


@pytest.mark.parametrize("skew_s", [290, -290])
def test_clock_skew_below_five_minutes(verifier: Verifier, skew_s: int) -> None:
    parts = signed()
    with mock.patch("gateway.web.sigv4.time.time", return_value=time.time() + skew_s):
        verify(verifier, parts)


def test_date_header_instead_of_x_amz_date(verifier: Verifier) -> None:
    request = AWSRequest(
        "GET", "http://127.0.0.1:8080/p", data=b"", headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"}
    )
    SigV4Auth(Credentials(KEY, SECRET), "lambda", "eu-west-1").add_auth(request)
    headers = {name.lower().encode(): str(value).encode() for name, value in request.headers.items()}
    headers[b"host"] = b"127.0.0.1:8080"
    assert b"x-amz-date" not in headers
    verify(verifier, (b"GET", b"/p", headers, b""))


@pytest.mark.parametrize("path", ["/p", "/p?a=1&B=2", "/2015-03-31/functions/f%3A1"])
def test_presigned(verifier: Verifier, path: str) -> None:
    parts = signed(path, method="GET", body=b"", signer=SigV4QueryAuth, expires=600)
    assert verify(verifier, parts).region == "eu-west-1"


def test_presigned_for_s3_style_unsigned_payload(verifier: Verifier) -> None:
    parts = signed(
        "/p", method="PUT", body=b"", signer=botocore.auth.S3SigV4QueryAuth, expires=60, service="lambda"
    )
    verify(verifier, (*parts[:3], b"whatever"))


def test_presigned_expires(verifier: Verifier) -> None:
    parts = signed("/p", method="GET", body=b"", signer=SigV4QueryAuth, expires=60)
    with mock.patch("gateway.web.sigv4.time.time", return_value=time.time() + 62):
        assert "Signature expired" in refusal(verifier, parts).message


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"X-Amz-Expires=60", b"X-Amz-Expires=61", "InvalidSignatureException"),
        (b"X-Amz-Expires=60", b"X-Amz-Expires=604801", "InvalidSignatureException"),
        (b"X-Amz-Expires=60", b"X-Amz-Expires=-1", "InvalidSignatureException"),
        (b"X-Amz-Expires=60", b"X=60", "IncompleteSignatureException"),
        (b"X-Amz-Expires=60", b"X-Amz-Expires=60&X-Amz-Expires=60", "IncompleteSignatureException"),
        (b"AWS4-HMAC-SHA256", b"AWS4-HMAC-MD5", "IncompleteSignatureException"),
        (b"/p?", b"/q?", "InvalidSignatureException"),
    ],
)
def test_presigned_changed(verifier: Verifier, old: bytes, new: bytes, code: str) -> None:
    method, target, headers, body = signed("/p", method="GET", body=b"", signer=SigV4QueryAuth, expires=60)
    assert old in target
    assert refusal(verifier, (method, target.replace(old, new), headers, body)).code == code


def test_canonical_forms() -> None:
    assert canonical_path(b"/a%3Ab/../c d") == b"/c%20d"
    assert canonical_path(b"/a%3Ab/") == b"/a%253Ab/"
    assert canonical_query(b"b=1&a=%7e&a=%2F") == b"a=%2F&a=~&b=1"
    assert parse_target(b"http://host:1/p?q=1").path == b"/p"


def test_memory_of_scopes_is_bounded(verifier: Verifier) -> None:
    for number in range(5000):
        parts = (
            signed("/p", headers={f"X-Amz-H{number}": "1"})
            if number % 500 == 0
            else signed("/p", region=f"r-{number}")
        )
        verify(verifier, parts)
    assert len(verifier._scopes) <= 4096


def test_region_named_by_an_unverified_request() -> None:
    _, _, headers, _ = signed(region="ap-south-1", key="anything")
    identity = Verifier().identity(headers)
    assert identity is not None
    assert identity.region == "ap-south-1"
    assert Verifier().identity({b"authorization": b"Bearer x"}) is None
