"""`make demo`: deploy a function with boto3, call it over HTTP and gRPC, and show what that costs on this machine.

Everything runs on free loopback ports with a temporary state folder, and nothing is left when it ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import grpc

from benchmarks import machine, ours
from benchmarks.client import Connection
from benchmarks.report import number, percentile, table
from gateway.rpc import invocations_pb2, invocations_pb2_grpc
from tests.support.server import Server

WARM_CALLS = 1000
COLD_CALLS = 12
SPARE_CALLS = 45


def timed(call: Callable[[str], Any], function: str) -> float:
    """Microseconds of one call."""
    started = time.perf_counter_ns()
    call(function)
    return (time.perf_counter_ns() - started) / 1e3


class Doors:
    """One connection to each door."""

    def __init__(self, server: Server) -> None:
        self._signer = ours.signer(server)
        self._http = Connection(ours.port_of(server.http))
        self._channel = grpc.insecure_channel(server.grpc)
        self._stub = invocations_pb2_grpc.InvocationsStub(self._channel)
        self._metadata = (("authorization", f"Bearer {server.token}"),)

    def http(self, function: str) -> Any:
        """A signed Invoke of the Lambda API."""
        status, headers, body = self._http.ask(self._signer.invoke(function, ours.BODY))
        if status != 200 or "x-amz-function-error" in headers:
            raise RuntimeError(f"HTTP: {status} {body[:300]!r}")
        return json.loads(body)

    def grpc(self, function: str) -> Any:
        request = invocations_pb2.InvokeRequest(function=function, payload=ours.BODY)
        answer = self._stub.Invoke(request, metadata=self._metadata, timeout=30)
        if answer.function_error:
            raise RuntimeError(f"gRPC: {answer.payload[:300]!r}")
        return json.loads(answer.payload)

    def close(self) -> None:
        self._http.close()
        self._channel.close()


def first_calls(server: Server) -> None:
    """What a user sees: create, invoke, twice."""
    client = server.client()
    started = time.perf_counter()
    client.create_function(
        FunctionName="hello", Runtime=ours.RUNTIME, Handler="index.handler", MemorySize=ours.MEMORY_MB,
        Role="arn:aws:iam::123456789012:role/demo", Code={"ZipFile": ours.zip_of(ours.HELLO)},
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName="hello")
    print(f"boto3   create_function      active after {(time.perf_counter() - started) * 1e3:.0f} ms")
    for _ in range(2):
        answer = client.invoke(FunctionName="hello", Payload=ours.BODY)
        print(f"boto3   invoke               {answer['StatusCode']} {answer['Payload'].read().decode()}")
    client.close()


def show_isolation(server: Server) -> None:
    """The report of what this host can and cannot enforce."""
    print("\nIsolation of a worker on this host:")
    print("  " + ours.forklight(server, "doctor").strip().replace("\n", "\n  "))


def cold_times(server: Server, door: Callable[[str], Any], label: str) -> list[float]:
    """First calls of functions that have a snapshot and no worker yet."""
    times = []
    for index in range(COLD_CALLS):
        function = f"cold-{label}-{index}"
        ours.deploy(server, function, snapshot="on")
        times.append(timed(door, function))
    return times


def warm_times(door: Callable[[str], Any]) -> list[float]:
    for _ in range(50):
        door("hello")
    return [timed(door, "hello") for _ in range(WARM_CALLS)]


def spare_times(door: Callable[[str], Any]) -> list[float]:
    """Each call gets a new worker; the pause lets the next one be forked ahead."""
    times = []
    for _ in range(SPARE_CALLS):
        time.sleep(0.03)
        times.append(timed(door, "clean"))
    return times[5:]


def measure(server: Server) -> list[list[str]]:
    """Rows of the table: cold and warm over both doors, each beside the machine's own limit."""
    limits = machine.limits()
    (fork, fork_p50), (round_trip, trip_p50) = ((name, p50) for name, (p50, _) in limits.items())
    ours.deploy(server, "clean", isolation="request", snapshot="on")
    doors = Doors(server)
    rows = []
    try:
        for name, label, door in (("HTTP, signed", "http", doors.http), ("gRPC", "grpc", doors.grpc)):
            rows.append(
                row(f"{name}: cold, forked while the caller waits", cold_times(server, door, label), fork_p50)
            )
            rows.append(row(f"{name}: cold, a new worker forked ahead", spare_times(door), fork_p50))
            rows.append(row(f"{name}: warm", warm_times(door), trip_p50))
    finally:
        doors.close()
    for name in (fork, round_trip):
        p50, p99 = limits[name]
        rows.append([f"limit: {name}", number(p50), number(p99), "1"])
    return rows


def row(name: str, times: list[float], limit: float) -> list[str]:
    p50 = percentile(times, 50)
    return [name, number(p50), number(percentile(times, 99)), f"{p50 / limit:.1f}"]


def main() -> None:
    started = time.perf_counter()
    with ours.serving() as server:
        print(f"forklight serves http://{server.http} and grpc://{server.grpc} "
              f"({(time.perf_counter() - started) * 1e3:.0f} ms after start)\n")  # fmt: skip
        first_calls(server)
        doors = Doors(server)
        print(f"gRPC    Invocations.Invoke   {json.dumps(doors.grpc('hello'))}")
        doors.close()
        show_isolation(server)
        print("\nLatency seen by a Python client, microseconds:")
        print(table(["", "p50", "p99", "p50 / limit"], measure(server)))
    print('\nStopped cleanly. Next: `make serve`, then `eval "$(.venv/bin/forklight env)"`; see README.md.')


if __name__ == "__main__":
    main()
