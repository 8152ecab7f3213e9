"""The hold store: every read and every change of a hold.

Operations on a room that arrive while a pipeline is under way go together in the room's next
script call, like a database's group commit.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import itertools
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from seatws.config import Config
from seatws.errors import StoreError
from seatws.holds import Event, Outcome, Snapshot, hold_of
from seatws.privacy import UserInfoFilter
from seatws.store.clock import RedisClock
from seatws.store.connect import Head, Reply, pack
from seatws.store.health import HealthCheck
from seatws.store.keys import room_keys
from seatws.store.pipeline import Pipeline, Sent
from seatws.store.servers import Server
from seatws.store.shards import Shards
from seatws.store.topology import Topology

log = logging.getLogger(__name__)

MAX_OPERATIONS = 500
"""In one script call: it is one atomic step, during which Redis serves nobody else."""
MAX_ARGUMENTS = 2500
"""The same for groups of seats: each operation has a handful of arguments, and one a seat."""

HEADS_KEPT = 4096
"""Rooms of which the beginning of a script call is kept, 400 bytes each."""

_lua = importlib.resources.files("seatws.store") / "lua"
APPLY = (_lua / "apply.lua").read_bytes()
SNAPSHOT = (_lua / "snapshot.lua").read_bytes()
_APPLY_SHA = hashlib.sha1(APPLY, usedforsecurity=False).hexdigest()
_SNAPSHOT_SHA = hashlib.sha1(SNAPSHOT, usedforsecurity=False).hexdigest()

_decode_event = msgspec.msgpack.Decoder(Event).decode
_decode_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode

_T = TypeVar("_T")

Done = Callable[[Outcome | StoreError], None]

Arguments = tuple[str | bytes | int, ...]


class StoreListener(Protocol):
    """Who hears of changes and of the store's state. Called on the loop; must not raise."""

    def on_commit(self, room_id: str, event: Event) -> None:
        """A script call of ours changed the room; told before the outcomes are."""

    def on_store_up(self, server: Server) -> None:
        """A server is back; what happened in its rooms meanwhile is unknown."""

    def on_store_down(self, server: Server) -> None:
        """A server is away. Every command for its rooms is refused until it is back."""

    def on_round_trip(self, seconds: float) -> None:
        """A pipeline was answered, so long after it was sent."""


