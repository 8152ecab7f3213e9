"""The hold store alone, without sockets, beside `redis-benchmark` with the same script."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Coroutine, Iterator

import redis

from bench.processes import Failed
from bench.results import Row
from bench.rounds import Plan
from bench.servers import WithRedis
from seatws.config import Config, Holds
from seatws.errors import StoreError
from seatws.holds import Event, Outcome
from seatws.store.holds import APPLY, HoldStore
from seatws.store.keys import room_keys
from seatws.store.servers import Server
from seatws.store.topology import topology_of

CALLERS = 500
CLIENTS = 50
"""Connections of redis-benchmark."""
CALLS_A_SECOND = 10_000
"""About what redis-benchmark manages: so it takes about as long as a round of ours."""


def store(plan: Plan) -> Iterator[Row]:
    """Selects of ever new seats; each of 500 callers waits for its answer before the next."""
    benchmark = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if benchmark is None:
        plan.note("redis-benchmark was not there (Debian: redis-tools)")
    ours, theirs = [], []
    calls = int(CALLS_A_SECOND * plan.seconds)
    with WithRedis("Redis") as server:
        url = server.start_redis()
        for number in range(plan.repeats):
            with redis.Redis.from_url(url) as client:
                client.flushall()
            ours.append(_run(_operations_a_second(url, f"room{number}", plan.seconds)))
            if benchmark is not None:
                with redis.Redis.from_url(url) as client:
                    client.flushall()
                theirs.append(_benchmark(benchmark, url, calls))
    yield Row(
        case=f"the hold store alone, {CALLERS} callers at once",
        figure="operations a second",
        ours=ours,
        peer=f"redis-benchmark -c {CLIENTS}, the same script",
        theirs=theirs,
        lost=0,  # a refused one fails the run
        goal="≥ 1.5 ×",
        at_least=1.5,
        commands=[f"redis-benchmark -c {CLIENTS} -n {calls} -r 1000000000 EVALSHA …"],
    )


def _run(measuring: Coroutine[None, None, float]) -> float:
    """On the loop that the server has, too."""
    try:
        import uvloop
    except ImportError:  # where it can't be installed
        return asyncio.run(measuring)
    return uvloop.run(measuring)


class _Nobody:
    """Hears of nothing."""

    def on_commit(self, room_id: str, event: Event) -> None: ...
    def on_store_up(self, server: Server) -> None: ...
    def on_store_down(self, server: Server) -> None: ...
    def on_round_trip(self, seconds: float) -> None: ...


async def _operations_a_second(url: str, room_id: str, seconds: float) -> float:
    config = Config(holds=Holds(max_seats_per_client=0))
    store = HoldStore(config, topology_of(config, url), _Nobody())
    await store.open()
    seats = itertools.count()
    finished = asyncio.Semaphore(0)
    refused = 0
    began = time.monotonic()

    def call() -> None:
        store.select(room_id, "client", [f"seat{next(seats):012}"], b"{}", answered)

    def answered(outcome: Outcome | StoreError) -> None:
        nonlocal refused
        refused += isinstance(outcome, StoreError) or outcome.code != "ok"
        if time.monotonic() < began + seconds:
            call()
        else:
            finished.release()

    for _ in range(CALLERS):
        call()
    for _ in range(CALLERS):
        await finished.acquire()
    took = time.monotonic() - began
    await store.close()
    if refused:
        raise Failed(f"{refused} operations were refused")
    return next(seats) / took


def _benchmark(program: str, url: str, calls: int) -> float:
    """One select a call, of a seat that hardly ever was selected before."""
    with redis.Redis.from_url(url) as client:
        sha = client.script_load(APPLY.decode())
    port = url.rpartition(":")[2]
    keys = room_keys("seatws", "benchmark")
    rules = ["PUBLISH", keys.channel, "benchmrk", "300000", "0", "3600000", "epoch"]
    operation = ["select", "client", "{}", "1", "seat__rand_int__"]
    words = ["EVALSHA", str(sha), "4", *keys[:4], *rules, *operation]
    head = [program, "-p", port, "-c", str(CLIENTS), "-n", str(calls), "-r", "1000000000", "-q"]
    said = subprocess.run([*head, *words], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.findall(r"([\d.]+) requests per second", said)
    if not found:
        raise Failed("redis-benchmark said nothing that could be read")
    return float(found[-1])
