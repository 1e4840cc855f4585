"""Service Host: what this host enforces, asked of the control process."""

from __future__ import annotations

from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from gateway.model.errors import ApiError
from gateway.rpc import host_pb2 as pb
from gateway.rpc.callers import Callers, message_of
from gateway.rpc.statuses import refuse, refuse_argument

SERVICE = "forklight.v1.Host"


class Reports(Protocol):
    async def isolation(self, caller: dict[str, Any]) -> dict[str, Any]:
        """The isolation report (sandbox.isolation), for ``caller``.  Raises ApiError: 503 when the control process is away."""
        ...


class HostService:
    def __init__(self, reports: Reports, callers: Callers | None = None) -> None:
        self._reports = reports
        self._callers = callers or Callers(None)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Method handlers by full method name, with bytes for messages."""
        return {f"/{SERVICE}/GetIsolation": grpc.unary_unary_rpc_method_handler(self.get_isolation)}

    async def get_isolation(self, message: bytes, context: ServicerContext) -> bytes:
        """GetIsolationRequest -> IsolationReport."""
        try:
            pb.GetIsolationRequest.FromString(message)
        except DecodeError:
            await refuse_argument(context, "The message is not a GetIsolationRequest.")
        try:
            report = await self._reports.isolation(message_of(self._callers.who(context), context))
        except ApiError as error:
            await refuse(context, error)
        return report_of(report).SerializeToString()


def report_of(report: dict[str, Any]) -> pb.IsolationReport:
    """The report as the HTTP API has it, as a message."""
    return pb.IsolationReport(
        overall=f"ISOLATION_LEVEL_{report['overall'].upper()}",
        claim=report["claim"],
        features=[
            pb.IsolationFeature(
                name=name,
                state=f"FEATURE_STATE_{feature['state'].upper()}",
                why=feature["why"],
            )
            for name, feature in sorted(report["features"].items())
        ],
    )
