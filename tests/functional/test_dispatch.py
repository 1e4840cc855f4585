"""The dispatcher over real guest workers: answers, failures and limits of time."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.dispatch import limit_clock
from gateway.model.invocation import Result, ResultKind
from sandbox.deaths import Death
from tests.support.dispatch_bench import CODE, SLOW_INIT, bench, error_of, go
from tests.support.lending import invocation, view
from tests.support.patience import seconds

PATIENCE_S = 20.0  # with a busy machine


def test_answers_and_reuses_its_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            first, second = await b.call({"a": 1}), await b.call()
            assert json.loads(first.payload) == {"calls": 1, "event": {"a": 1}}
            assert json.loads(second.payload)["calls"] == 2
            assert (first.receipt.cold, second.receipt.cold) == (True, False)
            assert first.executed_version == "$LATEST"
            assert second.receipt.billed_ms >= 1
            assert second.receipt.peak_kib > 1000
            assert b.lender.asked("lend") == 1

    go(test())


def test_context_reaches_the_handler(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            result = await b.call({"do": "context"}, client_context=b'{"custom":{"k":"v"}}', tenant_id="t1")
            seen = json.loads(result.payload)
            assert seen["arn"] == view().arn
            assert 2000 < seen["left"] <= 3000
            assert (seen["tenant"], seen["client"]) == ("t1", {"k": "v"})

    go(test())


def test_function_error_keeps_the_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            error = error_of(await b.call({"do": "raise"}))
            assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no")
            assert json.loads((await b.call()).payload)["calls"] == 2

    go(test())


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ({"do": "exit", "code": 3}, "Runtime exited with error: exit status 3"),
        ({"do": "exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"do": "signal", "signal": 11}, "Runtime exited with error: signal: segmentation fault"),
        ({"do": "signal", "signal": 9}, "Runtime exited with error: signal: killed"),
        ({"do": "signal", "signal": 6}, "Runtime exited with error: signal: aborted"),
    ],
)
def test_death_is_told_in_lambdas_words(tmp_path: Path, event: dict[str, Any], cause: str) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            error = error_of(await b.call(event))
            assert error["errorType"] == "Runtime.ExitError"
            assert error["errorMessage"].startswith("RequestId: ")
            assert error["errorMessage"].endswith(f" Error: {cause}")
            assert (await b.call()).kind is ResultKind.OK

    go(test())


def test_out_of_memory(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.isolation_oom = True
            error = error_of(await b.call({"do": "signal", "signal": 9}))
            assert error["errorType"] == "Runtime.OutOfMemory"
            assert error["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")

    go(test())


def test_timeout_fires_within_100_ms_and_kills(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.call()
            began = time.monotonic()
            result = await b.call({"do": "sleep", "s": 30}, view(timeout_s=1), want_log_tail=True)
            took = time.monotonic() - began
            assert 1.0 <= took < 1.1
            error = error_of(result)
            assert error["errorType"] == "Sandbox.Timedout"
            assert error["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
            assert ("kill", "timeout") in b.lender.calls
            assert result.log_tail is not None
            assert b"Task timed out after 1.00 seconds" in result.log_tail
            assert b"Status: timeout" in result.log_tail
            assert (await b.call()).kind is ResultKind.OK

    go(test())


def test_callers_deadline_is_nearer_than_the_timeout(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.call()
            began = time.monotonic()
            result = await b.call({"do": "sleep", "s": 30}, deadline_s=0.03)
            assert result.kind is ResultKind.DEADLINE
            assert time.monotonic() - began < 0.1
            assert ("kill", "timeout") in b.lender.calls

    go(test())


def test_deadline_passes_while_waiting(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.delay_s = 5
            assert (await b.call(deadline_s=0.05)).kind is ResultKind.DEADLINE
            assert b.lender.asked("cancel") == 1

    go(test())


def test_cancelled_while_running_and_while_waiting(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            running = invocation(view(), b'{"do":"sleep","s":30}', done)
            b.dispatcher.invoke(running)
            await asyncio.sleep(0.3)
            b.dispatcher.cancel(running)
            assert (await done).kind is ResultKind.CANCELLED
            assert ("kill", "cancelled") in b.lender.calls
            b.lender.delay_s = 5
            done = asyncio.get_running_loop().create_future()
            waiting = invocation(view(), b"{}", done)
            b.dispatcher.invoke(waiting)
            b.dispatcher.cancel(waiting)
            assert (await done).kind is ResultKind.CANCELLED
            b.dispatcher.cancel(waiting)

    go(test())


@pytest.mark.parametrize("size", [0, 100, 60_000, 300_000, 6_000_000])
def test_large_events_and_answers(tmp_path: Path, size: int) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            for _ in range(2):
                result = await b.call({"do": "size", "data": "x" * size}, view(timeout_s=20))
                assert json.loads(result.payload) == size
                result = await b.call({"do": "big", "bytes": size}, view(timeout_s=20))
                assert result.kind is ResultKind.OK
                assert len(result.payload) == size + 2

    go(test())


def test_answer_above_the_limit(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            error = error_of(await b.call({"do": "big", "bytes": 6_300_000}, view(timeout_s=20)))
            assert error["errorType"] == "Function.ResponseSizeTooLarge"
            assert "(6291556 bytes)" in error["errorMessage"]
            assert (await b.call()).kind is ResultKind.OK

    go(test())


def test_event_that_is_no_json(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            result = await b.call(b"{nonsense")
            assert result.kind is ResultKind.BAD_EVENT
            assert result.error_message.startswith(
                "Could not parse request body into json: Could not parse payload into json: "
            )
            assert json.loads((await b.call()).payload)["calls"] == 1

    go(test())


@pytest.mark.parametrize(
    "event",
    [
        {"do": "channel", "text": "x" * 200, "s": 1},
        {"do": "channel", "text": "\x10\x00\x00\x00\x12" + "\x00" * 60, "s": 1},
        {"do": "channel", "text": "\x7f\x7f\x7f\x7f" + "\x00" * 60, "s": 1},
    ],
)
def test_bytes_that_are_no_answer_end_the_worker(tmp_path: Path, event: dict[str, Any]) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            began = time.monotonic()
            error = error_of(await b.call(event))
            assert time.monotonic() - began < 0.9
            assert error["errorType"] in ("Runtime.ExitError", "Function.ResponseSizeTooLarge")
            assert ("kill", "protocol") in b.lender.calls
            assert (await b.call()).kind is ResultKind.OK

    go(test())


def test_unsolicited_bytes_between_invocations_end_the_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            assert (await b.call({"do": "unsolicited"})).kind is ResultKind.OK
            await asyncio.sleep(0.2)
            assert ("kill", "protocol") in b.lender.calls
            assert json.loads((await b.call()).payload)["calls"] == 1

    go(test())


def test_closed_channel_of_a_living_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            began = time.monotonic()
            error = error_of(await b.call({"do": "close"}, view(timeout_s=20)))
            assert error["errorType"] == "Runtime.ExitError"
            assert time.monotonic() - began < 3
            assert ("kill", "protocol") in b.lender.calls

    go(test())


def test_a_death_that_is_told_late_is_told_truly(tmp_path: Path) -> None:
    """A busy supervisor says only after seconds how a worker ended: the answer waits for that, rather than guess."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.isolation_oom = b.lender.silent = True
            call = asyncio.ensure_future(b.call({"do": "signal", "signal": 9}, view(timeout_s=60)))
            async with asyncio.timeout(PATIENCE_S):
                while ("kill", "protocol") not in b.lender.calls:  # noqa: ASYNC110 - a test's own condition
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert b.lender.asked("kill") == 1
            assert not call.done()
            b.lender.speak()
            assert error_of(await call)["errorType"] == "Runtime.OutOfMemory"
            assert b.dispatcher.unfinished == 0

    go(test())


