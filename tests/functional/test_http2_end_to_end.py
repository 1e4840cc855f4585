"""A real server, one port for everything: stock clients of HTTP/2, boto3 beside them, gRPC on its fast path."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from gateway.rpc import invocations_pb2, invocations_pb2_grpc
from tests.functional.test_http_tls import make_certificate
from tests.support.deploy import function, invoke
from tests.support.http_door import INVOKE
from tests.support.patience import seconds
from tests.support.server import Server
from tests.support.witness import until

ECHO = "def handler(event, context):\n    return event\n"


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=seconds(30)
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def _needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def _signed_by_curl(server: Server) -> list[str]:
    scope = f"aws:amz:{server.region}:lambda"
    return ["--aws-sigv4", scope, "--user", f"{server.access_key}:{server.secret_key}"]


def test_one_port_serves_everything(start_server: Callable[..., Server], tmp_path: Path) -> None:
    _needs("curl")
    server = start_server("--doors", "1")
    curl = ("curl", "-sS", "--http2-prior-knowledge")
    assert _run(*curl, f"{server.url}/health") == "ok\n"
    token = f"Authorization: Bearer {server.token}"
    assert "forklight_door_connections" in _run(*curl, "-H", token, f"{server.url}/metrics")
    with function(server.client(), ECHO) as name:
        large = tmp_path / "event"
        large.write_text('"' + "x" * 3_000_000 + '"')
        url = server.url + INVOKE.format(name)
        signed = (*curl, *_signed_by_curl(server), "-H", "Content-Type: application/json")
        what = _run(*signed, "-d", '{"a": 1}', "-w", " %{http_version} %{http_code}", url)
        assert what == '{"a": 1} 2 200'
        assert _run(*signed, "-d", f"@{large}", url) == large.read_text()
        assert _run(*signed, f"{server.url}/2015-03-31/functions/{name}").startswith('{"Configuration"')
        assert invoke(server.client(), name, {"b": 2})[0] == {"b": 2}
        until(lambda: server.client("logs").describe_log_groups()["logGroups"])  # written behind the answer
        metadata = (("authorization", f"Bearer {server.token}"),)
        for address in (server.http, server.grpc):
            with grpc.insecure_channel(address) as channel:
                stub = invocations_pb2_grpc.InvocationsStub(channel)  # type: ignore[no-untyped-call]
                for payload in (b'"c"', b'"d"', b'"e"'):
                    request = invocations_pb2.InvokeRequest(function=name, payload=payload)
                    assert stub.Invoke(request, metadata=metadata, timeout=seconds(20)).payload == payload
    if shutil.which("h2load") is not None:
        told = _run("h2load", "-n", "2000", "-c", "8", "-m", "16", f"{server.url}/health")
        assert re.search(r"status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx", told), told
    assert server.stop() == 0


def test_beside_grpcios_engine_the_api_is_served_and_grpc_has_its_port(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    certificate, key = make_certificate(tmp_path)
    options = ("--grpc-engine", "grpcio", "--tls-cert", str(certificate), "--tls-key", str(key))
    server = start_server("--doors", "1", *options)
    trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
    for address, code in ((server.grpc, None), (server.http, grpc.StatusCode.UNIMPLEMENTED)):
        with grpc.secure_channel(address, trusted) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            try:
                assert check(b"", timeout=seconds(20)) == b"\x08\x01"
                assert code is None
            except grpc.RpcError as error:
                assert error.code() is code  # type: ignore[attr-defined]
    if shutil.which("curl") is not None:
        _stock_tls(server, certificate)


def _stock_tls(server: Server, certificate: Path) -> None:
    url = f"https://{server.http}"
    trusted = ("curl", "-sS", "--cacert", certificate, "-w", " %{http_version}")
    assert _run(*trusted, "--http2", f"{url}/health") == "ok\n 2"
    assert _run(*trusted, "--http1.1", f"{url}/health") == "ok\n 1.1"
