"""`forklight serve`: the supervisor process. Prepares the host, starts control and doors, says when it is ready, stops in order."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import IO

import uvloop

from gateway.addresses import Address, claim
from gateway.children import Child
from gateway.launching import Launcher
from gateway.model.target import AWS, allowed_url
from gateway.privileges import service_ids
from gateway.resting_heap import RestingHeap
from gateway.settings import Settings
from gateway.storage.aws_credentials import read_credentials
from gateway.telemetry import log_lines
from sandbox import users
from sandbox.egress.addresses import Place, parse_allowed, place_of
from sandbox.errors import SandboxError
from sandbox.host import Host
from sandbox.io_limits import Rates
from sandbox.isolation import IsolationReport
from sandbox.peers import DoorPeer
from sandbox.supervisor import Supervisor

log = logging.getLogger("forklight.serve")

# Control copies and compiles the runtime layer at its very first start, some seconds of an ordinary machine and minutes of a very slow
# one, which would never start if that were cut off. Everything else is ready in well under a second.
READY_LIMIT_S = 300.0
EVENTS_PATIENCE_S = 30.0
PORT_PATIENCE_S = 1.0
# sockaddr_un has room for this many bytes and a zero, unix(7).
MAX_SOCKET_PATH = 107
# What doors and control get to write out what they have after the grace period, before they are killed.
LAST_WORDS_S = 2.0


class StartError(Exception):
    """One sentence for the operator; the command line prints it and exits 1."""


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT and return the exit status. Raises StartError when it cannot start."""
    log_lines.set_up("supervisor", settings.log_level)
    _raise_file_limit()
    allowed, places = _networks(settings), _places(settings)
    _check_destinations(settings)
    _check_registries(settings)
    state_dir = Path(settings.state_dir)
    with _open_state_dir(state_dir):
        http, grpc = _claim(settings.http), _claim(settings.grpc)
        ordinary = users.rootless()
        uid, gid = (0, 0) if ordinary else service_ids()
        if uid:
            _hand_over(state_dir, uid, gid)
        launcher = Launcher()
        try:
            host = Host.prepare(
                state_dir / "sandboxes",
                state_dir,
                settled=launcher.start_if_none,  # its imports take about as long as the rest of the preparations
                egress_allow=allowed,
                egress_places=places,
                allow_host_network=settings.allow_host_network,
                io_rates=Rates(settings.io_bytes_per_s, settings.io_operations_per_s),
            )
        except SandboxError as error:
            launcher.close()
            raise StartError(f"this host cannot isolate functions: {error}") from error
        try:
            _refuse_a_weak_host(settings, host.report, ordinary)
            log.info("isolation: %s", host.report.summary_line())
            return uvloop.run(_Server(settings, host, launcher, http, grpc, uid, gid).run())
        finally:
            launcher.close()
            host.close()


def _refuse_a_weak_host(settings: Settings, report: IsolationReport, ordinary: bool) -> None:
    """Raises StartError naming what is weaker. A host without any isolation never serves."""
    required = settings.require_isolation or ("any" if ordinary else "full")
    if report.overall == "none":
        raise StartError(f"this host cannot isolate functions: {report.summary_line()}")
    if required == "full" and report.overall != "full":
        given = "" if settings.require_isolation else " (what root has unless told otherwise)"
        remedy = "" if settings.require_isolation else "; --require-isolation=any accepts it"
        raise StartError(f"--require-isolation=full{given}: this host is {report.summary_line()}{remedy}")