class HoldStore:
    """Holds in Redis, by the rules of `apply.lua`. Answers come to callbacks, on the loop.

    A command without an answer (`StoreError`) may have been applied or not: a snapshot tells, and
    saying it again is safe.
    """

    def __init__(self, config: Config, topology: Topology, listener: StoreListener) -> None:
        self.origin = secrets.token_hex(4)
        """Stands before each event that this instance publishes, so that it knows them again."""
        self._listener = listener
        self._share = UserInfoFilter(config.privacy.shared_user_info)
        self._prefix = config.redis.prefix
        self._rules = (
            config.holds.seconds * 1000,
            config.holds.max_seats_per_client,
            config.holds.keep_seconds * 1000,
        )
        self._epochs = itertools.count()
        self._open: dict[str, _Commit] = {}
        self._head = functools.lru_cache(HEADS_KEPT)(self._make_head)
        self._publish = "SPUBLISH" if topology.is_cluster else "PUBLISH"
        check = HealthCheck(config.redis, self._publish)

        def connect(
            server: Server, redirected: Callable[[list[tuple[str, Sent]]], None] | None
        ) -> Pipeline:
            return Pipeline(
                server,
                config.redis.connect_timeout_seconds,
                config.redis.timeout_seconds,
                scripts=(APPLY, SNAPSHOT),
                replicas=config.redis.replicas_ack,
                greet=check,
                on_up=functools.partial(listener.on_store_up, server),
                on_down=functools.partial(self._lost, server),
                on_redirected=redirected,
                on_round_trip=listener.on_round_trip,
            )

        self._topology = topology
        self._shards = Shards(topology, config.redis.timeout_seconds, connect)
        self._lane = self._shards.lane

    def clock(self, room_id: str) -> RedisClock:
        """The clock of the Redis server that has the room: the only one for its deadlines."""
        return self._shards.clock(room_id)

    def is_up(self, room_id: str) -> bool:
        """Whether commands for the room have a chance."""
        return self._lane(room_id).is_up

    def is_up_at(self, server: Server) -> bool:
        """Whether commands for rooms of this server have a chance."""
        return self._shards.is_up_at(server)

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreError: Redis can't be had.
            ConfigError: It is not fit for holds.
        """
        try:
            await self._shards.open()
        except BaseException:
            await self._shards.close()
            raise

    async def close(self) -> None:
        """Close; commands that have no answer yet get a StoreError."""
        await self._shards.close()

    def select(
        self, room_id: str, client_id: str, seat_ids: list[str], user_info: bytes, done: Done
    ) -> None:
        """Hold the seats, all or none. `user_info` is a JSON object."""
        operation: Arguments = ("select", client_id, user_info, len(seat_ids), *seat_ids)
        self._commit(room_id, operation, done)

    def release(self, room_id: str, client_id: str, seat_id: str, done: Done) -> None:
        """End a hold before its deadline."""
        self._commit(room_id, ("release", client_id, seat_id), done)

    def expire(self, room_id: str) -> None:
        """End the holds that are past their deadline. Every other commit does that, too."""
        self._commit_of(room_id)

    def snapshot(self, room_id: str, done: Callable[[Snapshot | StoreError], None]) -> None:
        """Read a room, all as of one moment."""
        keys = room_keys(self._prefix, room_id)
        command = pack("EVALSHA", _SNAPSHOT_SHA, 2, keys.holds, keys.meta)
        read = _Read(room_id, command, lambda reply: self._snapshot_of(room_id, reply), done)
        self._lane(room_id).add(read)

    def revision(self, room_id: str, done: Callable[[tuple[str, int] | StoreError], None]) -> None:
        """Read a room's epoch and rev; `("", 0)` if it has no data."""
        command = pack("HMGET", room_keys(self._prefix, room_id).meta, "epoch", "rev")
        self._lane(room_id).add(_Read(room_id, command, _revision_of, done))

    async def settle(self) -> None:
        """Wait until every command given so far has its answer, or can't get one."""
        await self._shards.settle()

    def _lost(self, server: Server) -> None:
        self._topology.doubt()  # its rooms may be elsewhere soon
        self._listener.on_store_down(server)

    def _snapshot_of(self, room_id: str, reply: Reply) -> Snapshot:
        epoch, rev, _now_ms, flat = reply
        holds = {}
        for seat, record in zip(flat[::2], flat[1::2], strict=True):
            deadline_ms, since_ms, client_id, user_info = record.decode().split(" ", 3)
            seat_id = seat.decode()
            holds[seat_id] = hold_of(
                room_id, seat_id, client_id, int(since_ms), int(deadline_ms), self._share(user_info)
            )
        return Snapshot(epoch.decode(), rev, holds)

    def _commit(self, room_id: str, operation: Arguments, done: Done) -> None:
        commit = self._commit_of(room_id)
        if commit is None:
            done(StoreError("Redis is away"))
            return
        commit.arguments.extend(operation)
        commit.waiting.append(done)
        if len(commit.waiting) >= MAX_OPERATIONS or len(commit.arguments) >= MAX_ARGUMENTS:
            del self._open[room_id]

    def _commit_of(self, room_id: str) -> _Commit | None:
        """The room's next script call, to which operations can still be added."""
        commit = self._open.get(room_id)
        if commit is None and (lane := self._lane(room_id)).is_up:
            commit = self._open[room_id] = _Commit(self, room_id)
            lane.add(commit)
        return commit

    def _sent(self, commit: _Commit) -> bytes:
        if self._open.get(commit.room_id) is commit:
            del self._open[commit.room_id]
        epoch = f"{self.origin}{next(self._epochs):x}"
        return self._head(commit.room_id).pack(epoch, *commit.arguments)

    def _make_head(self, room_id: str) -> Head:
        keys = room_keys(self._prefix, room_id)
        words = (*keys[:4], self._publish, keys.channel, self.origin, *self._rules)
        return Head("EVALSHA", _APPLY_SHA, 4, *words)

    def _answered(self, commit: _Commit, reply: Reply | StoreError, is_safe: bool) -> None:
        if self._open.get(commit.room_id) is commit:  # lost before it was sent
            del self._open[commit.room_id]
        event: Event | None = None
        outcomes: Sequence[Outcome | StoreError] = [_NONSENSE] * len(commit.waiting)
        if isinstance(reply, StoreError):
            outcomes = [reply] * len(commit.waiting)
        else:
            try:
                event = _decode_event(reply[0]) if reply[0] else None
                if len(decoded := _decode_outcomes(reply[1])) == len(commit.waiting):
                    outcomes = decoded
            except (msgspec.DecodeError, UnicodeError, TypeError, IndexError):
                log.error("a script call was answered with what is no answer of ours")
        if event is not None:
            self._listener.on_commit(commit.room_id, event)
        if not is_safe:
            # It stands, and everybody is told; but nobody is promised what may yet be lost.
            outcomes = [_UNSAFE] * len(commit.waiting)
        for done, outcome in zip(commit.waiting, outcomes, strict=True):
            try:
                done(outcome)
            except Exception:
                log.exception("taking the outcome of an operation failed; this is a bug")


_NONSENSE = StoreError("Redis answered nonsense")
_UNSAFE = StoreError("Redis has not copied it to its replicas in time")


def _revision_of(reply: Reply) -> tuple[str, int]:
    epoch, rev = reply
    return (epoch.decode(), int(rev)) if epoch else ("", 0)


class _Commit:
    """One room's next script call."""

    changes = True
    __slots__ = ("_store", "arguments", "room_id", "waiting")

    def __init__(self, store: HoldStore, room_id: str) -> None:
        self._store = store
        self.room_id = room_id
        self.arguments: list[str | bytes | int] = []
        self.waiting: list[Done] = []

    def command(self) -> bytes:
        return self._store._sent(self)

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        self._store._answered(self, reply, is_safe)


class _Read(Generic[_T]):
    """One command that only reads; `parse` makes of the reply what `answer` is called with."""

    __slots__ = ("_answer", "_command", "_parse", "room_id")

    changes = False

    def __init__(
        self,
        room_id: str,
        command: bytes,
        parse: Callable[[Reply], _T],
        answer: Callable[[_T | StoreError], None],
    ) -> None:
        self.room_id = room_id
        self._command = command
        self._parse = parse
        self._answer = answer

    def command(self) -> bytes:
        return self._command

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        del is_safe
        result: _T | StoreError
        if isinstance(reply, StoreError):
            result = reply
        else:
            try:
                result = self._parse(reply)
            except Exception:
                log.error("a read was answered with what is no answer of ours")
                result = _NONSENSE
        self._answer(result)
