"""Going down: who is told what and when, what is still finished, and that it comes to an end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from contextlib import AsyncExitStack

import pytest

from tests.conftest import Starter
from tests.fetch import fetch
from tests.harness import (
    LIMIT_S,
    Client,
    Instance,
    Message,
    Valkey,
    holders_in_redis,
    unique,
    wait_until_async,
)
from tests.raw import RawSocket, request


def drain(seconds: float) -> dict[str, str]:
    """The setting."""
    return {"SEATWS_SERVER__DRAIN_SECONDS": str(seconds)}


def tell(server: Instance, which: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal."""
    assert server.process is not None
    server.process.send_signal(which)


async def exit_code(server: Instance) -> int:
    """Wait for its end."""
    process = server.process
    assert process is not None
    return await asyncio.to_thread(process.wait, LIMIT_S)


async def goodbye(client: Client) -> Message:
    """Wait for it."""
    return await client.heard(lambda message: message["type"] == "goodbye")


def accepts(server: Instance) -> bool:
    """Whether one more could connect."""
    try:
        socket.create_connection(("127.0.0.1", server.port)).close()
    except (ConnectionRefusedError, ConnectionResetError):  # it was in the queue of one that closed
        return False
    return True


async def stops_accepting(server: Instance) -> None:
    """Wait until it does: then it has taken the signal."""
    await wait_until_async(lambda: not accepts(server))


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
@pytest.mark.gen_test(timeout=60)
async def test_everybody_is_told_and_sent_away_one_after_the_other(
    which: signal.Signals, start: Starter, valkey: Valkey
) -> None:
    """`goodbye` and 1012, spread over the drain, in no order, with different times to come back."""
    server = start(valkey.url, **drain(1))
    now = asyncio.get_running_loop().time
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.connect(server.url)) for _ in range(40)]
        told: dict[Client, float] = {}

        async def leave(client: Client) -> Message:
            message = await goodbye(client)
            told[client] = now()
            assert await client.closed() == 1012
            assert client.received[-1] == message
            return message

        tell(server, which)
        goodbyes = await asyncio.gather(*map(leave, clients))
        assert await exit_code(server) == 0
        assert now() - max(told.values()) < 5

    assert {(each["code"], each["reconnect"]) for each in goodbyes} == {(1012, True)}
    retries = [each["retry_after_ms"] for each in goodbyes]
    assert len(set(retries)) > 20
    assert max(retries) - min(retries) > 500
    assert all(0 < retry < 10_000 for retry in retries)
    assert max(told.values()) - min(told.values()) > 0.5
    assert list(told) != clients
    by_turns = sorted(told.values())
    assert by_turns[30] - by_turns[10] > 0.1  # the middle ones came neither first nor last


@pytest.mark.gen_test(timeout=60)
async def test_nobody_new_gets_in_and_who_is_halfway_is_sent_on(
    start: Starter, valkey: Valkey
) -> None:
    """It stops accepting at once; a handshake on a connection that stood is told `goodbye`."""
    server = start(valkey.url, **drain(4))
    async with (
        Client.connect(server.url) as one,
        Client.connect(server.url) as other,
        RawSocket.open(server) as halfway,
    ):
        assert accepts(server)  # and the one that stood before this has been accepted, too
        await one.ask(type="ping")
        tell(server)
        await stops_accepting(server)
        await halfway.shake_hands("/ws/late")
        assert halfway.status == 101
        end = await halfway.end()
        assert end.code == end.goodbye["code"] == 1012
        assert end.goodbye["reconnect"] is True
        await halfway.hang_up()
        assert {await one.closed(), await other.closed()} == {1012}
    assert await exit_code(server) == 0


@pytest.mark.gen_test(timeout=60)
async def test_until_their_turn_viewers_are_served(start: Starter, valkey: Valkey) -> None:
    """The last to go still gets answers and news while others are sent away."""
    server = start(valkey.url, **drain(2))
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await bob.join(room)
        tell(server)
        first = asyncio.ensure_future(goodbye(ann)), asyncio.ensure_future(goodbye(bob))
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        stays = bob if first[0].done() else ann
        assert (await stays.select(room, "A1"))["type"] == "seat_selected"
        assert holders_in_redis(valkey, room) == {"A1": stays.client_id}
        await asyncio.gather(*first)
    assert await exit_code(server) == 0


