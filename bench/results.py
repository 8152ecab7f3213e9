"""What was measured: figures of ours and of a peer, round by round, and whether a goal is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

FLAT_UP_TO = 1.25
"""A cost is called flat if it grows no further than by this while its cause grows a thousandfold:
what two rounds of the same load differ by on a shared machine."""


class Row(msgspec.Struct, kw_only=True):
    """One line of the table: one figure."""

    case: str
    figure: str
    """What is counted, with its unit."""
    ours: list[float]
    """One value a round."""
    peer: str = ""
    """What it is compared with; "": with nothing, and the goal is of our own figure."""
    theirs: list[float] = []
    """The peer's in the same rounds; empty if it could not be had."""
    p99_ms: list[float] = []
    their_p99_ms: list[float] = []
    lost: int | None = None
    """Messages that were missed, came twice or out of order, or were refused; None: not counted."""
    their_lost: int | None = None
    late: int | None = None
    """Deliveries that came more than a second after they were due."""
    their_late: int | None = None
    goal: str = ""
    """In words."""
    at_most: float | None = None
    at_least: float | None = None
    beside: str = ""
    """What else belongs beside the figure."""
    commands: list[str] = []

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's, round by round: a shared machine's speed drifts."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def judged(self) -> float | None:
        """What the goal is of; None if there was no peer to compare with."""
        if not self.peer:
            return statistics.median(self.ours)
        return statistics.median(self.ratios) if self.theirs else None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None if there is none, or no peer. A lost message misses it."""
        if self.lost:
            return False
        if self.judged is None or (self.at_most is None and self.at_least is None):
            return None
        high_enough = self.at_least is None or self.judged >= self.at_least
        return high_enough and (self.at_most is None or self.judged <= self.at_most)


class Point(msgspec.Struct, kw_only=True):
    """The cost at one size."""

    size: int
    costs: list[float]
    """One value a round."""


class Curve(msgspec.Struct, kw_only=True):
    """A cost over something that grows."""

    title: str
    over: str
    """What grows."""
    figure: str
    goal: str
    """`falling` or `flat`."""
    points: list[Point]
    """The smallest first."""
    lost: int = 0
    commands: list[str] = []

    @property
    def growths(self) -> list[float]:
        """The cost at the largest size to that at the smallest, round by round."""
        first, last = self.points[0].costs, self.points[-1].costs
        return [high / low for low, high in zip(first, last, strict=True)]

    @property
    def is_met(self) -> bool:
        """Whether it falls, or is flat."""
        most = 1.0 if self.goal == "falling" else FLAT_UP_TO
        return not self.lost and statistics.median(self.growths) <= most


Result = Row | Curve


class Occasion(msgspec.Struct, kw_only=True):
    """One run of the benchmark."""

    date: str
    """As in `2026-01-31 18:05 UTC`."""
    machine: str
    versions: str
    command: str
    """How it was called."""
    repeats: int
    rows: list[Row] = []
    curves: list[Curve] = []
    notes: list[str] = []
    """What could not be had, and why."""
    failures: list[str] = []
    """What went wrong."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed and no message was lost."""
        lost = any(row.lost for row in self.rows) or any(curve.lost for curve in self.curves)
        return not self.failures and not lost


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Median, and lowest to highest in brackets."""
    middle = number(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values), form)} to {number(max(values), form)})"


def number(value: float, form: str = ".3g") -> str:
    """A figure for people."""
    return f"{value:,.0f}" if abs(value) >= 1000 else format(value, form)


def verdict(is_met: bool | None) -> str:
    """The same in a word."""
    return {True: "met", False: "missed", None: ""}[is_met]
