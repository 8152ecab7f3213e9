"""Joins: what one costs, and what the connection then keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from bench.load import Report, run, words_of
from bench.processes import Server
from bench.results import Row
from bench.rounds import Plan, column
from bench.servers import TITLES, Ours

JOINS = 3000
HOLDS = 200
HOLD = ("--hold-seats", str(HOLDS))
EXPECT = ("--expect-seats", str(HOLDS))
COMMAND = f"wsload --json --expect-seats {HOLDS} 127.0.0.1 PORT {JOINS} 0 0 0 PID"


def joining(plan: Plan, target: Server, options: Sequence[str] = ()) -> Report:
    """Some thousand connections that join and leave: the report on the joins."""
    return run(words_of(target, plan.some(JOINS), options=options))["join"]


def in_turn(
    plan: Plan, ours: Server, other: Server | None, options: Sequence[str]
) -> tuple[list[Report], list[Report]]:
    """Joins to a room of 200 holds, a crowd to the one and a crowd to the other.

    Args:
        plan: How often.
        ours: What is measured.
        other: What it is compared with.
        options: `EXPECT`, where the other one has holds, too.
    """
    mine, theirs = [], []
    for number in range(plan.repeats + 1):
        mine.append(joining(plan, ours, EXPECT if number else HOLD))
        if other is not None:
            theirs.append(joining(plan, other, options if number or not options else HOLD))
    return mine[1:], theirs[1:]


def join(plan: Plan) -> Iterator[Row]:
    """A join with a map of 200 holds beside a bare handshake and an empty answer."""
    with ExitStack() as stack:
        ours = stack.enter_context(Ours())
        mine, theirs = in_turn(plan, ours, plan.peer(stack, "bare"), ())
    yield Row(
        case=f"join: connect, handshake, a map of {HOLDS} holds",
        figure="µs of CPU a join",
        ours=column(mine, "us_per_join"),
        peer=TITLES["bare"],
        theirs=column(theirs, "us_per_join"),
        p99_ms=column(mine, "join_p99_ms"),
        their_p99_ms=column(theirs, "join_p99_ms"),
        lost=0,  # a join without its whole map fails the run
        goal="≤ 1.0 ×",
        at_most=1.0,
        beside="64 joins under way at a time",
        commands=[COMMAND],
    )


def memory(plan: Plan) -> Iterator[Row]:
    """What a connection keeps, of the first ones of a fresh process."""
    mine, theirs = [], []
    for _ in range(plan.repeats):
        with ExitStack() as stack:
            mine.append(joining(plan, stack.enter_context(Ours())))
            if (peer := plan.peer(stack, "bare")) is not None:
                theirs.append(joining(plan, peer))
    yield Row(
        case=f"memory, the first {JOINS:,} connections",
        figure="KiB a connection",
        ours=column(mine, "kib_per_connection"),
        peer=TITLES["bare"],
        theirs=column(theirs, "kib_per_connection"),
        goal="≤ 0.5 ×",
        at_most=0.5,
        commands=[f"wsload --json 127.0.0.1 PORT {JOINS} 0 0 0 PID"],
    )