class _Server:
    """The running whole: one supervisor, one control process, N doors."""

    def __init__(
        self,
        settings: Settings,
        host: Host,
        launcher: Launcher,
        http: Address,
        grpc: Address,
        uid: int,
        gid: int,
    ) -> None:
        self._settings = settings
        self._host = host
        self._launcher = launcher
        self._http, self._grpc = http, grpc
        self._child_config: dict[str, object] = {
            "settings": settings.as_json(),
            "http": str(http),
            "grpc": str(grpc),
            "uid": uid,
            "gid": gid,
            "interpreters": host.catalogue.interpreters(),
        }
        self._doors: list[Child] = []
        self._names: Child | None = None
        self._children: list[Child] = []  # all that there are
        self._peers: dict[str, DoorPeer] = {}

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        supervisor = Supervisor(
            self._host,
            loop,
            concurrency=self._settings.concurrency,
            idle_timeout=self._settings.idle_timeout_s,
            other_children=self._pidfds,
            on_network=lambda network: self._open_network(network, loop),
        )
        supervisor.start()
        self._launcher.attend(loop)
        self._rest(loop, supervisor, RestingHeap(collect=False))
        control_ready = asyncio.Event()
        control = Child(
            "control",
            "control",
            self._child_config,
            loop,
            self._launcher,
            lambda sock: supervisor.add_control(sock, control_ready.set, lambda: None),
        )
        self._children.append(control)
        try:
            control.start()
            doors_ready = self._start_doors(loop, supervisor)
            for name, ready in [("control", control_ready), *doors_ready]:
                # A disk that takes no events is no reason not to run functions.
                optional = name == "events"
                if not await _first(stop, ready, EVENTS_PATIENCE_S if optional else READY_LIMIT_S):
                    if stop.is_set():
                        return 0
                    if not optional:
                        _not_ready(name)
                    log.error("asynchronous events are not accepted yet: their process is not ready")
            if not stop.is_set():
                sys.stdout.write(f"forklight ready http={self._http} grpc={self._grpc}\n")
                sys.stdout.flush()
            await stop.wait()
            log.info("stopping: at most %.0f s for what runs", self._settings.grace_period_s)
            await self._drain()
        finally:
            for child in self._children:
                child.terminate()
            await _all_gone(self._children, LAST_WORDS_S)
            await supervisor.stop()
            for child in self._children:
                child.kill()
        log.info("stopped")
        return 0

    def _rest(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor, heap: RestingHeap) -> None:
        """Looks once a second whether nothing is going on."""
        heap.look(supervisor.lends)
        loop.call_later(1.0, self._rest, loop, supervisor, heap)

    def _start_doors(
        self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor
    ) -> list[tuple[str, asyncio.Event]]:
        """Front doors, and the one without ports that keeps and runs asynchronous events; beside control, whose state they wait for:
        most of every start is imports. Returns by name what says that one serves."""
        all_ready: list[tuple[str, asyncio.Event]] = []
        roles = [("events", "events"), *((f"door-{index}", "door") for index in range(self._settings.doors))]
        for index, (name, role) in enumerate(roles, -1):
            ready = asyncio.Event()
            all_ready.append((name, ready))

            def attach(sock: socket.socket, name: str = name, ready: asyncio.Event = ready) -> None:
                self._peers[name] = supervisor.add_door(sock, lambda http, grpc: ready.set(), lambda: None)

            door = Child(name, role, {**self._child_config, "index": index}, loop, self._launcher, attach)
            self._doors.append(door)
            self._children.append(door)
            door.start()
        return all_ready

    def _open_network(self, network: str, loop: asyncio.AbstractEventLoop) -> None:
        """A function wants this network mode: the first that wants a way out opens it. Raises ValueError."""
        why_not = self._host.why_no_network(network)
        if why_not:
            raise ValueError(f"network {network}: {why_not}")
        if network != "egress" or self._names is not None:
            return
        try:
            sockets = self._host.open_egress()
        except SandboxError as error:
            raise ValueError(f"network {network}: {error}") from error

        def attach(sock: socket.socket) -> None:
            with sock, suppress(OSError):  # it has died: the next one gets them
                socket.send_fds(sock, [b"names"], [each.fileno() for each in sockets])

        config = {**self._child_config, "servers": list(self._settings.egress_dns)}
        self._names = Child("names", "names", config, loop, self._launcher, attach)
        self._children.append(self._names)
        self._names.start()

    def _pidfds(self) -> list[int]:
        """Of all that are not the supervisor's to reap."""
        return [fd for fd in (self._launcher.pidfd, *(child.pidfd for child in self._children)) if fd >= 0]

    async def _drain(self) -> None:
        for door in self._doors:
            door.expect_exit()
            peer = self._peers.get(door.name)
            if peer is not None:
                peer.drain()
        await _all_gone(self._doors, self._settings.grace_period_s)


async def _first(stop: asyncio.Event, ready: asyncio.Event, limit_s: float = READY_LIMIT_S) -> bool:
    """True when `ready` came before `stop` and before the limit."""
    waits = [asyncio.ensure_future(event.wait()) for event in (stop, ready)]
    await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    return ready.is_set() and not stop.is_set()


