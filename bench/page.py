"""Writes the figures into `docs/performance.md`, from what was kept of the last occasions."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from bench.results import FLAT_UP_TO, Curve, Occasion, Row, number, spread, verdict
from bench.servers import ROOT, Ours

RESULTS = ROOT / "bench/results"
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
SHOWN = 2
"""So many occasions stand side by side."""

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


class Soak(msgspec.Struct, kw_only=True):
    """What a soak found."""

    date: str
    machine: str
    versions: str
    verdict: str
    samples: list[dict[str, float]]


def today() -> str:
    """Now, as an occasion's date."""
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"


def keep(result: Occasion | Soak, results: Path = RESULTS) -> Path:
    """Write down what was measured, in a file of its own."""
    results.mkdir(exist_ok=True)
    kind = "soak-" if isinstance(result, Soak) else ""
    name = result.date.removesuffix(" UTC").replace(":", "").replace(" ", "-")
    path = results / f"{kind}{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path


def last_occasions(results: Path = RESULTS) -> list[Occasion]:
    """Those that are shown, the newest first."""
    files = sorted(results.glob("[0-9]*.json"))[-SHOWN:]
    return [msgspec.json.decode(file.read_bytes(), type=Occasion) for file in reversed(files)]


def last_soak(results: Path = RESULTS) -> Soak | None:
    """The newest soak, if there was one."""
    files = sorted(results.glob("soak-*.json"))
    return msgspec.json.decode(files[-1].read_bytes(), type=Soak) if files else None


def write() -> None:
    """Put the last occasions into the page, and draw them if matplotlib is there."""
    occasions, soak = last_occasions(), last_soak()
    try:
        from bench import plots
    except ImportError:
        print("no plots: matplotlib is not installed (bench/requirements.txt)")
    else:
        plots.draw(occasions, soak, PLOTS)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, occasions, soak), encoding="utf-8")


def filled(page: str, occasions: Sequence[Occasion], soak: Soak | None) -> str:
    """The page with new figures between its markers, and all else as it is.

    Raises:
        ValueError: It has no markers.
    """
    marked = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    figures = "\n".join([BEGIN, *_figures(occasions, soak), END])
    page, found = marked.subn(lambda _: figures, page)
    if found != 1:
        raise ValueError(f"there must be one {BEGIN} … {END} in the page")
    return page


def _figures(occasions: Sequence[Occasion], soak: Soak | None) -> Iterator[str]:
    if occasions:
        yield from _occasions(occasions)
    if soak is not None:
        yield from ("", "### Half load, for long", "")
        yield f"{soak.date}, `bench/soak`; {soak.machine}; {soak.versions}. {soak.verdict}"
        yield from ("", "![Memory, CPU and latency over a soak](performance/soak.svg)")


def _occasions(occasions: Sequence[Occasion]) -> Iterator[str]:
    newest = occasions[0]
    yield "µs and figures are medians of rounds in turn, lowest to highest in brackets."
    yield ""
    yield from _table(
        ["case, figure", "goal"],
        ["seatws", "beside", "ratio"],
        occasions,
        [(row.case + ": " + row.figure, row.goal) for row in newest.rows],
        lambda each, at: _row_cells(_same_row(each, newest.rows[at])),
        len(newest.rows),
    )
    yield ""
    if newest.curves:
        yield f"As things grow (*flat*: at most {FLAT_UP_TO:g} × from the smallest to the largest):"
        yield ""
        yield from _table(
            ["figure, as these grow", "goal"],
            ["at each size", "largest : smallest"],
            occasions,
            [
                (f"{curve.figure}, {curve.over} ({curve.title})", curve.goal)
                for curve in newest.curves
            ],
            lambda each, at: _curve_cells(_same_curve(each, newest.curves[at])),
            len(newest.curves),
        )
        yield ""
    yield from ("![Cost beside the peers](performance/ratios.svg)", "")
    yield from ("![p99 beside the peers](performance/latency.svg)", "")
    yield from ("![Cost as things grow](performance/growth.svg)", "")
    for occasion in occasions:
        yield f"**{occasion.date}**, `{occasion.command}`, {occasion.repeats} rounds in turn."
        yield f"{occasion.machine}. {occasion.versions}."
        yield from (f"- {note}" for note in occasion.notes)
        yield from (f"- **Failed**: {failure}" for failure in occasion.failures)
        yield ""
    yield from ("<details><summary>Every command, and how busy the generator was</summary>", "")
    yield f"The server: `{Ours.shown_command()}`"
    yield ""
    for row in newest.rows:
        beside = f"; {row.beside}" if row.beside else ""
        yield f"- {row.case}: {row.figure}{beside}"
        yield from (f"  - `{command}`" for command in row.commands)
    for curve in newest.curves:
        yield f"- {curve.title}: {curve.figure}"
        yield from (f"  - `{command}`" for command in curve.commands)
    yield from ("", "</details>")


def _table(
    first: list[str],
    repeated: list[str],
    occasions: Sequence[Occasion],
    heads: list[tuple[str, str]],
    cells: Callable[[Occasion, int], list[str]],
    length: int,
) -> Iterator[str]:
    """Lines of the newest occasion, with a group of columns for each occasion."""
    dated = [
        f"{name}, {occasion.date.removesuffix(' UTC')}" if not number else name
        for occasion in occasions
        for number, name in enumerate(repeated)
    ]
    yield _line([*first, *dated])
    yield "|" + "---|" * (len(first) + len(dated))
    for at in range(length):
        every = [cell for occasion in occasions for cell in cells(occasion, at)]
        yield _line([*heads[at], *every])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _same_row(occasion: Occasion, like: Row) -> Row | None:
    same = (row for row in occasion.rows if (row.case, row.figure) == (like.case, like.figure))
    return next(same, None)


def _same_curve(occasion: Occasion, like: Curve) -> Curve | None:
    same = (each for each in occasion.curves if (each.title, each.over) == (like.title, like.over))
    return next(same, None)


def _row_cells(row: Row | None) -> list[str]:
    if row is None:
        return ["-", "-", "-"]
    ours = _side(spread(row.ours), row.p99_ms, row.lost, row.late)
    if not row.peer:
        return [ours, "", verdict(row.is_met)]
    if not row.theirs:
        return [ours, f"{row.peer}: was not there", ""]
    theirs = _side(spread(row.theirs), row.their_p99_ms, row.their_lost, row.their_late)
    ratio = f"**{spread(row.ratios, '.2f')}** {verdict(row.is_met)}".strip()
    return [ours, f"{row.peer}: {theirs}", ratio]


def _side(figure: str, p99_ms: list[float], lost: int | None, late: int | None) -> str:
    """One server's figure, with p99, lost and late messages beside it."""
    parts = [figure]
    if p99_ms:
        parts.append(f"p99 {spread(p99_ms)} ms")
    if lost is not None:
        parts.append(f"**lost {lost}**" if lost else "lost 0")
    if late is not None:
        parts.append(f"late {late:,}")
    return "; ".join(parts)


def _curve_cells(curve: Curve | None) -> list[str]:
    if curve is None:
        return ["-", "-"]
    points = "; ".join(f"{number(point.size)}: {spread(point.costs)}" for point in curve.points)
    lost = f"; **lost {curve.lost}**" if curve.lost else ""
    return [points + lost, f"{spread(curve.growths, '.2f')} {verdict(curve.is_met)}"]
