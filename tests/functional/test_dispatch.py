"""The dispatcher over real guest workers: answers, failures, limits, isolation, and what goes back to the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.dispatch.directory import Directory
from gateway.dispatch.dispatcher import Dispatcher
from gateway.model.invocation import FunctionView, Result, ResultKind
from tests.support.guest_harness import GuestHarness
from tests.support.lending import Lender, invocation, run, view

CODE = """
import json, os, signal, sys, time, threading
calls = 0

def handler(event, context):
    global calls
    calls += 1
    do = event.get("do") if isinstance(event, dict) else None
    if do == "raise":
        raise ValueError("no")
    if do == "exit":
        os._exit(event["code"])
    if do == "signal":
        os.kill(os.getpid(), event["signal"])
        time.sleep(5)
    if do == "sleep":
        time.sleep(event["s"])
    if do == "print":
        for line in event["lines"]:
            print(line)
    if do == "flood":
        sys.stdout.write("x" * event["bytes"] + "\\n")
    if do == "big":
        return "x" * event["bytes"]
    if do == "size":
        return len(event["data"])
    if do == "channel":
        os.write(3, event["text"].encode())
        time.sleep(event.get("s", 0))
    if do == "close":
        os.close(3)
        time.sleep(30)
    if do == "unsolicited":
        threading.Timer(0.05, lambda: os.write(3, b"x" * 64)).start()
    if do == "context":
        return {"arn": context.invoked_function_arn, "left": context.get_remaining_time_in_millis(),
                "id": context.aws_request_id, "tenant": context.tenant_id,
                "client": context.client_context.custom if context.client_context else None}
    if do == "pid":
        return os.getpid()
    return {"calls": calls, "event": event}
"""
SLOW_INIT = "import time\ntime.sleep({seconds})\n"


@dataclass
class Bench:
    """One dispatcher with its lender; `shipped` is every log event it sent."""

    dispatcher: Dispatcher
    lender: Lender
    directory: Directory
    shipped: list[list[Any]]
    folder: Path

    async def call(
        self, event: object = None, function: FunctionView | None = None, **options: object
    ) -> Result:
        payload = event if isinstance(event, bytes) else json.dumps({} if event is None else event).encode()
        return await run(self.dispatcher, function or view(), payload, **options)

    def code(self, key: str, text: str) -> None:
        folder = self.folder / key
        folder.mkdir()
        (folder / "index.py").write_text(text)
        self.lender.folders[key] = folder

    def messages(self) -> list[str]:
        self.dispatcher.shipper.flush()
        return [row[4] for row in self.shipped]


@asynccontextmanager
async def bench(folder: Path, **options: Any) -> AsyncIterator[Bench]:
    loop = asyncio.get_running_loop()
    shipped: list[list[Any]] = []

    def ship(body: bytes) -> bool:
        shipped.extend(json.loads(line) for line in body.splitlines())
        return True

    with GuestHarness.start() as harness:
        lender = Lender(harness, loop, {})
        directory = Directory()
        dispatcher = Dispatcher(loop, directory, ship, **options)
        lender.dispatcher = dispatcher
        dispatcher.attach(lender)
        made = Bench(dispatcher, lender, directory, shipped, folder)
        made.code("f-1", CODE)
        try:
            yield made
        finally:
            dispatcher.lost()
            lender.settle()


def go(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await test

    uvloop.run(limited())


def error_of(result: Result) -> dict[str, Any]:
    assert result.kind is ResultKind.FUNCTION_ERROR
    document = json.loads(result.payload)
    assert isinstance(document, dict)
    return document


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
            assert b.lender.asked("release") == 2

    go(test())


def test_init_that_exits(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            b.lender.wait_ready = False
            b.code("bad-1", "import os\nos._exit(7)\n")
            error = error_of(await b.call(function=view("bad")))
            assert error["errorMessage"].endswith("exit status 7")

    go(test())


def test_init_limit(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path, init_limit_s=0.5) as b:
            b.lender.wait_ready = False
            b.code("slow-1", SLOW_INIT.format(seconds=30))
            began = time.monotonic()
            error = error_of(await b.call(function=view("slow")))
            assert 0.5 <= time.monotonic() - began < 0.8
            assert error["errorMessage"].endswith("Task timed out after 0.50 seconds")

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


def test_request_isolation_uses_a_worker_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            clean = view(isolation="request")
            for _ in range(3):
                assert json.loads((await b.call(function=clean)).payload)["calls"] == 1
            assert b.lender.asked("release") == 3

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
            assert b.lender.asked("release") == 1

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
            code = "import time\ndef handler(e, c):\n    print('early', flush=True)\n    time.sleep(1.5)\n    print('late')\n"
            b.code("slow-1", code)
            task = asyncio.create_task(b.call(function=view("slow"), want_log_tail=True))
            await asyncio.sleep(0.9)
            messages = b.messages()
            assert [message.split(" ")[0] for message in messages] == ["INIT_START", "START", "early\n"]
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


def test_many_quiet_invocations_are_not_all_reported(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            for _ in range(3000):
                await b.call()
            messages = b.messages()
            reports = sum(message.startswith("REPORT") for message in messages)
            left_out = sum(int(m.split(" ")[1]) for m in messages if "have no START, END and REPORT" in m)
            assert reports + left_out == 3000

    go(test())


def test_figures(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.call()
            await b.call()
            await b.call({"do": "raise"})
            document = json.loads(b.dispatcher.metrics.as_json())
            counters = {(name, labels.get("outcome")): value for name, labels, value in document["counters"]}
            assert counters["forklight_invocations_total", "ok"] == 2
            assert counters["forklight_invocations_total", "function_error"] == 1
            assert counters["forklight_cold_starts_total", None] == 1
            name, labels, bounds, counts, _ = document["histograms"][0]
            assert (name, labels["function"]) == ("forklight_invocation_seconds", "f")
            assert len(counts) == len(bounds) + 1
            assert sum(counts) == 3

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
