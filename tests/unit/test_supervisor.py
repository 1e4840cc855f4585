"""The supervisor's own clockwork, on a host that makes nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from sandbox import supervisor as module
from sandbox.supervisor import Supervisor
from sandbox.version_pool import SnapshotState, VersionPool
from tests.unit.test_lending import spec


def test_a_second_that_goes_wrong_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor /proc/meminfo cannot be read; idle workers are still to end when there are some again."""
    monkeypatch.setattr(module, "TICK_S", 0.001)

    async def run() -> tuple[int, list[Any]]:
        errors: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        host = SimpleNamespace(ooms=None, filters={}, catalogue=None)
        supervisor = Supervisor(cast(Any, host), loop, spare_shells=0)
        looks = 0
        enough = asyncio.Event()

        def no_descriptors() -> dict[str, int]:
            nonlocal looks
            looks += 1
            if looks == 3:
                enough.set()
            raise OSError(24, "no descriptors")

        monkeypatch.setattr(supervisor._memory, "_read", no_descriptors)
        supervisor.start()
        async with asyncio.timeout(20):
            await enough.wait()
        await supervisor.stop()
        return looks, errors

    looks, errors = asyncio.run(run())
    assert looks >= 3
    assert {str(error) for error in errors} == {"[Errno 24] no descriptors"}  # and it is said each time


def test_a_second_goes_through_what_is_in_use_and_not_through_what_is_known() -> None:
    """Ten thousand functions would hold up whoever calls one of them by 15 ms, once a second."""

    class Known(dict[str, VersionPool]):
        def values(self) -> NoReturn:
            raise AssertionError("every function that is known was looked at")

        __iter__ = items = values

    async def run() -> None:
        loop = asyncio.get_running_loop()
        host = SimpleNamespace(ooms=None, filters={}, catalogue=None)
        supervisor = Supervisor(cast(Any, host), loop, spare_shells=0)
        known = supervisor._pools = Known(
            {name: VersionPool(spec(name), SnapshotState.OFF) for name in "abc"}
        )
        supervisor._awake["b"] = known["b"]
        known["b"].provision_told = (0, False)
        supervisor.provision("c", 0)
        assert set(supervisor._awake) == {"b", "c"}
        supervisor._tick()
        assert set(supervisor._awake) == {"b"}  # of it something has been told; of the other there is nothing
        assert supervisor._tick_handle is not None
        supervisor._tick_handle.cancel()

    asyncio.run(run())
