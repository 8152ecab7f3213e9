"""What Redis pays, in CPU time and memory: for a script call, a map, an event, a look."""

from __future__ import annotations

import itertools
import secrets
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Final

import redis

from bench.processes import cpu_seconds
from bench.scaling.figures import Figures
from bench.servers import WithRedis
from seatws.store.holds import APPLY, SNAPSHOT
from seatws.store.keys import room_keys

TOGETHER: Final = 100
"""Commands that share a round trip: what an instance's comparison sends at once."""
FEW: Final = 10
GROUPS: Final = (1, 10, 100)
"""Operations in one script call."""
SUBSCRIBERS: Final = (0, 64)
TURNS: Final = 5
"""With and without them, so that the machine's drift meets both alike."""
MAP_SIZES: Final = (0, 100, 500)
HELD: Final = 100
"""Seats held in a room that is operated on, by others."""
USER_INFO: Final = '{"name":"Ana Perez"}'

Command = tuple[str | int, ...]


def select(client: str, seat: str) -> list[str | int]:
    """An operation of `apply.lua`."""
    return ["select", client, USER_INFO, 1, seat]


def release(client: str, seat: str) -> list[str | int]:
    """Likewise."""
    return ["release", client, seat]


def apply(sha: str, room: str, operations: list[str | int]) -> Command:
    """A call of `apply.lua`, as HoldStore makes it."""
    keys = room_keys("seatws", room)
    rules = ("PUBLISH", keys.channel, "capacity", 300_000, 10, 3_600_000, "capacity0")
    return ("EVALSHA", sha, 4, *keys[:4], *rules, *operations)