async def _all_gone(children: list[Child], seconds: float) -> None:
    waits = [asyncio.ensure_future(child.gone.wait()) for child in children]
    if waits:
        await asyncio.wait(waits, timeout=seconds)
    for wait in waits:
        wait.cancel()


def _not_ready(name: str) -> int:
    raise StartError(f"{name} was not ready within {READY_LIMIT_S:.0f} s")


def _raise_file_limit() -> None:
    """Each worker costs the supervisor about eight descriptors; the soft default of 1024 would stop at a hundred workers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_state_dir(state_dir: Path) -> IO[str]:
    """Make the directory and take its lock, which goes with the process however that ends."""
    socket_path = os.fsencode(state_dir / "run" / "control.sock")
    if len(socket_path) > MAX_SOCKET_PATH:
        room = MAX_SOCKET_PATH - len(socket_path) + len(os.fsencode(state_dir))
        raise StartError(
            f"state directory {state_dir}: longer than {room} bytes, which a socket in it allows"
        )
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("run", "sandboxes"):
            (state_dir / name).mkdir(mode=0o700, exist_ok=True)
        lock = open(state_dir / "lock", "a+", encoding="ascii")  # noqa: SIM115 - the caller holds it
    except OSError as error:
        raise StartError(f"state directory {state_dir}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise StartError(f"state directory {state_dir} is in use by process {holder}") from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _hand_over(state_dir: Path, uid: int, gid: int) -> None:
    """The state belongs to the unprivileged service id; only sandboxes/ stays root's."""
    for path in [state_dir, *state_dir.iterdir()]:
        if path.name not in ("sandboxes", "lock"):
            os.chown(path, uid, gid, follow_symlinks=False)
    for parent in state_dir.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise StartError(
                f"state directory {state_dir}: user {uid} cannot pass through {parent}; "
                "choose a directory whose parents everybody may enter, such as /var/lib/forklight"
            )


def _networks(settings: Settings) -> list[IPv4Network]:
    try:
        for server in settings.egress_dns:
            ip_address(server)
        return parse_allowed(settings.egress_allow)
    except ValueError as error:
        raise StartError(f"network egress: {error}") from error


def _places(settings: Settings) -> list[Place]:
    try:
        place = place_of(settings.function_endpoint) if settings.function_endpoint else None
    except ValueError as error:
        raise StartError(f"--function-endpoint {error}") from error
    return [] if place is None else [place]


def _check_destinations(settings: Settings) -> None:
    """Raises StartError for what those who call other services could not use."""
    endpoints = {"sqs": settings.sqs_endpoint, "sns": settings.sns_endpoint, "s3": settings.s3_endpoint}
    for name, url in endpoints.items():
        if url and url != AWS and not url.startswith(("http://", "https://")):
            raise StartError(f"--{name}-endpoint {url}: neither a URL nor {AWS}")
    for url in settings.http_destinations:
        if not allowed_url(url, (url,)):
            raise StartError(f"--http-destination {url}: not a plain HTTP URL")
    for option, path in (
        ("destination", settings.destination_credentials),
        ("s3", settings.s3_credentials),
    ):
        try:
            read_credentials(path)
        except (OSError, ValueError) as error:
            raise StartError(f"--{option}-credentials: {error}") from error


def _check_registries(settings: Settings) -> None:
    """Raises StartError."""
    if not settings.image_registries:
        return
    from gateway.storage.registry_client import check_registry, read_credentials

    try:
        for url in settings.image_registries:
            check_registry(url)
    except ValueError as error:
        raise StartError(f"--image-registry {error}") from error
    try:
        read_credentials(settings.image_credentials)
    except (OSError, ValueError) as error:
        raise StartError(f"--image-credentials: {error}") from error


def _claim(text: str) -> Address:
    """The doors of a supervisor that was killed die a moment after it, and hold its ports until then."""
    deadline = time.monotonic() + PORT_PATIENCE_S
    while True:
        try:
            return claim(Address.parse(text, 0))
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) != errno.EADDRINUSE or time.monotonic() > deadline:
                raise StartError(f"cannot listen on {text}: {error}") from error
        time.sleep(0.02)
