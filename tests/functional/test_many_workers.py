"""Many workers of one snapshot: their number is bounded by the host, not by what their zygote or the supervisor is charged for them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from gateway.rpc import invocations_pb2, invocations_pb2_grpc
from tests.support.deploy import function
from tests.support.patience import seconds
from tests.support.processes import workers_of
from tests.support.server import Server

COUNT = 240
# All begin before the first one answers.
SLEEPER = """
import time
def handler(event, context):
    time.sleep(max(0, event["until"] - time.time()))
    return 1
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="without cgroups nothing is charged")
def test_a_small_function_has_as_many_workers_as_calls(start_server: Callable[..., Server]) -> None:
    server = start_server("--doors", "1")
    descriptors = Path(f"/proc/{server.pid}/fd")
    metadata = [("authorization", f"Bearer {server.token}")]
    with (
        function(server.client(), SLEEPER, snapshot="on", MemorySize=128, Timeout=60) as name,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        stub = invocations_pb2_grpc.InvocationsStub(channel)
        stub.Invoke(
            invocations_pb2.InvokeRequest(function=name, payload=b'{"until": 0}'),
            metadata=metadata,
            timeout=seconds(30),
        )
        before = len(list(descriptors.iterdir()))
        event = json.dumps({"until": time.time() + 12}).encode()
        request = invocations_pb2.InvokeRequest(function=name, payload=event)
        calls = [stub.Invoke.future(request, metadata=metadata, timeout=seconds(60)) for _ in range(COUNT)]
        deadline = time.monotonic() + seconds(12)
        while len(workers_of(server.pid)) < COUNT and time.monotonic() < deadline:
            time.sleep(0.05)
        used = len(list(descriptors.iterdir())) - before
        alive = len(workers_of(server.pid))  # spares among them
        answers = [call.result() for call in calls]
        assert [answer.function_error for answer in answers] == [""] * COUNT
        assert len({answer.request_id for answer in answers}) == COUNT
        assert used <= 4 * alive  # channel, log, pidfd of each; and of those that are being started
