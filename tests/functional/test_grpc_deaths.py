"""How a worker ended, as a field of the gRPC answer; and what the host enforces, as the HTTP API says it too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import grpc
import pytest

from gateway.rpc import host_pb2, host_pb2_grpc, invocations_pb2_grpc
from gateway.rpc.host_service import report_of
from gateway.rpc.invocations_pb2 import Death, DeathCause, InvokeRequest, InvokeResponse
from sandbox.deaths import Cause
from tests.functional.test_deaths import CODE, FOREIGN, PATIENCE_S, eventually, said
from tests.functional.test_runtimes import get
from tests.support.deploy import function
from tests.support.server import Server, forklight_command

CASES = {
    "exit status": (["exit", 3], Death(cause="DEATH_CAUSE_EXIT", detail="3")),
    "signal": (
        ["signal", int(signal.SIGSEGV)],
        Death(cause="DEATH_CAUSE_SIGNAL", detail="segmentation fault"),
    ),
    "a forged frame": (["forge", 0], Death(cause="DEATH_CAUSE_PROTOCOL")),
}


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


@pytest.fixture(scope="module")
def token(server: Server) -> Any:
    return [("authorization", f"Bearer {server.token}")]


@pytest.fixture(scope="module")
def name(server: Server) -> Iterator[str]:
    with function(server.client(), CODE, Timeout=20, MemorySize=256) as name:
        yield name


def call(channel: grpc.Channel, token: Any, name: str, event: Any) -> InvokeResponse:
    stub = invocations_pb2_grpc.InvocationsStub(channel)  # type: ignore[no-untyped-call]
    request = InvokeRequest(function=name, payload=json.dumps(event).encode())
    answer: InvokeResponse = stub.Invoke(request, metadata=token, timeout=PATIENCE_S)
    return answer


@pytest.mark.parametrize("case", CASES)
def test_a_death_is_told_in_the_answer(channel: grpc.Channel, token: Any, name: str, case: str) -> None:
    event, death = CASES[case]
    answer = call(channel, token, name, event)
    assert answer.function_error == "Unhandled"
    assert json.loads(answer.payload)["errorType"] == "Runtime.ExitError"
    assert answer.death == death


def test_a_timeout(server: Server, channel: grpc.Channel, token: Any) -> None:
    with function(server.client(), CODE, Timeout=1) as name:
        answer = call(channel, token, name, ["sleep", 30])
    assert json.loads(answer.payload)["errorType"] == "Sandbox.Timedout"
    assert answer.death == Death(cause="DEATH_CAUSE_TIMEOUT")


def test_who_answers_or_raises_has_not_died(channel: grpc.Channel, token: Any, name: str) -> None:
    answer = call(channel, token, name, None)
    assert answer.function_error == "" and not answer.HasField("death")
    answer = call(channel, token, name, "no list")  # cannot be taken apart
    assert answer.function_error == "Unhandled" and not answer.HasField("death")


@pytest.mark.root("memory limits need cgroups")
def test_out_of_memory(server: Server, channel: grpc.Channel, token: Any) -> None:
    with function(server.client(), CODE, Timeout=20, MemorySize=128) as name:
        answer = call(channel, token, name, ["hoard", 500])
    assert answer.death == Death(cause="DEATH_CAUSE_OOM")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls of x86_64's other architectures")
def test_a_system_call_by_name(server: Server, channel: grpc.Channel, token: Any) -> None:
    with function(server.client(), FOREIGN, Timeout=20) as name:
        answer = call(channel, token, name, ["worker", "i386", 20])
    assert answer.death == Death(cause="DEATH_CAUSE_SECCOMP", detail="i386 getpid")


def test_an_operators_kill(server: Server, channel: grpc.Channel, token: Any) -> None:
    with function(server.client(), CODE, Timeout=20) as name, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(call, channel, token, name, ["sleep", 15])
        assert eventually(lambda: said(server, name, "sleeping"))
        subprocess.run(
            [*forklight_command(), "kill", name, "--state-dir", str(server.state_dir)],
            capture_output=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert answer.result(PATIENCE_S).death == Death(cause="DEATH_CAUSE_OPERATOR")


def test_the_end_of_a_stream_tells_it_as_well(channel: grpc.Channel, token: Any, name: str) -> None:
    stub = invocations_pb2_grpc.InvocationsStub(channel)  # type: ignore[no-untyped-call]
    request = InvokeRequest(function=name, payload=b'["exit", 7]')
    *_, last = stub.InvokeStream(request, metadata=token, timeout=PATIENCE_S)
    assert last.complete.function_error == "Unhandled"
    assert last.complete.death == Death(cause="DEATH_CAUSE_EXIT", detail="7")


def test_the_death_of_module_code(server: Server, channel: grpc.Channel, token: Any) -> None:
    with function(server.client(), "import os\nos._exit(5)\n") as name:
        answer = call(channel, token, name, None)
    assert answer.death == Death(cause="DEATH_CAUSE_EXIT", detail="5")


def test_every_cause_has_the_name_that_the_metric_has() -> None:
    """So that who looks one up finds the other: sandbox/deaths.py."""
    names = {name.removeprefix("DEATH_CAUSE_").lower() for name in DeathCause.keys()}  # noqa: SIM118
    assert names - set(get_args(Cause)) == {"unspecified"}


def test_what_the_host_enforces_is_said_over_grpc(server: Server, channel: grpc.Channel, token: Any) -> None:
    told = get(server, "/forklight/v1/isolation")
    stub = host_pb2_grpc.HostStub(channel)  # type: ignore[no-untyped-call]
    report = stub.GetIsolation(host_pb2.GetIsolationRequest(), metadata=token, timeout=PATIENCE_S)
    assert report == report_of(told)
    assert report.overall in (host_pb2.ISOLATION_LEVEL_FULL, host_pb2.ISOLATION_LEVEL_DEGRADED)
    states = {feature.name: feature.state for feature in report.features}
    assert states["pid"] == states["seccomp"] == host_pb2.FEATURE_STATE_ENFORCED
