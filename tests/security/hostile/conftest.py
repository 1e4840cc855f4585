"""One arena for all attacks, which run beside each other: each test only waits for its own."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import fresh_state_dir
from tests.security.hostile.arena import CANARY_SECRET, Arena
from tests.security.hostile.case import Case
from tests.security.hostile.target import Target, target_of_environment
from tests.support.leaks import Census, census
from tests.support.processes import role_of
from tests.support.server import Server

BESIDE_EACH_OTHER = 12

SLOWEST = 8

Client = Callable[[Arena], None]
ARENA = pytest.StashKey[Arena]()


@dataclass(slots=True)
class Running:
    """The arena, and what is known of its server where that is ours: what it held before, and its own processes."""

    arena: Arena
    futures: dict[str, Future[None]]
    canary: ExitStack  # removes it
    server: Server | None = None
    before: Census | None = None
    roles: tuple[int, ...] = ()

    def finish(self) -> None:
        """Wait for every attack, whatever came of it; then nothing of ours is at the server any more."""
        wait(self.futures.values())
        self.canary.close()
        self.arena.disconnect()


def roles_of(server: Server) -> tuple[int, ...]:
    return (server.pid, *role_of(server.pid, "control"), *role_of(server.pid, "door"))


def target_of(server: Server) -> Target:
    return Target(
        server.url, server.access_key, server.secret_key, server.region, server.token, server.grpc,
        str(server.state_dir),
    )  # fmt: skip


def warm_up(arena: Arena, ours: bool) -> None:
    """As many harmless functions at once as there will be attacks: zygotes, connections and spare sandboxes are there before counting,
    and those with the host's network, of which some are kept for a minute."""
    harmless = Case("harmless", "def handler(event, context):\n    return event\n", ())
    snapshot = Case("harmless", harmless.source, (), snapshot="on")
    on_the_host = Case("harmless", harmless.source, (), network="host")

    def run(case: Case) -> None:
        with arena.function(case) as name:
            arena.invoke(name)

    with ThreadPoolExecutor(BESIDE_EACH_OTHER) as pool:
        list(
            pool.map(
                run,
                [harmless, snapshot] * BESIDE_EACH_OTHER + [on_the_host] * (BESIDE_EACH_OTHER if ours else 0),
            )
        )


@contextmanager
def host_services(folder: Path) -> Iterator[dict[str, Any]]:
    """What a function must not reach on the machine of the tests: a TCP port, a socket file, an abstract socket, and a file."""
    with ExitStack() as cleanup:
        tcp = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        everywhere = cleanup.enter_context(socket.create_server(("0.0.0.0", 0)))
        path = folder / "service.sock"
        unix = cleanup.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(path))
        unix.listen()
        abstract = cleanup.enter_context(socket.socket(socket.AF_UNIX))
        name = f"forklight-hostile-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        treasure = folder / "treasure"
        treasure.write_text("not for functions")
        treasure.chmod(0o666)
        path.chmod(0o777)
        yield {
            "host_port": tcp.getsockname()[1],
            "wildcard_port": everywhere.getsockname()[1],
            "unix": str(path),
            "abstract": name,
            "treasure": str(treasure),
        }


@pytest.fixture(scope="session")
def attacks(request: pytest.FixtureRequest) -> Iterator[Running]:
    """All selected cases, under way."""
    endpoint = request.config.getoption("--endpoint")
    with ExitStack() as cleanup:
        server: Server | None = None
        if endpoint:
            target = target_of_environment(endpoint)
        else:
            server = cleanup.enter_context(
                Server.start(cleanup.enter_context(fresh_state_dir()), "--allow-host-network")
            )
            target = target_of(server)
        arena = Arena(target)
        arena.read_features()
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="forklight-treasure-")))
        folder.chmod(0o755)
        services = cleanup.enter_context(host_services(folder))
        warm_up(arena, ours=server is not None)
        arena.disconnect()
        running = Running(arena, {}, cleanup.enter_context(ExitStack()), server)
        if server is not None:
            running.before = census(server.pid)
            running.roles = roles_of(server)
        event = {
            **services,
            "server": list(target.address),
            "grpc_port": int(target.grpc.rpartition(":")[2] or 0),
            "state_dir": target.state_dir or "/var/lib/forklight",
            # Backwards, or the event itself would be where it is found.
            "secrets": [text[::-1] for text in (target.secret_key, target.token, CANARY_SECRET) if text],
        }
        request.config.stash[ARENA] = arena
        arena.canary = running.canary.enter_context(arena.start_canary())
        arena.check_canary()
        pool = ThreadPoolExecutor(BESIDE_EACH_OTHER)
        try:
            for one in selected(request.session.items):
                if isinstance(one, Case) and not arena.lacking(one):
                    running.futures[one.name] = pool.submit(timed, arena, one.name, arena.attack, one, event)
                elif not isinstance(one, Case):
                    running.futures[one.__name__] = pool.submit(timed, arena, one.__name__, visit, arena, one)
            yield running
        finally:
            pool.shutdown(cancel_futures=True)


def visit(arena: Arena, client: Client) -> None:
    client(arena)
    arena.check_canary()


def timed(arena: Arena, name: str, attack: Callable[..., None], *arguments: Any) -> None:
    start = time.monotonic()
    try:
        attack(*arguments)
    finally:
        arena.took_s[name] = time.monotonic() - start


def selected(items: list[pytest.Item]) -> Iterator[Case | Client]:
    """Of the tests of this folder, in their order."""
    here = Path(__file__).parent
    for item in items:
        ours = item.path.parent == here and isinstance(item, pytest.Function) and hasattr(item, "callspec")
        parameters = item.callspec.params if ours else {}
        for name in ("case", "client"):
            if name in parameters:
                yield parameters[name]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How the canary fared, and which attacks took longest."""
    arena = config.stash.get(ARENA, None)
    if arena is None or not arena.canary_seconds:
        return
    seconds = sorted(arena.canary_seconds)
    median, late = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
    terminalreporter.write_line(
        f"hostile: {len(arena.took_s)} attacks, {BESIDE_EACH_OTHER} at a time; the canary's {len(seconds)} calls: "
        f"median {median * 1000:.1f} ms, 99 % below {late * 1000:.0f} ms, worst {seconds[-1] * 1000:.0f} ms"
    )
    slowest = sorted(arena.took_s.items(), key=lambda item: -item[1])[:SLOWEST]
    terminalreporter.write_line(
        "hostile: slowest " + ", ".join(f"{name} {took:.1f} s" for name, took in slowest)
    )
