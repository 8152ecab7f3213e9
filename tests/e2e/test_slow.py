"""Viewers that don't read: they cost little, disturb nobody, and end with the right map or none."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Starter
from tests.fetch import fetch, until_connections
from tests.harness import Client, Instance, Message, Valkey, holders_in_redis, unique
from tests.raw import RawSocket, frame

CHANGES = 10_000
A_FEW_MIB = 4.0
BIG = {"note": "x" * 3_000}
"""A `user_info` with which the changes are 15 MiB: a multiple of what the kernel takes for us."""
SETTINGS = {
    "SEATWS_HOLDS__MAX_SEATS_PER_CLIENT": "0",
    "SEATWS_LIMITS__USER_INFO_BYTES": "4000",
}


@contextlib.asynccontextmanager
async def lazy_client(server: Instance) -> AsyncIterator[Client]:
    """A client that can stop reading: the kernel takes little in its place; nothing is deflated."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.connect(("127.0.0.1", server.port))
        async with Client.connect(server.url, sock=sock, compression=None) as client:
            yield client


def stop_reading(client: Client) -> None:
    """Leave everything that comes in the kernel, until it is full."""
    client.socket.transport.pause_reading()


def read_on(client: Client) -> None:
    """Take what has come, and all that follows."""
    client.socket.transport.resume_reading()


async def change(client: Client, room: str, changes: int, viewer: Client | None = None) -> None:
    """Make so many changes: seats that come and go, and a few that stay.

    A hundred are asked for without waiting for their answers, but the viewer keeps up.
    """
    for _ in range(changes // 100):
        for at in range(50):
            seat = {"room_id": room, "seat_id": f"C{at}"}
            await client.send(type="select_seat", user_info=BIG, **seat)
            await client.send(type="release_seat", **seat)
        answer = await client.select(room, unique("T"))
        assert answer["type"] == "seat_selected", answer
        if viewer is not None:
            await viewer.until(lambda: viewer.revs[room][-1:] >= [answer["rev"]])  # noqa: B023


def maps(client: Client) -> list[Message]:
    """The maps that it was sent."""
    return [message for message in client.received if message["type"] == "current_selections"]


async def metric(server: Instance, name: str) -> float:
    """One of the server's figures; 0 while there is none."""
    text = (await fetch(f"{server.http}/metrics")).body.decode()
    found = re.search(rf"(?m)^{re.escape(name)} (\S+)$", text)
    return float(found[1]) if found else 0.0


@pytest.mark.gen_test(timeout=120)
async def test_who_stops_reading_costs_little_and_is_right_when_he_reads_again(
    start: Starter, valkey: Valkey
) -> None:
    """10,000 changes pass: memory stays, others miss none, and one map makes up for them all."""
    server = start(valkey.url, **SETTINGS)
    room = unique("room")
    async with (
        lazy_client(server) as slow,
        Client.connect(server.url) as viewer,
        Client.connect(server.url) as busy,
    ):
        await viewer.join(room)
        await change(busy, room, 2_000, viewer)  # what all this takes without a slow viewer
        await slow.join(room)
        stop_reading(slow)
        before = server.memory_mib()
        await change(busy, room, CHANGES, viewer)
        assert server.memory_mib() - before < A_FEW_MIB
        assert await metric(server, "seatws_slow_viewers_total") == 1
        truth = holders_in_redis(valkey, room)
        assert viewer.maps[room] == truth
        last = viewer.revs[room][-1]
        assert viewer.revs[room] == list(range(1, last + 1))

        read_on(slow)
        await slow.until(lambda: bool(maps(slow)[1:]) and maps(slow)[-1]["rev"] == last)
        assert slow.maps[room] == truth
        assert len(maps(slow)) == 2
        assert len(slow.received) < CHANGES / 2
        answer = await busy.select(room, "last")
        await slow.until(lambda: slow.revs[room] == [answer["rev"]])


@pytest.mark.gen_test(timeout=120)
async def test_who_never_reads_again_is_sent_away(start: Starter, valkey: Valkey) -> None:
    """After `slow_seconds` with 4440; then he is gone, though he reads nothing of that either."""
    server = start(valkey.url, **SETTINGS, SEATWS_LIMITS__SLOW_SECONDS="1")
    room = unique("room")
    async with lazy_client(server) as slow, Client.connect(server.url) as busy:
        await slow.join(room)
        stop_reading(slow)
        while not await metric(server, "seatws_slow_viewers_total"):
            await change(busy, room, 1_000)
        await until_connections(server, 1)
        assert await metric(server, 'seatws_closes_total{code="4440"}') == 1
        assert (await busy.ask(type="ping"))["type"] == "pong"
        read_on(slow)
        await slow.closed()


async def fill(client: Client, room: str, user_info: Message) -> None:
    """Hold 2,000 seats."""
    for at in range(0, 2_000, 50):
        seats = [f"S{number}" for number in range(at, at + 50)]
        await client.send(type="select_seats", room_id=room, seat_ids=seats, user_info=user_info)
    assert (await client.select(room, "last"))["type"] == "seat_selected"


@pytest.mark.gen_test(timeout=120)
async def test_a_slow_joiner_gets_a_map_larger_than_what_may_be_unsent(
    start: Starter, valkey: Valkey
) -> None:
    """He is not behind for it: he gets it whole, though 6 MiB go nowhere yet, and what follows."""
    server = start(valkey.url, **SETTINGS)
    room = unique("room")
    async with lazy_client(server) as slow, Client.connect(server.url) as busy:
        await fill(busy, room, BIG)
        stop_reading(slow)
        await slow.send(type="join_room", room_id=room)
        await busy.join(room)
        await change(busy, room, 100)
        truth = holders_in_redis(valkey, room)
        assert len(truth) > 2_000
        last = busy.revs[room][-1]
        read_on(slow)
        await slow.until(lambda: slow.revs.get(room, [0])[-1:] == [last])
        assert slow.maps[room] == truth
        assert len(maps(slow)) == 1
        assert await metric(server, "seatws_slow_viewers_total") == 0


@pytest.mark.gen_test(timeout=120)
async def test_who_joins_again_and_again_without_reading_costs_little(
    start: Starter, valkey: Valkey
) -> None:
    """Maps don't count against what may be unsent, but they don't pile up either."""
    server = start(valkey.url, **SETTINGS)
    room = unique("room")
    join = frame(f'{{"type": "join_room", "room_id": "{room}"}}')
    leave = frame(f'{{"type": "leave_room", "room_id": "{room}"}}')
    async with Client.connect(server.url) as busy, RawSocket.connect(server) as lazy:
        await fill(busy, room, {})
        await busy.join(room)
        before = server.memory_mib()
        asking = asyncio.ensure_future(lazy.send(*[join, join, leave] * 1_000))
        for turn in range(30):  # each time the map is another one
            await busy.select(room, f"U{turn}")
        assert server.memory_mib() - before < A_FEW_MIB
        asking.cancel()
