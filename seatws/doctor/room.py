"""A room's data in Redis: does all of it agree?"""

from __future__ import annotations

import importlib.resources
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import redis.exceptions

from seatws.doctor.finding import Finding
from seatws.doctor.servers import Server
from seatws.messages import wrong_id
from seatws.store.keys import RoomKeys, room_keys

INSPECT: Final = (importlib.resources.files("seatws.store") / "lua/inspect.lua").read_text()

LATE_MS: Final = 5_000
"""A hold that is so long past its deadline is one that nobody has ended."""
LONGEST_HOLD_MS: Final = 3_600_000
"""What `holds.seconds` can be at the most."""
SAME_MS: Final = 5
"""Times to live are read one after the other, by servers before 7.0 at a clock that moves."""
SHOWN: Final = 5
"""So many of a kind are named; the others are counted."""

_RECORD: Final = re.compile(r"(\d{1,16}) (\d{1,16}) (\S+) (\{.*\})", re.DOTALL)
_TYPES: Final = ("hash", "zset", "hash", "hash")
_DAMAGE: Final = (
    "our scripts can't leave it so: find what else writes to these keys; when nobody is in the "
    "room, `DEL {keys}` frees all its seats"
)


@dataclass(slots=True)
class Contents:
    """What a room has in Redis, as of one moment."""

    now_ms: int
    types: list[str]
    """Of the keys, in the order of `RoomKeys`; `none`: it is not there."""
    ttls: list[int]
    """Milliseconds; -1: for ever."""
    holds: dict[str, str] = field(default_factory=dict)
    deadlines: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)


class RoomReader:
    """Reads rooms.

    Args:
        server: That has them.
        prefix: What the keys begin with.
    """

    def __init__(self, server: Server, prefix: str) -> None:
        self._server = server
        self._prefix = prefix

    def read(self, room_id: str) -> Contents:
        """All of a room, in one atomic step.

        Raises:
            redis.exceptions.RedisError: It could not be read.
        """
        keys = room_keys(self._prefix, room_id)[:4]
        try:
            reply = self._server.ask("EVAL_RO", INSPECT, len(keys), *keys)
        except redis.exceptions.ResponseError as exc:
            if "unknown command" not in str(exc):
                raise
            reply = self._server.ask("EVAL", INSPECT, len(keys), *keys)  # before Redis 7.0
        now_ms, types, ttls, holds, deadlines, owners, meta = reply
        return Contents(
            now_ms,
            types,
            ttls,
            _pairs(holds),
            {seat: _whole(score) for seat, score in _pairs(deadlines).items()},
            _pairs(owners),
            _pairs(meta),
        )


def judge(contents: Contents, keys: RoomKeys, followers: int) -> Iterator[Finding]:
    """Say whether a room's data agree, and what does not.

    Args:
        contents: What was read.
        keys: Where.
        followers: How many instances listen to the room's events.
    """
    if set(contents.types) == {"none"}:
        yield Finding(
            "ok",
            "room",
            "there is nothing in Redis: no seat was held lately (or its id, or redis.prefix, is "
            "another)",
        )
        return
    problems = list(_problems(contents, keys))
    damage = _DAMAGE.format(keys=" ".join(f"'{key}'" for key in keys[:4]))
    for number, what in enumerate(problems):
        yield Finding("problem", "room", what, damage if number == 0 else "the same goes for it")
    yield from _late(contents, followers)
    if not problems:
        yield Finding(
            "ok",
            "room",
            "holds, deadlines, owners, rev and times to live agree; seats held: "
            f"{len(contents.holds)}, rev {contents.meta['rev']}, instances that follow: "
            f"{followers}",
        )


def _problems(contents: Contents, keys: RoomKeys) -> Iterator[str]:
    for key, kind, wanted in zip(keys, contents.types, _TYPES, strict=False):
        if kind not in (wanted, "none"):
            yield f"{key} is a {kind}, not a {wanted}"
            return  # its contents could not be read
    owners: Counter[str] = Counter()
    deadlines: dict[str, int] = {}
    unreadable: list[str] = []
    for seat, record in contents.holds.items():
        parts = _RECORD.fullmatch(record)
        if parts is None or not _is_sound(seat, parts, contents.now_ms):
            unreadable.append(_shown(seat))
        if parts is not None:
            deadlines[seat] = int(parts[1])
            owners[parts[3]] += 1
    yield from _some(unreadable, "no record of ours: seat")
    yield from _of_deadlines(contents, deadlines)
    yield from _of_owners(contents.owners, owners)
    yield from _of_rev(contents)
    yield from _of_ttls(contents)


