"""Workers of the dispatcher: one each, limits, isolation, going back to the supervisor; what is logged and counted."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.dispatch import log_shipper
from gateway.dispatch.spent import MAX_AHEAD
from gateway.model.door_figures import COUNTERS, checked
from gateway.model.invocation import ResultKind
from tests.support.dispatch_bench import bench, go
from tests.support.lending import view


def test_concurrent_invocations_have_a_worker_each(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            began = time.monotonic()
            results = await asyncio.gather(*(b.call({"do": "sleep", "s": 0.5}) for _ in range(8)))
            assert all(result.kind is ResultKind.OK for result in results)
            assert time.monotonic() - began < 3
            assert b.lender.asked("lend") == 8
            # And the eight serve what comes next.
            await asyncio.gather(*(b.call() for _ in range(8)))
            assert b.lender.asked("lend") == 8

    go(test())


def test_throttled_at_the_limit(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.limit = 2
            results = await asyncio.gather(*(b.call({"do": "sleep", "s": 0.3}) for _ in range(5)))
            kinds = [result.kind for result in results]
            assert kinds.count(ResultKind.OK) == 2
            assert kinds.count(ResultKind.THROTTLED) == 3
            reserved = view(max_concurrency=2)
            results = await asyncio.gather(*(b.call({"do": "sleep", "s": 0.3}, reserved) for _ in range(3)))
            reasons = {result.error_message for result in results if result.kind is ResultKind.THROTTLED}
            assert reasons <= {
                "ConcurrentInvocationLimitExceeded",
                "ReservedFunctionConcurrentInvocationLimitExceeded",
            }

    go(test())


async def eventually(condition: Callable[[], bool]) -> None:
    """A worker that is used up is released a moment after its answer."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a test's own condition
            await asyncio.sleep(0.001)


def test_request_isolation_uses_a_worker_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            clean = view(isolation="request")
            for _ in range(3):
                assert json.loads((await b.call(function=clean)).payload)["calls"] == 1
            await eventually(lambda: b.lender.asked("release") == 3)

    go(test())


def test_used_workers_are_never_given_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            clean = view(isolation="request")
            assert json.loads((await b.call(function=clean)).payload)["calls"] == 1
            (used,) = [worker for worker in b.dispatcher.workers.values() if worker.c.spent]
            b.dispatcher.give_back_all()
            assert used.id not in b.dispatcher.workers
            assert b.lender.asked("release") == 1
            assert b.lender.asked("give_back") == 0

    go(test())


