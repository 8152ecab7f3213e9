"""The cases: what is loaded, beside whom, and what the goal is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from bench.load import Load, Report, command, run
from bench.processes import cpu_seconds
from bench.results import Curve, Row
from bench.servers import Ours, Peer

Result = Row | Curve


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int = 3
    seconds: float = 3.0
    """Of load in a round."""
    scale: float = 1.0
    """Of the number of connections, for a first look."""

    def some(self, connections: int) -> int:
        """So many, or fewer for a first look."""
        return max(1, int(connections * self.scale))


Case = Callable[[Plan], Iterator[Result]]


class Loaded(NamedTuple):
    """Viewers, selectors, operations a second, rooms, and the generator's options."""

    viewers: int
    selectors: int
    rate: float
    rooms: int = 1
    options: tuple[str, ...] = ()

    def words(self, plan: Plan, target: Ours | Peer) -> list[str]:
        """The command line for connections that stay."""
        viewers, selectors = plan.some(self.viewers), plan.some(self.selectors)
        return command(target, viewers, selectors, 0, 0, self.rooms, ("--step", *self.options))

    def text(self) -> str:
        """For the table."""
        options = " ".join(self.options)
        return f"wsload {options} {self.viewers} {self.selectors} {self.rate:g} … {self.rooms}"


