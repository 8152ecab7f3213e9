"""The rules of apply.lua against a model of them that is small enough to be seen to be right.

Hypothesis makes up the calls; each goes through `HoldStore`, which builds the arguments and reads
the reply, and by redis-py to a real Redis.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import hiredis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seatws.config import Config, Holds
from seatws.holds import Change, Outcome, Snapshot
from seatws.store.holds import APPLY, SNAPSHOT, HoldStore
from seatws.store.pipeline import Job
from seatws.store.servers import ServerAt
from seatws.store.topology import OneServer
from tests.harness import LIMIT_S, unique
from tests.stores import Ear, Shape
from tests.stores import shape as shape

SEATS = ["A1", "A2", "A10", "007", "1e3", "-1", ":@.-"]
CLIENTS = ["ann", "bob", "0", "@"]
USER_INFOS = [
    "{}",
    '{"name":"Ann B. 5 %d"}',
    '{"name":"Åsa\\n\\u0000 😀"}',
    f'{{"x":"{"y " * 500}"}}',
]
CAPS = [0, 1, 2, 4]


@dataclass(frozen=True)
class Select:
    client: str
    seats: list[str]
    user_info: str


@dataclass(frozen=True)
class Release:
    client: str
    seat: str


@dataclass
class Held:
    client: str
    since_ms: int
    deadline_ms: int
    user_info: str


@dataclass
class Model:
    """One room, by the rules; no I/O and no clock."""

    holds: dict[str, Held] = field(default_factory=dict)
    rev: int = 0
    gone_at: int | None = None
    changes: list[Change] = field(default_factory=list)
    """Of the latest call."""

    def call(self, now_ms: int, rules: Holds, operations: list[Select | Release]) -> list[Outcome]:
        self.changes = []
        is_fresh = self.rev == 0
        deadlines = self._deadlines()
        due = [seat for seat, hold in self.holds.items() if hold.deadline_ms <= now_ms]
        for seat in sorted(due, key=lambda seat: (self.holds[seat].deadline_ms, seat)):
            self._end("expired", seat)
        outcomes = [
            self._select(now_ms, rules, operation)
            if isinstance(operation, Select)
            else self._release(operation)
            for operation in operations
        ]
        kept = {change.seat_id for change in self.changes if change.kind == "selected"}
        if kept & self.holds.keys():
            # A hold that ends in this very call counts, too, unless its seat is held anew: Redis
            # forgets it last.
            deadlines |= self._deadlines()
            self.gone_at = max(deadlines.values()) + rules.keep_seconds * 1000
        elif is_fresh and self.changes:
            self.gone_at = now_ms + (rules.seconds + rules.keep_seconds) * 1000
        return outcomes

    def _deadlines(self) -> dict[str, int]:
        return {seat: hold.deadline_ms for seat, hold in self.holds.items()}

    def _select(self, now_ms: int, rules: Holds, ask: Select) -> Outcome:
        taken = [
            (seat, 0, self.holds[seat].deadline_ms)
            for seat in ask.seats
            if seat in self.holds and self.holds[seat].client != ask.client
        ]
        if taken:
            return Outcome("taken", taken)
        free = [seat for seat in ask.seats if seat not in self.holds]
        held = sum(hold.client == ask.client for hold in self.holds.values())
        if free and rules.max_seats_per_client and held + len(free) > rules.max_seats_per_client:
            return Outcome("limit")
        answer = []
        for seat in ask.seats:
            rev = 0
            if seat in free:
                self.rev = rev = self.rev + 1
                deadline_ms = now_ms + rules.seconds * 1000
                self.holds[seat] = Held(ask.client, now_ms, deadline_ms, ask.user_info)
                change = (rev, "selected", seat, ask.client, now_ms, deadline_ms, ask.user_info)
                self.changes.append(Change(*change))  # type: ignore[arg-type]
            answer.append((seat, rev, self.holds[seat].deadline_ms))
        return Outcome("ok", answer)

    def _release(self, ask: Release) -> Outcome:
        if ask.seat not in self.holds or self.holds[ask.seat].client != ask.client:
            return Outcome("not_holder")
        self._end("released", ask.seat)
        return Outcome("ok", [(ask.seat, self.rev, 0)])

    def _end(self, kind: Any, seat: str) -> None:
        self.rev += 1
        self.changes.append(Change(self.rev, kind, seat, self.holds.pop(seat).client))


class SayAtOnce:
    """Stands where `HoldStore` has its pipeline: says its commands to Redis when told to."""

    is_up = True

    def __init__(self, client: Any) -> None:
        self._client = client
        self._jobs: list[Job] = []

    def add(self, job: Job) -> None:
        self._jobs.append(job)

    def say(self) -> Any:
        """Say the one command that was asked for; Redis's reply, once it was taken."""
        (job,) = self._jobs
        self._jobs.clear()
        reply = self._client.execute_command(*unpack(job.command()))
        job.done(reply)
        return reply


def unpack(command: bytes) -> list[bytes]:
    """The words of a packed command, which has the form of a reply."""
    reader = hiredis.Reader()
    reader.feed(command)
    words: list[bytes] = reader.gets()
    return words


seats = st.sampled_from(SEATS)
clients = st.sampled_from(CLIENTS)
selects = st.builds(
    Select,
    clients,
    st.lists(seats, min_size=1, max_size=5, unique=True),
    st.sampled_from(USER_INFOS),
)
releases = st.builds(Release, clients, seats)
rules = st.builds(
    Holds,
    seconds=st.sampled_from([300, 301, 3600]),
    max_seats_per_client=st.sampled_from(CAPS),
    keep_seconds=st.sampled_from([60, 3600]),
)


