"""What was measured: figures of ours and of a peer, round by round, and whether a goal is met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec


class Row(msgspec.Struct, kw_only=True):
    """One line of the table: one figure."""

    case: str
    figure: str
    """What is counted, with its unit."""
    ours: list[float]
    """One value a round."""
    peer: str = ""
    theirs: list[float] = []
    """The peer's in the same rounds."""
    goal: str = ""
    """In words; of the ratio to the peer if there is one, else of our own median."""
    at_most: float | None = None
    at_least: float | None = None
    beside: str = ""
    """What belongs beside the figure: latencies, lost messages."""
    command: str = ""

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's, round by round: a shared machine's speed drifts."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def judged(self) -> float:
        """What the goal is of."""
        return statistics.median(self.ratios if self.theirs else self.ours)

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.at_most is None and self.at_least is None:
            return None
        low = self.at_least is None or self.judged >= self.at_least
        return low and (self.at_most is None or self.judged <= self.at_most)


class Curve(msgspec.Struct, kw_only=True):
    """A cost over something that grows."""

    title: str
    over: str
    figure: str
    points: list[tuple[float, float]]


class Occasion(msgspec.Struct, kw_only=True):
    """One run of the benchmark."""

    date: str
    machine: str
    versions: str
    rounds: int
    rows: list[Row] = []
    curves: list[Curve] = []
    notes: list[str] = []
    """What could not be measured, and why."""


def spread(values: Sequence[float], unit: str = ".3g") -> str:
    """Median, and lowest to highest in brackets."""
    middle = _number(statistics.median(values), unit)
    if len(values) == 1:
        return middle
    return f"{middle} ({_number(min(values), unit)}-{_number(max(values), unit)})"


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else format(value, unit)
