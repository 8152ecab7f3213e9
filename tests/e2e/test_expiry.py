"""Deadlines: everybody is told once and in time, on every instance; and what is left of a room."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Starter
from tests.fetch import fetch, json_of
from tests.harness import (
    Client,
    Instance,
    Message,
    Valkey,
    holders_in_redis,
    unique,
    wait_until_async,
)

SHORT = {"SEATWS_HOLDS__SECONDS": "5", "SEATWS_HOLDS__MAX_SEATS_PER_CLIENT": "50"}
SECOND_MS = 1000


def move_deadline(valkey: Valkey, room: str, seat: str, in_ms: int) -> int:
    """Make a hold of a room that nobody follows end so soon; when that is, Unix ms."""
    with valkey.client() as redis:
        seconds, micros = redis.time()
        deadline = int(seconds * 1000 + micros // 1000 + in_ms)
        record = redis.hget(f"seatws:{{{room}}}:holds", seat)
        assert record is not None
        _, rest = str(record).split(" ", 1)
        redis.hset(f"seatws:{{{room}}}:holds", seat, f"{deadline} {rest}")
        redis.zadd(f"seatws:{{{room}}}:deadlines", {seat: deadline})
    return deadline


def keys_of(valkey: Valkey, room: str) -> list[str]:
    """What Redis has of a room."""
    with valkey.client() as redis:
        return [str(key) for key in redis.scan_iter(f"*{room}*")]


@contextlib.asynccontextmanager
async def viewers(room: str, *servers: Instance) -> AsyncIterator[list[Client]]:
    """A viewer of the room on each of the servers."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.connect(each.url)) for each in servers]
        for client in clients:
            await client.join(room)
        yield clients


def news(client: Client) -> list[tuple[str, str]]:
    """What happened to which seat, since it joined; with a release's reason."""
    return [
        (message["seat_id"], message.get("reason", "selected"))
        for message in client.received
        if message["type"] in ("seat_selected", "seat_released")
    ]


async def sees(client: Client, room: str, holders: dict[str, str]) -> None:
    """Wait until this is the client's map."""
    await client.until(lambda: client.maps[room] == holders)


async def expired(client: Client, seat: str) -> float:
    """Wait until the viewer is told that the hold ended; when that was, Unix ms."""
    await client.heard(
        lambda message: message["type"] == "seat_released" and message["seat_id"] == seat
    )
    return time.time() * 1000  # Redis's clock is this machine's


@pytest.mark.gen_test(timeout=60)
async def test_each_viewer_is_told_once_and_within_a_second(start: Starter, valkey: Valkey) -> None:
    """On every instance, the holder too; `expired`, and not before the deadline."""
    one, two, three = (start(valkey.url, **SHORT) for _ in range(3))
    room = unique("room")
    async with Client.connect(three.url, "holder") as holder:
        await holder.select(room, "A1")
        deadline = move_deadline(valkey, room, "A1", 1500)
        async with viewers(room, one, one, two, three) as watching:
            await holder.join(room)
            for told_at in await asyncio.gather(
                *(expired(client, "A1") for client in [*watching, holder])
            ):
                assert 0 <= told_at - deadline < SECOND_MS
            # Whatever an instance still does about it, it has done when the next change comes.
            await holder.select(room, "A2")
            for client in watching:
                await sees(client, room, {"A2": "holder"})
                assert news(client) == [("A1", "expired"), ("A2", "selected")]
                (told,) = [each for each in client.received if each["type"] == "seat_released"]
                assert told["client_id"] == "holder"
                assert told["rev"] == 2
            assert news(holder)[1:] == [("A1", "expired"), ("A2", "selected")]


@pytest.mark.gen_test(timeout=60)
async def test_a_hold_lasts_as_long_as_it_was_said_to(start: Starter, valkey: Valkey) -> None:
    """From `seat_selected` on, five seconds here, seats taken together and one after the other."""
    one, two = start(valkey.url, **SHORT), start(valkey.url, **SHORT)
    room = unique("room")
    seats = [f"A{number}" for number in range(20)]
    async with viewers(room, one, two) as (holder, watcher):
        await holder.send(type="select_seats", room_id=room, seat_ids=seats)
        await watcher.until(lambda: len(watcher.maps[room]) == 20)
        assert (await holder.select(room, "B1"))["rev"] == 21
        moments = {hold["seat_id"]: hold for hold in await selections(two, room)}
        for client in (holder, watcher):
            await sees(client, room, {})
            assert time.time() * 1000 - unix_ms(moments["B1"]["expires_at"]) < SECOND_MS
            assert client.revs[room] == list(range(1, 43))
            assert sorted(news(client)[21:]) == sorted((seat, "expired") for seat in [*seats, "B1"])
        assert news(holder) == news(watcher)
    for hold in moments.values():
        assert unix_ms(hold["expires_at"]) - unix_ms(hold["timestamp"]) == 5 * SECOND_MS


async def selections(server: Instance, room: str) -> list[Message]:
    """The room's map, by HTTP."""
    answer = json_of(await fetch(f"{server.http}/room/{room}/selections"))
    return list(answer["selections"])


