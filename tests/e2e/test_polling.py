"""The polling fallback: entity tags, and requests that wait for a change."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tornado.httpclient import HTTPResponse

from tests.conftest import Starter
from tests.fetch import fetch, json_of, problem_of
from tests.harness import Client, Instance, Valkey, unique, wait_until_async


def selections(server: Instance, room: str) -> str:
    return f"{server.http}/room/{room}/selections"


async def tag_of(server: Instance, room: str) -> str:
    tag: str = (await fetch(selections(server, room))).headers["ETag"]
    return tag


@pytest.mark.gen_test(timeout=60)
async def test_every_change_has_a_tag_of_its_own(server: Instance) -> None:
    """Each select and each release gives the map another one; a repeat does not."""
    room = unique("room")
    tags = [await tag_of(server, room)]
    async with Client.connect(server.url) as ann:
        for seat in ("A1", "A2"):
            await ann.select(room, seat)
            tags.append(await tag_of(server, room))
        await ann.select(room, "A2")
        assert await tag_of(server, room) == tags[-1]
        await ann.release(room, "A1")
        tags.append(await tag_of(server, room))
        await ann.select(room, "A1")
        tags.append(await tag_of(server, room))
    assert len(set(tags)) == 5
    assert all(tag[0] == tag[-1] == '"' for tag in tags)


@pytest.mark.gen_test(timeout=60)
async def test_instances_agree_on_the_tag(server: Instance, start: Starter, valkey: Valkey) -> None:
    """A client may go from one to the other and need not load the map again."""
    other, room = start(valkey.url), unique("room")
    assert await tag_of(server, room) == await tag_of(other, room)
    async with Client.connect(server.url) as ann:
        await ann.join(room)
        await ann.select(room, "A1")
    tag = await tag_of(server, room)
    async with Client.connect(other.url) as bob:
        await bob.join(room)
        assert await tag_of(other, room) == tag
    assert (await fetch(selections(other, room), If_None_Match=tag)).code == 304


@pytest.mark.gen_test(timeout=60)
async def test_a_known_map_is_not_sent_again(server: Instance) -> None:
    """304 without a body to a tag that fits, weak or in a list or `*`; 200 to any other."""
    room = unique("room")
    async with Client.connect(server.url) as ann:
        await ann.select(room, "A1")
    tag = await tag_of(server, room)
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        response = await fetch(selections(server, room), If_None_Match=known)
        assert (response.code, response.body) == (304, b"")
        assert response.headers["ETag"] == tag
    for unknown in ('"other"', tag.strip('"'), "", '"'):
        response = await fetch(selections(server, room), If_None_Match=unknown)
        assert json_of(response)["count"] == 1
        assert response.headers["ETag"] == tag


@pytest.mark.gen_test(timeout=60)
async def test_a_waiting_request_is_answered_at_a_change(
    server: Instance, start: Starter, valkey: Valkey
) -> None:
    """200 with the new map, also when another instance made the change; not before it."""
    other, room = start(valkey.url), unique("room")
    async with Client.connect(other.url) as ann:
        await ann.select(room, "A1")
        tag = await tag_of(server, room)
        waiting = asyncio.create_task(
            fetch(f"{selections(server, room)}?wait=25", If_None_Match=tag)
        )
        for _ in range(3):
            await fetch(f"{server.http}/health")  # meanwhile it came, and was not answered
        assert not waiting.done()
        await ann.select(room, "A2")
        response = await waiting
    assert [hold["seat_id"] for hold in json_of(response)["selections"]] == ["A1", "A2"]
    assert response.headers["ETag"] != tag


@pytest.mark.gen_test(timeout=60)
async def test_a_waiting_request_hears_of_a_first_hold_and_of_its_end(server: Instance) -> None:
    """A room that never had a hold can be waited for; a release is a change as well."""
    room = unique("room")
    async with Client.connect(server.url) as ann:
        for act, count in ((ann.select, 1), (ann.release, 0)):
            tag = await tag_of(server, room)
            url = f"{selections(server, room)}?wait=25"
            waiting = asyncio.create_task(fetch(url, If_None_Match=tag))
            await fetch(f"{server.http}/health")
            await act(room, "A1")
            assert json_of(await waiting)["count"] == count


@pytest.mark.gen_test(timeout=60)
async def test_a_waiting_request_ends_with_its_seconds(server: Instance) -> None:
    """304 when they pass without a change, and not before."""
    room = unique("room")
    tag = await tag_of(server, room)
    loop = asyncio.get_running_loop()
    began = loop.time()
    response = await fetch(f"{selections(server, room)}?wait=0.2", If_None_Match=tag)
    assert loop.time() - began >= 0.2
    assert (response.code, response.body) == (304, b"")
    assert response.headers["ETag"] == tag


@pytest.mark.gen_test(timeout=60)
async def test_who_does_not_know_the_map_does_not_wait(server: Instance) -> None:
    """`wait` without a tag, or with an old one, is answered at once."""
    room = unique("room")
    old = await tag_of(server, room)
    async with Client.connect(server.url) as ann:
        await ann.select(room, "A1")
    url = f"{selections(server, room)}?wait=60"
    assert json_of(await fetch(url))["count"] == 1
    assert json_of(await fetch(url, If_None_Match=old))["count"] == 1


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "wait", ["", "soon", "-1", "1e3", "nan", "inf", "99999", "0x10", "1,5", "%00", "1%0A"]
)
async def test_a_wrong_wait_is_refused(server: Instance, wait: str) -> None:
    """400 that names it."""
    response = await fetch(f"{selections(server, 'wait')}?wait={wait}")
    assert "wait" in problem_of(response, 400, "invalid_message")["detail"]


@pytest.mark.gen_test(timeout=60)
async def test_who_goes_away_waits_no_longer(start: Starter, valkey: Valkey) -> None:
    """The request ends on the server when its client is gone, and the room goes on."""
    server, room = start(valkey.url, SEATWS_LOG__LEVEL="debug"), unique("room")
    tag = await tag_of(server, room)
    line = f"GET /room/{room}/selections 304"
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET /room/{room}/selections?wait=60 HTTP/1.1\r\nHost: localhost\r\n"
        f"If-None-Match: {tag}\r\n\r\n".encode()
    )
    await writer.drain()
    for _ in range(3):
        await fetch(f"{server.http}/health")
    assert line not in server.log
    writer.close()
    await writer.wait_closed()
    await wait_until_async(lambda: line in server.log)
    async with Client.connect(server.url) as ann:
        await ann.join(room)
        assert (await ann.select(room, "A1"))["rev"] == 1


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_is_answered_when_the_server_goes_down(
    start: Starter, valkey: Valkey
) -> None:
    """At once: the client asks the next instance."""
    server, room = start(valkey.url), unique("room")
    tag = await tag_of(server, room)
    waiting = asyncio.create_task(fetch(f"{selections(server, room)}?wait=60", If_None_Match=tag))
    for _ in range(3):
        await fetch(f"{server.http}/health")
    assert not waiting.done()
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    assert (await waiting).code == 304


@pytest.mark.gen_test(timeout=60)
async def test_who_polls_gets_over_an_absence_of_redis(start: Starter, own_valkey: Valkey) -> None:
    """A waiting request waits on or gets 503; asking again, its client hears of the next change."""
    server, room = start(own_valkey.url), unique("room")

    async def poll(tag: str) -> HTTPResponse:
        url = f"{selections(server, room)}?wait=60"
        while (response := await fetch(url, If_None_Match=tag)).code == 503:
            problem_of(response, 503, "store_unavailable")
        return response

    async with Client.connect(server.url) as ann:
        await ann.join(room)
        await ann.select(room, "A1")
        polling = asyncio.create_task(poll(await tag_of(server, room)))
        for _ in range(3):
            await fetch(f"{server.http}/health")
        own_valkey.kill()
        own_valkey.start()
        await ann.until(lambda: len(ann.received) >= 4)
        assert not polling.done()
        await ann.select(room, "A2")
        assert json_of(await polling)["count"] == 2
