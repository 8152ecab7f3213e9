"""How much is measured, and the same load on two servers in turn, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.load import Load, Report, lost_in, words_of
from bench.processes import Failed, Server
from bench.results import Result, Row
from bench.servers import TITLES, Peer


@dataclass
class Plan:
    """How much is measured, and beside what."""

    repeats: int = 3
    """Rounds in turn that count."""
    seconds: float = 3.0
    """Of load in a round."""
    warm_s: float = 4.0
    """Of load before, so that caches are warm and Node has compiled what runs often."""
    scale: float = 1.0
    """Of the number of connections, rooms and operations, for a first look."""
    with_peers: bool = True
    uws: Path | None = None
    """A folder with uWebSockets.js."""
    notes: list[str] = field(default_factory=list)
    """What could not be had."""

    def some(self, number: int) -> int:
        """So many, or fewer for a first look."""
        return max(1, int(number * self.scale))

    def note(self, text: str) -> None:
        """Write down, once, what could not be had."""
        if text not in self.notes:
            self.notes.append(text)

    def peer(self, stack: ExitStack, kind: str) -> Peer | None:
        """A peer that runs until the stack ends; None, and a note, if it can't be had."""
        if not self.with_peers:
            return None
        try:
            return stack.enter_context(Peer(kind, self.uws))
        except Failed as failed:
            self.note(f"{TITLES[kind]} was not there: {failed}")
            return None


Case = Callable[[Plan], Iterator[Result]]


class Traffic(NamedTuple):
    """Viewers, selectors, operations a second, rooms, and the generator's options."""

    viewers: int
    selectors: int
    rate: float
    rooms: int = 1
    options: tuple[str, ...] = ()

    def scaled(self, plan: Plan) -> Traffic:
        """The same, or less of all for a first look."""
        return self._replace(
            viewers=plan.some(self.viewers) if self.viewers else 0,
            selectors=plan.some(self.selectors),
            rate=max(10.0, self.rate * plan.scale),
            rooms=plan.some(self.rooms),
        )

    def words(self, target: Server) -> list[str]:
        """The generator's arguments for connections that stay."""
        options = ("--step", *self.options)
        return words_of(target, self.viewers, self.selectors, 0, 0, self.rooms, options)

    def text(self, seconds: float) -> str:
        """The command, for people."""
        words = ["wsload --json --step", *self.options, "127.0.0.1 PORT"]
        words.append(f"{self.viewers} {self.selectors} 0 0 PID seed {self.rooms}")
        return f"{' '.join(words)}, and the line `{self.rate:g} {seconds:g}` for each round"


class Turns(NamedTuple):
    """The reports of rounds in turn."""

    ours: list[Report]
    theirs: list[Report]
    """As many, or none."""


def in_turn(
    plan: Plan, traffic: Traffic, ours: Server, other: Server | None, seconds: float | None = None
) -> Turns:
    """The same load on both, round by round. A peer that breaks under it is noted and left out.

    Args:
        plan: How often.
        traffic: The load, scaled already.
        ours: What is measured.
        other: What it is compared with.
        seconds: Of a round, instead of the plan's.
    """
    seconds = seconds or plan.seconds
    turns = Turns([], [])
    with ExitStack() as stack:
        mine = stack.enter_context(Load(traffic.words(ours)))
        theirs = None
        if other is not None:
            with _noting(plan, other):
                theirs = stack.enter_context(Load(traffic.words(other)))
        for number in range(plan.repeats + 1):
            took = seconds if number else plan.warm_s
            turns.ours.append(mine.round(traffic.rate, took))
            if other is not None and theirs is not None:
                with _noting(plan, other):
                    turns.theirs.append(theirs.round(traffic.rate, took))
        mine.leave()
    has_all = len(turns.theirs) == len(turns.ours)
    return Turns(turns.ours[1:], turns.theirs[1:] if has_all else [])


def compared(
    turns: Turns,
    *,
    case: str,
    figure: str,
    name: str,
    peer: str = "",
    latency: str = "delivery",
    goal: str = "",
    at_most: float | None = None,
    at_least: float | None = None,
    commands: list[str],
) -> Row:
    """A row of one figure of rounds in turn.

    Args:
        turns: The rounds.
        case: What was done.
        figure: What is counted.
        name: The figure's name in the reports.
        peer: What it is compared with; "": with nothing.
        latency: Whose p99 stands beside it: `delivery` or `answer`.
        goal: In words.
        at_most: Of the ratio, or without a peer of our own median.
        at_least: Likewise.
        commands: The generator's.
    """
    theirs = turns.theirs if peer else []
    late_name = f"{latency}_p99_ms"
    if any(name not in report or late_name not in report for report in theirs):
        theirs = []  # nothing came
    return Row(
        case=case,
        figure=figure,
        ours=column(turns.ours, name),
        peer=peer,
        theirs=column(theirs, name),
        p99_ms=column(turns.ours, late_name),
        their_p99_ms=column(theirs, late_name),
        lost=sum(map(lost_in, turns.ours)),
        their_lost=sum(map(lost_in, theirs)) if theirs else None,
        late=int(sum(column(turns.ours, "late"))),
        their_late=int(sum(column(theirs, "late"))) if theirs else None,
        goal=goal,
        at_most=at_most,
        at_least=at_least,
        beside=_generator(turns.ours + theirs),
        commands=commands,
    )


def column(reports: list[Report], name: str) -> list[float]:
    """One figure of each round.

    Raises:
        Failed: A round has none, as when nothing was delivered.
    """
    if any(name not in report for report in reports):
        raise Failed(f"a round brought no {name}")
    return [report[name] for report in reports]


def _generator(reports: list[Report]) -> str:
    """Whether the generator was the limit: what it used, and how late it sent."""
    used = max(column(reports, "generator_cpu_percent"))
    late = statistics.median(column(reports, "send_delay_p99_ms"))
    return f"generator at most {used:.0f} % of a core, sent {late:.2g} ms late (p99)"


@contextmanager
def _noting(plan: Plan, peer: Server) -> Iterator[None]:
    """Note a failure of the peer's instead of failing with it."""
    try:
        yield
    except Failed as failed:
        plan.note(f"{peer.name} broke under the load: {failed}")
