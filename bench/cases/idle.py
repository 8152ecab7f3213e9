"""Nineteen thousand connections that only live, and what they do to a busy room."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

from bench.load import Load, words_of
from bench.processes import Failed, cpu_seconds
from bench.results import Row
from bench.rounds import Plan, Traffic, compared, in_turn
from bench.servers import Ours

CROWD, ROOMS = 19_000, 1000
TWO_HEARTBEATS_S = 50
"""Two of the default interval: every connection is asked twice, wherever the time begins."""
BUSY = Traffic(100, 50, 200, 1, ("--client-prefix", "busy_", "--room-prefix", "busy"))
SCRAPES = 20
BUSY_ROUNDS = 3.0
"""A round is so many times as long as others, so that the rounds together meet heartbeats."""


def idle(plan: Plan) -> Iterator[Row]:
    """The crowd's share of a core, a scrape, a busy room beside the crowd and one without it."""
    crowd, seconds = plan.some(CROWD), TWO_HEARTBEATS_S if plan.scale == 1 else plan.seconds
    options = ("--step", "--idle", str(seconds))
    busy_s = plan.seconds * BUSY_ROUNDS
    with (
        Ours() as crowded,
        Ours() as alone,
        Load(words_of(crowded, crowd, rooms=ROOMS, options=options)) as load,
    ):
        report = load.next()
        if plan.scale == 1 and report["heartbeats"] < crowd:
            raise Failed(f"only {report['heartbeats']:.0f} heartbeats came")
        scrapes_ms = [_scrape_ms(crowded) for _ in range(SCRAPES)]
        turns = in_turn(plan, BUSY, crowded, alone, busy_s)
        load.leave()
    options_text = " ".join(options)
    yield Row(
        case=f"{CROWD:,} idle connections, with heartbeat",
        figure="% of a core",
        ours=[report["cpu_percent"]],
        lost=0,  # one that is closed fails the run
        goal="≤ 1.5 %",
        at_most=1.5,
        beside=f"over {seconds:g} s, {report['heartbeats']:,.0f} heartbeats",
        commands=[f"wsload --json {options_text} 127.0.0.1 PORT {crowd} 0 0 0 PID seed {ROOMS}"],
    )
    yield Row(
        case=f"a scrape of /metrics with {CROWD:,} connections in {ROOMS:,} rooms",
        figure="ms of CPU",
        ours=scrapes_ms,
        goal="under 10 ms",
        at_most=10,
        commands=["curl http://127.0.0.1:PORT/metrics"],
    )
    yield compared(
        turns,
        case=f"a busy room beside {CROWD:,} idle connections",
        figure="p99 of a delivery, ms",
        name="delivery_p99_ms",
        peer="without them",
        goal="no change: ≤ 1.25 ×",
        at_most=1.25,
        commands=[BUSY.text(busy_s)],
    )


def _scrape_ms(server: Ours) -> float:
    """The server's CPU time for one scrape, in which nobody else is served."""
    before = cpu_seconds(server.pid)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        answer.read()
    return 1000 * (cpu_seconds(server.pid) - before)
