"""Writes `docs/performance.md`'s figures and plots from what was measured on the last occasions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec

mpl.use("svg")
from matplotlib import pyplot

from bench.results import Occasion, Row, spread
from bench.servers import ROOT

RESULTS = ROOT / "bench/results"
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
SHOWN = 2
"""So many occasions stand side by side."""

_MARKED = re.compile(r"(<!-- figures -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def keep(occasion: Occasion) -> Path:
    """Write down what was measured."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{occasion.date.replace(':', '').replace(' ', '-')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(occasion), indent=1))
    return path


def write() -> None:
    """Put the last occasions into the page, and draw the newest."""
    files = sorted(RESULTS.glob("*.json"))[-SHOWN:]
    occasions = [msgspec.json.decode(file.read_bytes(), type=Occasion) for file in files]
    PLOTS.mkdir(exist_ok=True)
    _draw_ratios(occasions[-1].rows, PLOTS / "ratios.svg")
    _draw_curves(occasions[-1], PLOTS / "growth.svg")
    page = PAGE.read_text()
    PAGE.write_text(_MARKED.sub(lambda found: f"{found[1]}{_figures(occasions)}{found[2]}", page))


def draw_soak(samples: Sequence[dict[str, float]]) -> None:
    """Memory and p99 over the minutes of a soak."""
    PLOTS.mkdir(exist_ok=True)
    minutes = [each["minute"] for each in samples]
    figure, (memory, late) = pyplot.subplots(2, 1, figsize=(9, 4.5), sharex=True)
    memory.plot(minutes, [each["mib"] for each in samples], color="#2a7f62")
    memory.set_ylim(bottom=0)
    memory.set_ylabel("memory, MiB")
    for name, colour in (("large", "#2a7f62"), ("small", "#b5532a")):
        late.plot(minutes, [each[f"{name}_p99_ms"] for each in samples], color=colour, label=name)
    late.set_ylim(bottom=0)
    late.set_ylabel("p99 of a delivery, ms")
    late.set_xlabel("minutes")
    late.legend(title="rooms")
    figure.tight_layout()
    figure.savefig(PLOTS / "soak.svg", metadata={"Date": None})
    pyplot.close(figure)


def _figures(occasions: Sequence[Occasion]) -> str:
    lines: list[str] = []
    for occasion in reversed(occasions):
        lines += [
            f"### {occasion.date}",
            "",
            f"{occasion.machine}. {occasion.versions}. "
            f"Medians of {occasion.rounds} rounds in turn, lowest to highest in brackets.",
            "",
            "| case | figure | seatws | beside | ratio | goal | |",
            "|---|---|---|---|---|---|---|",
            *map(_line, occasion.rows),
            "",
        ]
        for curve in occasion.curves:
            points = ", ".join(f"{size:,.0f}: {cost:.3g}" for size, cost in curve.points)
            lines += [f"- {curve.figure}, by {curve.over} ({curve.title}): {points}"]
        lines += [f"- Not measured: {note}" for note in occasion.notes]
        lines.append("")
    newest = occasions[-1]
    commands = dict.fromkeys(row.command for row in newest.rows if row.command)
    lines += [
        "The loads, as the generator's arguments (viewers, selectors, operations a second, "
        "seconds, rooms):",
        "",
        *(f"- `{command}`" for command in commands),
        "",
        "![Cost beside the peers](performance/ratios.svg)",
        "",
        "![Cost as things grow](performance/growth.svg)",
        "",
    ]
    soak = RESULTS / "soak.json"
    if soak.exists():
        kept = json.loads(soak.read_text())
        lines += [
            f"Soak at half load, {kept['date']} (`bench/soak`): {kept['verdict']}.",
            "",
            "![Memory and latency over a soak](performance/soak.svg)",
            "",
        ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    peer = f"{row.peer}: {spread(row.theirs)}" if row.theirs else ""
    ratio = spread(row.ratios, ".2f") if row.theirs else ""
    met = {True: "met", False: "**missed**", None: ""}[row.is_met]
    figure = f"{row.figure}" + (f"; {row.beside}" if row.beside else "")
    return f"| {row.case} | {figure} | {spread(row.ours)} | {peer} | {ratio} | {row.goal} | {met} |"


def _draw_ratios(rows: Sequence[Row], path: Path) -> None:
    compared = [(row, row.at_most) for row in rows if row.theirs and row.at_most is not None]
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(compared) + 1.2))
    for number, (row, goal) in enumerate(compared):
        axes.barh(number, row.judged, color="#2a7f62" if row.is_met else "#b5532a")
        axes.plot([min(row.ratios), max(row.ratios)], [number, number], color="black", lw=1)
        axes.plot([goal], [number], marker="|", markersize=16, color="black")
    names = [f"{row.case}\n{row.figure}" for row, _ in compared]
    axes.set_yticks(range(len(compared)), names, fontsize=7)
    axes.axvline(1, color="grey", lw=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("ratio to the peer (bar), its spread (line), the goal (tick)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw_curves(occasion: Occasion, path: Path) -> None:
    if not occasion.curves:
        return
    figure, every = pyplot.subplots(1, len(occasion.curves), figsize=(11, 3.2), squeeze=False)
    for axes, curve in zip(every[0], occasion.curves, strict=True):
        sizes, costs = zip(*curve.points, strict=True)
        axes.plot(sizes, costs, marker="o", color="#2a7f62")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(curve.over)
        axes.set_ylabel(curve.figure)
        axes.set_title(curve.title, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