class RoomMachine(RuleBasedStateMachine):
    """A room in Redis and its model, to which the same things happen."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.room = unique("model")
        self.keys = shape.keys(self.room)
        self.model = Model()
        self.epochs: list[str] = []
        self.ear = Ear()
        self.client = shape.another()
        for script in (APPLY, SNAPSHOT):
            self.client.script_load(script)
        self.published = self.client.pubsub()
        self.published.subscribe(self.keys.channel)
        assert self.published.get_message(timeout=LIMIT_S)["type"] == "subscribe"

    def teardown(self) -> None:
        self.shape.redis.delete(*self.keys[:4])
        self.published.close()
        self.client.close()

    def store(self, rules: Holds) -> tuple[HoldStore, SayAtOnce]:
        store = HoldStore(Config(holds=rules), OneServer(ServerAt(self.shape.url)), self.ear)
        pipeline = SayAtOnce(self.client)
        store._lane = lambda room_id: pipeline
        return store, pipeline

    @rule(rules=rules, operations=st.lists(selects | releases, max_size=5))
    def call(self, rules: Holds, operations: list[Select | Release]) -> None:
        store, pipeline = self.store(rules)
        outcomes: list[Any] = []
        if not operations:
            store.expire(self.room)
        for operation in operations:
            if isinstance(operation, Select):
                info = operation.user_info.encode()
                store.select(self.room, operation.client, operation.seats, info, outcomes.append)
            else:
                store.release(self.room, operation.client, operation.seat, outcomes.append)
        self.ear.events.clear()
        event, _, now_ms = pipeline.say()
        assert outcomes == self.model.call(now_ms, rules, operations)
        self.check_told()
        assert self.heard() == ([store.origin.encode() + event] if event else [])

    def check_told(self) -> None:
        """What changed was told in one event, or none; a new life of the room has a new epoch."""
        events = [event for room, event in self.ear.events if room == self.room]
        assert [event.changes for event in events] == [self.model.changes] * bool(
            self.model.changes
        )
        for event in events:
            if event.changes[0].rev == 1:
                assert event.epoch not in self.epochs
                self.epochs.append(event.epoch)
            assert event.epoch == self.epochs[-1]

    def heard(self) -> list[bytes]:
        """What was published since the last time."""
        self.client.publish(self.keys.channel, "end")
        messages = iter(lambda: self.published.get_message(timeout=LIMIT_S), None)
        said = (message["data"] for message in messages)
        return list(itertools.takewhile(lambda data: data != b"end", said))

    @precondition(lambda self: self.model.holds)
    @rule(data=st.data())
    def deadlines_pass(self, data: st.DataObject) -> None:
        now_ms = self.shape.now_ms()
        for seat in data.draw(st.sets(st.sampled_from(sorted(self.model.holds)), min_size=1)):
            deadline_ms = now_ms - data.draw(st.integers(0, 2))
            self.shape.move_deadline(self.room, seat, deadline_ms)
            self.model.holds[seat].deadline_ms = deadline_ms

    @precondition(lambda self: self.model.rev)
    @rule()
    def keys_end(self) -> None:
        """As Redis does it when their time has come: all of them at once."""
        self.shape.redis.delete(*self.keys[:4])
        self.model = Model()

    @invariant()
    def redis_holds_what_the_model_holds(self) -> None:
        ask, holds = self.shape.redis.execute_command, self.model.holds
        assert ask("HGETALL", self.keys.holds) == {
            seat: f"{hold.deadline_ms} {hold.since_ms} {hold.client} {hold.user_info}"
            for seat, hold in holds.items()
        }
        assert ask("HGETALL", self.keys.owners) == {
            client: str(count)
            for client, count in Counter(hold.client for hold in holds.values()).items()
        }
        deadlines = dict(self.shape.redis.zrange(self.keys.deadlines, 0, -1, withscores=True))
        assert deadlines == {seat: hold.deadline_ms for seat, hold in holds.items()}

    @invariant()
    def redis_counts_what_the_model_counts(self) -> None:
        known = self.shape.redis.execute_command("HGETALL", self.keys.meta)
        rev = self.model.rev
        assert known == ({"epoch": self.epochs[-1], "rev": str(rev)} if rev else {})

    @invariant()
    def all_keys_end_together(self) -> None:
        """Those of a room without holds, too, of which only `meta` is left."""
        expected = set(self.keys[:4]) if self.model.holds else {self.keys.meta}
        assert self.shape.keys_of(self.room) == (expected if self.model.rev else set())
        assert self.shape.ends_at(self.room) == ({self.model.gone_at} if self.model.rev else set())

    @invariant()
    def snapshot_is_the_model(self) -> None:
        store, pipeline = self.store(Holds())
        found: list[Any] = []
        store.snapshot(self.room, found.append)
        pipeline.say()
        snapshot: Snapshot = found[0]
        assert snapshot.epoch == (self.epochs[-1] if self.model.rev else "")
        assert snapshot.rev == self.model.rev
        seen = {
            seat: (hold.selection.client_id, hold.deadline_ms, bytes(hold.selection.user_info))
            for seat, hold in snapshot.holds.items()
        }
        assert seen == {
            seat: (hold.client, hold.deadline_ms, hold.user_info.encode())
            for seat, hold in self.model.holds.items()
        }


def test_every_call_does_what_the_rules_say(shape: Shape) -> None:
    """Same outcomes, revs, changes and order as the model, and Redis left as the model is."""
    run_state_machine_as_test(
        lambda: RoomMachine(shape),  # type: ignore[arg-type]
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=timedelta(seconds=30),
            suppress_health_check=list(HealthCheck),
        ),
    )
