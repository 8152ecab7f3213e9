"""`run.py doctor --room`: do a room's data in Redis agree? Damage is done by hand, in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from seatws.config import Redis
from seatws.doctor.finding import Finding
from seatws.doctor.room import LATE_MS, RoomReader, judge
from seatws.doctor.servers import Server, open_at
from seatws.store.holds import APPLY
from seatws.store.keys import RoomKeys, room_keys
from tests.harness import Valkey, unique

HOLD_MS, KEEP_MS = 300_000, 3_600_000


class Room:
    """A room in a real Redis."""

    def __init__(self, valkey: Valkey) -> None:
        self.room_id = unique("room")
        self.keys: RoomKeys = room_keys("seatws", self.room_id)
        self.redis: Any = redis.Redis(  # whose own types fit none of its replies
            unix_socket_path=str(valkey.socket), decode_responses=True, encoding_errors="replace"
        )
        self.server = Server("Redis", open_at(valkey.url, Redis(url=valkey.url)))

    def apply(self, *operations: str | int) -> None:
        """Do what an instance does."""
        rules = ["PUBLISH", self.keys.channel, "origin-1", HOLD_MS, 0, KEEP_MS, "epoch-1"]
        self.redis.eval(APPLY.decode(), 4, *self.keys[:4], *rules, *operations)

    def look(self, followers: int = 0) -> list[Finding]:
        """What the doctor says."""
        contents = RoomReader(self.server, "seatws").read(self.room_id)
        return list(judge(contents, self.keys, followers))

    def problems(self) -> list[str]:
        """What it says is wrong."""
        return [found.what for found in self.look() if found.level == "problem"]

    def set_deadline(self, seat: str, ms_from_now: int) -> None:
        """Move a hold's deadline, wherever it is written."""
        deadline = int(time.time() * 1000) + ms_from_now
        _, _, rest = self.redis.hget(self.keys.holds, seat).split(" ", 2)
        record = f"{deadline} {deadline - HOLD_MS} {rest}"
        self.redis.hset(self.keys.holds, seat, record)
        self.redis.zadd(self.keys.deadlines, {seat: deadline})


@pytest.fixture
def empty(valkey: Valkey) -> Iterator[Room]:
    """A room where nothing was ever held."""
    room = Room(valkey)
    yield room
    room.redis.delete(*room.keys[:4])
    room.redis.close()
    room.server.client.close()


@pytest.fixture
def room(empty: Room) -> Room:
    """A room in which ann holds A1 and A2, and bob B7; C1 was held."""
    empty.apply("select", "ann", '{"name":"Ann Lee"}', 2, "A1", "A2")
    empty.apply("select", "bob", "{}", 2, "B7", "C1", "release", "bob", "C1")
    return empty


def test_nothing_is_said_of_a_room_without_data(empty: Room) -> None:
    """But that it has none."""
    (found,) = empty.look()
    assert found.level == "ok"
    assert found.what.startswith("there is nothing in Redis")


def test_a_sound_room_is_sound(room: Room) -> None:
    """And is told in figures."""
    (found,) = room.look(followers=2)
    assert found == Finding(
        "ok",
        "room",
        "holds, deadlines, owners, rev and times to live agree; seats held: 3, rev 5, instances "
        "that follow: 2",
    )


def test_a_room_that_was_emptied_is_sound(room: Room) -> None:
    """Only its epoch and rev are left."""
    room.apply("release", "ann", "A1", "release", "ann", "A2", "release", "bob", "B7")
    (found,) = room.look()
    assert found.level == "ok"
    assert "seats held: 0, rev 8" in found.what


def test_looking_changes_nothing(room: Room) -> None:
    """Not even a hold that is past its deadline."""
    room.set_deadline("A1", -60_000)

    def everything() -> list[object]:
        return [
            room.redis.hgetall(room.keys.holds),
            room.redis.zrange(room.keys.deadlines, 0, -1, withscores=True),
            room.redis.hgetall(room.keys.owners),
            room.redis.hgetall(room.keys.meta),
            [room.redis.pexpiretime(key) for key in room.keys[:4]],
        ]

    before = everything()
    room.look()
    assert everything() == before