def in_turn(
    plan: Plan, load: Loaded, ours: Ours, other: Ours | Peer
) -> tuple[list[Report], list[Report]]:
    """The same load on both, a round for the one and a round for the other."""
    with ExitStack() as stack:
        both = [stack.enter_context(Load(load.words(plan, each))) for each in (ours, other)]
        for each in both:  # so that compilers and caches are warm; Node's needs some seconds
            each.round(load.rate, plan.seconds)
        pairs = [[each.round(load.rate, plan.seconds) for each in both] for _ in range(plan.rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def column(reports: list[Report], name: str) -> list[float]:
    """One figure of each round."""
    return [report[name] for report in reports]


def latency(reports: list[Report], what: str = "delivery") -> str:
    """Median and 99th percentile in ms, medians of the rounds."""
    p50, p99 = (statistics.median(column(reports, f"{what}_{p}_ms")) for p in ("p50", "p99"))
    return f"p50 {p50:.3g} ms, p99 {p99:.3g} ms"


def fanout(plan: Plan) -> Iterator[Result]:
    """A delivery in a large room at 100 changes a second."""
    load = Loaded(1000, 50, 100)
    with Ours() as ours, Peer("uws") as peer:
        mine, theirs = in_turn(plan, load, ours, peer)
    yield Row(
        case="fan-out, 1,050 viewers, 100 changes/s",
        figure="µs of CPU a delivery",
        ours=column(mine, "us_per_delivery"),
        peer=peer.name,
        theirs=column(theirs, "us_per_delivery"),
        goal="≤ 0.8 ×",
        at_most=0.8,
        beside=f"{latency(mine)}; theirs {latency(theirs)}; lost 0",
        command=load.text(),
    )
    yield Row(
        case="the same",
        figure="p99 of a delivery, ms",
        ours=column(mine, "delivery_p99_ms"),
        goal="≤ 50 ms",
        at_most=50,
    )


def flood(plan: Plan) -> Iterator[Result]:
    """Two million deliveries a second."""
    load = Loaded(2000, 100, 1000)
    with Ours() as ours, Peer("uws") as peer:
        mine, theirs = in_turn(plan, load, ours, peer)
    for figure, name, goal, at_most in (
        ("µs of CPU a delivery", "us_per_delivery", "≤ 0.5 ×", 0.5),
        ("p99 of a delivery, ms", "delivery_p99_ms", "≤ 1.0 ×", 1.0),
    ):
        yield Row(
            case="fan-out, 2,100 viewers, 1,000 changes/s",
            figure=figure,
            ours=column(mine, name),
            peer=peer.name,
            theirs=column(theirs, name),
            goal=goal,
            at_most=at_most,
            beside=f"{latency(mine)}; theirs {latency(theirs)}; lost 0",
            command=load.text(),
        )
    yield Row(
        case="the same",
        figure="deliveries a second",
        ours=column(mine, "deliveries_per_s"),
        goal="≥ 2,000,000",
        at_least=2e6,
    )


def small_rooms(plan: Plan) -> Iterator[Result]:
    """Operations in 200 rooms of one, at full load and at a seventh of it."""
    with Ours() as ours, Peer("ws") as peer:
        for rate in (10_000, 1_500):
            load = Loaded(100, 100, rate * plan.scale, 200)
            mine, theirs = in_turn(plan, load, ours, peer)
            yield Row(
                case=f"200 small rooms, {rate:,} changes/s",
                figure="µs of CPU an operation",
                ours=column(mine, "us_per_operation"),
                peer=peer.name,
                theirs=column(theirs, "us_per_operation"),
                goal="≤ 0.8 ×",
                at_most=0.8,
                beside=f"{latency(mine)}; theirs {latency(theirs)}; lost 0",
                command=load.text(),
            )


def click(plan: Plan) -> Iterator[Result]:
    """A click in an idle room, from the request to the answer."""
    load = Loaded(1, 1, 50, 1, ("--gather", "0"))
    with Ours() as ours, Peer("ws") as peer:
        mine, theirs = in_turn(plan, load, ours, peer)
    yield Row(
        case="a click in an idle room",
        figure="p50 of select → answer, ms",
        ours=column(mine, "answer_p50_ms"),
        peer=peer.name,
        theirs=column(theirs, "answer_p50_ms"),
        goal="≤ 0.9 ×",
        at_most=0.9,
        beside=f"{latency(mine, 'answer')}; theirs {latency(theirs, 'answer')}",
        command=load.text(),
    )


JOINS = 3000


def join(plan: Plan) -> Iterator[Result]:
    """A join with a map of 200 holds beside a bare handshake and an empty answer."""
    mine, theirs = [], []
    with Ours() as ours, Peer("bare") as peer:
        for number in range(plan.rounds + 1):
            with_map = ("--hold-seats", "200") if not number else ("--expect-seats", "200")
            mine.append(run(command(ours, plan.some(JOINS), options=with_map))["join"])
            theirs.append(run(command(peer, plan.some(JOINS)))["join"])
    yield Row(
        case="join, with a map of 200 holds",
        figure="µs of CPU a join",
        ours=column(mine[1:], "us_per_join"),
        peer=peer.name,
        theirs=column(theirs[1:], "us_per_join"),
        goal="≤ 1.0 ×",
        at_most=1.0,
        beside=latency(mine[1:], "join"),
        command=f"wsload --hold-seats 200 {JOINS} 0 0 0",
    )


def memory(plan: Plan) -> Iterator[Result]:
    """What a connection keeps, of the first ones of a fresh process."""
    mine, theirs = [], []
    for _ in range(plan.rounds):
        with Ours() as ours, Peer("bare") as peer:
            mine.append(run(command(ours, plan.some(JOINS)))["join"])
            theirs.append(run(command(peer, plan.some(JOINS)))["join"])
    yield Row(
        case=f"memory, {JOINS:,} connections",
        figure="KiB a connection",
        ours=column(mine, "kib_per_connection"),
        peer=peer.name,
        theirs=column(theirs, "kib_per_connection"),
        goal="≤ 0.5 ×",
        at_most=0.5,
        command=f"wsload {JOINS} 0 0 0",
    )


def signed(plan: Plan) -> Iterator[Result]:
    """What JWT (HS256) and three rules add."""
    with Ours(signed=True) as on, Ours() as off:
        for load, figure, name in (
            (Loaded(1000, 50, 100), "µs of CPU a delivery", "us_per_delivery"),
            (Loaded(100, 100, 1500, 200), "µs of CPU an operation", "us_per_operation"),
        ):
            mine, theirs = in_turn(plan, load, on, off)
            yield Row(
                case="JWT and permissions on",
                figure=figure,
                ours=column(mine, name),
                peer="them off",
                theirs=column(theirs, name),
                goal="≤ 1.05 ×",
                at_most=1.05,
                beside=f"{latency(mine)}; lost 0",
                command=load.text(),
            )
        mine, theirs = [], []
        for number in range(plan.rounds + 1):
            with_map = ("--hold-seats", "200") if not number else ("--expect-seats", "200")
            mine.append(run(command(on, plan.some(JOINS), options=with_map))["join"])
            theirs.append(run(command(off, plan.some(JOINS), options=with_map))["join"])
    yield Row(
        case="JWT and permissions on",
        figure="µs of CPU a join",
        ours=column(mine[1:], "us_per_join"),
        peer="them off",
        theirs=column(theirs[1:], "us_per_join"),
        goal="≤ 1.15 ×",
        at_most=1.15,
        command=f"wsload --tokens FILE --hold-seats 200 {JOINS} 0 0 0",
    )


def idle(plan: Plan) -> Iterator[Result]:
    """Nineteen thousand connections that only live, and what they do to a busy room."""
    crowd, seconds = plan.some(19_000), max(plan.seconds, 35.0 * plan.scale)
    busy = Loaded(100, 50, 200, 1, ("--client-prefix", "busy_", "--room-prefix", "busy"))
    alone, beside = [], []
    with Ours() as ours:
        with Load(busy.words(plan, ours)) as load:
            load.round(busy.rate, 1)
            alone = [load.round(busy.rate, plan.seconds) for _ in range(plan.rounds)]
        with Load(command(ours, crowd, rooms=1000, options=("--step",))):
            began, cpu = time.monotonic(), cpu_seconds(ours.pid)
            time.sleep(seconds)
            share = 100 * (cpu_seconds(ours.pid) - cpu) / (time.monotonic() - began)
            with Load(busy.words(plan, ours)) as load:
                load.round(busy.rate, 1)
                beside = [load.round(busy.rate, plan.seconds) for _ in range(plan.rounds)]
    yield Row(
        case="19,000 idle connections, with heartbeat",
        figure="% of a core",
        ours=[share],
        goal="≤ 1.5 %",
        at_most=1.5,
        beside=f"over {seconds:g} s",
        command="wsload --step 19000 0 0 0 … 1000",
    )
    yield Row(
        case="a busy room beside them",
        figure="p99 of a delivery, ms",
        ours=column(beside, "delivery_p99_ms"),
        peer="without them",
        theirs=column(alone, "delivery_p99_ms"),
        goal="no change",
        command=busy.text(),
    )
