"""What fast calls leave behind: log lines and figures, each once."""

from __future__ import annotations

import asyncio
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.model.door_figures import COUNTERS, checked
from gateway.model.invocation import ResultKind
from tests.support.dispatch_bench import go
from tests.support.fast_door import fast_door, invoking


def test_log_lines_come_once_in_order_with_the_right_ids(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            client = await d.warm(invoking())
            d.bench.dispatcher.accounting.catch_up()
            d.bench.messages()
            d.bench.shipped.clear()
            ids, printed = [], {}
            for number in range(40):
                if number % 7 == 3:
                    request = invoking("print", lines=[f"line {number}"])
                elif number % 7 == 5:  # not plain, and quiet
                    request = invoking().replace(b"Host: h", b"Host: h\r\nx-forklight-receipt: 1")
                else:
                    request = invoking()
                await client.send(request)
                answer = await client.answer()
                ids.append(answer.headers["x-amzn-requestid"])
                if number % 7 == 3:
                    printed[ids[-1]] = f"line {number}\n"
            d.bench.dispatcher.accounting.catch_up()
            wanted = []
            for request_id in ids:
                wanted += ["START " + request_id, *filter(None, [printed.get(request_id)])]
                wanted += ["END " + request_id, "REPORT " + request_id]
            seen = [
                re.sub(r"^(\w+) RequestId: (\S+)\s.*", r"\1 \2", line, flags=re.S)
                for line in d.bench.messages()
            ]
            assert seen == wanted
            stamps = [row[3] for row in d.bench.shipped]
            assert all(later >= earlier - 1 for earlier, later in pairwise(stamps))  # of rounding

    go(test())


def test_calls_without_log_lines_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.dispatch.log_shipper.QUIET_REPORTS_PER_SECOND", 10)

    async def test() -> None:
        async with fast_door(tmp_path) as d:
            count = 0
            client = await d.warm(invoking())
            limit = time.monotonic() + 1.5
            while time.monotonic() < limit:
                for _ in range(20):
                    await client.send(invoking())
                    await client.answer()
                    count += 1
            before = d.bench.messages()
            await asyncio.sleep(0.3)  # the clock counts what was left out
            d.bench.dispatcher.accounting.catch_up()
            messages = d.bench.messages()
            assert len(messages) > len(before)
            reports = sum(line.startswith("REPORT") for line in messages)
            left_out = sum(
                int(match[1]) for line in messages if (match := re.search(r"\] (\d+) invocations", line))
            )
            with_warm = (
                count + sum(stats.cold for stats in d.bench.dispatcher.metrics._functions.values()) + 1
            )
            assert reports + left_out == with_warm
            assert left_out > reports

    go(test())


def test_every_call_is_counted_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            client = await d.connect()
            events = [
                invoking(),
                invoking("print", lines=["x"]),
                invoking("raise"),
                invoking(),
                invoking("big", bytes=70_000),
                invoking(),
                invoking(),
            ]
            for request in events * 3:
                await client.send(request)
                assert (await client.answer()).status == 200
            await client.send(invoking("exit", code=3))
            assert (await client.answer()).headers["x-amz-function-error"] == "Unhandled"
            d.bench.dispatcher.collect_figures()
            (stats,) = [s for s in d.bench.dispatcher.metrics._functions.values() if s.function == "f"]
            assert stats.ok == 18
            assert stats.outcomes == {ResultKind.FUNCTION_ERROR: 4}
            assert sum(stats.buckets) == 22
            assert stats.billed_ms >= 22 and stats.duration_ns > 0
            assert 5 <= stats.fast <= 11
            ((region, name, usage),) = d.bench.dispatcher.metrics.take_usage()
            assert (region, name, usage.invocations) == ("us-east-1", "f", 22)
            memory_mb = next(pool.view.memory_mb for pool in d.bench.dispatcher.pools.values())
            assert (usage.billed_ms, usage.mb_ms) == (stats.billed_ms, stats.billed_ms * memory_mb)
            assert 0 < usage.cpu_ns <= 16 * stats.duration_ns and 0 < usage.peak_kib <= memory_mb * 1024
            assert d.bench.dispatcher.metrics.take_usage() == []
            (row,) = d.bench.dispatcher.metrics.document()["functions"]
            region, function, _, counters, _, _ = checked(row)
            assert (region, function) == ("us-east-1", "f")
            assert counters[COUNTERS.index("forklight_fast_invocations_total")] == stats.fast
            assert all(pool.busy == 0 for pool in d.bench.dispatcher.pools.values())

    go(test())


def test_a_call_whose_answer_there_is_no_memory_for_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> int:
        raise MemoryError

    async def test() -> None:
        async with fast_door(tmp_path) as d:
            client = await d.warm(invoking())
            monkeypatch.setattr("gateway.dispatch.lent_worker._fast_readable", no_memory)
            await client.send(invoking())
            answer = await asyncio.wait_for(client.answer(), 20)
            monkeypatch.undo()
            assert answer.status == 503
            await client.send(invoking())
            assert (await client.answer()).status == 200

    go(test())
