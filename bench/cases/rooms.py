"""Small rooms: what an operation costs, and how soon a click is answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from bench.results import Row
from bench.rounds import Plan, Traffic, compared, in_turn
from bench.servers import TITLES, Ours

PEER = TITLES["ws"]
RATES = (10_000, 1_500)
CLICK = Traffic(1, 1, 50, 1, ("--gather", "0"))
CLICK_ROUNDS = 3.0
"""A round of clicks is so many times as long as others: there are only 50 operations a second."""


def small_rooms(plan: Plan) -> Iterator[Row]:
    """Operations in 200 rooms of one, at full load and at a seventh of it."""
    with ExitStack() as stack:
        ours = stack.enter_context(Ours())
        peer = plan.peer(stack, "ws")
        for rate in RATES:
            traffic = Traffic(100, 100, rate, 200).scaled(plan)
            turns = in_turn(plan, traffic, ours, peer)
            yield compared(
                turns,
                case=f"200 small rooms, {rate:,} changes/s",
                figure="µs of CPU an operation",
                name="us_per_operation",
                peer=PEER,
                goal="≤ 0.8 ×",
                at_most=0.8,
                commands=[traffic.text(plan.seconds)],
            )


def click(plan: Plan) -> Iterator[Row]:
    """A click in an idle room, from the request to the answer."""
    seconds = plan.seconds * CLICK_ROUNDS
    with ExitStack() as stack:
        ours = stack.enter_context(Ours())
        turns = in_turn(plan, CLICK, ours, plan.peer(stack, "ws"), seconds)
    yield compared(
        turns,
        case="a click in an idle room",
        figure="p50 of select → answer, ms",
        name="answer_p50_ms",
        peer=PEER,
        latency="answer",
        goal="≤ 0.9 ×",
        at_most=0.9,
        commands=[CLICK.text(seconds)],
    )
