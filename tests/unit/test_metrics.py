"""/metrics: figures of several doors as one, in a form that Prometheus' own parser reads."""

from __future__ import annotations

import json
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import Metrics

LABELS = {"function": "f", "region": "r"}


def own() -> Iterable[tuple[str, str, dict[str, str], float]]:
    yield "forklight_functions", "Functions that exist", {"region": "r"}, 3


def door(calls: int, workers: int = 1) -> bytes:
    return json.dumps(
        {
            "counters": [["forklight_invocations_total", {**LABELS, "outcome": "ok"}, calls]],
            "gauges": [["forklight_workers", {}, workers]],
            "histograms": [["forklight_invocation_seconds", LABELS, [0.1, 1.0], [calls, 2, 1], 3.5]],
        }
    ).encode()


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
    metrics.received("0", door(1))
    assert samples(metrics)["forklight_invocations_total ok"] == 6


def test_nonsense_is_ignored() -> None:
    metrics = Metrics(own)
    metrics.received("0", door(5))
    for body in (
        b"",
        b"[]",
        b"{",
        b'{"counters":[[1]]}',
        b'{"counters":5}',
        b'{"histograms":[["h",{},[1],[1],1]]}',
    ):
        metrics.received("0", body)
    assert samples(metrics)["forklight_invocations_total ok"] == 5
