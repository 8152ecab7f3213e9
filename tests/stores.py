"""What the store's tests share: stores in this process over a real Redis, and a look behind them.

Tests import the fixture `shape`, one list of rules for every shape of Redis: another one is another
entry of `SHAPES`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis

from seatws.config import Config, Redis
from seatws.errors import StoreError
from seatws.holds import Event, Outcome, Snapshot
from seatws.store.holds import HoldStore
from seatws.store.keys import RoomKeys, room_keys
from seatws.store.servers import Server
from seatws.store.topology import topology_of
from tests.harness import LIMIT_S, Valkey


@dataclass
class Shape:
    """A Redis: where stores connect, and a client for looking into it."""

    url: str
    redis: Any
    """redis-py's client, whose own types fit none of its replies; RESP2, replies are text."""

    def another(self) -> Any:
        """Another client, whose replies are bytes."""
        return redis.Redis.from_url(self.url, protocol=2)

    def keys(self, room_id: str, prefix: str = "seatws") -> RoomKeys:
        """A room's names in it."""
        return room_keys(prefix, room_id)

    def now_ms(self) -> int:
        """Its clock."""
        seconds, microseconds = self.redis.execute_command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    def keys_of(self, room_id: str) -> set[str]:
        """Those of the room's keys that exist."""
        return {key for key in self.keys(room_id)[:4] if self.redis.execute_command("EXISTS", key)}

    def ends_at(self, room_id: str) -> set[int]:
        """When the room's keys end, Unix ms: one moment, and none of them -1 (never)."""
        ask = self.redis.execute_command
        return {int(ask("PEXPIRETIME", key)) for key in self.keys_of(room_id)}

    def move_deadline(self, room_id: str, seat_id: str, deadline_ms: int) -> None:
        """Give a hold another deadline, wherever it is written."""
        keys = self.keys(room_id)
        record = self.redis.execute_command("HGET", keys.holds, seat_id).split(" ", 1)[1]
        with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.execute_command("HSET", keys.holds, seat_id, f"{deadline_ms} {record}")
            pipeline.execute_command("ZADD", keys.deadlines, "XX", deadline_ms, seat_id)
            pipeline.execute()

    def pass_deadline(self, room_id: str, *seat_ids: str) -> None:
        """Let holds have ended, each a millisecond after the one before."""
        past_ms = self.now_ms() - len(seat_ids)
        for later, seat_id in enumerate(seat_ids):
            self.move_deadline(room_id, seat_id, past_ms + later)


def shape_of(valkey: Valkey) -> Shape:
    """A harness's Valkey, as a shape."""
    return Shape(
        valkey.url,
        redis.Redis(unix_socket_path=str(valkey.socket), decode_responses=True, protocol=2),
    )


SHAPES = {"standalone": shape_of}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest, valkey: Valkey) -> Iterator[Shape]:
    """Every shape of Redis in turn, shared with other tests."""
    found = SHAPES[request.param](valkey)
    yield found
    found.redis.close()


@pytest.fixture
def own_shape(own_valkey: Valkey) -> Iterator[Shape]:
    """`own_valkey`, to look into: a Redis that the test may kill, stop and configure."""
    found = shape_of(own_valkey)
    yield found
    found.redis.close()


class Ear:
    """Hears what a store or a feed tells, and can be waited with."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self.states: list[str] = []
        """Of "store up", "store down", "feed up", "feed down", the latest last."""
        self._stirred = asyncio.Event()

    def on_event(self, room_id: str, event: Event) -> None:
        self.events.append((room_id, event))
        self._stirred.set()

    def on_commit(self, room_id: str, event: Event) -> None:
        self.on_event(room_id, event)

    def on_store_up(self, server: Server) -> None:
        self._note("store up")

    def on_store_down(self, server: Server) -> None:
        self._note("store down")

    def on_feed_up(self, server: Server) -> None:
        self._note("feed up")

    def on_feed_down(self, server: Server) -> None:
        self._note("feed down")

    def on_feed_moved(self, room_id: str) -> None:
        self._note(f"moved {room_id}")

    def on_round_trip(self, seconds: float) -> None:
        """Nobody here asks."""

    def steps(self, room_id: str) -> list[tuple[int, str, str, str]]:
        """Rev, kind, seat and client of each change heard of a room, in the order they were."""
        return [
            (change.rev, change.kind, change.seat_id, change.client_id)
            for room, event in self.events
            if room == room_id
            for change in event.changes
        ]

    def revs(self, room_id: str) -> list[int]:
        """The revs heard of a room, in the order in which they were."""
        return [rev for rev, *_ in self.steps(room_id)]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait, from call to call, until something is so."""
        async with asyncio.timeout(LIMIT_S):
            while not is_so():
                self._stirred.clear()
                await self._stirred.wait()

    async def until_state(self, state: str) -> None:
        """Wait until that is the latest state."""
        await self.until(lambda: self.states[-1:] == [state])

    def _note(self, state: str) -> None:
        self.states.append(state)
        self._stirred.set()


