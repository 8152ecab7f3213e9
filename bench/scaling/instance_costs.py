"""What an instance pays, in CPU time and memory: for rooms, for events, for viewers."""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import redis

from bench.load import Load, words_of
from bench.processes import Failed, cpu_seconds, resident_mib
from bench.scaling.figures import Figures
from bench.scaling.formulas import COMPARE_S, US
from bench.scaling.redis_costs import Command, apply, release, select
from bench.servers import Ours
from seatws.store.holds import APPLY

CROWD: Final = 4000
"""Connections, each in a room of its own or all in one."""
BUSY_ROOMS: Final = 100
EVENTS: Final = 1000
"""Changes a second in them, that another process makes."""
TOGETHER: Final = (1, 10, 100)
"""Of them come at once, as an instance finds them that has other things to do meanwhile."""
VIEWERS: Final = (1, 11)
"""In each of them: what eleven cost more than one is sending."""
HELD: Final = 200
"""Seats held in each of them, where memory is looked at."""


def quiet(figures: Figures, seconds: float, scale: float) -> None:
    """What connections and rooms cost in which nothing happens.

    Args:
        figures: Where the figures go.
        seconds: Of each look.
        scale: Of the number of connections, for a first look.
    """
    crowd = max(20, int(CROWD * scale))
    apart = _quiet(crowd, crowd, seconds)
    together = _quiet(crowd, 1, seconds)
    figures.add("instance_look_us", (apart.cpu - together.cpu) / (crowd - 1) * COMPARE_S / US)
    figures.add("instance_room_kib", (apart.mib - together.mib) * 1024 / (crowd - 1))
    figures.add("instance_connection_kib", together.mib * 1024 / crowd)
    figures.add("instance_empty_mib", together.empty_mib)


def events(figures: Figures, seconds: float, scale: float) -> None:
    """What changes from elsewhere cost, and telling viewers of them; see `quiet`."""
    rooms = max(2, int(BUSY_ROOMS * scale))
    few, many = VIEWERS
    alone, ten, hundred = (_event_us(few, rooms, each, seconds) for each in TOGETHER)
    send = (_event_us(many, rooms, 1, seconds) - alone) / (many - few)
    figures.add("instance_send_us", send)
    figures.add("instance_event_us", alone - few * send)
    figures.add("instance_event_ten_us", ten - few * send)
    figures.add("instance_event_hundred_us", hundred - few * send)


def holds(figures: Figures, scale: float) -> None:
    """What a hold keeps in memory; see `quiet`."""
    figures.add("instance_hold_kib", _hold_kib(max(2, int(BUSY_ROOMS * scale))))


class _Quiet(NamedTuple):
    """What connections that only live cost."""

    cpu: float
    """Share of a core."""
    mib: float
    """Memory they brought."""
    empty_mib: float
    """Memory before they came."""


def _quiet(crowd: int, rooms: int, seconds: float) -> _Quiet:
    with Ours() as ours:
        before = resident_mib(ours.pid)
        with Load(words_of(ours, crowd, rooms=rooms, options=("--step",))) as load:
            cpu = _share_of_a_core(ours.pid, seconds)
            mib = resident_mib(ours.pid) - before
            load.leave()
    return _Quiet(cpu, mib, before)


def _share_of_a_core(pid: int, seconds: float) -> float:
    """Mean CPU of a process while nothing is done but wait."""
    began, cpu = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - cpu) / (time.monotonic() - began)


def _event_us(viewers: int, rooms: int, together: int, seconds: float) -> float:
    """CPU µs of an event from elsewhere, with so many viewers of its room here to be told.

    Args:
        viewers: In each room.
        rooms: One behind the other changes.
        together: So many events come at once, then for some time none.
        seconds: For how long.

    Raises:
        Failed: They did not come.
    """
    names = [f"r{number}" for number in range(rooms)]
    with Ours() as here, redis.Redis.from_url(here.redis_url) as client:
        sha = str(client.script_load(APPLY.decode()))
        events = [apply(sha, room, select("away", "A1")) for room in names]
        events += [apply(sha, room, release("away", "A1")) for room in names]
        with Load(words_of(here, viewers * rooms, rooms=rooms, options=("--step",))) as load:
            quiet = _share_of_a_core(here.pid, seconds)
            began, cpu = time.monotonic(), cpu_seconds(here.pid)
            made = _make(client, itertools.cycle(events), together, began + seconds)
            made += _make(client, iter(events[made % len(events) :]), together, began + 60)
            _execute(client, [apply(sha, names[-1], select("away", "last"))])
            _wait_for_hold(here, names[-1])
            spent = cpu_seconds(here.pid) - cpu - quiet * (time.monotonic() - began)
            load.leave()
    return spent / made * 1e6


def _make(client: redis.Redis, events: Iterator[Command], together: int, until: float) -> int:
    """Change rooms at the rate of `EVENTS` until then, or until there is no more; how many."""
    made, began = 0, time.monotonic()
    while time.monotonic() < until and (some := list(itertools.islice(events, together))):
        _execute(client, some)
        made += len(some)
        time.sleep(max(0.0, began + made / EVENTS - time.monotonic()))
    return made


def _execute(client: redis.Redis, commands: list[Command]) -> None:
    pipeline: Any = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    pipeline.execute()


def _wait_for_hold(here: Ours, room: str) -> None:
    """Until the instance shows the one hold of the room: it has heard of all that came before."""
    end = time.monotonic() + 10
    url = f"http://127.0.0.1:{here.port}/room/{room}/selections"
    while time.monotonic() < end:
        with urllib.request.urlopen(url) as answer:
            if [hold["seat_id"] for hold in json.load(answer)["selections"]] == ["last"]:
                return
    raise Failed(f"{room} was changed, and the instance did not hear of it")


def _hold_kib(rooms: int) -> float:
    """Memory of a hold in the mirror of an instance that only follows."""
    grown = []
    for held in (0, HELD):
        with Ours() as here, redis.Redis.from_url(here.redis_url) as client:
            sha = str(client.script_load(APPLY.decode()))
            for room in range(rooms if held else 0):
                seats = [select(f"user_{seat:010}", f"H{seat}") for seat in range(held)]
                _execute(client, [apply(sha, f"r{room}", [*itertools.chain(*seats)])])
            before = resident_mib(here.pid)
            expected = ("--step", "--expect-seats", str(held)) if held else ("--step",)
            with Load(words_of(here, rooms, rooms=rooms, options=expected)) as load:
                grown.append(resident_mib(here.pid) - before)
                load.leave()
    return (grown[1] - grown[0]) * 1024 / (rooms * HELD)
