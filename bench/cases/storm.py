"""Ten thousand viewers who come at once, and how long anyone else has to wait for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from statistics import median

import redis

from bench.load import Load, Report, run, words_of, wsload
from bench.processes import Failed
from bench.results import Row
from bench.rounds import Plan
from bench.servers import Ours

VIEWERS, HOLDS = 10_000, 500
PROBE_S = 12
"""How long the probe asks: longer than the storm takes."""
QUIET_S = 3
PROBE = ("--client-prefix", "probe", "--room-prefix", "elsewhere", "--gather", "0")
STORM = ("--step", "--expect-seats", str(HOLDS), "--join-window", "0")


def storm(plan: Plan) -> Iterator[Row]:
    """All of them into one room of 500 held seats that the instance does not know yet.

    Another instance on the same Redis took the seats, so this one has to read them.
    """
    stalls, quiet, seconds, reads = [], [], [], []
    for _ in range(plan.repeats):
        with Ours() as first, Ours(beside=first) as ours:
            run(words_of(first, 1, options=("--hold-seats", str(HOLDS))))
            quiet.append(_longest_ms(_probe(ours, QUIET_S)))
            with redis.Redis.from_url(ours.redis_url) as client:
                joined, longest_ms, read = _once(plan, ours, client)
            stalls.append(longest_ms)
            reads.append(read)
            seconds.append(joined["seconds"])
    case = f"{VIEWERS:,} viewers join a room of {HOLDS} held seats at once"
    words = " ".join(STORM)
    yield Row(
        case=case,
        figure="longest wait for a ping's answer, ms",
        ours=stalls,
        lost=0,  # a join without its whole map fails the run
        goal="≤ 50 ms",
        at_most=50,
        beside=f"{median(quiet):.1f} ms before the storm; "
        f"all had the map after {max(seconds):.1f} s at most",
        commands=[
            f"wsload --json {words} 127.0.0.1 PORT {VIEWERS} 0 0 0 PID",
            f"wsload --json {' '.join(PROBE)} --idle {PROBE_S} --ping-rate 500 127.0.0.1 PORT "
            "1 0 0 0 PID",
        ],
    )
    yield Row(case=case, figure="script calls in Redis for it", ours=reads, goal="≤ 1", at_most=1)


def _once(plan: Plan, ours: Ours, client: redis.Redis) -> tuple[Report, float, float]:
    """One storm: the report on the joins, the longest wait in ms, and the maps read."""
    probe = _probe(ours, PROBE_S)
    assert probe.stdout is not None
    probe.stdout.readline()  # it has joined: from now on it asks
    client.config_resetstat()
    with Load(words_of(ours, plan.some(VIEWERS), options=STORM)) as load:
        read = _scripts_run(client)
        longest_ms = _longest_ms(probe)  # before they leave, all at once again
        load.leave()
    if load.joined["seconds"] > PROBE_S:
        raise Failed(f"the storm took {load.joined['seconds']:.0f} s, longer than was looked at")
    return load.joined, longest_ms, read


def _probe(ours: Ours, seconds: float) -> subprocess.Popen[str]:
    """Another client, in another room, that asks 500 times a second whether anyone is there."""
    options = (*PROBE, "--idle", str(seconds), "--ping-rate", "500")
    command = [wsload(), *words_of(ours, 1, options=options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _longest_ms(probe: subprocess.Popen[str]) -> float:
    """What the probe found when it ends."""
    said, _ = probe.communicate()
    reports = [json.loads(line) for line in said.splitlines()]
    if probe.returncode or not reports:
        raise Failed("the probe beside the storm was not answered")
    return float(reports[-1]["pong_max_ms"])


def _scripts_run(client: redis.Redis) -> float:
    """Since the statistics were reset."""
    stats = client.info("commandstats")
    assert isinstance(stats, dict)
    return float(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])