class Asking:
    """A `HoldStore` whose answers are futures; the command is given when the method is called."""

    def __init__(self, url: str, config: Config) -> None:
        self.ear = Ear()
        self.topology = topology_of(config, url)
        self.store = HoldStore(config, self.topology, self.ear)

    def select(
        self, room_id: str, client_id: str, *seat_ids: str, user_info: bytes = b"{}"
    ) -> asyncio.Future[Outcome]:
        return answer_to(
            lambda done: self.store.select(room_id, client_id, list(seat_ids), user_info, done)
        )

    def release(self, room_id: str, client_id: str, seat_id: str) -> asyncio.Future[Outcome]:
        return answer_to(lambda done: self.store.release(room_id, client_id, seat_id, done))

    def snapshot(self, room_id: str) -> asyncio.Future[Snapshot]:
        return answer_to(lambda done: self.store.snapshot(room_id, done))

    def revision(self, room_id: str) -> asyncio.Future[tuple[str, int]]:
        return answer_to(lambda done: self.store.revision(room_id, done))

    async def expire(self, room_id: str) -> None:
        """End what is due; done when it is."""
        self.store.expire(room_id)
        await self.revision(room_id)


def answer_to(ask: Callable[[Callable[[Any], None]], None]) -> asyncio.Future[Any]:
    """Turn a callback's one call into a future."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(outcome: Any) -> None:
        assert not answer.done(), "answered twice"
        if isinstance(outcome, StoreError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    ask(done)
    return answer


PATIENT = Config(redis=Redis(connect_timeout_seconds=LIMIT_S, timeout_seconds=LIMIT_S))
"""For where a slow machine must not be taken for a slow Redis."""


@contextlib.asynccontextmanager
async def opened(url: str, config: Config | None = None) -> AsyncIterator[Asking]:
    """An open store, closed at the end."""
    asking = Asking(url, config or PATIENT)
    await asking.store.open()
    try:
        yield asking
    finally:
        await asking.store.close()


def ok(*seats: tuple[str, int]) -> tuple[str, list[tuple[str, int]]]:
    return "ok", list(seats)


def short(outcome: Outcome) -> tuple[str, list[tuple[str, int]]]:
    """An outcome without its deadlines."""
    return outcome.code, [(seat, rev) for seat, rev, _ in outcome.seats]


Answer = bytes | Callable[[list[bytes], asyncio.StreamWriter], Awaitable[bytes]]


class FakeRedis:
    """Speaks Redis's protocol on a unix socket as a test tells it: for what no Valkey will say.

    Args:
        path: Of the socket.
        answers: For each command, in upper case, its reply, or what makes one of the command's
            words; the next command waits for it. The rest is answered so that a greeting goes well.
    """

    def __init__(self, path: Path, **answers: Answer) -> None:
        self.url = f"unix://{path}"
        self.said: list[list[bytes]] = []
        """Every command, in order."""
        self._path = path
        self._answers: dict[str, Answer] = {
            "INFO": bulk("redis_version:7.2.4\r\nmaxmemory_policy:noeviction\r\n"),
            "TIME": array("1700000000", "0"),
            "PING": b"+PONG\r\n",
            **answers,
        }
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeRedis]:
        """Serve, and end with the block."""
        server = await asyncio.start_unix_server(self._serve, self._path)
        try:
            yield self
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._serving.values():
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        commands = hiredis.Reader()
        try:
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    self.said.append(command)
                    answer = self._answers.get(command[0].decode().upper(), b"+OK\r\n")
                    if not isinstance(answer, bytes):
                        answer = await answer(command, writer)
                    writer.write(answer)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the peer went, or the test is over
        finally:
            writer.transport.abort()
            del self._serving[task]


def bulk(text: str) -> bytes:
    """A string, as RESP."""
    return b"$%d\r\n%s\r\n" % (len(text.encode()), text.encode())


def array(*texts: str) -> bytes:
    """Strings in an array, as RESP."""
    return b"*%d\r\n" % len(texts) + b"".join(map(bulk, texts))
