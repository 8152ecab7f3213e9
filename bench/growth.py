"""What one change costs as the number of viewers, of rooms and of held seats grows."""

from __future__ import annotations

from collections.abc import Iterator

from bench.cases import Loaded, Plan, Result
from bench.load import Load
from bench.results import Curve
from bench.servers import Ours


def growth(plan: Plan) -> Iterator[Result]:
    """A fresh server for each point."""
    loads = {
        viewers: Loaded(viewers, 10, 20, options=("--join-window", "64"))
        for viewers in (100, 1000, 10_000)
    }
    yield _curve(
        plan, "viewers of a room, 20 changes a second", "viewers", "us_per_delivery", loads
    )
    loads = {rooms: Loaded(0, rooms, 1500, rooms) for rooms in (10, 100, 1000, 10_000)}
    yield _curve(
        plan, "rooms of one visitor each, 1,500 changes/s", "rooms", "us_per_operation", loads
    )
    loads = {
        holds: Loaded(20, 100, 500, options=("--hold-seats", str(holds)))
        for holds in (10, 100, 1000, 10_000)
    }
    yield _curve(
        plan, "held seats of a room, 500 changes/s", "held seats", "us_per_operation", loads
    )


def _curve(plan: Plan, title: str, over: str, name: str, loads: dict[int, Loaded]) -> Curve:
    points = []
    for size, load in loads.items():
        with Ours() as ours, Load(load.words(plan, ours)) as running:
            running.round(load.rate, 1)
            points.append((float(size), running.round(load.rate, plan.seconds)[name]))
    return Curve(
        title=title, over=over, figure=name.replace("us_per_", "µs of CPU a "), points=points
    )
