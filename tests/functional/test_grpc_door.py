"""Who may call: tokens, TLS; what is open: health, reflection; several servers on one port."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.rpc.invocations_pb2 import InvokeRequest
from gateway.rpc.methods import SERVICES
from tests.support.fake_door import TOKEN
from tests.support.grpc_door import AUTHORIZED, door, engine, refused, run  # noqa: F401

pytestmark = pytest.mark.usefixtures("engine")

ECHO = InvokeRequest(function="echo")


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", TOKEN),),
        (("authorization", "Bearer "),),
        (("authorization", f"Bearer {TOKEN}x"),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", "Bearer " + "x" * 4096),),
        (("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")),
    ],
)
def test_call_without_a_valid_token_is_refused(metadata: tuple[tuple[str, str], ...]) -> None:
    async def test() -> None:
        async with door() as it:
            for call in (
                it.invocations.Invoke(ECHO, metadata=metadata),
                it.functions.List(b"", metadata=metadata),
            ):
                error = await refused(call)
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "Bearer" in (error.details() or "")
            stream = it.invocations.InvokeStream(ECHO, metadata=metadata)
            error = await refused(stream.read())
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert it.dispatcher.invocations == []

    run(test())


def test_no_token_is_needed_without_authentication() -> None:
    async def test() -> None:
        async with door(auth=False) as it:
            assert (await it.invocations.Invoke(ECHO)).payload == b"{}"

    run(test())


def test_health_is_open_and_says_when_it_stops() -> None:
    async def test() -> None:
        async with door() as it:
            health = health_pb2_grpc.HealthStub(it.channel)
            status = health_pb2.HealthCheckResponse
            for name in ("", *SERVICES):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert answer.status == status.SERVING
            await it.server.set_serving(False)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == status.NOT_SERVING
            await it.server.set_serving(True)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == status.SERVING

    run(test())


def test_health_can_be_watched_and_does_not_delay_the_end() -> None:
    async def test() -> None:
        async with door() as it:
            health = health_pb2_grpc.HealthStub(it.channel)
            status = health_pb2.HealthCheckResponse
            watch = health.Watch(health_pb2.HealthCheckRequest(service="absent"))
            assert (await watch.read()).status == status.SERVICE_UNKNOWN
            watch.cancel()
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == status.SERVING
            await it.server.set_serving(False)
            assert (await watch.read()).status == status.NOT_SERVING
            await it.server.set_serving(True)
            assert (await watch.read()).status == status.SERVING
            error = await refused(health.Check(health_pb2.HealthCheckRequest(service="absent")))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            await it.server.stop(0.2)

    run(test())


def test_reflection_is_open_and_complete() -> None:
    """A client that has nothing but the address finds services, methods and messages."""
    script = """
import sys, grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
with grpc.insecure_channel(sys.argv[1]) as channel:
    database = ProtoReflectionDescriptorDatabase(channel)
    print(*sorted(database.get_services()))
    service = DescriptorPool(database).FindServiceByName("forklight.v1.Invocations")
    print(*(method.name for method in service.methods))
    print(*service.methods_by_name["Invoke"].output_type.fields_by_name)
"""

    async def test() -> str:
        async with door() as it:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, f"127.0.0.1:{it.port}", stdout=subprocess.PIPE
            )
            out, _ = await process.communicate()
            return out.decode()

    services, methods, fields = run(test()).splitlines()
    assert set(services.split()) >= {*SERVICES, "grpc.health.v1.Health"}
    assert methods.split() == ["Invoke", "InvokeStream", "Session", "InvokeAsync", "GetInvocation"]
    assert fields.split()[0] == "payload"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=forklight",
            "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return (folder / "cert.pem").read_bytes(), (folder / "key.pem").read_bytes()


def test_tls(certificate: tuple[bytes, bytes]) -> None:
    async def test() -> None:
        async with door(tls=certificate) as it:
            credentials = grpc.ssl_channel_credentials(certificate[0])
            async with grpc.aio.secure_channel(f"127.0.0.1:{it.port}", credentials) as channel:
                invoke = channel.unary_unary("/forklight.v1.Invocations/Invoke")
                assert b"{}" in await invoke(ECHO.SerializeToString(), metadata=AUTHORIZED)
                error = await refused(invoke(ECHO.SerializeToString()))
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            # In the clear it does not answer.
            error = await refused(it.invocations.Invoke(ECHO, metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    run(test())


def test_broken_certificate_is_an_error_of_the_start() -> None:
    async def test() -> None:
        with pytest.raises(OSError, match="cannot listen"):
            async with door(tls=(b"no certificate", b"no key")):
                pass

    run(test())


def test_two_servers_share_a_port() -> None:
    async def test() -> None:
        async with door() as one, door(port=one.port) as two:
            assert one.port == two.port
            options = (("grpc.use_local_subchannel_pool", 1),)
            for _ in range(64):  # the kernel chooses by the client's port: 64 misses in a row are no accident
                async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}", options=options) as channel:
                    invoke = channel.unary_unary("/forklight.v1.Invocations/Invoke")
                    await invoke(ECHO.SerializeToString(), metadata=AUTHORIZED)
                if one.dispatcher.invocations and two.dispatcher.invocations:
                    break
            assert one.dispatcher.invocations
            assert two.dispatcher.invocations

    run(test())


def test_taken_port_is_an_error_of_the_start() -> None:
    async def test(port: int) -> None:
        with pytest.raises(OSError, match="cannot listen"):
            async with door(port=port):
                pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        run(test(taken.getsockname()[1]))


def test_stopped_server_leaves_no_descriptors() -> None:
    async def test() -> None:
        async with door() as it:
            await it.invocations.Invoke(ECHO, metadata=AUTHORIZED)

    run(test())  # what gRPC opens once per process is open now
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run(test())
    assert len(os.listdir("/proc/self/fd")) <= before + 1
