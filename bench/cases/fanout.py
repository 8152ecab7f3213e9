"""One large room: what it costs to tell every viewer of a change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from bench.results import Row
from bench.rounds import Plan, Traffic, Turns, compared, in_turn
from bench.servers import TITLES, Ours

PEER = TITLES["uws"]
FANOUT = Traffic(1000, 50, 100)
FLOOD = Traffic(2000, 100, 1000)


def fanout(plan: Plan) -> Iterator[Row]:
    """A delivery in a room of 1,050 viewers, at 100 changes a second."""
    case = "fan-out, 1,050 viewers, 100 changes/s"
    turns, commands = _measure(plan, FANOUT)
    yield compared(
        turns,
        case=case,
        figure="µs of CPU a delivery",
        name="us_per_delivery",
        peer=PEER,
        goal="≤ 0.8 ×",
        at_most=0.8,
        commands=commands,
    )
    yield compared(
        turns,
        case=case,
        figure="p99 of a delivery, ms",
        name="delivery_p99_ms",
        goal="≤ 50 ms",
        at_most=50,
        commands=commands,
    )


def flood(plan: Plan) -> Iterator[Row]:
    """Two million deliveries a second: 2,100 viewers, 1,000 changes a second."""
    case = "fan-out, 2,100 viewers, 1,000 changes/s"
    turns, commands = _measure(plan, FLOOD)
    for figure, name, goal, at_most in (
        ("µs of CPU a delivery", "us_per_delivery", "≤ 0.5 ×", 0.5),
        ("p99 of a delivery, ms", "delivery_p99_ms", "≤ 1.0 ×", 1.0),
    ):
        yield compared(
            turns,
            case=case,
            figure=figure,
            name=name,
            peer=PEER,
            goal=goal,
            at_most=at_most,
            commands=commands,
        )
    yield compared(
        turns,
        case=case,
        figure="deliveries a second",
        name="deliveries_per_s",
        goal="≥ 2,000,000",
        at_least=2e6,
        commands=commands,
    )


def _measure(plan: Plan, traffic: Traffic) -> tuple[Turns, list[str]]:
    traffic = traffic.scaled(plan)
    with ExitStack() as stack:
        ours = stack.enter_context(Ours())
        turns = in_turn(plan, traffic, ours, plan.peer(stack, "uws"))
    return turns, [traffic.text(plan.seconds)]