@pytest.mark.gen_test(timeout=60)
async def test_a_seat_asked_for_before_the_signal_is_answered(
    start: Starter, own_valkey: Valkey
) -> None:
    """The answer comes although Redis takes its time, and only then the `goodbye`."""
    server = start(own_valkey.url, **drain(0))
    room = unique("room")
    async with Client.connect(server.url) as client:
        await client.join(room)
        own_valkey.pause()
        select = asyncio.ensure_future(client.select(room, "A1"))
        await client.ask(type="ping")  # behind it, so the server has it
        tell(server)
        await stops_accepting(server)
        own_valkey.resume()
        assert (await select)["type"] == "seat_selected"
        assert await client.closed() == 1012
    assert await exit_code(server) == 0
    assert holders_in_redis(own_valkey, room) == {"A1": client.client_id}


@pytest.mark.gen_test(timeout=60)
async def test_http_requests_in_flight_are_answered(start: Starter, own_valkey: Valkey) -> None:
    """A PUT that Redis has not answered yet, and a poll that waits for a change."""
    server = start(own_valkey.url, **drain(0))
    hold = f"/room/{unique('room')}/selections/A1"
    other_map = f"/room/{unique('room')}/selections"
    known = (await fetch(server.http + other_map)).headers["ETag"]
    host = {"Host": "localhost"}
    async with RawSocket.open(server) as poll, RawSocket.open(server) as put:
        poll.ask(f"{other_map}?wait=25", host | {"If-None-Match": known})
        own_valkey.pause()
        put.ask(hold, host, "PUT", b'{"client_id": "ann"}')
        await fetch(f"{server.http}/health")  # behind them, so the server has them
        tell(server)
        await stops_accepting(server)
        own_valkey.resume()
        answer = json.loads(await put.answer())
        assert (put.status, answer["seat_id"]) == (201, "A1")
        await poll.answer()
        assert poll.status == 304
    assert await exit_code(server) == 0


@pytest.mark.gen_test(timeout=60)
async def test_what_came_behind_a_last_answer_is_answered_or_not_done(
    start: Starter, valkey: Valkey
) -> None:
    """For what is done without an answer, a balancer asks another instance once more."""
    server = start(valkey.url, **drain(0))
    room, host = unique("room"), {"Host": "localhost"}
    path, ann = f"/room/{room}/selections", b'{"client_id": "ann"}'
    known = (await fetch(server.http + path)).headers["ETag"]
    async with RawSocket.open(server) as kept:
        await kept.send(
            request(f"{path}?wait=25", host | {"If-None-Match": known}),
            request(f"{path}/A1", host, "PUT", ann),
            request(f"{path}/A2", host, "PUT", ann),
        )
        await fetch(f"{server.http}/health")  # behind them, so the server has them
        tell(server)
        await kept.answer()
        assert (kept.status, kept.headers.get("connection")) == (304, None)
        await kept.answer()
        assert (kept.status, kept.headers["connection"]) == (201, "close")
        async with asyncio.timeout(LIMIT_S):
            assert await kept.reader.read() == b""
    assert await exit_code(server) == 0
    assert holders_in_redis(valkey, room) == {"A1": "ann"}


async def status_of(raw: RawSocket, path: str) -> int:
    """Ask on a connection that is kept, and read all of the answer."""
    raw.ask(path, {"Host": "localhost"})
    await raw.answer()
    return raw.status


