"""/metrics: figures of several doors as one, in a form that Prometheus' own parser reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.dispatch.metrics import DoorMetrics
from gateway.model.door_figures import BOUNDS_S
from gateway.model.invocation import ResultKind
from gateway.telemetry.metrics import Metrics

LABELS = {"function": "f", "region": "r"}


def own() -> Iterable[tuple[str, str, dict[str, str], float]]:
    yield "forklight_functions", "Functions that exist", {"region": "r"}, 3


def door(calls: int, workers: int = 1, whole: bool = True, process: str = "first") -> bytes:
    """What a door with one function says."""
    buckets = [0] * (len(BOUNDS_S) + 1)
    buckets[BOUNDS_S.index(0.1)], buckets[BOUNDS_S.index(1.0)], buckets[-1] = calls, 2, 1
    row = ["r", "f", {"ok": calls}, [0, 1, 0, 0, calls], buckets, 3.5]
    gauges = [["forklight_workers", {}, workers]]
    document = {"process": process, "whole": whole, "functions": [row], "gauges": gauges}
    return json.dumps(document).encode()


def samples(metrics: Metrics) -> dict[str, float]:
    text = metrics.exposition().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name in ("outcome", "le")}
            found[sample.name + "".join(f" {value}" for value in labels.values())] = sample.value
    return found


def test_doors_are_added_up() -> None:
    metrics = Metrics(own)
    metrics.received("0", door(5))
    metrics.received("1", door(7))
    metrics.received("1", door(8))
    found = samples(metrics)
    assert found["forklight_invocations_total ok"] == 13
    assert found["forklight_workers"] == 2
    assert found["forklight_functions"] == 3
    assert found["forklight_invocation_seconds_bucket 0.1"] == 13
    assert found["forklight_invocation_seconds_bucket 1.0"] == 17
    assert found["forklight_invocation_seconds_bucket +Inf"] == 19
    assert found["forklight_invocation_seconds_count"] == 19
    assert found["forklight_invocation_seconds_sum"] == 7.0


def test_a_door_that_is_replaced_takes_nothing_back() -> None:
    metrics = Metrics(own)
    metrics.received("0", door(5))
    metrics.left("0")
    metrics.left("0")
    assert samples(metrics)["forklight_invocations_total ok"] == 5
    assert "forklight_workers" not in samples(metrics)
    metrics.received("0", door(1, process="second"))
    assert samples(metrics)["forklight_invocations_total ok"] == 6
    assert samples(metrics)["forklight_workers"] == 1


def test_a_door_whose_connection_broke_is_counted_once() -> None:
    metrics = Metrics(own)
    metrics.received("0", door(5))
    metrics.left("0")
    metrics.received("0", door(7))
    assert samples(metrics)["forklight_invocations_total ok"] == 7
    metrics.received("0", door(8))
    metrics.left("0")  # of the connection before this one: its end is noticed late
    metrics.received("0", door(9, whole=False))
    assert samples(metrics)["forklight_invocations_total ok"] == 9
    assert samples(metrics)["forklight_workers"] == 1


def test_a_process_in_the_place_of_one_that_was_not_seen_to_go() -> None:
    metrics = Metrics(own)
    metrics.received("0", door(5))
    metrics.received("0", door(2, process="second"))
    metrics.left("0")
    assert samples(metrics)["forklight_invocations_total ok"] == 7


def test_the_text_is_made_beside_the_loop_and_once_for_all_who_ask() -> None:
    async def ask() -> tuple[bytes, bytes, bytes]:
        metrics = Metrics(own)
        metrics.received("0", door(5))
        first, second = (asyncio.ensure_future(metrics.read()) for _ in range(2))
        await asyncio.sleep(0)
        metrics.received("0", door(6))
        return await first, await second, await metrics.read()

    line = 'forklight_invocations_total{function="f",outcome="ok",region="r"} %d.0'
    first, second, third = asyncio.run(ask())
    assert first is second
    assert (line % 5 in first.decode(), line % 6 in third.decode()) == (True, True)


def test_nonsense_is_ignored() -> None:
    metrics = Metrics(own)
    metrics.received("0", door(5))
    for body in (
        b"",
        b"[]",
        b"{",
        b'{"counters":[[1]]}',
        b'{"counters":5}',
        b'{"functions":[["r","f",{"ok":1},[0,0,0,0,1],[1],1]]}',
        b'{"functions":[["r","f",{"ok":"1"},[0,0,0,0,1],' + b"[0" + b",0" * len(BOUNDS_S) + b"],1]]}",
        b'{"functions":[[["r"],"f",{},[],[],1]]}',
        b'{"forgotten":[["r"]]}',
    ):
        metrics.received("0", body)
    assert samples(metrics)["forklight_invocations_total ok"] == 5


def test_a_door_says_what_has_changed_until_it_is_told_to_say_all() -> None:
    door, control = DoorMetrics(), Metrics(own)

    def push(**options: Any) -> int:
        document = door.document(**options)
        control.received("0", json.dumps(document).encode())
        door.told()
        return len(document["functions"])

    for number in range(10):
        door.function("r", f"f{number}").ran(ResultKind.OK, 90_000_000, 1)
    assert [push(most=6), push(most=6), push(most=6)] == [6, 4, 0]
    door.function("r", "f3").ran(ResultKind.OK, 90_000_000, 1)
    door.function("r", "f4").add(2, 5, 1, [0] * (len(BOUNDS_S) + 1))
    door.function("r", "f5").refused(ResultKind.THROTTLED)
    assert push() == 3
    calls = {
        (sample.labels["function"], sample.labels["outcome"]): sample.value
        for family in text_string_to_metric_families(control.exposition().decode())
        for sample in family.samples
        if sample.name == "forklight_invocations_total"
    }
    once = {(f"f{number}", "ok"): 1 for number in range(10)}
    assert calls == {**once, ("f3", "ok"): 2, ("f4", "ok"): 3, ("f5", "throttled"): 1}
    assert push() == 0
    control.left("0")
    assert push(whole=True) == 10


def test_what_did_not_go_goes_the_next_time() -> None:
    door = DoorMetrics()
    door.function("r", "f").ran(ResultKind.OK, 1, 1)
    assert len(door.document()["functions"]) == len(door.document()["functions"]) == 1
    door.told()
    assert door.document()["functions"] == []


def test_a_deleted_function_is_forgotten_and_what_comes_after_it_counts_anew() -> None:
    door, control = DoorMetrics(), Metrics(own)
    old = door.function("r", "f")
    old.ran(ResultKind.OK, 1, 1)
    control.received("0", json.dumps(door.document()).encode())
    door.told()
    door.forget("r", "f")
    old.ran(ResultKind.OK, 1, 1)  # a call of the old one that ends only now
    control.received("0", json.dumps(door.document()).encode())
    door.told()
    assert "forklight_invocations_total ok" not in samples(control)
    door.function("r", "f").ran(ResultKind.OK, 1, 1)
    control.received("0", json.dumps(door.document()).encode())
    assert samples(control)["forklight_invocations_total ok"] == 1
