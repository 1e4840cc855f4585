"""What a host enforces, over gRPC: the report of the HTTP API as a message."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from gateway.model.errors import service_unavailable
from gateway.rpc import host_pb2 as pb
from tests.support.grpc_door import AUTHORIZED, door, engine, refused, run  # noqa: F401

pytestmark = pytest.mark.usefixtures("engine")


def test_the_report_says_level_claim_and_every_feature() -> None:
    async def test() -> None:
        async with door() as it:
            report = await it.host.GetIsolation(pb.GetIsolationRequest(), metadata=AUTHORIZED)
            assert report == pb.IsolationReport(
                overall=pb.ISOLATION_LEVEL_DEGRADED,
                claim="what holds",
                features=[
                    pb.IsolationFeature(name="cpu", state=pb.FEATURE_STATE_DEGRADED, why="no cgroup"),
                    pb.IsolationFeature(name="io", state=pb.FEATURE_STATE_ABSENT, why="no disk"),
                    pb.IsolationFeature(name="pid", state=pb.FEATURE_STATE_ENFORCED),
                ],
            )

    run(test())


def test_who_may_not_know_and_what_is_not_known() -> None:
    async def test() -> None:
        async with door() as it:
            error = await refused(it.host.GetIsolation(pb.GetIsolationRequest()))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            it.control.away = service_unavailable("away")
            error = await refused(it.host.GetIsolation(pb.GetIsolationRequest(), metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            ask = it.channel.unary_unary("/forklight.v1.Host/GetIsolation")
            error = await refused(ask(b"\xff\xff", metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(test())
