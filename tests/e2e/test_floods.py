"""Who sends without end is slowed down, then sent away; and who says nothing at all is let go."""

from __future__ import annotations

import asyncio
import struct

import pytest

from tests.conftest import Starter
from tests.fetch import until_connections
from tests.harness import Client, Instance, Valkey
from tests.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, RawSocket, frame
from tests.witness import watched_room

PING_MESSAGE = frame('{"type": "ping"}')


def limited(start: Starter, valkey: Valkey, **settings: str) -> Instance:
    """A server that takes ten messages at once, then one a second."""
    limits = {"SEATWS_LIMITS__MESSAGES_PER_SECOND": "1", "SEATWS_LIMITS__BURST": "10"}
    return start(valkey.url, **(limits | settings))


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "flood",
    [
        PING_MESSAGE,
        frame('{"type": "join_room", "room_id": "flood"}'),
        frame('{"type": "select_seat", "room_id": "flood", "seat_id": "A1"}'),
        frame('{"type": "leave_room", "room_id": "flood"}'),
        frame("no message"),
        frame("binary", BINARY),
        frame("ping", PING),
    ],
    ids=["ping", "join", "select", "leave", "no message", "binary", "websocket ping"],
)
async def test_a_flood_is_sent_away(start: Starter, valkey: Valkey, flood: bytes) -> None:
    """A burst is taken, as much again is `rate_limited`, then comes 4429 after a `goodbye`."""
    server = limited(start, valkey)
    async with watched_room(server) as room, RawSocket.connect(server) as raw:
        await raw.join(room)
        await raw.send(flood * 2_000)
        end = await raw.end()
        await raw.hang_up()
    assert end.code == 4429
    goodbye = end.goodbye
    assert (goodbye["code"], goodbye["reconnect"]) == (4429, True)
    assert goodbye["retry_after_ms"] > 0
    refused = [one for one in end.messages if one.get("code") == "rate_limited"]
    assert 5 <= len(refused) <= 20
    for refusal in refused:
        assert refusal["retryable"] is True
        assert 0 < refusal["retry_after_ms"] <= 12_000


@pytest.mark.gen_test(timeout=60)
async def test_a_flood_of_empty_fragments_is_sent_away(start: Starter, valkey: Valkey) -> None:
    """They never make a message, and none is larger than allowed: each counts as one."""
    server = limited(start, valkey)
    async with watched_room(server) as room, RawSocket.connect(server) as raw:
        await raw.join(room)
        fragments = [frame("", CONTINUATION, fin=False)] * 5_000
        await raw.send(frame("", fin=False), *fragments)
        end = await raw.end()
        await raw.hang_up()
    assert (end.code, end.goodbye["code"]) == (4429, 4429)


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_as_told_may_go_on(start: Starter, valkey: Valkey) -> None:
    """After `retry_after_ms` of silence the next message is taken."""
    limits = {"SEATWS_LIMITS__MESSAGES_PER_SECOND": "20", "SEATWS_LIMITS__BURST": "2"}
    server = start(valkey.url, **limits)
    async with RawSocket.connect(server) as raw:
        await raw.send(PING_MESSAGE * 3)
        heard = [await raw.message() for _ in range(3)]
        assert [message["type"] for message in heard] == ["pong", "pong", "error"]
        await asyncio.sleep(heard[2]["retry_after_ms"] / 1000)
        await raw.send(PING_MESSAGE)
        assert (await raw.message())["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_one_clients_flood_is_not_anothers(start: Starter, valkey: Valkey) -> None:
    """The limit is a connection's: one that is over it costs another nothing."""
    server = limited(start, valkey)
    async with RawSocket.connect(server) as raw, Client.connect(server.url) as client:
        await raw.send(PING_MESSAGE * 12)
        await raw.message("error")
        for _ in range(9):
            assert (await client.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_a_flood_leaves_nothing_behind(start: Starter, valkey: Valkey) -> None:
    """A hundred floods, of which no answer is read: the process is no larger than after ten."""
    server = limited(start, valkey)
    for turn in range(110):
        async with RawSocket.connect(server) as raw:
            await raw.send(PING_MESSAGE * 2_000)
            assert (await raw.end()).code == 4429
        if turn == 10:
            before = server.memory_mib()
    await until_connections(server, 0)
    assert server.memory_mib() < before + 3


def quick(start: Starter, valkey: Valkey, timeout_seconds: str) -> Instance:
    """A server that looks after its clients every second."""
    return start(
        valkey.url,
        SEATWS_HEARTBEAT__INTERVAL_SECONDS="1",
        SEATWS_HEARTBEAT__TIMEOUT_SECONDS=timeout_seconds,
    )


@pytest.mark.gen_test(timeout=60)
async def test_who_gives_no_sign_of_life_is_let_go(start: Starter, valkey: Valkey) -> None:
    """Asked by a ping, then told `goodbye` and closed with 4408; gone though it answers nothing."""
    server = quick(start, valkey, "0.1")
    async with watched_room(server) as room, RawSocket.connect(server) as dead:
        await dead.join(room)
        assert await dead.receive() == (PING, b"")
        end = await dead.end()
        assert (end.code, end.goodbye["reconnect"]) == (4408, True)
        await until_connections(server, 1)
        async with asyncio.timeout(10):
            assert await dead.reader.read() == b""


@pytest.mark.gen_test(timeout=60)
async def test_any_sign_of_life_will_do(start: Starter, valkey: Valkey) -> None:
    """Who answers a ping with a pong, or says anything else, stays: it is asked again."""
    server = quick(start, valkey, "1")

    async def live_by(sign: bytes) -> None:
        async with RawSocket.connect(server) as raw:
            pings = 0
            while pings < 2:
                opcode, payload = await raw.receive()
                assert opcode != CLOSE, payload
                if opcode == PING:
                    pings += 1
                    await raw.send(sign)
            await raw.send(frame(struct.pack("!H", 1000), CLOSE))
            assert (await raw.end()).code == 1000

    async with asyncio.TaskGroup() as group:
        for sign in (frame("", PONG), frame("", PING), PING_MESSAGE):
            group.create_task(live_by(sign))