def unix_ms(moment: str) -> int:
    """RFC 3339 with milliseconds to Unix ms."""
    return round(datetime.datetime.fromisoformat(moment).timestamp() * 1000)


@pytest.mark.gen_test(timeout=60)
async def test_holds_end_one_after_the_other(start: Starter, valkey: Valkey) -> None:
    """Each at its own deadline: the timer goes on to the next, and to one that came in between."""
    one, two = start(valkey.url, **SHORT), start(valkey.url, **SHORT)
    room = unique("room")
    seats = [f"A{number}" for number in range(6)]
    async with Client.connect(one.url) as holder:
        await holder.send(type="select_seats", room_id=room, seat_ids=seats)
        await holder.select(room, "B1")
        # From the last to the first, so that the order of the seats is no help.
        deadlines = {
            seat: move_deadline(valkey, room, seat, 900 + 250 * at)
            for at, seat in enumerate(reversed(seats))
        }
        async with viewers(room, one, two) as watching:
            for client in watching:
                for seat, deadline in deadlines.items():
                    late = await expired(client, seat) - deadline
                    if client is watching[0]:
                        assert 0 <= late < SECOND_MS
                assert [seat for seat, _ in news(client)] == list(reversed(seats))
                assert client.maps[room] == {"B1": holder.client_id}


@pytest.mark.gen_test(timeout=60)
async def test_a_seat_is_free_right_at_its_deadline(start: Starter, valkey: Valkey) -> None:
    """Who asks without a pause gets it then and not before; viewers hear of the end first."""
    one, two = start(valkey.url, **SHORT), start(valkey.url, **SHORT)
    room = unique("room")
    async with Client.connect(one.url, "before") as before, Client.connect(two.url) as after:
        await before.select(room, "A1")
        deadline = move_deadline(valkey, room, "A1", 800)
        async with viewers(room, one, two) as watching:
            while (answer := await after.select(room, "A1"))["type"] == "error":
                assert answer["code"] == "seat_taken"
                assert unix_ms(answer["conflicts"][0]["expires_at"]) == deadline
            assert answer["type"] == "seat_selected"
            taken_at = unix_ms(answer["expires_at"]) - 5 * SECOND_MS
            assert 0 <= taken_at - deadline < SECOND_MS
            assert (await before.release(room, "A1"))["code"] == "not_holder"
            for client in watching:
                await sees(client, room, {"A1": after.client_id})
                assert news(client) == [("A1", "expired"), ("A1", "selected")]


@pytest.mark.gen_test(timeout=60)
async def test_a_repeat_does_not_renew_a_hold(start: Starter, valkey: Valkey) -> None:
    """Its holder asks without a pause: the deadline stays, and after it there is a new hold."""
    server = start(valkey.url, **SHORT)
    room = unique("room")
    async with Client.connect(server.url) as holder:
        await holder.select(room, "A1")
        deadline = move_deadline(valkey, room, "A1", 800)
        await holder.join(room)
        while "rev" not in (answer := await holder.select(room, "A1")):
            assert unix_ms(answer["expires_at"]) == deadline
        assert answer["rev"] == 3  # the end of the first has taken a rev of its own
        assert 0 <= unix_ms(answer["expires_at"]) - 5 * SECOND_MS - deadline < SECOND_MS
        assert ("A1", "expired") in news(holder)


@pytest.mark.gen_test(timeout=60)
async def test_a_room_that_nobody_visits_leaves_nothing(start: Starter, valkey: Valkey) -> None:
    """Its keys go together, `keep_seconds` after the last deadline; a release changes nothing."""
    server = start(valkey.url, **SHORT, SEATWS_HOLDS__KEEP_SECONDS="1")
    room = unique("room")
    async with Client.connect(server.url) as client:
        await client.select(room, "A1")
        last = await client.select(room, "A2")
        await client.release(room, "A1")
    keys = keys_of(valkey, room)
    assert len(keys) == 4
    gone_at = unix_ms(last["expires_at"]) + SECOND_MS
    with valkey.client() as redis:
        assert {redis.pexpiretime(key) for key in keys} == {gone_at}
    await wait_until_async(lambda: not keys_of(valkey, room))


@pytest.mark.gen_test(timeout=60)
async def test_a_room_goes_on_after_its_keys_are_gone(start: Starter, valkey: Valkey) -> None:
    """Its viewers stay, with an empty map; the next hold begins anew and reaches all of them."""
    settings = {**SHORT, "SEATWS_HOLDS__KEEP_SECONDS": "1"}
    one, two = start(valkey.url, **settings), start(valkey.url, **settings)
    room = unique("room")
    async with Client.connect(one.url) as holder:
        await holder.select(room, "A1")
        with valkey.client() as redis:
            for key in keys_of(valkey, room):
                redis.pexpire(key, 1500)
        move_deadline(valkey, room, "A1", 500)
        async with viewers(room, one, two) as watching:
            await asyncio.gather(*(expired(client, "A1") for client in watching))
            await wait_until_async(lambda: not keys_of(valkey, room))
            assert (await holder.select(room, "B1"))["type"] == "seat_selected"
            for client in watching:
                await sees(client, room, {"B1": holder.client_id})
            assert holders_in_redis(valkey, room) == {"B1": holder.client_id}