@pytest.mark.gen_test(timeout=60)
async def test_connections_that_a_balancer_keeps_are_let_go(start: Starter, valkey: Valkey) -> None:
    """At once where nothing is asked, else with the answer: no newcomer is sent on them."""
    server = start(valkey.url, **drain(300))
    path = f"/room/{unique('room')}/selections"
    async with (
        Client.connect(server.url),  # so that the drain lasts
        RawSocket.open(server) as idle,
        RawSocket.open(server) as polling,
    ):
        assert await status_of(idle, "/health") == 200
        assert await status_of(polling, path) == 200
        known = {"Host": "localhost", "If-None-Match": polling.headers["etag"]}
        polling.ask(f"{path}?wait=60", known)
        await fetch(f"{server.http}/health")  # behind it, so the server has it
        tell(server)
        await stops_accepting(server)
        async with asyncio.timeout(LIMIT_S):
            assert await idle.reader.read() == b""
        await polling.answer()
        assert polling.status == 304
        async with asyncio.timeout(LIMIT_S):
            assert await polling.reader.read() == b""
        assert server.process is not None
        assert server.process.poll() is None
        tell(server)  # a second time: at once
    assert await exit_code(server) == 1


@pytest.mark.gen_test(timeout=60)
async def test_health_says_that_it_goes(start: Starter, valkey: Valkey) -> None:
    """503, for a balancer whose connection stood before; the answer is the last one on it."""
    server = start(valkey.url, **drain(300))
    async with Client.connect(server.url), RawSocket.open(server) as balancer:
        await fetch(f"{server.http}/health")  # behind it, so it has been accepted
        tell(server)
        await stops_accepting(server)
        assert await status_of(balancer, "/health") == 503
        assert balancer.headers["connection"] == "close"
        async with asyncio.timeout(LIMIT_S):
            assert await balancer.reader.read() == b""
        tell(server)
    assert await exit_code(server) == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_redis_that_does_not_answer_keeps_nobody(
    start: Starter, own_valkey: Valkey
) -> None:
    """Whoever asked something gets an answer within the usual time, and the process ends with 0."""
    server = start(own_valkey.url, **drain(0))
    async with Client.connect(server.url) as client:
        own_valkey.pause()
        select = asyncio.ensure_future(client.select(unique("room"), "A1"))
        await client.ask(type="ping")
        tell(server)
        assert (await select)["code"] == "store_unavailable"
        assert await client.closed() == 1012
        assert await exit_code(server) == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGINT),
    ],
    ids=["SIGTERM twice", "SIGINT twice", "one of each"],
)
@pytest.mark.gen_test(timeout=60)
async def test_a_second_signal_ends_it_at_once(
    first: signal.Signals, second: signal.Signals, start: Starter, valkey: Valkey
) -> None:
    """Five minutes are set for the drain: it does not take them, and says that it was cut short."""
    server = start(valkey.url, **drain(300))
    async with Client.connect(server.url) as one, Client.connect(server.url) as other:
        tell(server, first)
        await stops_accepting(server)
        tell(server, second)
        assert await exit_code(server) == 1
        await one.closed()
        await other.closed()


@pytest.mark.gen_test(timeout=60)
async def test_holds_survive(start: Starter, valkey: Valkey) -> None:
    """A client that comes back, to this instance or another, finds its seats held as before."""
    server, other = start(valkey.url, **drain(0)), start(valkey.url)
    room, name = unique("room"), unique("ann")
    async with Client.connect(server.url, name) as before:
        held = await before.select(room, "A1")
        tell(server)
        assert await before.closed() == 1012
    assert await exit_code(server) == 0
    for place in (other, server.start()):
        async with Client.connect(place.url, name) as again:
            (hold,) = (await again.join(room))["selections"]
            assert (hold["client_id"], hold["expires_at"]) == (name, held["expires_at"])
            assert "rev" not in await again.select(room, "A1")


@pytest.mark.gen_test(timeout=60)
async def test_who_does_not_go_is_cut_off(start: Starter, valkey: Valkey) -> None:
    """An unanswered close is waited for a while; a handshake that never began is not."""
    server = start(valkey.url, **drain(0))
    async with RawSocket.connect(server) as stubborn, RawSocket.open(server) as silent:
        tell(server)
        assert (await stubborn.end()).code == 1012
        since = asyncio.get_running_loop().time()
        assert await exit_code(server) == 0
        assert 1 < asyncio.get_running_loop().time() - since < 15
        assert await silent.reader.read() == b""
