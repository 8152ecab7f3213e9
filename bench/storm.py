"""Ten thousand viewers who come at once, and how long anyone else has to wait for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import redis

from bench.cases import Plan, Result
from bench.load import Load, Report, command
from bench.load import run as run_load
from bench.results import Row
from bench.servers import Ours

VIEWERS, HOLDS = 10_000, 500
PROBE_S = 8
"""Longer than the storm takes."""


def storm(plan: Plan) -> Iterator[Result]:
    """All of them into one room of 500 held seats that the instance does not know yet."""
    stalls, seconds, reads = [], [], []
    for _ in range(plan.rounds):
        with Ours() as first, Ours(beside=first) as ours:
            run_load(command(first, 1, options=("--hold-seats", str(HOLDS))))
            with redis.Redis.from_url(ours.redis_url) as client:
                client.config_resetstat()
                joined, longest_ms = _once(plan, ours)
                reads.append(_scripts_run(client) - 1)  # one was for the probe's room
            stalls.append(longest_ms)
            seconds.append(joined["seconds"])
    case = f"{VIEWERS:,} viewers join a room of {HOLDS} held seats at once"
    yield Row(
        case=case,
        figure="longest wait of another client's ping, ms",
        ours=stalls,
        goal="≤ 50 ms",
        at_most=50,
        beside=f"all had the map after {max(seconds):.1f} s at most",
        command=f"wsload --expect-seats {HOLDS} --join-window 0 {VIEWERS} 0 0 0",
    )
    yield Row(case=case, figure="maps read from Redis", ours=reads, goal="≤ 1", at_most=1)


def _once(plan: Plan, ours: Ours) -> tuple[Report, float]:
    """The report on the joins, and the longest that a ping took meanwhile, in ms."""
    names = ("--client-prefix", "probe", "--room-prefix", "elsewhere")
    pings = ("--gather", "0", "--idle", str(PROBE_S), "--ping-rate", "500")
    probe = subprocess.Popen(
        command(ours, 1, options=(*names, *pings)), stdout=subprocess.PIPE, text=True
    )
    options = ("--step", "--expect-seats", str(HOLDS), "--join-window", "0")
    with Load(command(ours, plan.some(VIEWERS), options=options)) as load:
        said, _ = probe.communicate()  # before they leave, all at once again
    reports = {report["phase"]: report for report in map(json.loads, said.splitlines())}
    return load.joined, reports["idle"]["pong_max_ms"]


def _scripts_run(client: redis.Redis) -> float:
    stats = client.info("commandstats")
    assert isinstance(stats, dict)
    return float(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])
