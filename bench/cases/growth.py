"""What one change costs as viewers, rooms and held seats become more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from bench.load import Load, lost_in
from bench.results import Curve, Point
from bench.rounds import Plan, Traffic
from bench.servers import Ours


class Growing(NamedTuple):
    """A curve to be measured: the load at each size."""

    title: str
    over: str
    name: str
    goal: str
    loads: dict[int, Traffic]


GROWING = (
    Growing(
        "one room, 20 changes/s",
        "viewers",
        "us_per_delivery",
        "falling",
        {viewers: Traffic(viewers, 10, 20) for viewers in (100, 1000, 10_000)},
    ),
    Growing(
        "rooms of one client each, 1,500 changes/s in all",
        "rooms",
        "us_per_operation",
        "flat",
        {rooms: Traffic(0, rooms, 1500, rooms) for rooms in (10, 100, 1000, 10_000)},
    ),
    Growing(
        "one room, 120 viewers, 500 changes/s",
        "held seats",
        "us_per_operation",
        "flat",
        {
            seats: Traffic(20, 100, 500, options=("--hold-seats", str(seats)))
            for seats in (10, 100, 1000, 10_000)
        },
    ),
)


def growth(plan: Plan) -> Iterator[Curve]:
    """A server for each size; rounds in turn, so that the machine's drift meets all alike."""
    for growing in GROWING:
        most = plan.some(max(growing.loads))
        loads = {size: load for size, load in growing.loads.items() if size <= most}
        yield _measure(plan, growing, loads)


def _measure(plan: Plan, growing: Growing, loads: dict[int, Traffic]) -> Curve:
    costs: dict[int, list[float]] = {size: [] for size in loads}
    lost = 0
    with ExitStack() as stack:
        running = {
            size: stack.enter_context(Load(load.words(stack.enter_context(Ours()))))
            for size, load in loads.items()
        }
        for size, load in loads.items():
            running[size].round(load.rate, 1)
        for _ in range(plan.repeats):
            for size, load in loads.items():
                report = running[size].round(load.rate, plan.seconds)
                costs[size].append(report[growing.name])
                lost += lost_in(report)
        for each in running.values():
            each.leave()
    return Curve(
        title=growing.title,
        over=growing.over,
        figure=growing.name.replace("us_per_", "µs of CPU a ").replace("a op", "an op"),
        goal=growing.goal,
        points=[Point(size=size, costs=values) for size, values in costs.items()],
        lost=lost,
        commands=[load.text(plan.seconds) for load in loads.values()],
    )
