"""Draws figures: ratios to their limits, percentile curves of whole samples, rivals side by side. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, heading, number

GOOD, BAD, PLAIN = "#2a7f62", "#c0392b", "#5b6770"
# Percentiles are drawn by their number of nines: 90 % is 1, 99 % is 2.
MOST_NINES = 5


def require() -> None:
    """Raises SystemExit with what to do when matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise SystemExit("--plot needs matplotlib: .venv/bin/pip install -e '.[bench]'")


def save(
    path: Path, results: Mapping[str, Sequence[Figure]], curves: Mapping[str, Sequence[float]] | None = None
) -> None:
    """One picture: a panel of ratios for every figure that has a limit, and one of curves when there are any."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [figure for figures in results.values() for figure in figures if figure.ratio]
    panels = [len(shown) * 0.32 + 1.2] * bool(shown) + [4.0] * bool(curves)
    if not panels:
        raise SystemExit("nothing to draw: no figure has a limit")
    picture, axes = pyplot.subplots(
        len(panels), 1, figsize=(10, sum(panels)), height_ratios=panels, layout="constrained", squeeze=False
    )
    if shown:
        draw_ratios(axes[0][0], shown)
    if curves:
        draw_curves(axes[-1][0], curves)
    picture.suptitle(heading(), fontsize=7)
    picture.savefig(path, dpi=130)
    pyplot.close(picture)


def draw_ratios(axis: Any, figures: Sequence[Figure]) -> None:
    """A bar for each ratio to its limit (1 = the limit itself), a black tick where the promise is."""
    places = range(len(figures))
    colours = [{True: GOOD, False: BAD, None: PLAIN}[figure.ok] for figure in figures]
    ratios = [figure.ratio or 0.0 for figure in figures]
    axis.barh(places, ratios, color=colours, height=0.6)
    for place, figure, ratio in zip(places, figures, ratios, strict=True):
        if figure.bar:
            axis.plot([figure.bar] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
        text = f" {ratio:.2f}  ({number(figure.value)} {figure.unit}; {figure.limit_name} {number(figure.limit)})"
        axis.text(max(ratio, figure.bar or 0.0), place, text, va="center", fontsize=6)
    axis.set_yticks(list(places), [figure.name for figure in figures], fontsize=7)
    axis.set_ylim(len(figures) - 0.4, -0.6)
    axis.set_xscale("log")
    axis.axvline(1.0, color="black", linewidth=0.6, linestyle=":")
    axis.set_xlim(min(0.1, *ratios) / 1.5, max(2.0, *ratios) * 12)
    axis.set_xlabel("ratio to the limit of the same run; tick = promise", fontsize=7)


def save_rivals(path: Path, panels: Mapping[str, Mapping[str, float | None]]) -> None:
    """A panel for each measure (its name says the unit): a bar for each competitor."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(next(iter(panels.values())))
    picture, axes = pyplot.subplots(
        1, len(panels), figsize=(12, 0.3 * len(names) + 1), sharey=True, layout="constrained", squeeze=False
    )
    for axis, (measure, values) in zip(axes[0], panels.items(), strict=True):
        known = [value for value in values.values() if value]
        least = min(known) / 2
        for place, (name, value) in enumerate(values.items()):
            colour = GOOD if name.startswith("Forklight") else PLAIN
            axis.barh(place, value or least, color=colour if value else "none", height=0.6)
            text = f" {number(value)}" if value else " not measured"
            axis.annotate(text, (value or least, place), va="center", fontsize=6)
        axis.set_title(measure, fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(least, max(known) * 8)
        axis.tick_params(labelsize=6)
    axes[0][0].set_yticks(range(len(names)), names, fontsize=7)
    axes[0][0].invert_yaxis()
    picture.suptitle(heading(), fontsize=7)
    picture.savefig(path, dpi=130)
    pyplot.close(picture)


def nines(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """(number of nines, value) along the sample, evenly spread over the nines that its size supports."""
    ordered = sorted(values)
    points: tuple[list[float], list[float]] = ([], [])
    for step in range(MOST_NINES * 20 + 1):
        beyond = 10 ** -(step / 20)
        if beyond * len(ordered) < 1:
            break
        points[0].append(step / 20)
        points[1].append(ordered[min(len(ordered) - 1, int((1 - beyond) * len(ordered)))])
    return points


def draw_curves(axis: Any, curves: Mapping[str, Sequence[float]]) -> None:
    for name, values in curves.items():
        axis.plot(*nines(values), label=f"{name} (n = {len(values):,})")
    ticks = ["min", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]
    axis.set_xticks(range(len(ticks)), ticks)
    axis.set_yscale("log")
    axis.set_ylabel("microseconds")
    axis.grid(visible=True, which="major", linewidth=0.3)
    axis.legend(fontsize=7)
