"""`make bench`: every benchmark, one table.

`python -m benchmarks NAME...` chooses; `--quick` shortens; `--json` for machines. Exit status 1 when a bar is missed or
a benchmark fails.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import traceback
from pathlib import Path

from benchmarks import compare
from benchmarks.report import Figure, Options, columns, markdown, parser, show

BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
# Name -> seconds of each measured part. Together under twelve minutes.
BENCHMARKS = {"warm": 1.5, "cold": 8.0, "grpc_door": 1.5, "density": 1.0, "storm": 60.0}


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
    text = markdown(header, [columns(figure) for figure in figures if figure.ok is not None])
    if rows:
        text += "\n\nThe same handler elsewhere; in brackets the ratio to the first row:\n\n"
        text += compare.show(rows, markdown)
    path = Path(__file__).resolve().parent.parent / "README.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    arguments_parser = parser(__doc__)
    arguments_parser.add_argument(
        "names", nargs="*", help=f"of {', '.join([*BENCHMARKS, 'micro', 'compare'])}"
    )
    arguments_parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    arguments = arguments_parser.parse_args()
    names = arguments.names or [*BENCHMARKS, "micro", "compare"]
    unknown = set(names) - set(BENCHMARKS) - {"micro", "compare"}
    if unknown:
        arguments_parser.error(f"unknown: {', '.join(sorted(unknown))}")
    results: dict[str, list[Figure]] = {}
    failed = []
    for name in names:
        if name in BENCHMARKS:
            seconds = BENCHMARKS[name] / (4 if arguments.quick else 1)
            figures = run_one(name, Options(seconds, arguments.rounds, arguments.quick, arguments.json))
            if figures is None:
                failed.append(name)
            else:
                results[name] = figures
    if "micro" in names and not micro():
        failed.append("micro")
    rows = []
    if "compare" in names:
        rows = compare.run_all(Options(2.0, arguments.rounds, arguments.quick))
    everything = [figure for figures in results.values() for figure in figures]
    if arguments.json:
        json.dump(
            {name: [f.as_dict() for f in figures] for name, figures in results.items()}, sys.stdout, indent=1
        )
        print()
    else:
        print(show(everything, "summary"))
        if rows:
            print("\n== the same handler elsewhere; in brackets the ratio to the first row ==")
            print(compare.show(rows))
    if arguments.readme:
        write_readme(everything, rows)
    missed = [figure.name for figure in everything if figure.ok is False]
    for name in failed:
        print(f"FAILED: {name}")
    print(f"{len(missed)} of {sum(f.ok is not None for f in everything)} bars missed" if everything else "")
    raise SystemExit(bool(missed or failed))


if __name__ == "__main__":
    main()