def _of_deadlines(contents: Contents, recorded: Mapping[str, int]) -> Iterator[str]:
    without = [_shown(seat) for seat in contents.holds if seat not in contents.deadlines]
    yield from _some(without, "held without an entry in the deadlines, so for ever: seat")
    alone = [_shown(seat) for seat in contents.deadlines if seat not in contents.holds]
    yield from _some(alone, "in the deadlines but not held: seat")
    others = [
        _shown(seat)
        for seat, deadline in recorded.items()
        if contents.deadlines.get(seat, deadline) != deadline
    ]
    yield from _some(others, "another deadline in the record than in the deadlines: seat")


def _of_owners(counted: Mapping[str, str], found: Mapping[str, int]) -> Iterator[str]:
    wrong = [
        f"{counted.get(client, '0')!r} counted, {found.get(client, 0)} held"
        for client in sorted({*counted, *found})
        if counted.get(client, "0") != str(found.get(client, 0))
    ]
    # Not whose: who they are is nobody's business here.
    yield from _some(wrong, "a client's number of seats is wrong:")


def _of_rev(contents: Contents) -> Iterator[str]:
    rev, epoch = contents.meta.get("rev", ""), contents.meta.get("epoch", "")
    if not epoch or not rev.isdigit():
        yield "no epoch or no rev: instances can't tell what they have missed"
    elif int(rev) < len(contents.holds):
        yield f"rev {rev} is below the number of holds, {len(contents.holds)}"


def _of_ttls(contents: Contents) -> Iterator[str]:
    ttls = [ttl for ttl in contents.ttls if ttl != -2]  # not there (PTTL)
    if -1 in ttls:
        yield "a key without a time to live: it would stay for ever"
        return
    if max(ttls) - min(ttls) > SAME_MS:
        yield f"its keys do not end together, but within {(max(ttls) - min(ttls)) / 1000:g} s"
    last = max(contents.deadlines.values(), default=0)
    if contents.now_ms + min(ttls) + SAME_MS < last:
        yield "a key ends before the last hold does"


def _late(contents: Contents, followers: int) -> Iterator[Finding]:
    late = [
        contents.now_ms - deadline
        for seat, deadline in contents.deadlines.items()
        if deadline < contents.now_ms - LATE_MS
        and contents.holds.get(seat, "").startswith(f"{deadline} ")
    ]
    if not late:
        return
    what = f"holds past their deadline: {len(late)}, by up to {max(late) / 1000:.0f} s"
    if followers:
        yield Finding(
            "problem",
            "room",
            f"{what}, though instances follow the room ({followers}): its viewers still see the "
            "seats as taken",
            "look for an instance that hangs (seatws_loop_lag_seconds, "
            "seatws_expiry_lag_seconds), and restart it",
        )
    else:
        yield Finding(
            "ok",
            "room",
            f"{what}; no instance follows the room now, they count as free, and the next request "
            "there ends them",
        )


def _is_sound(seat: str, parts: re.Match[str], now_ms: int) -> bool:
    deadline, since, client, user_info = int(parts[1]), int(parts[2]), parts[3], parts[4]
    try:
        json.loads(user_info)
    except ValueError:
        return False
    return (
        wrong_id("seat_id", seat) is None
        and wrong_id("client_id", client) is None
        and since < deadline <= since + LONGEST_HOLD_MS
        and deadline <= now_ms + LONGEST_HOLD_MS
    )


def _some(named: list[str], what: str) -> Iterator[str]:
    if named:
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        yield f"{what} {', '.join(named[:SHOWN])}{more}"


def _shown(seat: str) -> str:
    """A seat's id; what is none is shown as it can be shown."""
    return seat if wrong_id("seat_id", seat) is None else ascii(seat[:40])


def _whole(score: str) -> int:
    number = float(score)
    return int(number) if math.isfinite(number) else -1


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
