"""Draws what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import pyplot

from bench.results import Curve, Occasion, Row, spread

if TYPE_CHECKING:
    from bench.page import Soak

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "seatws"  # the same figures make the same file

OURS, OURS_BEFORE, PEER, MISSED = "#2a7f62", "#93c4b3", "#8a8f98", "#b5532a"


def draw(occasions: Sequence[Occasion], soak: Soak | None, folder: Path) -> None:
    """All plots of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    if occasions:
        _draw_ratios(occasions, folder / "ratios.svg")
        _draw_latencies(occasions[0].rows, folder / "latency.svg")
        _draw_curves(occasions[0].curves, folder / "growth.svg")
    if soak is not None:
        _draw_soak(soak.samples, folder / "soak.svg")


def _draw_ratios(occasions: Sequence[Occasion], path: Path) -> None:
    """Ours to the peer's, the last occasions side by side."""
    newest = [row for row in occasions[0].rows if row.theirs]
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(newest) + 1.4))
    for place, row in enumerate(newest):
        for number, occasion in enumerate(occasions):
            same = [each for each in occasion.rows if _key(each) == _key(row) and each.theirs]
            if same:
                _bar(axes, place + 0.36 * number, same[0], is_newest=not number)
    names = [f"{row.case}\n{row.figure}, beside {row.peer}" for row in newest]
    axes.set_yticks([place + 0.18 for place in range(len(newest))], names, fontsize=6.5)
    axes.axvline(1, color="black", lw=0.8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "ratio to the peer; line: its spread; tick: the goal; the paler bar: the time before"
    )
    _save(figure, path)


def _bar(axes: Any, place: float, row: Row, *, is_newest: bool) -> None:
    missed = row.is_met is False
    colour = (MISSED if missed else OURS) if is_newest else OURS_BEFORE
    axes.barh(place, row.judged, height=0.34, color=colour)
    axes.plot([min(row.ratios), max(row.ratios)], [place, place], color="black", lw=0.8)
    goal = row.at_most if row.at_most is not None else row.at_least
    if goal is not None and is_newest:
        axes.plot([goal], [place + 0.18], marker="|", markersize=16, color="black")


def _draw_latencies(rows: Sequence[Row], path: Path) -> None:
    """The 99th percentiles."""
    shown = {row.case: row for row in reversed(rows) if row.p99_ms}
    rows = list(reversed(shown.values()))
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(rows) + 1.4))
    for place, row in enumerate(rows):
        axes.plot(row.p99_ms, [place] * len(row.p99_ms), "o", color=OURS, alpha=0.8)
        axes.plot(row.their_p99_ms, [place + 0.2] * len(row.their_p99_ms), "s", color=PEER)
    axes.set_yticks(range(len(rows)), [row.case for row in rows], fontsize=7)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("p99, ms, a mark for each round (● seatws, ■ what it is compared with)")
    _save(figure, path)


def _draw_curves(curves: Sequence[Curve], path: Path) -> None:
    if not curves:
        return
    figure, every = pyplot.subplots(1, len(curves), figsize=(11, 3.4), squeeze=False)
    for axes, curve in zip(every[0], curves, strict=True):
        sizes = [point.size for point in curve.points]
        middle = [sorted(point.costs)[len(point.costs) // 2] for point in curve.points]
        low = [min(point.costs) for point in curve.points]
        high = [max(point.costs) for point in curve.points]
        axes.fill_between(sizes, low, high, color=OURS_BEFORE, alpha=0.5)
        axes.plot(sizes, middle, marker="o", color=OURS)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(curve.over)
        axes.set_ylabel(curve.figure)
        axes.set_title(f"{curve.title}\n× {spread(curve.growths, '.2f')}", fontsize=8)
    _save(figure, path)


def _draw_soak(samples: Sequence[dict[str, float]], path: Path) -> None:
    """Memory, CPU and p99 over the minutes of a soak."""
    minutes = [each["minute"] for each in samples]
    figure, (memory, cpu, late) = pyplot.subplots(3, 1, figsize=(9, 6), sharex=True)
    memory.plot(minutes, [each["mib"] for each in samples], color=OURS)
    memory.set_ylabel("memory, MiB")
    cpu.plot(minutes, [each["cpu_percent"] for each in samples], color=OURS)
    cpu.set_ylabel("CPU, % of a core")
    for name, colour in (("large", OURS), ("small", MISSED)):
        late.plot(minutes, [each[f"{name}_p99_ms"] for each in samples], color=colour, label=name)
    late.set_ylabel("p99 of a delivery, ms")
    late.set_xlabel("minutes")
    late.legend(title="rooms")
    for axes in (memory, cpu, late):
        axes.set_ylim(bottom=0)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _key(row: Row) -> tuple[str, str]:
    return row.case, row.figure
