"""SIGHUP: what plugins.toml says anew counts for those who are connected, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tornado.httpclient import HTTPResponse

from tests.conftest import Starter
from tests.fetch import fetch, json_of, problem_of
from tests.harness import (
    Client,
    Message,
    Valkey,
    conf_with,
    holders_in_redis,
    unique,
    wait_until_async,
)
from tests.raw import RawSocket
from tests.sample_plugins.running import (
    SLOW,
    TOKENS,
    bearer,
    good,
    refusing,
    turned_away,
    types,
    with_token,
)

OPEN = "WARNING seatws.app: open mode: no plugin signs clients in"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The conf directory of a test's instances."""
    return conf_with(tmp_path / "conf", TOKENS)


def is_forbidden(message: Message) -> bool:
    return message["type"] == "room_left" and message.get("reason") == "forbidden"


def revoking(*clients: str) -> str:
    return f"{TOKENS}\nrevoked = {list(clients)}"


@pytest.mark.gen_test(timeout=60)
async def test_who_loses_a_room_is_out_within_a_second(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """On every instance that is reloaded: told so, and of nothing that happens there after."""
    servers = [start(valkey.url, conf=conf) for _ in range(2)]
    room, other = unique("room"), unique("room")
    ann, bob, cid, dan = (unique(name) for name in ("ann", "bob", "cid", "dan"))
    now = asyncio.get_running_loop().time
    async with (
        Client.connect(servers[0].url, ann, **with_token(good(ann))) as stays,
        Client.connect(servers[0].url, bob, **with_token(good(bob))) as loses,
        Client.connect(servers[1].url, cid, **with_token(good(cid))) as loses_too,
        Client.connect(servers[1].url, dan, **with_token(good(dan))) as stays_too,
    ):
        clients = (stays, loses, loses_too, stays_too)
        for client in clients:
            await client.join(room)
            await client.join(other)
        await loses.select(room, "B1")
        for client in clients:
            await client.until(lambda client=client: client.revs[room] == [1])  # type: ignore[misc]
        conf_with(conf, TOKENS, refusing(f"join {room} bob*", f"join {room} cid*"))
        for server, client in zip(servers, (loses, loses_too), strict=True):
            began = now()
            assert "INFO seatws.web.gate: reloaded: plugins " in await server.reload()
            left = await client.heard(is_forbidden)
            assert now() - began < 1
            assert left == {
                "type": "room_left",
                "room_id": room,
                "client_id": client.client_id,
                "reason": "forbidden",
            }
        await stays.select(room, "A1")
        await stays.select(other, "A1")
        await stays_too.until(lambda: stays_too.revs[room] == [1, 2])
        for client in (loses, loses_too):
            await client.until(lambda client=client: client.revs[other] == [1])  # type: ignore[misc]
            assert client.revs[room] == [1]
            assert client.received[-1]["room_id"] == other
            assert (await client.ask(type="join_room", room_id=room))["code"] == "forbidden"
        assert holders_in_redis(valkey, room)["B1"] == bob, "holds stay"
        assert not any(map(is_forbidden, stays.received + stays_too.received))


@pytest.mark.gen_test(timeout=60)
async def test_a_renewal_that_says_less_takes_rooms_away(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """What a plugin makes of the new token counts at once; the other rooms stay."""
    conf_with(conf, TOKENS, 'use = "tests.sample_plugins.shrinking"')
    server, room, other = start(valkey.url, conf=conf), unique("long"), unique("room")
    async with Client.connect(server.url, "ann", **with_token(good("ann", 7200))) as ann:
        await ann.join(room)
        await ann.join(other)
        assert (await ann.ask(type="auth", token=good("ann", 60)))["type"] == "auth_ok"
        await ann.heard(is_forbidden)
        assert types(ann)[-2:] == ["auth_ok", "room_left"]
        await ann.select(other, "A1")
        assert ann.revs[other] == [1]


@pytest.mark.gen_test(timeout=60)
async def test_one_plugin_s_thinking_keeps_nobody_else_in_a_room(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """The first to be looked at has to wait for her answer, the second is out meanwhile."""
    server, slow, quick = start(valkey.url, conf=conf), unique("slow"), unique("quick")
    async with (
        Client.connect(server.url, "ann", **with_token(good("ann"))) as ann,
        Client.connect(server.url, "bob", **with_token(good("bob"))) as bob,
    ):
        await ann.join(slow)
        await bob.join(quick)
        thinks = f'{SLOW}\nactions = ["join"]\nrooms = ["{slow}"]'
        conf_with(conf, TOKENS, thinks, refusing(f"join {quick}"))
        await server.reload()
        await bob.heard(is_forbidden)
        assert (await ann.select(slow, "A1"))["rev"] == 1
        assert not any(map(is_forbidden, ann.received))
        (conf / "new").write_text("no")
        (conf / "new").rename(conf / "go")
        await ann.heard(is_forbidden)


@pytest.mark.gen_test(timeout=60)
async def test_who_would_not_be_let_in_any_more_is_let_go(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """4401 for an identity that stands no more; its holds stay; others notice nothing."""
    server, room = start(valkey.url, conf=conf), unique("room")
    async with (
        Client.connect(server.url, "ann", **with_token(good("ann"))) as ann,
        Client.connect(server.url, "bob", **with_token(good("bob"))) as bob,
        Client.connect(server.url, "cid") as cid,
    ):
        await bob.join(room)
        await ann.select(room, "A1")
        conf_with(conf, revoking("ann", "cid"))
        await server.reload()
        assert await ann.closed() == 4401
        assert types(ann) == ["auth_ok", "seat_selected", "goodbye"]
        assert (await turned_away(server, "ann", **bearer(good("ann")))).code == 4401
        assert holders_in_redis(valkey, room) == {"A1": "ann"}
        await bob.ask(type="ping")
        assert bob.maps[room] == {"A1": "ann"}
        await cid.send(type="auth", token=good("cid"))  # had not signed in; may try
        assert await cid.closed() == 4401


@pytest.mark.gen_test(timeout=60)
async def test_an_identity_goes_with_its_plugin(start: Starter, valkey: Valkey, conf: Path) -> None:
    """4401 where the plugin that gave it is out of the file, though another one signs in now."""
    server = start(valkey.url, conf=conf)
    async with Client.connect(server.url, "ann", **with_token(good("ann"))) as ann:
        await ann.ask(type="ping")
        conf_with(conf, 'use = "tests.sample_plugins.other_tokens"')
        await server.reload()
        assert await ann.closed() == 4401


@pytest.mark.gen_test(timeout=60)
async def test_a_closed_server_has_no_connections_from_when_it_was_open(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """4401 for who has no identity where one is needed now, and 401 for who waits over HTTP."""
    conf_with(conf)
    server, room = start(valkey.url, conf=conf), unique("room")
    url = f"{server.http}/room/{room}/selections"
    await wait_until_async(lambda: OPEN in server.log)
    async with Client.connect(server.url, "ann") as ann:
        await ann.join(room)
        waiting = await wait_for_a_change(url)
        conf_with(conf, TOKENS)
        await server.reload()
        assert await ann.closed() == 4401
        problem_of(await waiting, 401, "unauthenticated")
    async with Client.connect(server.url, "ann", **with_token(good("ann"))) as ann:
        assert (await ann.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_a_server_may_become_an_open_one(start: Starter, valkey: Valkey, conf: Path) -> None:
    """Who was to sign in need not, and no token ends; `auth` means nothing; it is logged."""
    conf_with(conf, f"{TOKENS}\nsign_in_seconds = 3")
    pings = {"SEATWS_HEARTBEAT__INTERVAL_SECONDS": "3", "SEATWS_HEARTBEAT__TIMEOUT_SECONDS": "0.1"}
    server, room = start(valkey.url, conf=conf, **pings), unique("room")
    async with (
        Client.connect(server.url, "ann") as ann,
        Client.connect(server.url, "bob", **with_token(good("bob", 3))) as bob,
    ):
        assert (await ann.ask(type="join_room", room_id=room))["code"] == "unauthenticated"
        await bob.ask(type="ping")
        conf_with(conf)
        await server.reload()
        await wait_until_async(lambda: OPEN in server.log)
        await ann.join(room)
        for client in (ann, bob):
            assert (await client.ask(type="auth", token=good("ann")))["code"] == "invalid_message"
        async with RawSocket.connect(server) as silent:
            assert (await silent.end()).code == 4408  # their three seconds have passed before his
        for client in (ann, bob):
            assert (await client.select(room, client.client_id))["type"] == "seat_selected"


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        ("use = no quotes", "plugins.toml: not valid TOML"),
        ('use = "no.such"', "plugin 2 (no.such): can't be loaded: there is no module no"),
        (refusing().replace("refuse", "refuze"), "refuze: no such setting; did you mean refuse?"),
        (
            'use = "tests.sample_plugins.broken"\nhook = "start"',
            "plugin tests.sample_plugins.broken failed: RuntimeError at ",
        ),
    ],
    ids=["broken TOML", "unknown plugin", "misspelt setting", "does not start"],
)
async def test_a_bad_file_changes_nothing(
    start: Starter, valkey: Valkey, conf: Path, plugin: str, words: str
) -> None:
    """Not even what is good in it; the log says why, and the next good one takes effect."""
    server, room = start(valkey.url, conf=conf), unique("room")
    async with Client.connect(server.url, "ann", **with_token(good("ann"))) as ann:
        await ann.join(room)
        conf_with(conf, revoking("ann", "bob"), plugin)
        log = await server.reload()
        assert "ERROR seatws.web.gate: not reloaded, the plugins go on as before: " in log
        assert words in log
        assert "INFO seatws.web.gate: reloaded" not in log
        assert (await ann.select(room, "A1"))["rev"] == 1
        async with Client.connect(server.url, "bob", **with_token(good("bob"))) as bob:
            await bob.join(room)
        conf_with(conf, revoking("ann"))
        await server.reload()
        assert await ann.closed() == 4401


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_over_http_is_looked_at_again(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """403 when `read` is taken away, 401 when the identity stands no more; others go on waiting."""
    server, room, other = start(valkey.url, conf=conf), unique("room"), unique("room")
    urls = [f"{server.http}/room/{each}/selections" for each in (room, other)]
    one = await wait_for_a_change(urls[0], **bearer(good("ann")))
    two = await wait_for_a_change(urls[1], **bearer(good("ann")))
    three = await wait_for_a_change(urls[1], **bearer(good("bob")))
    conf_with(conf, TOKENS, refusing(f"read {room}"))
    await server.reload()
    problem_of(await one, 403, "forbidden")
    conf_with(conf, revoking("ann"))
    await server.reload()
    problem_of(await two, 401, "unauthenticated")
    await fetch(f"{server.http}/health")
    assert not three.done()
    async with Client.connect(server.url, "bob", **with_token(good("bob"))) as bob:
        await bob.select(other, "A1")
        assert json_of(await three)["count"] == 1


@pytest.mark.gen_test(timeout=60)
async def test_what_was_thought_about_before_counts_no_more(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """A sign-in and a join that a plugin says yes to by the old file are decided by the new one."""
    thinks = f'{SLOW}\nactions = ["join"]'
    tokens = f'{TOKENS}\nfile = "go"\ndeadline_seconds = 30'
    conf_with(conf, tokens, thinks)
    server, room = start(valkey.url, conf=conf), unique("room")
    async with Client.connect(server.url, "ann", **with_token(good("ann"))) as ann:
        joining = asyncio.create_task(ann.ask(type="join_room", room_id=room))
        slow = bearer(good("eve", kind="slow"))
        signing_in = asyncio.create_task(turned_away(server, "eve", **slow))
        for _ in range(3):
            await fetch(f"{server.http}/health")
        conf_with(conf, f'{tokens}\nrevoked = ["eve"]', thinks, refusing(f"join {room}"))
        await server.reload()
        (conf / "go").touch()
        assert (await joining)["code"] == "forbidden"
        assert (await signing_in).code == 4401


async def wait_for_a_change(url: str, **headers: str) -> asyncio.Task[HTTPResponse]:
    """Ask for a room's next map, and go on when the server has begun to wait."""
    tag = (await fetch(url, **headers)).headers["ETag"]
    waiting = asyncio.create_task(fetch(f"{url}?wait=60", If_None_Match=tag, **headers))
    for _ in range(3):
        await fetch(url, **headers)
    assert not waiting.done()
    return waiting
