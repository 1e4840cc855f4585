"""`make bench`: every benchmark, one table.

`python -m benchmarks NAME...` chooses; `--quick` shortens; `--json FILE` and `--plot FILE.png` keep what was measured. Exit
status 1 when a bar is missed or a benchmark fails.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import compare
from benchmarks.report import (
    Figure,
    Options,
    columns,
    heading,
    markdown,
    options_of,
    parser,
    show,
    write_json,
)

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
# Name -> seconds of each measured part. Together with `micro` and `compare` under fifteen minutes, once the rivals are
# installed. The limits come first: whoever reads on knows what is possible.
BENCHMARKS = {
    "limit": 1.0,
    "warm": 1.5,
    "cold": 8.0,
    "modes": 2.0,
    "runtimes": 0.5,
    "grpc_door": 1.0,
    "consistency": 60.0,
    "density": 1.0,
    "async_events": 1.5,
    "storm": 60.0,
}
OTHERS = ("micro", "compare")
COMPARE_S = 1.5


def micro() -> bool:
    """The pytest-benchmark suites; they print their own table."""
    folder = Path(__file__).parent / "micro"
    command = [
        sys.executable, "-m", "pytest", str(folder), "-q", "-m", "", "--benchmark-enable",
        "--benchmark-columns=min,median,stddev,ops", "--benchmark-sort=name", "--benchmark-max-time=0.5",
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder.parent.parent).returncode == 0


def run_one(name: str, options: Options) -> list[Figure] | None:
    """The figures of one benchmark, or None after printing why there are none."""
    started = time.monotonic()
    try:
        figures: list[Figure] = importlib.import_module(f"benchmarks.{name}").run(options)
    except Exception:  # the others are still worth running
        traceback.print_exc()
        return None
    print(f"benchmarks.{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return figures


def write_readme(figures: list[Figure], rows: list[compare.Row]) -> None:
    """Replace what stands between the two marks in README.md. Only figures with a bar are shown there."""
    header = ["figure", "measured", "limit, same run", "ratio", "promised", ""]
    text = f"{heading()}\n\n" + markdown(
        header, [columns(figure) for figure in figures if figure.ok is not None]
    )
    if rows:
        text += "\n\nThe same handler elsewhere; in brackets the ratio to the first row:\n\n"
        text += compare.show(rows, markdown)
    path = Path(__file__).resolve().parent.parent / "README.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("names", nargs="*", help=f"of {', '.join([*BENCHMARKS, *OTHERS])}")
    made.add_argument("--readme", action="store_true", help="put the tables into README.md")
    found = made.parse_args()
    unknown = set(found.names) - set(BENCHMARKS) - set(OTHERS)
    if unknown:
        made.error(f"unknown: {', '.join(sorted(unknown))}")
    return found


def keep(options: Options, results: dict[str, list[Figure]], rows: list[compare.Row]) -> None:
    """Write the JSON and the pictures that were asked for: one of the promises, one of the rivals beside it."""
    if options.json:
        content: dict[str, Any] = {
            name: [figure.as_dict() for figure in figures] for name, figures in results.items()
        }
        if rows:
            content["compare_rows"] = [asdict(row) for row in rows]
        write_json(options.json, content)
    if options.plot:
        from benchmarks import plot

        path = Path(options.plot)
        promises = {
            name: [figure for figure in figures if figure.ok is not None]
            for name, figures in results.items()
            if name != "compare"
        }
        if any(promises.values()):
            plot.save(path, promises, options.curves)
        if rows:
            plot.save_rivals(path.with_stem(f"{path.stem}-rivals"), compare.panels(rows))


def main() -> None:
    found = arguments()
    options = options_of(found)
    names = found.names or [*BENCHMARKS, *OTHERS]
    started = time.monotonic()
    results: dict[str, list[Figure]] = {}
    failed = []
    for name in (name for name in BENCHMARKS if name in names):
        seconds = BENCHMARKS[name] / (4 if options.quick else 1)
        figures = run_one(name, Options(seconds, options.rounds, options.quick, curves=options.curves))
        if figures is None:
            failed.append(name)
        else:
            results[name] = figures
            print(show(figures, name), file=sys.stderr, flush=True)
    if "micro" in names and not micro():
        failed.append("micro")
    everything = [figure for figures in results.values() for figure in figures]
    rows: list[compare.Row] = []
    if "compare" in names:
        rows = compare.run_all(Options(COMPARE_S, options.rounds, options.quick))
        results["compare"] = compare.figures(rows)
    if options.json != "-":
        print(f"{heading()}\n{show(everything, 'summary')}" if everything else heading())
        if rows:
            print("\n== the same handler elsewhere; in brackets the ratio to the first row ==")
            print(f"{compare.show(rows)}\n\n{compare.verdict(results['compare'])}")
    keep(options, results, rows)
    if found.readme:
        write_readme(everything, rows)
    summary(results, failed, time.monotonic() - started)


def summary(results: dict[str, list[Figure]], failed: list[str], seconds: float) -> None:
    """The last lines, and the exit status."""
    judged = [figure for figures in results.values() for figure in figures if figure.ok is not None]
    missed = [figure for figure in judged if not figure.ok]
    for name in failed:
        print(f"FAILED: {name}", file=sys.stderr)
    print(f"{len(missed)} of {len(judged)} bars missed, {seconds / 60:.1f} minutes", file=sys.stderr)
    raise SystemExit(bool(missed or failed))


if __name__ == "__main__":
    main()