def test_a_death_of_which_nobody_speaks_ends_its_call_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit_clock, "DEATH_NOTICE_NS", 50_000_000)
    monkeypatch.setattr(limit_clock, "DEATH_WORD_NS", 200_000_000)

    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.silent = True
            error = error_of(await b.call({"do": "signal", "signal": 9}, view(timeout_s=60)))
            assert error["errorMessage"].endswith("(its channel was broken)")

    go(test())


def test_a_worker_that_was_ready_has_begun_its_event_whatever_is_said_of_its_fork(tmp_path: Path) -> None:
    """Its zygote may have died between the fork and the report of it. What may have run is not run again."""

    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.call()
            done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            b.dispatcher.invoke(invocation(view(), b'{"do":"sleep","s":30}', done))
            (worker_id,) = b.dispatcher.workers
            b.dispatcher.died(worker_id, Death("setup", "the zygote died").message())
            result = await done
            assert result.kind is ResultKind.FUNCTION_ERROR
            assert b.dispatcher.unfinished == 0

    go(test())


def test_worker_that_died_while_idle_costs_nobody_an_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            for _ in range(3):
                pid = json.loads((await b.call({"do": "pid"})).payload)
                os.kill(pid, 9)
                # No turn of the loop in between: the dispatcher cannot have heard of it.
                time.sleep(0.05)  # noqa: ASYNC251
                assert (await b.call()).kind is ResultKind.OK

    go(test())


