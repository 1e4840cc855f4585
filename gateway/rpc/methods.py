"""What the gRPC door serves: our services behind a token, health and reflection open to everyone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from gateway.rpc import function_service, host_service, invoke_service

SERVICES: Final = (invoke_service.SERVICE, function_service.SERVICE, host_service.SERVICE)
ALL_SERVICES: Final = (*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)

Handlers = dict[str, grpc.RpcMethodHandler]


def open_methods(health: health_aio.HealthServicer) -> Handlers:
    """Health and reflection, by full method name."""
    collector = _Collector()
    health_pb2_grpc.add_HealthServicer_to_server(health, collector)
    servicer = reflection.aio.ReflectionServicer(ALL_SERVICES)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, collector)
    return collector.methods


async def set_health(health: health_aio.HealthServicer, serving: bool) -> None:
    """What the health service says of this process and its services."""
    status = health_pb2.HealthCheckResponse
    for name in ("", *SERVICES):
        await health.set(name, status.SERVING if serving else status.NOT_SERVING)


class _Collector:
    """Stands where generated code expects a server."""

    def __init__(self) -> None:
        self.methods: Handlers = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[object]) -> None:
        """The same handlers come by name as well."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        self.methods.update((f"/{service}/{name}", handler) for name, handler in handlers.items())
