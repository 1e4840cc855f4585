"""Lambda's rules of asynchronous invocation, with a real store and a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest

from gateway.model.errors import ApiError
from gateway.model.invocation import Invocation, Result, ResultKind
from gateway.queueing.delivery import Limits
from gateway.queueing.retry_policy import EventConfig, RetryPolicy
from tests.support.event_bench import REGION, bench, failing, later, ok, throttled

QUEUE = "arn:aws:sqs:us-east-1:123456789012:dead"


def go(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_an_event_runs_once_when_it_goes_well() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", ok)
            request_id = await b.accept("f", b'{"a":1}', tenant_id="t", trace_id="Root=1")
            await b.until(lambda: b.delivery.queue.depth == 0)
            (run,) = b.dispatcher.runs
            assert (run.payload, run.request_id, run.tenant_id, run.trace_id) == (
                b'{"a":1}', request_id, "t", "Root=1",
            )  # fmt: skip
            assert run.nonce.hex() == request_id.replace("-", "")
            assert run.invoked_arn.endswith(":function:f")
            b.reopen()
            assert b.delivery.queue.depth == 0

    go(test())


def test_a_function_that_fails_runs_three_times_one_and_two_minutes_apart() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", failing)
            request_id = await b.accept("f")
            for runs, wait in ((1, 60), (2, 120)):
                await b.until(lambda runs=runs: len(b.dispatcher.runs) == runs)  # type: ignore[misc]
                b.advance(wait - 1)
                await asyncio.sleep(0.05)
                assert len(b.dispatcher.runs) == runs
                b.advance(1)
            await b.until(lambda: b.delivery.queue.depth == 0)
            assert [run.request_id for run in b.dispatcher.runs] == [request_id] * 3
            assert b.counted("async_retries", "f", cause="function_error") == 2
            assert b.counted("async_events_dropped", "f", reason="RetriesExhausted") == 1
            b.advance(1000)
            await asyncio.sleep(0.02)
            assert len(b.dispatcher.runs) == 3

    go(test())


@pytest.mark.parametrize("retries", [0, 1])
def test_maximum_retry_attempts(retries: int) -> None:
    async def test() -> None:
        async with bench(policy=RetryPolicy(waits_s=(0.0, 0.0))) as b:
            b.dispatcher.add("f", failing)
            b.delivery.configure(REGION, "f", {"$LATEST": EventConfig(retries=retries, on_failure=QUEUE)})
            await b.accept("f")
            await b.until(lambda: len(b.owed) == 1)
            assert len(b.dispatcher.runs) == retries + 1
            record = orjson.loads(await b.store.record_body(b.owed[0].number))
            assert record["requestContext"]["condition"] == "RetriesExhausted"
            assert record["requestContext"]["approximateInvokeCount"] == retries + 1

    go(test())


def test_how_often_it_has_run_survives_the_process() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", failing)
            await b.accept("f")
            await b.until(lambda: len(b.dispatcher.runs) == 1)
            b.reopen()
            await asyncio.sleep(0.05)
            assert len(b.dispatcher.runs) == 1, "not before its time"
            b.advance(61)
            await b.until(lambda: len(b.dispatcher.runs) == 2)
            b.reopen()
            b.advance(121)
            await b.until(lambda: b.delivery.queue.depth == 0)
            assert len(b.dispatcher.runs) == 3

    go(test())


def test_an_event_that_runs_when_the_process_dies_runs_again() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", later)
            request_id = await b.accept("f", b'"large"' + b" " * 100_000)
            await b.until(lambda: len(b.dispatcher.runs) == 1)
            b.dispatcher.functions["f"] = ok
            b.reopen()
            await b.until(lambda: b.delivery.queue.depth == 0)
            assert [run.request_id for run in b.dispatcher.runs] == [request_id] * 2
            assert b.dispatcher.runs[0].payload == b.dispatcher.runs[1].payload

    go(test())


def test_a_throttled_event_is_tried_ever_later_until_it_is_too_old() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", throttled)
            b.delivery.configure(REGION, "f", {"$LATEST": EventConfig(age_s=600, on_failure=QUEUE)})
            await b.accept("f")
            gaps, last = [], 0
            for second in range(700):
                b.advance(1)
                for _ in range(6):
                    await asyncio.sleep(0)
                if len(b.dispatcher.runs) > last:
                    last = len(b.dispatcher.runs)
                    gaps.append(second)
                if b.owed:
                    break
            waits = [later - sooner for sooner, later in pairwise(gaps)]
            assert waits == sorted(waits) and len(waits) >= 6, waits
            await b.until(lambda: len(b.owed) == 1)
            body = orjson.loads(await b.store.record_body(b.owed[0].number))
            assert body["requestContext"]["condition"] == "EventAgeExceeded"
            assert body["requestContext"]["approximateInvokeCount"] == 0
            assert "responseContext" not in body

    go(test())


def test_what_this_host_did_to_a_worker_is_not_the_functions_failure() -> None:
    async def test() -> None:
        async with bench() as b:
            killed = b'{"errorType":"Sandbox.Failure","errorMessage":"RequestId: x Error: killed"}'
            b.dispatcher.add("f", lambda call: Result(ResultKind.FUNCTION_ERROR, killed))
            await b.accept("f")
            await b.until(lambda: b.counted("async_retries", "f", cause="unavailable") == 1)
            b.dispatcher.functions["f"] = ok
            b.advance(2)
            await b.until(lambda: b.delivery.queue.depth == 0)
            assert b.counted("async_retries", "f", cause="function_error") == 0

    go(test())


def test_reserved_concurrency_of_zero_ends_an_event_at_once() -> None:
    async def test() -> None:
        async with bench() as b:
            view = b.dispatcher.add("f", ok)
            b.dispatcher.directory.views[REGION, "f"] = replace(view, max_concurrency=0, dead_letters=QUEUE)
            b.delivery.configure(REGION, "f", {"$LATEST": EventConfig(on_failure=QUEUE)})
            await b.accept("f", b'{"a":1}')
            await b.until(lambda: len(b.owed) == 2)
            assert not b.dispatcher.runs
            body = orjson.loads(await b.store.record_body(b.owed[0].number))
            assert body["requestContext"]["condition"] == "ZeroReservedConcurrency"
            assert body["requestContext"]["approximateInvokeCount"] == 0
            assert "responseContext" not in body
            assert await b.store.record_body(b.owed[1].number) == b'{"a":1}'

    go(test())


def test_slow_throttled_and_failing_functions_starve_nobody() -> None:
    async def test() -> None:
        async with bench(Limits(slots=4), RetryPolicy(waits_s=(0.01,), backoff_s=(0.01, 0.01))) as b:
            for name, function in (("slow", later), ("full", throttled), ("poison", failing)):
                b.dispatcher.add(name, function)
                for _ in range(50):
                    await b.accept(name)
            await b.until(lambda: sum(run.view.name == "slow" for run in b.dispatcher.runs) >= 2)
            b.dispatcher.add("good", ok)
            for _ in range(20):
                await b.accept("good")
            await b.until(lambda: b.counted("async_events_ended", "good", condition="Success") == 20)
            slow = sum(run.view.name == "slow" for run in b.dispatcher.runs)
            assert slow <= 3, "of four slots it never has all"

    go(test())


def test_a_queue_that_is_full_refuses_and_forgets_nothing() -> None:
    async def test() -> None:
        async with bench(Limits(depth=5)) as b:
            b.dispatcher.add("f", later)
            b.dispatcher.add("other", ok)
            kept = [await b.accept("f") for _ in range(5)]
            with pytest.raises(ApiError) as caught:
                await b.accept("f")
            assert (caught.value.status, caught.value.code) == (429, "TooManyRequestsException")
            await b.accept("other")
            b.dispatcher.functions["f"] = ok
            b.reopen()
            await b.until(lambda: b.delivery.queue.depth == 0)
            assert {run.request_id for run in b.dispatcher.runs if run.view.name == "f"} == set(kept)

    go(test())


def test_a_deleted_functions_events_go_with_it() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", failing)
            await b.accept("f")
            await b.until(lambda: len(b.dispatcher.runs) == 1)
            del b.dispatcher.directory.views[REGION, "f"]
            b.delivery.function_deleted(REGION, "f")
            assert b.delivery.queue.depth == 0
            assert b.counted("async_events_dropped", "f", reason="function_deleted") == 1
            b.reopen()
            assert b.delivery.queue.depth == 0

    go(test())


def test_a_version_that_is_gone_is_told_to_the_dead_letter_queue() -> None:
    async def test() -> None:
        async with bench() as b:
            view = b.dispatcher.add("f", ok)
            b.dispatcher.directory.views[REGION, "f"] = replace(view, dead_letters=QUEUE)
            event = {"version": "7", "qualifier": "7"}
            from gateway.model.event import Event

            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            b.delivery.accept(
                Event("0" * 8 + "-0000-4000-8000-" + "0" * 12, REGION, "f", payload=b"1", **event),
                done.set_result,
            )
            await done
            await b.until(lambda: b.counted("async_retries", "f", cause="unavailable") == 1)
            b.advance(21_601)
            await b.until(lambda: len(b.owed) == 1)
            assert b.owed[0].head["condition"] == "EventAgeExceeded"

    go(test())


def test_events_of_one_key_are_one_event() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", ok)
            answers = await asyncio.gather(*(b.accept("f", once_key="k") for _ in range(20)))
            await b.until(lambda: b.delivery.queue.depth == 0)
            assert len(set(answers)) == 1 and len(b.dispatcher.runs) == 1
            b.reopen()
            assert await b.accept("f", once_key="k") == answers[0]
            assert await b.accept("f", once_key="other") != answers[0]

    go(test())


def test_the_status_of_a_watched_event() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", later)
            request_id = await b.accept("f", b"1", watched=True)
            await b.until(lambda: len(b.dispatcher.runs) == 1)
            found = await b.delivery.status(request_id)
            assert found is not None and found[0]["status"] == "running"
            b.dispatcher.runs[0].on_done(failing(b.dispatcher.runs[0]))
            found = await b.delivery.status(request_id)
            assert found is not None and (found[0]["status"], found[0]["runs"]) == ("waiting", 1)
            b.dispatcher.functions["f"] = ok
            b.advance(60)
            await b.until(lambda: b.delivery.queue.depth == 0)
            b.reopen()
            found = await b.delivery.status(request_id)
            assert found is not None
            assert (found[0]["status"], found[0]["runs"], found[1]) == ("succeeded", 2, b"1")
            unwatched = await b.accept("f")
            assert await b.delivery.status(unwatched) is None

    go(test())


def test_depth_and_age_by_function() -> None:
    async def test() -> None:
        async with bench() as b:
            b.dispatcher.add("f", later)
            await b.accept("f")
            b.advance(7)
            await b.accept("f")
            gauges = {name: value for name, labels, value in b.delivery.gauges() if labels["function"] == "f"}
            assert gauges["forklight_async_events_waiting"] == 2
            assert gauges["forklight_async_oldest_event_seconds"] == 7.0

    go(test())


def test_many_events_are_read_from_the_disk_when_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with bench() as b:
            seen: set[bytes] = set()

            def remember(call: Invocation) -> Result:
                seen.add(call.payload)
                return ok(call)

            b.dispatcher.add("f", remember)
            payloads = {b'"%d"' % number + b" " * 1000 for number in range(50)}
            await asyncio.gather(*(b.accept("f", payload) for payload in payloads))
            await b.until(lambda: b.delivery.queue.depth == 0)
            assert seen == payloads

    monkeypatch.setattr("gateway.queueing.delivery.CACHE_BYTES", 5000)
    go(test())
