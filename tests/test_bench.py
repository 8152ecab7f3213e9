"""What the benchmark makes of its figures; that it measures at all is tried by .ci/run."""

from __future__ import annotations

import pytest

from bench.results import Row, spread


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row(case="", figure="", ours=[8, 6, 9], theirs=[10, 10, 10], at_most=0.8), True),
        (Row(case="", figure="", ours=[8, 9, 9], theirs=[10, 10, 10], at_most=0.8), False),
        (Row(case="", figure="", ours=[49, 51, 50], at_most=50), True),
        (Row(case="", figure="", ours=[30, 10, 20], theirs=[10, 10, 10], at_least=2), True),
        (Row(case="", figure="", ours=[1.9], at_least=2), False),
        (Row(case="", figure="", ours=[1.0]), None),
    ],
    ids=["ratio met", "ratio missed", "own figure met", "at least", "too little", "no goal"],
)
def test_a_goal_is_of_the_median_ratio_or_of_our_own_median(row: Row, met: bool | None) -> None:
    """Round by round, so that a machine that got slower half-way changes nothing."""
    assert row.is_met is met


def test_ratios_are_of_the_same_round() -> None:
    """Not of the medians: the second round was slow for both."""
    row = Row(case="", figure="", ours=[1, 10, 3], theirs=[2, 20, 6])
    assert row.ratios == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5], "0.5"), ([1.0, 3.0, 2.0], "2 (1-3)"), ([2_000_000.4], "2,000,000")],
    ids=["one", "several", "large"],
)
def test_a_spread_is_shown_beside_the_median(values: list[float], text: str) -> None:
    """A figure from one round has none."""
    assert spread(values) == text
