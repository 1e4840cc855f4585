"""What the benchmarks print: verdicts, percentiles, and where and when a figure was taken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import compare, cpu
from benchmarks.compare import Row
from benchmarks.consistency import first_calls
from benchmarks.mix import LEVELS
from benchmarks.openloop import Answer
from benchmarks.plot import nines
from benchmarks.report import Figure, columns, percentile, write_json
from benchmarks.rivals.install import name_of


@pytest.mark.parametrize(
    ("value", "limit", "bar", "at_least", "ok"),
    [
        (13.0, 10.0, 1.3, False, True),
        (14.0, 10.0, 1.3, False, False),
        (12.0, 10.0, 1.2, True, True),
        (11.0, 10.0, 1.2, True, False),
        (11.0, 10.0, None, False, None),
        (11.0, None, 1.0, False, None),
        (0.0, 10.0, 0.0, False, True),
    ],
)
def test_a_bar_is_a_ratio_to_the_limit(
    value: float, limit: float | None, bar: float | None, at_least: bool, ok: bool | None
) -> None:
    figure = Figure("f", value, "us", "limit", limit, bar, at_least)
    assert figure.ok is ok
    assert columns(figure)[-1] == {True: "ok", False: "MISSED", None: ""}[ok]


def test_percentiles_are_by_nearest_rank() -> None:
    values = [float(value) for value in range(1000, 0, -1)]
    assert percentile(values, 50) == 501
    assert percentile(values, 99.9) == 1000
    assert percentile(values, 100) == 1000
    assert percentile([], 99) == 0


def test_curves_end_where_the_sample_does() -> None:
    places, values = nines([float(value) for value in range(1, 1001)])
    assert (places[0], values[0]) == (0, 1)
    assert places[-1] == 3  # 1,000 values support 99.9 %
    assert values[-1] == 1000
    assert values == sorted(values)


def test_json_says_where_and_when(tmp_path: Path) -> None:
    write_json(str(tmp_path / "out.json"), {"figures": [Figure("f", 2.0, "us", "limit", 1.0, 3.0).as_dict()]})
    content = json.loads((tmp_path / "out.json").read_text())
    assert {"machine", "date", "command"} < set(content)
    assert content["figures"][0]["ratio"] == 2.0
    assert content["figures"][0]["ok"] is True


def test_a_rival_that_could_not_be_measured_stays_in_the_table() -> None:
    ours = Row("Forklight", 1000.0, 40.0, 80.0, 20_000.0, 1.5, "")
    rows = [
        ours,
        ours,
        Row("slow", 5000.0, 80.0, 90.0, 1000.0, 20.0, "a process"),
        Row("absent", None, None, None, None, None, "not measured: no such package"),
        Row("half", 500.0, 20.0, 30.0, None, 3.0, "does not survive 16 connections"),
    ]
    text = compare.show(rows)
    assert "not measured: no such package" in text
    assert "5 (5.00)" in text
    figures = compare.figures(rows)
    assert len(figures) == 4 + 0 + 3
    behind = {(figure.limit_name, figure.name) for figure in figures if not figure.ok}
    assert behind == {("half", "warm p50"), ("half", "cold p50")}
    assert compare.verdict(figures).startswith("ahead in 5 of 7")


def test_folder_names_change_with_versions() -> None:
    assert name_of(["a==1.0", "@scope/b@2"]) == "a-1.0+scope-b-2"
    assert name_of(["a==1.0"]) != name_of(["a==1.1"])


def test_the_first_call_of_each_function_is_its_cold_start() -> None:
    answers = [Answer(target, due, 1.0, 0.0) for due, target in enumerate([LEVELS, LEVELS + 3, 0, 1, LEVELS])]
    assert [(answer.due_s, answer.target) for answer in first_calls(answers)] == [(0, LEVELS), (2, 0)]


def test_cpu_time_of_a_process_grows_and_one_that_has_gone_costs_nothing() -> None:
    before = cpu.snapshot([os.getpid(), 2**22 + 1])
    deadline = cpu.cpu_us(os.getpid()) + 5000
    while cpu.cpu_us(os.getpid()) < deadline:
        pass
    assert cpu.spent(before) >= 5000
    assert before[2**22 + 1] == 0.0
