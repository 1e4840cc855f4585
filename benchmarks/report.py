"""One way to show a figure: beside the limit it was measured against in the same run, with the ratio and the bar.

A benchmark module has `run(options) -> list[Figure]` and ends with `main(run, __doc__)`. Times are in microseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `bar` is the ratio to the limit that we promise: at most, or at least if `at_least`."""

    name: str
    value: float
    unit: str = "us"
    limit_name: str = ""
    limit: float | None = None
    bar: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.value / self.limit if self.limit else None

    @property
    def ok(self) -> bool | None:
        """Whether the promise holds; None when the figure is for information only."""
        if self.bar is None or self.ratio is None:
            return None
        return self.ratio >= self.bar if self.at_least else self.ratio <= self.bar

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "ok": self.ok}


@dataclass(slots=True)
class Options:
    """What every benchmark can be told. `seconds` scales how long each part measures.

    A benchmark may leave whole samples in `curves` (name -> values in microseconds) for the plot.
    """

    seconds: float = 1.5
    rounds: int = 5
    quick: bool = False
    json: str | None = None
    plot: str | None = None
    curves: dict[str, list[float]] = field(default_factory=dict)


def context() -> dict[str, str]:
    """Where and when the figures of this run were taken, and how to take them again."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith(("model name", "Model"))
    ]
    arguments = [argument for argument in sys.orig_argv[1:] if argument]
    return {
        "machine": f"{os.cpu_count()} x {models[0] if models else platform.machine()}, "
        f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "command": shlex.join(["python", *arguments]),
    }


def heading() -> str:
    """The context as one line."""
    return " | ".join(context().values())


def number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text columns; the first is left-aligned, the others right-aligned, a last `note` column left-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if i in (0, len(widths) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show(figures: Sequence[Figure], title: str = "") -> str:
    """The table of a benchmark."""
    text = table(["figure", "measured", "limit, same run", "ratio", "bar", ""], [columns(f) for f in figures])
    return f"\n== {title} ==\n{text}" if title else text


def columns(figure: Figure) -> list[str]:
    """One row: name, value, limit, ratio, bar, verdict and note."""
    verdict = {True: "ok", False: "MISSED", None: ""}[figure.ok]
    return [
        figure.name,
        f"{number(figure.value)} {figure.unit}",
        f"{figure.limit_name} {number(figure.limit)}".strip(),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.bar is None else f"{'>=' if figure.at_least else '<='} {figure.bar:g}",
        f"{verdict}  {figure.note}".strip(),
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percentile(values: Sequence[float], p: float) -> float:
    """Nearest rank; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(p / 100 * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def parser(description: str | None, seconds: float = 1.5, rounds: int = 5) -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=(description or "").strip().split("\n")[0])
    arguments.add_argument("--seconds", type=float, default=seconds, help="length of each measured part")
    arguments.add_argument("--rounds", type=int, default=rounds, help="rounds; peers take turns in each")
    arguments.add_argument("--quick", action="store_true", help="leave out what takes long")
    arguments.add_argument("--json", metavar="FILE", help="write the figures as JSON too; - is the output")
    arguments.add_argument("--plot", metavar="FILE.png", help="draw them; needs matplotlib (extra `bench`)")
    return arguments


def options_of(arguments: argparse.Namespace) -> Options:
    """What `parser` understood. Fails before anything is measured when no plot could be drawn."""
    if arguments.plot:
        from benchmarks import plot

        plot.require()
    return Options(arguments.seconds, arguments.rounds, arguments.quick, arguments.json, arguments.plot)


def write_json(path: str, content: dict[str, Any]) -> None:
    """`content` with the context of this run; "-" is the standard output."""
    text = json.dumps({**context(), **content}, indent=1) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        Path(path).write_text(text)


def main(run: Callable[[Options], list[Figure]], description: str | None, seconds: float = 1.5) -> None:
    """Command line of one benchmark. Exit status 1 when a bar is missed."""
    options = options_of(parser(description, seconds).parse_args())
    figures = run(options)
    title = (description or "").strip().split("\n")[0]
    if options.json != "-":
        print(heading())
        print(show(figures, title))
    if options.json:
        write_json(options.json, {"figures": [figure.as_dict() for figure in figures]})
    if options.plot:
        from benchmarks import plot

        plot.save(Path(options.plot), {title: figures}, options.curves)
    raise SystemExit(any(figure.ok is False for figure in figures))