def test_init_failure(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.wait_ready = False
            b.code("bad-1", "import nothing_of_that_name\n")
            bad = view("bad")
            for _ in range(2):
                error = error_of(await b.call(function=bad))
                assert error["errorType"] == "Runtime.ImportModuleError"
                assert error["requestId"] == ""
            assert b.lender.calls.count(("kill", "init_failed")) == 2

    go(test())


def test_init_that_exits(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.wait_ready = False
            b.code("bad-1", "import os\nos._exit(7)\n")
            error = error_of(await b.call(function=view("bad")))
            assert error["errorMessage"].endswith("exit status 7")

    go(test())


def test_init_beyond_its_limit_is_done_again_within_the_functions_timeout(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, init_limit_s=0.5) as b:
            b.lender.wait_ready = False
            b.code("slow-1", SLOW_INIT.format(seconds=30))
            began = time.monotonic()
            error = error_of(await b.call(function=view("slow", timeout_s=1)))
            assert 1.5 <= time.monotonic() - began < 1.5 + PATIENCE_S
            assert error["errorType"] == "Sandbox.Timedout"
            assert error["errorMessage"].endswith("Task timed out after 1.00 seconds")
            assert b.lender.asked("lend") == 2
            assert ("kill", "init_timeout") in b.lender.calls and ("kill", "timeout") in b.lender.calls
            inits = [line for line in b.messages() if line.startswith("INIT_REPORT")]
            assert re.fullmatch(
                r"INIT_REPORT Init Duration: 5\d\d\.\d\d ms\tPhase: init\tStatus: timeout\n", inits[0]
            )
            assert "\tPhase: invoke\tStatus: timeout" in inits[1] and len(inits) == 2

    go(test())


def test_the_second_init_counts_against_the_timeout_and_leaves_the_rest_to_the_handler(
    tmp_path: Path,
) -> None:
    """Its first worker is held up; the second needs 0.6 of the 10 seconds."""
    code = (
        CODE
        + "import time, os\nif os.path.exists(FLAG):\n    time.sleep(0.6)\nelse:\n    open(FLAG, 'w').close()\n    time.sleep(60)\n"
    )

    async def test() -> None:
        async with bench(tmp_path, init_limit_s=2.0) as b:
            b.lender.wait_ready = False
            b.code("odd-1", code.replace("FLAG", repr(str(tmp_path / "flag"))))
            result = await b.call({"do": "context"}, view("odd", timeout_s=10), want_log_tail=True)
            assert result.kind is ResultKind.OK
            assert 9000 < json.loads(result.payload)["left"] + 1000 * 0.6 <= 10_000
            assert result.log_tail is not None and b"Init Duration" not in result.log_tail
            assert result.receipt.billed_ms >= 600
            assert (await b.call(function=view("odd", timeout_s=10))).kind is ResultKind.OK

    go(test())


def test_time_of_the_function_begins_after_its_init(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.wait_ready = False
            b.code("slow-1", SLOW_INIT.format(seconds=1.5) + CODE)
            slow = view("slow", timeout_s=1)
            result = await b.call({"do": "context"}, slow)
            assert json.loads(result.payload)["left"] > 900
            assert result.receipt.init_us > 1_400_000
            async with asyncio.timeout(seconds(20)):  # soon, but behind the answer
                while b.lender.asked("inited") == 0:  # noqa: ASYNC110 - each turn of the loop may bring it
                    await asyncio.sleep(0.001)
            assert b.lender.asked("inited") == 1
            # Known to be slow now: the next new worker is treated the same.
            await asyncio.gather(*(b.call({"do": "sleep", "s": 0.3}, slow) for _ in range(2)))

    go(test())


def test_init_that_is_suddenly_slow_does_not_use_up_the_timeout(tmp_path: Path) -> None:
    code = CODE + "import time, os\nif os.path.exists(FLAG):\n    time.sleep(1.3)\n"

    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.wait_ready = False
            flag = tmp_path / "slow"
            b.code("odd-1", code.replace("FLAG", repr(str(flag))))
            odd = view("odd", timeout_s=1)
            quick = await b.call({"do": "exit", "code": 1}, odd)
            assert quick.kind is ResultKind.FUNCTION_ERROR
            flag.touch()
            assert (await b.call(function=odd)).kind is ResultKind.OK

    go(test())
