"""What signed-in clients cost more: JWT (HS256) and three rules of permission, on and off."""

from __future__ import annotations

from collections.abc import Iterator

from bench.cases import joins
from bench.results import Row
from bench.rounds import Plan, Traffic, column, compared, in_turn
from bench.servers import Ours

CASE = "JWT and permissions on"
PEER = "them off"


def signed(plan: Plan) -> Iterator[Row]:
    """A delivery, an operation and a join, each with its own token, beside the same without."""
    with Ours(signed=True) as on, Ours() as off:
        for traffic, figure, name in (
            (Traffic(1000, 50, 100), "µs of CPU a delivery", "us_per_delivery"),
            (Traffic(100, 100, 1500, 200), "µs of CPU an operation", "us_per_operation"),
        ):
            less = traffic.scaled(plan)
            yield compared(
                in_turn(plan, less, on, off),
                case=CASE,
                figure=figure,
                name=name,
                peer=PEER,
                goal="≤ 1.05 ×",
                at_most=1.05,
                commands=[less._replace(options=("--tokens FILE",)).text(plan.seconds)],
            )
        mine, theirs = joins.in_turn(plan, on, off, joins.EXPECT)
    yield Row(
        case=CASE,
        figure="µs of CPU a join",
        ours=column(mine, "us_per_join"),
        peer=PEER,
        theirs=column(theirs, "us_per_join"),
        p99_ms=column(mine, "join_p99_ms"),
        their_p99_ms=column(theirs, "join_p99_ms"),
        lost=0,
        goal="≤ 1.15 ×",
        at_most=1.15,
        commands=[joins.COMMAND.replace("--expect", "--tokens FILE --expect")],
    )