class RedisCosts:
    """Measures one empty server without persistence, which nobody else uses.

    Args:
        server: To start it in.
        calls: Script calls a figure is the mean of.
    """

    def __init__(self, server: WithRedis, calls: int) -> None:
        self._port = int(server.start_redis().rpartition(":")[2])
        self._client: Any = redis.Redis(port=self._port, protocol=2)
        self._pid = int(self._client.info("server")["process_id"])
        self._apply = str(self._client.script_load(APPLY.decode()))
        self._snapshot = str(self._client.script_load(SNAPSHOT.decode()))
        self._calls = calls
        self._names = itertools.count()

    def measure(self, figures: Figures) -> None:
        """One round of every figure."""
        self._measure_calls(figures)
        self._measure_events(figures)
        self._measure_reads(figures)
        self._measure_memory(figures)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # ------------------------------------------------------------ figures

    def _measure_calls(self, figures: Figures) -> None:
        rooms = self._rooms(TOGETHER, HELD)
        alone = self._us(self._operations(rooms[:1], 1), self._calls // 4, together=1)
        figures.add("redis_call_alone_us", alone)
        costs = {}
        for size in GROUPS:
            commands = self._operations(rooms, size)
            costs[size] = self._us(commands, max(TOGETHER, self._calls // size), TOGETHER)
        figures.add("redis_call_us", costs[GROUPS[0]])
        figures.add("redis_operation_us", _slope(costs))
        taken = [apply(self._apply, room, select("late", "held000")) for room in rooms]
        figures.add("redis_refused_us", self._us(taken, self._calls, TOGETHER))
        empty = [apply(self._apply, room, []) for room in rooms]
        figures.add("redis_nothing_due_us", self._us(empty, self._calls, TOGETHER))

    def _measure_events(self, figures: Figures) -> None:
        rooms = self._rooms(TOGETHER, HELD)
        channels = [room_keys("seatws", room).channel for room in rooms]
        commands = self._operations(rooms, 1)
        one_room = [commands[0], commands[len(rooms)]]
        slopes: dict[str, list[float]] = {"": [], "few_": [], "alone_": []}
        for _ in range(TURNS):
            costs: dict[str, dict[int, float]] = {name: {} for name in slopes}
            for count in SUBSCRIBERS:
                with _subscribers(self._port, channels, count):
                    least = self._calls // TURNS
                    costs[""][count] = self._us(commands, least, TOGETHER)
                    costs["few_"][count] = self._us(commands, least // 2, FEW)
                    costs["alone_"][count] = self._us(one_room, least // 4, together=1)
            for name, each in costs.items():
                slopes[name].append(_slope(each))
        for name, values in slopes.items():
            figures.add(f"redis_event_{name}us", median(values))

    def _measure_reads(self, figures: Figures) -> None:
        rooms = self._rooms(TOGETHER, 1)
        looks: list[Command] = [
            ("HMGET", room_keys("seatws", room).meta, "epoch", "rev") for room in rooms
        ]
        figures.add("redis_look_us", self._us(looks, self._calls, TOGETHER))
        figures.add("redis_look_alone_us", self._us(looks, self._calls // 4, together=1))
        maps = {}
        for size in MAP_SIZES:
            (room,) = self._rooms(1, size)
            keys = room_keys("seatws", room)
            read: Command = ("EVALSHA", self._snapshot, 2, keys.holds, keys.meta)
            maps[size] = self._us([read], max(20, self._calls // 40), together=1)
        figures.add("redis_snapshot_us", maps[0])
        figures.add("redis_snapshot_hold_us", _slope(maps))

    def _measure_memory(self, figures: Figures) -> None:
        before = self._used_bytes()
        self._rooms(500, 1)
        small = (self._used_bytes() - before) / 500
        before = self._used_bytes()
        self._rooms(100, 201)
        large = (self._used_bytes() - before) / 100
        hold = (large - small) / 200
        figures.add("redis_hold_bytes", hold)
        figures.add("redis_room_bytes", small - hold)
        channels = [room_keys("seatws", room).channel for room in self._rooms(1000, 0)]
        before = self._used_bytes()
        with _subscribers(self._port, channels, 4):
            following = (self._used_bytes() - before) / 4 / len(channels)
        figures.add("redis_subscription_bytes", following)

    # ------------------------------------------------------------ commands

    def _rooms(self, count: int, held: int) -> list[str]:
        """New rooms with so many seats held, by two a client."""
        rooms = [f"funcion_{next(self._names):06}" for _ in range(count)]
        for room in rooms:
            for first in range(0, held, 50):
                words: list[str | int] = []
                for seat in range(first, min(held, first + 50)):
                    words += select(f"user_{secrets.randbelow(10**10):010}", f"held{seat:03}")
                self._client.execute_command(*apply(self._apply, room, words))
        return rooms

    def _operations(self, rooms: list[str], size: int) -> list[Command]:
        """A call for each room that selects `size` seats, then one for each that releases them."""
        selects, releases = [], []
        for room in rooms:
            on: list[str | int] = []
            off: list[str | int] = []
            for seat in range(size):
                on += select(f"user_{seat:010}", f"free{seat:03}")
                off += release(f"user_{seat:010}", f"free{seat:03}")
            selects.append(apply(self._apply, room, on))
            releases.append(apply(self._apply, room, off))
        return [*selects, *releases]

    # ------------------------------------------------------------ what it took

    def _us(self, commands: list[Command], least: int, together: int) -> float:
        """CPU µs of the server a command, over all of them again and again.

        Args:
            commands: One behind the other; ever again from the first.
            least: How many at least.
            together: So many a round trip.
        """
        batches = []
        for first in range(0, len(commands), together):
            pipeline = self._client.pipeline(transaction=False)
            for command in commands[first : first + together]:
                pipeline.execute_command(*command)
            batches.append(pipeline)
        stacks = [list(pipeline.command_stack) for pipeline in batches]

        def go() -> None:
            for pipeline, stack in zip(batches, stacks, strict=True):
                pipeline.command_stack = list(stack)
                pipeline.execute()

        go()
        turns = max(1, least // len(commands))
        before = cpu_seconds(self._pid)
        for _ in range(turns):
            go()
        return (cpu_seconds(self._pid) - before) / (turns * len(commands)) * 1e6

    def _used_bytes(self) -> float:
        return float(self._client.info("memory")["used_memory"])


@contextmanager
def _subscribers(port: int, channels: list[str], count: int) -> Iterator[None]:
    """Connections that are subscribed to all channels, and are read by a thread."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    words = ["SUBSCRIBE", *channels]
    said = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    for each in sockets:
        each.sendall(said.encode())
        said_back = b""
        while said_back.count(b"$9\r\nsubscribe\r\n") < len(channels):
            said_back += each.recv(1 << 20)
    ended = threading.Event()
    reader = threading.Thread(target=_drain, args=(sockets, ended))
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()
        for each in sockets:
            each.close()


def _drain(sockets: list[socket.socket], ended: threading.Event) -> None:
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        while not ended.is_set():
            for key, _ in selector.select(0.05) if sockets else ():
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.recv(1 << 16)
            if not sockets:
                return


def _slope(costs: dict[int, float]) -> float:
    """What one more costs: from the least to the most of what was measured."""
    least, most = min(costs), max(costs)
    return (costs[most] - costs[least]) / (most - least)
