"""The command line of `bench/run`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import page
from bench.cases import CASES
from bench.machine import machine, versions
from bench.processes import Failed, allow_many_files
from bench.results import Curve, Occasion, Result, spread, verdict
from bench.rounds import Plan

DESCRIPTION = """\
Measures the server beside other ones on this machine, and writes docs/performance.md.

    .venv/bin/pip install -r requirements.txt -r bench/requirements.txt
    .venv/bin/python bench/run

It takes some fifteen minutes and is best left alone meanwhile. It needs Linux and a C compiler;
peers that can't be had here (Node, uWebSockets, redis-benchmark) are left out, and the page says
so. Each full run is kept in bench/results/, and the page shows the last two."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Ends with 1 if a message was lost or a case failed.",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="only these, and print without keeping"
    )
    parser.add_argument("--list", action="store_true", help="name the cases, and end")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds in turn (3)")
    parser.add_argument(
        "--quick", action="store_true", help="a first look at a twentieth of each load, printed"
    )
    parser.add_argument("--no-report", action="store_true", help="print, and keep nothing")
    parser.add_argument("--no-peers", action="store_true", help="only this server")
    parser.add_argument(
        "--uws",
        type=Path,
        metavar="DIR",
        default=os.environ.get("SEATWS_BENCH_UWS") or None,
        help="an installed uWebSockets.js ($SEATWS_BENCH_UWS), instead of the one npm brings",
    )
    parser.add_argument(
        "--page", action="store_true", help="measure nothing: write the page from what was kept"
    )
    given = parser.parse_args(words)
    if unknown := sorted(set(given.cases) - set(CASES)):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if given.repeats < 1:
        parser.error("--repeats: 1 or more")
    return given


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, keep. Returns the exit code."""
    given = arguments(words)
    if given.list:
        for name, case in CASES.items():
            print(f"{name:12} {(case.__doc__ or '').splitlines()[0]}")
        return 0
    if given.page:
        page.write()
        return 0
    allow_many_files()
    plan = Plan(with_peers=not given.no_peers, uws=given.uws, repeats=given.repeats)
    if given.quick:
        plan.repeats, plan.seconds, plan.warm_s, plan.scale = 1, 1.0, 0.5, 0.05
        print("A first look at a twentieth of each load: that it runs, not how fast it is.")
    occasion = Occasion(
        date=page.today(),
        machine=machine(),
        versions=versions(with_peers=plan.with_peers),
        command=shlex.join(["bench/run", *(sys.argv[1:] if words is None else words)]),
        repeats=plan.repeats,
    )
    for name in given.cases or CASES:
        measure(name, plan, occasion)
    occasion.notes = plan.notes
    for note in plan.notes:
        print(note)
    if not (given.no_report or given.quick or given.cases):
        print(f"kept in {page.keep(occasion)}")
        page.write()
    return 0 if occasion.is_sound else 1


def measure(name: str, plan: Plan, occasion: Occasion) -> None:
    """Do one case, print what it brings and add it to the occasion; a failure likewise."""
    try:
        for result in CASES[name](plan):
            print(line_of(result), flush=True)
            if isinstance(result, Curve):
                occasion.curves.append(result)
            else:
                occasion.rows.append(result)
    except Failed as failed:
        occasion.failures.append(f"{name}: {failed}")
        print(f"{name} failed: {failed}", file=sys.stderr, flush=True)


def line_of(result: Result) -> str:
    """A result for the terminal."""
    lost = f"; LOST {result.lost}" if result.lost else ""
    word = verdict(result.is_met)
    if isinstance(result, Curve):
        costs = ", ".join(f"{point.size:,}: {spread(point.costs)}" for point in result.points)
        grows = f"× {spread(result.growths, '.2f')}, {result.goal}: {word}"
        return f"{result.figure} as {result.over} grow ({result.title}): {costs}; {grows}{lost}"
    parts = [f"{result.case}, {result.figure}: {spread(result.ours)}"]
    if result.theirs:
        parts.append(f"{result.peer} {spread(result.theirs)}")
        parts.append(f"ratio {spread(result.ratios, '.2f')}")
    if result.p99_ms:
        theirs = f" (beside {spread(result.their_p99_ms)})" if result.their_p99_ms else ""
        parts.append(f"p99 {spread(result.p99_ms)} ms{theirs}")
    parts += [f"late {result.late}"] if result.late else []
    parts += [f"their lost {result.their_lost}"] if result.their_lost else []
    parts += [part for part in (f"{result.goal} {word}".strip(), result.beside) if part]
    return "; ".join(parts) + lost
