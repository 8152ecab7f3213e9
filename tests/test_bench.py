"""What the benchmark counts, what it makes of its figures, and what it writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import command, page
from bench.cases import CASES
from bench.load import lost_in
from bench.page import BEGIN, END, Soak
from bench.profiling import self_samples
from bench.results import Curve, Occasion, Point, Row, spread
from bench.rounds import Plan, Traffic, in_turn
from bench.servers import Peer
from bench.soaking import Sample, judge

needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="the load generator is built with cc"
)


def row(**fields: object) -> Row:
    """A row beside a peer, but for what a test says."""
    defaults = {"case": "a case", "figure": "µs", "peer": "peer", "ours": [1.0]}
    return Row(**(defaults | fields))  # type: ignore[arg-type]  # struct fields by name


def occasion(date: str, *rows: Row) -> Occasion:
    """One run that brought these."""
    return Occasion(
        date=date, machine="two CPUs", versions="v", command="bench/run", repeats=3, rows=list(rows)
    )


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (row(ours=[8, 6, 9], theirs=[10, 10, 10], at_most=0.8), True),
        (row(ours=[8, 9, 9], theirs=[10, 10, 10], at_most=0.8), False),
        (row(ours=[30, 10, 20], theirs=[10, 10, 10], at_least=2), True),
        (row(ours=[49, 51, 50], peer="", at_most=50), True),
        (row(ours=[1.9], peer="", at_least=2), False),
        (row(ours=[0.5], at_most=0.8), None),
        (row(ours=[1.0], peer=""), None),
        (row(ours=[1.0], theirs=[10.0], at_most=0.8, lost=1), False),
        (row(ours=[8.0], theirs=[10.0], at_most=0.8, their_lost=9), True),
    ],
    ids=[
        "ratio met",
        "ratio missed",
        "at least",
        "own figure met",
        "own figure missed",
        "no peer there",
        "no goal",
        "lost one",
        "the peer lost some",
    ],
)
def test_a_goal_is_of_the_median_ratio_or_of_our_own_median(figure: Row, met: bool | None) -> None:
    """Round by round, so a slower machine changes nothing; and no speed is worth a lost message."""
    assert figure.is_met is met


def test_ratios_are_of_the_same_round() -> None:
    """Not of the medians: the second round was slow for both."""
    assert row(ours=[1, 10, 3], theirs=[2, 20, 6]).ratios == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("goal", "costs", "met"),
    [("falling", [2, 1], True), ("falling", [1, 2], False), ("flat", [10, 11], True)],
    ids=["falls", "rises", "flat"],
)
def test_a_curve_is_judged_by_its_ends(goal: str, costs: list[float], met: bool) -> None:
    """The largest size beside the smallest."""
    points = [Point(size=10**at, costs=[cost]) for at, cost in enumerate(costs)]
    assert Curve(title="", over="", figure="", goal=goal, points=points).is_met is met


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.5], "0.5"), ([1.0, 3.0, 2.0], "2 (1 to 3)"), ([2_000_000.4], "2,000,000")],
    ids=["one", "several", "large"],
)
def test_a_spread_is_shown_beside_the_median(values: list[float], text: str) -> None:
    """A figure from one round has none."""
    assert spread(values) == text


def test_the_page_keeps_what_is_written_by_hand() -> None:
    """Only what stands between the markers is new; and again the same way."""
    by_hand = f"above\n{BEGIN}\nold\n{END}\nbelow \\1\n"
    once = page.filled(by_hand, [occasion("2026-01-02 10:00 UTC", row())], None)
    assert once.startswith("above\n")
    assert once.endswith(f"{END}\nbelow \\1\n")
    assert "old" not in once
    assert page.filled(once, [occasion("2026-01-02 10:00 UTC", row())], None) == once


def test_a_page_without_markers_is_refused() -> None:
    """Figures that nobody would see."""
    with pytest.raises(ValueError, match="figures"):
        page.filled("no place", [], None)


def test_two_occasions_stand_side_by_side() -> None:
    """The newest first, each row with its own of the time before, or none."""
    new = row(ours=[3.0], theirs=[4.0], p99_ms=[7.0], lost=0, late=0), row(figure="new one")
    old = row(ours=[2.0], theirs=[4.0], lost=2)
    written = page.filled(
        f"{BEGIN}{END}", [occasion("2026-01-02 10:00 UTC", *new), occasion("2025", old)], None
    )
    both = next(line for line in written.splitlines() if line.startswith("| a case: µs"))
    assert "3; p99 7 ms; lost 0; late 0 | peer: 4 | **0.75** | 2; **lost 2**" in both
    fresh = next(line for line in written.splitlines() if line.startswith("| a case: new one"))
    assert "peer: was not there" in fresh
    assert fresh.endswith("| - | - | - |")


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    """The last two occasions, the newest first; a soak stands apart from them."""
    for day in (3, 1, 2):
        page.keep(occasion(f"2026-01-0{day} 10:00 UTC", row()), tmp_path)
    soak = Soak(date="2026-01-09 10:00 UTC", machine="", versions="", verdict="", samples=[])
    page.keep(soak, tmp_path)
    dates = [each.date for each in page.last_occasions(tmp_path)]
    assert dates == ["2026-01-03 10:00 UTC", "2026-01-02 10:00 UTC"]
    assert page.last_soak(tmp_path) == soak


@pytest.mark.parametrize(
    ("last", "is_good"),
    [
        ({}, True),
        ({"mib": 60.0}, False),
        ({"large_p99_ms": 40.0}, False),
        ({"lost": 1.0}, False),
    ],
    ids=["steady", "memory grew", "slower", "lost one"],
)
def test_a_soak_is_judged_by_memory_latency_and_losses(last: Sample, is_good: bool) -> None:
    """Any of them, where it grew."""
    steady = {"mib": 50.0, "large_p99_ms": 20.0, "small_p99_ms": 5.0, "lost": 0.0, "late": 0.0}
    samples = [steady | {"minute": at / 6} for at in range(1, 61)]
    for sample in samples[45:]:
        sample.update(last)
    assert judge(samples, 10)[0] is is_good


def test_samples_are_counted_by_the_innermost_function() -> None:
    """Whatever line it was in, and whoever called it."""
    raw = "run (a.py:1);send (b.py:2) 3\nsend (b.py:9) 4\n<idle> 1\n"
    assert self_samples(raw) == {"send (b.py)": 7, "<idle>": 1}


def test_every_case_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """By the name that it is called by."""
    assert command.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CASES)


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """And those that there are named."""
    with pytest.raises(SystemExit):
        command.main(["fanuot"])
    assert "fanout" in capsys.readouterr().err


@needs_compiler
def test_a_case_measures_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    """Started, loaded and stopped; no message was lost."""
    assert command.main(["--quick", "--no-peers", "fanout"]) == 0
    out = capsys.readouterr().out
    assert "µs of CPU a delivery" in out
    assert "LOST" not in out


@needs_compiler
def test_lost_messages_are_counted() -> None:
    """A server that tells nobody of a change: each of three should have heard of ten."""
    plan = Plan(repeats=1, seconds=0.5, warm_s=0.1, with_peers=False)
    with Peer("bare") as silent:
        (report,) = in_turn(plan, Traffic(2, 1, 20), silent, None).ours
    assert report["missed"] == 30
    assert lost_in(report) >= 30
