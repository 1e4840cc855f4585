"""Composition root: the one file that builds what a process consists of, wires it, starts it and stops it in order.

Six kinds of processes share it: `serve` (the supervisor) is called by the command line; `python -m gateway.app launcher FD PID` is what
the supervisor runs, and the forks of that are control, the process of events, the doors and the name relay.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from gateway.launcher import become
from gateway.privileges import drop, installation, keep_reachable
from gateway.settings import MIB, Settings
from gateway.storage.metadata import StorageError
from gateway.telemetry import log_lines
from sandbox.runtimes.java import find_compiler

log = logging.getLogger("forklight.app")

# What the processes below are made of. Not imported here: the supervisor needs none of it.
PRELOADED = (
    "gateway.control.server",
    "gateway.web.apis.control_api",
    "gateway.door.event_server",
    "gateway.door.server",
    "gateway.name_relay",
)


def serve(arguments: argparse.Namespace) -> int:
    """`forklight serve`; see gateway/cli for the arguments. Raises gateway.serve.StartError with one sentence."""
    from gateway import serve as serve_module

    return serve_module.serve(settings_from(arguments))


def settings_from(arguments: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {
        "state_dir": Path(arguments.state_dir).absolute(),
        "http": arguments.http,
        "grpc": arguments.grpc,
        "grpc_engine": arguments.grpc_engine,
        "doors": arguments.doors,
        "auth": arguments.auth,
        "region": arguments.region,
        "url_domain": arguments.url_domain,
        "concurrency": arguments.concurrency,
        "http_connections": arguments.http_connections,
        "grpc_connections": arguments.grpc_connections,
        "connections_per_peer": arguments.connections_per_peer,
        "idle_timeout_s": arguments.idle_timeout,
        "grace_period_s": arguments.grace,
        "tls_cert": arguments.tls_cert,
        "tls_key": arguments.tls_key,
        "log_level": arguments.log_level,
        "require_isolation": arguments.require_isolation,
        "egress_allow": tuple(arguments.egress_allow or ()),
        "function_endpoint": arguments.function_endpoint,
        "role_credentials_s": arguments.role_credentials * 60.0,
        "egress_dns": tuple(arguments.egress_dns or ()),
        "allow_host_network": arguments.allow_host_network,
        "io_bytes_per_s": arguments.io_rate * MIB,
        "io_operations_per_s": arguments.io_operations,
        "event_queue_depth": arguments.event_queue_depth,
        "event_concurrency": arguments.event_concurrency,
        "event_retry_waits_s": arguments.event_retry_waits,
        "sqs_endpoint": arguments.sqs_endpoint,
        "sns_endpoint": arguments.sns_endpoint,
        "s3_endpoint": arguments.s3_endpoint,
        "s3_credentials": arguments.s3_credentials,
        "image_registries": tuple(arguments.image_registry or ()),
        "image_credentials": arguments.image_credentials,
        "destination_credentials": arguments.destination_credentials,
        "http_destinations": tuple(arguments.http_destination or ()),
    }
    return Settings(**{name: value for name, value in given.items() if value is not None})


def main() -> int:
    """Entry of the launcher: argv = "launcher", fd of its socket to the supervisor, the supervisor's pid. Its forks end here, too."""
    order = become(
        int(sys.argv[2]), int(sys.argv[3]), PRELOADED, {role: module for role, (_, module) in _ROLES.items()}
    )
    return _run(order.role, order.config, order.channel) if order is not None else 0


def _run(role: str, config: dict[str, Any], channel: socket.socket) -> int:
    settings = Settings.from_json(config["settings"])
    log_lines.set_up(f"door-{config['index']}" if role == "door" else role, settings.log_level)
    run = _ROLES[role][0](settings, config)
    if config["uid"]:
        keep_reachable(installation())
    drop(config["uid"], config["gid"], config["parent"])
    try:
        uvloop.run(run(channel))
    except (OSError, StorageError) as error:
        log.error("%s", error)
        return 1
    return 0


Run = Callable[[socket.socket], Coroutine[Any, Any, None]]

# Each reads what root alone may read. What they are made of is imported already: by the launcher, once for all.


def _control(settings: Settings, config: dict[str, Any]) -> Run:
    from gateway.control.server import ControlServer
    from gateway.web.apis import control_api

    api, runtime_layers = control_api.prepare(settings, config["interpreters"], find_compiler())

    async def run(sock: socket.socket) -> None:
        server = ControlServer(
            settings, sock, api=api, http=config["http"], grpc=config["grpc"], runtime_layers=runtime_layers
        )
        await server.start()
        await _terminated()
        await server.stop()

    return run


def _events(settings: Settings, config: dict[str, Any]) -> Run:
    from gateway.door.event_server import EventServer
    from gateway.storage.aws_credentials import read_credentials

    credentials = read_credentials(settings.destination_credentials)

    async def run(sock: socket.socket) -> None:
        events = EventServer(settings, sock, credentials)
        await events.start()
        await events.finished()

    return run


def _door(settings: Settings, config: dict[str, Any]) -> Run:
    from gateway.door.server import DoorServer

    tls = _read_tls(settings)

    async def run(sock: socket.socket) -> None:
        door = DoorServer(
            settings, sock, index=config["index"], http=config["http"], grpc=config["grpc"], tls=tls
        )
        await door.start()
        await door.finished()

    return run


def _names(settings: Settings, config: dict[str, Any]) -> Run:
    from gateway.name_relay import Servers, relay

    return lambda sock: relay(sock, Servers(config["servers"]))


# Role -> what makes it, and the module that `ps` names for it.
_ROLES: dict[str, tuple[Callable[[Settings, dict[str, Any]], Run], str]] = {
    "control": (_control, "gateway.app"),
    "events": (_events, "gateway.app"),
    "door": (_door, "gateway.app"),
    "names": (_names, "gateway.name_relay"),
}


def _read_tls(settings: Settings) -> tuple[bytes, bytes] | None:
    if not settings.tls_cert or not settings.tls_key:
        return None
    return Path(settings.tls_cert).read_bytes(), Path(settings.tls_key).read_bytes()


async def _terminated() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