Damage = Callable[[Room], object]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a hold without a deadline": (
        lambda room: room.redis.zrem(room.keys.deadlines, "A1"),
        "held without an entry in the deadlines, so for ever: seat A1",
    ),
    "a deadline without a hold": (
        lambda room: room.redis.zadd(room.keys.deadlines, {"Z9": time.time() * 1000}),
        "in the deadlines but not held: seat Z9",
    ),
    "two deadlines": (
        lambda room: room.redis.zincrby(room.keys.deadlines, 1, "B7"),
        "another deadline in the record than in the deadlines: seat B7",
    ),
    "a count too high": (
        lambda room: room.redis.hincrby(room.keys.owners, "ann", 1),
        "a client's number of seats is wrong: '3' counted, 2 held",
    ),
    "a count that is missing": (
        lambda room: room.redis.hdel(room.keys.owners, "bob"),
        "a client's number of seats is wrong: '0' counted, 1 held",
    ),
    "a count of nobody": (
        lambda room: room.redis.hset(room.keys.owners, "mallory", "1"),
        "a client's number of seats is wrong: '1' counted, 0 held",
    ),
    "a rev too low": (
        lambda room: room.redis.hset(room.keys.meta, "rev", 2),
        "rev 2 is below the number of holds, 3",
    ),
    "no rev": (
        lambda room: room.redis.hdel(room.keys.meta, "rev"),
        "no epoch or no rev: instances can't tell what they have missed",
    ),
    "no epoch": (
        lambda room: room.redis.delete(room.keys.meta),
        "no epoch or no rev: instances can't tell what they have missed",
    ),
    "a key for ever": (
        lambda room: room.redis.persist(room.keys.owners),
        "a key without a time to live: it would stay for ever",
    ),
    "keys that end apart": (
        lambda room: room.redis.pexpireat(
            room.keys.meta, room.redis.pexpiretime(room.keys.holds) + 60_000
        ),
        "its keys do not end together, but within 60 s",
    ),
    "keys that end too early": (
        lambda room: [room.redis.expire(key, 60) for key in room.keys[:4]],
        "a key ends before the last hold does",
    ),
    "a record of two words": (
        lambda room: room.redis.hset(room.keys.holds, "A1", "1 2"),
        "no record of ours: seat A1",
    ),
    "a record without JSON": (
        lambda room: room.redis.hset(
            room.keys.holds, "A1", room.redis.hget(room.keys.holds, "A1")[:-1]
        ),
        "no record of ours: seat A1",
    ),
    "a record that ends before it begins": (
        lambda room: room.redis.hset(room.keys.holds, "A1", "1 2 ann {}"),
        "no record of ours: seat A1",
    ),
    "a deadline far away": (
        lambda room: room.set_deadline("A1", 7_200_000),
        "no record of ours: seat A1",
    ),
    "a seat that is none": (
        lambda room: room.redis.hset(
            room.keys.holds, "\x1b[2J", room.redis.hget(room.keys.holds, "A1")
        ),
        r"no record of ours: seat '\x1b[2J'",
    ),
    "what is no text": (
        lambda room: room.redis.hset(room.keys.holds, b"\xff", b"\xfe"),
        r"no record of ours: seat '\\xff'",
    ),
    "a key of another kind": (
        lambda room: [room.redis.delete(room.keys.owners), room.redis.set(room.keys.owners, "x")],
        "seatws:{ROOM}:owners is a string, not a hash",
    ),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_found(room: Room, damage: Damage, says: str) -> None:
    """Each kind by its own line, and what to do; no client, and nothing of `user_info`."""
    damage(room)
    findings = [found for found in room.look() if found.level == "problem"]
    assert says.replace("ROOM", room.room_id) in [found.what for found in findings]
    assert f"`DEL '{room.keys.holds}' " in findings[0].fix
    for found in findings:
        assert not any(word in found.text for word in ("ann", "bob", "mallory", "Lee"))
        assert found.text.isprintable()


def test_many_of_a_kind_are_counted(empty: Room) -> None:
    """Some are named, in one line."""
    seats = [f"S{number}" for number in range(40)]
    empty.apply("select", "ann", "{}", len(seats), *seats)
    empty.redis.delete(empty.keys.deadlines)
    (what,) = (what for what in empty.problems() if what.startswith("held without"))
    assert what.endswith(" and 35 more")
    assert what.count("S") == 5


def test_late_holds_are_harmless_where_nobody_follows(room: Room) -> None:
    """They count as free; where an instance follows it should have ended them."""
    room.set_deadline("A1", -LATE_MS // 2)
    assert [found.level for found in room.look(followers=1)] == ["ok"], "an instance may be at it"
    room.set_deadline("A1", -60_000)
    room.set_deadline("A2", -90_000)
    late, sound = room.look(followers=0)
    assert (late.level, sound.level) == ("ok", "ok")
    assert late.what.startswith("holds past their deadline: 2, by up to 90 s; no instance follows")
    late, sound = room.look(followers=1)
    assert (late.level, sound.level) == ("problem", "ok")
    assert late.what.startswith("holds past their deadline: 2, by up to 90 s, though instances")
    assert "restart it" in late.fix
    room.apply()
    (sound,) = room.look(followers=1)
    assert "seats held: 1, rev 7" in sound.what
