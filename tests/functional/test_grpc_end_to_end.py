"""The gRPC door in front of real sandboxes, with a stock grpcio client."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from gateway.rpc import functions_pb2, functions_pb2_grpc, invocations_pb2, invocations_pb2_grpc
from tests.conftest import fresh_state_dir
from tests.support.deploy import function, zip_of
from tests.support.patience import handler_timeout, seconds
from tests.support.processes import workers_of
from tests.support.server import Server
from tests.support.streaming import CODE, digest_of_much

SLEEPER = """
import time
def handler(event, context):
    print("slept", event)
    time.sleep(event)
    if event < 0:
        raise ValueError("negative")
    return event
"""


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with fresh_state_dir() as folder, Server.start(folder, "--grpc-engine", request.param) as running:
        yield running


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


@pytest.fixture
def token(server: Server) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {server.token}")]


def request(name: str, event: Any, **fields: Any) -> invocations_pb2.InvokeRequest:
    return invocations_pb2.InvokeRequest(function=name, payload=json.dumps(event).encode(), **fields)


def one_gone(server_pid: int, workers: set[int]) -> bool:
    deadline = time.monotonic() + seconds(15)
    while workers <= set(workers_of(server_pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not workers <= set(workers_of(server_pid))


def test_invoke_with_receipt_and_log_tail(server: Server, channel: grpc.Channel, token: Any) -> None:
    stub = invocations_pb2_grpc.InvocationsStub(channel)
    with function(server.client(), SLEEPER) as name:
        cold = stub.Invoke(request(name, 0.01, log_tail=True), metadata=token)
        warm = stub.Invoke(request(name, 0.01), metadata=token)
    assert json.loads(cold.payload) == json.loads(warm.payload) == 0.01
    assert cold.function_error == "" and cold.executed_version == "$LATEST"
    assert b"slept 0.01" in cold.log_tail and f"START RequestId: {cold.request_id}".encode() in cold.log_tail
    assert cold.receipt.cold and cold.receipt.fork_us > 0
    assert warm.receipt.handler_us >= 10_000 and warm.receipt.billed_ms >= 10
    assert warm.receipt.cpu_ns > 0 and warm.receipt.peak_memory_kib > 1000


def test_a_function_that_fails_is_an_answer(server: Server, channel: grpc.Channel, token: Any) -> None:
    stub = invocations_pb2_grpc.InvocationsStub(channel)
    with function(server.client(), SLEEPER) as name:
        answer = stub.Invoke(request(name, -1), metadata=token)
    assert answer.function_error == "Unhandled"
    assert json.loads(answer.payload)["errorType"] == "ValueError"


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_caller_that_gives_up_ends_the_worker(
    server: Server, channel: grpc.Channel, token: Any, how: str
) -> None:
    stub = invocations_pb2_grpc.InvocationsStub(channel)
    with function(server.client(), SLEEPER, Timeout=handler_timeout(60)) as name:
        others = set(workers_of(server.pid))
        call = stub.Invoke.future(
            request(name, 50), metadata=token, timeout=1.0 if how == "deadline" else None
        )
        time.sleep(0.7)  # long enough to be in its handler
        mine = set(workers_of(server.pid)) - others
        assert mine
        if how == "cancel":
            call.cancel()
            with pytest.raises(grpc.FutureCancelledError):
                call.result()
        else:
            with pytest.raises(grpc.RpcError) as late:
                call.result()
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert json.loads(stub.Invoke(request(name, 0), metadata=token).payload) == 0
        # The one that slept is gone; the other can only be a spare, or what answered just now.
        assert one_gone(server.pid, mine)


def test_without_a_token_nothing_runs_but_health_and_reflection(
    server: Server, channel: grpc.Channel
) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with pytest.raises(grpc.RpcError) as refused:
        invocations_pb2_grpc.InvocationsStub(channel).Invoke(request("f", 0))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=""))
    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_functions_are_deployed_over_grpc_and_invoked_over_http(
    server: Server, channel: grpc.Channel, token: Any
) -> None:
    stub = functions_pb2_grpc.FunctionsStub(channel)
    made = stub.Create(
        functions_pb2.CreateFunctionRequest(
            function_name="over-grpc", runtime="python3.11", handler="index.handler",
            zip_file=zip_of({"index.py": "def handler(e, c):\n    return 'made over gRPC'\n"}),
            snapshot=functions_pb2.SNAPSHOT_ON,
        ),
        metadata=token,
    )  # fmt: skip
    try:
        assert made.state == "Active"
        answer = server.client().invoke(FunctionName="over-grpc")
        assert json.loads(answer["Payload"].read()) == "made over gRPC"
        listed = stub.List(functions_pb2.ListFunctionsRequest(), metadata=token)
        assert "over-grpc" in [entry.function_name for entry in listed.functions]
    finally:
        stub.Delete(functions_pb2.DeleteFunctionRequest(function_name="over-grpc"), metadata=token)
    with pytest.raises(grpc.RpcError) as missing:
        stub.Get(functions_pb2.GetFunctionRequest(function_name="over-grpc"), metadata=token)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("engine", ["native", "grpcio"])
def test_the_same_suite_of_answers_with_tls(
    start_server: Callable[..., Server], tmp_path: Any, engine: str
) -> None:
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out",
         str(certificate), "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    options = ("--tls-cert", str(certificate), "--tls-key", str(key), "--doors", "1", "--grpc-engine", engine)
    server = start_server(*options)
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(server.grpc, credentials) as channel:
        stub = functions_pb2_grpc.FunctionsStub(channel)
        answer = stub.List(
            functions_pb2.ListFunctionsRequest(),
            metadata=[("authorization", f"Bearer {server.token}")],
            timeout=seconds(10),
        )
    assert list(answer.functions) == []


def test_a_stream_arrives_as_it_is_made(server: Server, channel: grpc.Channel, token: Any) -> None:
    stub = invocations_pb2_grpc.InvocationsStub(channel)
    with function(server.client(), CODE, Timeout=handler_timeout(60)) as name:
        call = stub.InvokeStream(request(name, {"do": "much", "blocks": 320}), metadata=token)
        *pieces, last = list(call)
        assert hashlib.sha256(b"".join(piece.payload for piece in pieces)).hexdigest() == digest_of_much(320)
        assert last.complete.function_error == "" and last.complete.receipt.billed_ms > 0

        *pieces, last = list(stub.InvokeStream(request(name, {"do": "raise_late"}), metadata=token))
        assert [piece.payload for piece in pieces] == [b"a part"]
        assert json.loads(last.complete.error)["errorMessage"] == "in the middle"

        endless = stub.InvokeStream(request(name, {"do": "endless"}), metadata=token)
        assert next(endless).payload.isdigit()
        workers = set(workers_of(server.pid))
        endless.cancel()
        assert one_gone(server.pid, workers)


def test_a_session_runs_many_events(
    server: Server, channel: grpc.Channel, token: list[tuple[str, str]]
) -> None:
    stub = invocations_pb2_grpc.InvocationsStub(channel)  # type: ignore[no-untyped-call]
    source = "def handler(event, context):\n    return [event, context.aws_request_id]\n"
    with function(server.client(), source) as name:
        requests = [
            invocations_pb2.SessionRequest(open=invocations_pb2.SessionOpen(function=name, concurrency=4)),
            *(
                invocations_pb2.SessionRequest(
                    event=invocations_pb2.SessionEvent(id=number, payload=str(number).encode())
                )
                for number in range(40)
            ),
        ]
        answers = list(stub.Session(iter(requests), metadata=token, timeout=seconds(60)))
        told = {answer.id: json.loads(answer.answer.payload) for answer in answers}
        assert {number: value[0] for number, value in told.items()} == {n: n for n in range(40)}
        assert {answer.answer.request_id for answer in answers} == {value[1] for value in told.values()}
        assert len(answers) == len({answer.answer.request_id for answer in answers}) == 40
