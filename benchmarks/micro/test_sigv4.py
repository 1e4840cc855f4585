"""Verifying a signature, beside the hash and HMAC calls that any verifier makes, and beside botocore signing it."""

from __future__ import annotations

import hashlib
import hmac

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.signing import Signer
from gateway.web import sigv4

BODY = b'{"name": "bench"}'
PATH = "/2015-03-31/functions/hello/invocations"


def signed() -> tuple[bytes, dict[bytes, bytes]]:
    """Target and headers of a signed Invoke, as the HTTP door gets them."""
    head = Signer("127.0.0.1:8080", "AKID", "secret").invoke("hello", BODY).partition(b"\r\n\r\n")[0]
    request, *lines = head.split(b"\r\n")
    return request.split()[1], dict(line.split(b": ", 1) for line in lines)


def test_limit_hashes(benchmark: BenchmarkFixture) -> None:
    key, text = b"k" * 32, b"t" * 160

    def hashes() -> str:
        hashlib.sha256(BODY).hexdigest()
        hashlib.sha256(text * 2).hexdigest()
        return hmac.digest(key, text, "sha256").hex()

    benchmark(hashes)


def test_verify(benchmark: BenchmarkFixture) -> None:
    verifier = sigv4.Verifier()
    verifier.set_keys({"AKID": "secret"})
    raw, headers = signed()
    target = sigv4.parse_target(raw)
    assert benchmark(verifier.verify, b"POST", target, headers, BODY).access_key == "AKID"


def test_parse_target(benchmark: BenchmarkFixture) -> None:
    benchmark(sigv4.parse_target, PATH.encode())


def test_sign_with_botocore(benchmark: BenchmarkFixture) -> None:
    auth = SigV4Auth(Credentials("AKID", "secret"), "lambda", "us-east-1")

    def sign() -> None:
        auth.add_auth(AWSRequest("POST", f"http://127.0.0.1:8080{PATH}", data=BODY))

    benchmark(sign)


def test_sign_with_ours(benchmark: BenchmarkFixture) -> None:
    benchmark(Signer("127.0.0.1:8080", "AKID", "secret").invoke, "hello", BODY)
