"""The load client's signer and botocore sign the same request alike."""

from __future__ import annotations

import time

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks.signing import Signer


@pytest.mark.parametrize(
    "function", ["hello", "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Ahello"]
)
def test_signature_is_botocores(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((2026, 9, 21, 14, 13, 20, 0, 264, 0)))
    body = b'{"name": "x"}'
    ours = Signer("127.0.0.1:8080", "AKID", "secret").invoke(function, body).decode()
    headers = dict(line.split(": ", 1) for line in ours.split("\r\n")[1:] if ": " in line)
    request = AWSRequest(
        "POST", f"http://127.0.0.1:8080/2015-03-31/functions/{function}/invocations", data=body
    )
    request.headers["x-amz-content-sha256"] = headers["x-amz-content-sha256"]
    auth = SigV4Auth(Credentials("AKID", "secret"), "lambda", "us-east-1")
    request.context["timestamp"] = headers["x-amz-date"]
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: _when(headers["x-amz-date"]))
    auth.add_auth(request)
    assert headers["authorization"] == request.headers["Authorization"]


def _when(stamp: str) -> object:
    import datetime

    return datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")