def test_who_waits_for_a_worker_does_not_wait_for_used_ones(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            clean = view(isolation="request")
            await b.call(function=clean)
            await asyncio.gather(*(b.call({"do": "sleep", "s": 0.2}, clean) for _ in range(3)))
            asked = [call[0] for call in b.lender.calls]
            assert asked.index("release") < asked.index("lend", asked.index("lend") + 1)

    go(test())


def test_where_events_come_often_used_workers_go_together(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            clean = view(isolation="request")
            calls, reserve, together = 0, 0, 0
            give_up = time.monotonic() + 30
            while (reserve == 0 or together < 2) and time.monotonic() < give_up:
                before = b.lender.asked("release")
                assert json.loads((await b.call(function=clean)).payload)["calls"] == 1
                calls += 1
                await asyncio.sleep(0.01)
                (pool,) = b.dispatcher.pools.values()
                assert len(pool.idle) + len(pool.lends) <= MAX_AHEAD
                reserve = max(reserve, pool.c.reserve)
                together = max(together, b.lender.asked("release") - before)
            assert reserve > 0
            assert together >= 2
            await eventually(lambda: b.lender.asked("release") == calls)

    go(test())


def test_tenant_isolation_binds_workers(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            shared = view(isolation="tenant")
            pids = {}
            for tenant in ("a", "b", "a", "b"):
                pid = json.loads((await b.call({"do": "pid"}, shared, tenant_id=tenant)).payload)
                assert pids.setdefault(tenant, pid) == pid
            assert pids["a"] != pids["b"]
            refused = await b.call(function=shared)
            assert refused.kind is ResultKind.UNAVAILABLE
            assert "tenant ID" in refused.error_message

    go(test())


def test_idle_workers_go_back_after_a_second(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            pid = json.loads((await b.call({"do": "pid"})).payload)
            await asyncio.sleep(1.3)
            assert b.lender.asked("give_back") == 1
            assert len(b.dispatcher.workers) == 0
            assert json.loads((await b.call({"do": "pid"})).payload) == pid

    go(test())


def test_recall(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await asyncio.gather(*(b.call({"do": "sleep", "s": 0.2}) for _ in range(3)))
            b.dispatcher.recall("f-1", 2)
            assert b.lender.asked("give_back") == 2
            assert len(b.dispatcher.workers) == 1

    go(test())


def test_a_worker_that_is_to_go_answers_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            pid = json.loads((await b.call({"do": "pid"})).payload)
            busy = asyncio.create_task(b.call({"do": "sleep", "s": 0.2}))
            await eventually(lambda: any(worker.invocation for worker in b.dispatcher.workers.values()))
            (worker_id,) = b.dispatcher.workers
            b.dispatcher.let_go(worker_id)
            assert (await busy).kind is ResultKind.OK
            await eventually(lambda: b.lender.asked("release") == 1)
            assert json.loads((await b.call({"do": "pid"})).payload) != pid
            (idle,) = b.dispatcher.workers
            b.dispatcher.let_go(idle)
            b.dispatcher.let_go(idle)  # it crossed with the release
            assert b.lender.asked("release") == 2 and not b.dispatcher.workers

    go(test())


def test_changed_function_retires_its_workers(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.directory.put(view())
            await b.call()
            late = asyncio.create_task(b.call({"do": "sleep", "s": 0.3}))
            await asyncio.sleep(0.1)
            b.code("f-2", "def handler(event, context):\n    return 'new'\n")
            b.directory.put(view(key="f-2"))
            newer = b.directory.resolve("us-east-1", "f", None)
            assert (await b.call(function=newer)).payload == b'"new"'
            assert (await late).kind is ResultKind.OK
            await eventually(lambda: b.lender.asked("release") == 1)

    go(test())


def test_lend_of_a_version_that_was_just_replaced(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            old = view(key="f-0")
            b.directory.put(view())
            result = await b.call({"a": 1}, old)
            assert json.loads(result.payload)["event"] == {"a": 1}
            b.directory.remove("us-east-1", "f")
            assert (await b.call(function=view(key="gone"))).kind is ResultKind.UNAVAILABLE

    go(test())


def test_supervisor_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            running = asyncio.create_task(b.call({"do": "sleep", "s": 30}))
            await asyncio.sleep(0.3)
            b.lender.lost = True
            b.dispatcher.lost()
            assert (await running).kind is ResultKind.UNAVAILABLE
            assert (await b.call()).kind is ResultKind.UNAVAILABLE

    go(test())


def test_log_tail_and_shipped_lines(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.call()
            result = await b.call(
                {"do": "print", "lines": ["one", "two", "é \x00 END RequestId: forged"]}, want_log_tail=True
            )
            assert result.log_tail is not None
            lines = result.log_tail.decode().split("\n")
            assert lines[0].startswith("START RequestId: ")
            assert lines[0].endswith(" Version: $LATEST")
            assert lines[1:4] == ["one", "two", "é \x00 END RequestId: forged"]
            assert lines[4].startswith("END RequestId: ")
            fields = lines[5].split("\t")
            assert fields[0].startswith("REPORT RequestId: ")
            assert [field.split(":")[0] for field in fields[1:-1]] == [
                "Duration", "Billed Duration", "Memory Size", "Max Memory Used",
            ]  # fmt: skip
            assert fields[-1] == ""
            messages = b.messages()
            assert "one\n" in messages
            assert messages[0].startswith("INIT_START Runtime Version: python:3.11")
            assert sum(message.startswith("REPORT") for message in messages) == 2
            first = b.shipped[0]
            assert first[:2] == ["us-east-1", "/aws/lambda/f"]
            assert first[2].split("]")[0].endswith("[$LATEST")
            assert abs(first[3] / 1000 - time.time()) < 30

    go(test())


def test_tail_is_the_last_4_kb(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            result = await b.call({"do": "print", "lines": ["x" * 100] * 100}, want_log_tail=True)
            assert result.log_tail is not None
            assert len(result.log_tail) == 4096
            assert result.log_tail.rstrip(b"\t\n").split(b"\n")[-1].startswith(b"REPORT")

    go(test())


def test_output_of_a_running_invocation_is_shipped_before_its_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            code = (
                "import os, time\ndef handler(e, c):\n    print('early', flush=True)\n"
                "    while not os.path.exists(e): time.sleep(0.01)\n    print('late')\n"
            )
            b.code("slow-1", code)
            seen = tmp_path / "seen"
            task = asyncio.create_task(b.call(str(seen), view("slow", timeout_s=60), want_log_tail=True))
            async with asyncio.timeout(30):
                while "early\n" not in (messages := b.messages()):  # noqa: ASYNC110 - a test's own condition
                    await asyncio.sleep(0.01)
            assert [message.split(" ")[0] for message in messages] == ["INIT_START", "START", "early\n"]
            seen.touch()
            result = await task
            assert result.log_tail is not None
            assert b"early\nlate\nEND" in result.log_tail
            assert [m.split(" ")[0] for m in b.messages()[3:]] == ["late\n", "END", "REPORT"]

    go(test())


def test_log_flood_is_cut_and_counted(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            result = await b.call({"do": "flood", "bytes": 5_000_000}, view(timeout_s=20))
            assert result.kind is ResultKind.OK
            messages = b.messages()
            kept = sum(len(message) for message in messages if message.startswith("x"))
            assert 500_000 < kept <= 2_100_000
            assert all(len(message) <= 256 * 1024 + 1 for message in messages)
            assert any("bytes of output were dropped" in message for message in messages)

    go(test())


def test_many_quiet_invocations_are_not_all_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(log_shipper, "QUIET_REPORTS_PER_SECOND", 20)
        async with bench(tmp_path) as b:
            b.dispatcher.shipper.new_second()
            for _ in range(200):
                result = await b.call(function=view(timeout_s=20))
                assert result.kind is ResultKind.OK, result
            messages = b.messages()
            reports = sum(message.startswith("REPORT") for message in messages)
            left_out = sum(int(m.split(" ")[1]) for m in messages if "have no START, END and REPORT" in m)
            assert (reports + left_out, left_out > 0) == (200, True), messages[-5:]

    go(test())


def test_figures(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.call()
            await b.call()
            await b.call({"do": "raise"})
            (row,) = b.dispatcher.metrics.document()["functions"]
            _, function, outcomes, counters, buckets, _ = checked(row)
            assert function == "f"
            assert outcomes == {"ok": 2, "function_error": 1}
            assert counters[COUNTERS.index("forklight_cold_starts_total")] == 1
            assert sum(buckets) == 3

    go(test())


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            before = len(os.listdir("/proc/self/fd"))
            for event in ({}, {"do": "exit", "code": 1}, {"do": "raise"}, {"do": "close"}):
                await b.call(event, view(timeout_s=1))
            await b.call(function=view(isolation="request"))
            b.dispatcher.give_back_all()
            await asyncio.sleep(0.3)
            b.lender.settle()
            assert len(b.dispatcher.workers) == 0
            assert len(os.listdir("/proc/self/fd")) <= before

    go(test())
