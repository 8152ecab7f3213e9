"""What plugins refuse and what they think long about, over a WebSocket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.fetch import fetch, json_of, problem_of, until_connections
from tests.harness import Client, Instance, Valkey, conf_with, unique, wait_until_async
from tests.raw import RawSocket, frame
from tests.sample_plugins.broken import SECRET
from tests.sample_plugins.running import (
    SLOW,
    TOKENS,
    bearer,
    good,
    handshake,
    refusing,
    types,
    with_token,
    without_id,
)
from tests.sample_plugins.running import signed as signed


def text(**message: object) -> bytes:
    """A message as a frame."""
    return frame(json.dumps(message))


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("join_room", {}),
        ("select_seat", {"seat_id": "A1"}),
        ("select_seats", {"seat_ids": ["A1", "A2"]}),
        ("release_seat", {"seat_id": "A1"}),
    ],
)
async def test_who_may_not_learns_that_alone(
    signed: Instance, kind: str, fields: dict[str, Any]
) -> None:
    """`forbidden`, which request and where; neither why nor whether the room is there."""
    name, room = unique("ann"), unique("no")
    async with Client.connect(signed.url, name, **with_token(good(name))) as ann:
        answer = await ann.ask(type=kind, room_id=room, **fields)
        assert without_id(answer) == {
            "type": "error",
            "code": "forbidden",
            "message": "not allowed",
            "request": kind,
            "retryable": False,
            "room_id": room,
        } | {key: value for key, value in fields.items() if key == "seat_id"}
        assert types(ann) == ["auth_ok", "error"]
    assert f"tests.sample_plugins.lists refused {kind.split('_')[0]} in room {room}" in signed.log


@pytest.mark.gen_test(timeout=60)
async def test_everybody_may_leave_and_ping(signed: Instance) -> None:
    """In a room where nothing is allowed, too."""
    name, room = unique("ann"), unique("no")
    async with Client.connect(signed.url, name, **with_token(good(name))) as ann:
        assert without_id(await ann.ask(type="leave_room", room_id=room)) == {
            "type": "room_left",
            "room_id": room,
            "client_id": name,
        }
        assert (await ann.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_each_action_is_asked_for_by_itself(signed: Instance) -> None:
    """Who may not join a room may hold seats in it, if it is allowed."""
    name, room = unique("ann"), unique("mute")
    async with Client.connect(signed.url, name, **with_token(good(name))) as ann:
        assert (await ann.ask(type="join_room", room_id=room))["code"] == "forbidden"
        assert (await ann.select(room, "A1"))["type"] == "seat_selected"
        assert (await ann.release(room, "A1"))["type"] == "seat_released"


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("how", ["raises", "nonsense", "late"])
async def test_a_plugin_that_fails_refuses(
    start: Starter, valkey: Valkey, tmp_path: Path, how: str
) -> None:
    """And says no more than one that refuses; its name is in the log, and what went wrong."""
    broken = f'use = "tests.sample_plugins.broken"\nhook = "may"\nhow = "{how}"'
    conf = conf_with(tmp_path / "conf", f"{broken}\ndeadline_seconds = 0.1", refusing())
    server, room = start(valkey.url, conf=conf), unique("room")
    async with Client.connect(server.url) as ann:
        answer = await ann.ask(type="join_room", room_id=room)
        assert (answer["code"], answer["message"]) == ("forbidden", "not allowed")
        assert SECRET not in str(ann.received)
        response = await fetch(f"{server.http}/room/{room}/selections")
        assert SECRET not in str(problem_of(response, 403, "forbidden"))
    assert "ERROR seatws.web.gate: plugin tests.sample_plugins.broken" in server.log
    assert SECRET not in server.log


@pytest.mark.gen_test(timeout=60)
async def test_nothing_unpermitted_reaches_redis(
    start: Starter, own_valkey: Valkey, tmp_path: Path
) -> None:
    """No command names a room where all is refused; those of another do (so it would be seen)."""
    conf = conf_with(tmp_path / "conf", TOKENS, refusing("* no*"))
    server, room, other = start(own_valkey.url, conf=conf), unique("no"), unique("room")
    seen: list[str] = []
    with own_valkey.client() as client, own_valkey.client() as last, client.monitor() as monitor:
        async with Client.connect(server.url, "ann", **with_token(good("ann"))) as ann:
            for where in (room, other):
                await ann.ask(type="join_room", room_id=where)
                await ann.select(where, "A1", user_info={"name": "Ann"})
                await ann.ask(type="select_seats", room_id=where, seat_ids=["A2", "A3"])
                await ann.release(where, "A1")
                selections = f"{server.http}/room/{where}/selections"
                for path, method, body in (
                    (selections, "GET", None),
                    (f"{selections}?wait=5", "GET", None),
                    (f"{selections}/A4", "PUT", {"client_id": "ann"}),
                    (f"{selections}/A4?client_id=ann", "DELETE", None),
                ):
                    headers = bearer(good("ann"))
                    response = await fetch(path, method, body, If_None_Match='"x"', **headers)
                    assert (response.code == 403) is (where == room)
            assert types(ann)[:5] == ["auth_ok"] + ["error"] * 4
        async with Client.connect(server.url, "bob") as bob:
            await bob.ask(type="join_room", room_id=room)
        last.echo("the end")
        while not seen or "the end" not in seen[-1]:
            seen.append(str(monitor.next_command()["command"]))
    assert any(other in command for command in seen)
    assert not [command for command in seen if room in command]


# ---------------------------------------------------------------- while a plugin thinks


class Thinking:
    """What the plugin `Slow` writes down, and how it is let go."""

    def __init__(self, conf: Path) -> None:
        self._conf = conf

    async def asked(self, *lines: str) -> None:
        """Wait until these are in its log."""
        await wait_until_async(lambda: set(lines) <= set(self.log.splitlines()))

    @property
    def log(self) -> str:
        """What it has written."""
        file = self._conf / "slow.log"
        return file.read_text() if file.exists() else ""

    def end(self, reason: str = "") -> None:
        """All thinking ends: with yes, if there is no reason against it."""
        (self._conf / "new").write_text(reason)
        (self._conf / "new").rename(self._conf / "go")


@pytest.fixture
def thinking(tmp_path: Path) -> Thinking:
    """Of the instances with `tmp_path/conf`."""
    return Thinking(tmp_path / "conf")


@pytest.mark.gen_test(timeout=60)
async def test_requests_keep_their_order_while_a_plugin_thinks(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """In one packet or in many, none overtakes another; other connections notice nothing."""
    slow = f'{SLOW}\nactions = ["join", "release"]'
    server = start(valkey.url, conf=conf_with(tmp_path / "conf", slow))
    room = unique("room")
    async with RawSocket.connect(server) as ann, Client.connect(server.url) as bob:
        await ann.send(
            text(type="join_room", room_id=room),
            text(type="select_seat", room_id=room, seat_id="A1"),
            text(type="ping"),
        )
        await thinking.asked(f"asked join {room}")
        await ann.say(type="release_seat", room_id=room, seat_id="A1")
        await ann.say(type="select_seat", room_id=room, seat_id="A2")
        for seat in ("B1", "B2"):
            assert (await bob.select(room, seat))["type"] == "seat_selected"
        assert json_of(await fetch(f"{server.http}/room/{room}/selections"))["count"] == 2
        assert thinking.log == f"asked join {room}\n"
        thinking.end()
        assert (await ann.message())["type"] == "room_joined"
        seats = (await ann.message())["selections"]
        assert [seat["seat_id"] for seat in seats] == ["B1", "B2"]
        answers = [await ann.message() for _ in range(4)]
        kinds = [answer["type"] for answer in answers]
        assert kinds.count("pong") == 1
        del answers[kinds.index("pong")]  # it does not wait for Redis, as the others do
        assert [(answer["type"], answer["seat_id"], answer["rev"]) for answer in answers] == [
            ("seat_selected", "A1", 3),
            ("seat_released", "A1", 4),
            ("seat_selected", "A2", 5),
        ]


@pytest.mark.gen_test(timeout=60)
async def test_nothing_is_read_while_a_plugin_thinks(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """What is sent meanwhile waits in the network, not in the server's memory; then all is read."""
    conf = conf_with(tmp_path / "conf", f'{SLOW}\nactions = ["join"]')
    server, room, flood = start(valkey.url, conf=conf), unique("room"), 1000
    padded = text(type="ping", pad="x" * 15_000)
    async with RawSocket.connect(server) as ann, Client.connect(server.url) as bob:
        await ann.say(type="join_room", room_id=room)
        await thinking.asked(f"asked join {room}")
        sending = asyncio.create_task(ann.send(padded * flood))
        for _ in range(50):
            await bob.ask(type="ping")
        metrics = (await fetch(f"{server.http}/metrics")).body.decode()
        assert 'seatws_messages_total{type="ping"} 50.0\n' in metrics
        thinking.end()
        for _ in range(flood):
            await ann.message("pong")
        await sending


@pytest.mark.gen_test(timeout=60)
async def test_a_plugin_s_no_comes_after_it_has_thought(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """For each request by itself, over HTTP too; those behind it are still looked at."""
    slow = f'{SLOW}\nactions = ["join", "read", "select"]'
    server = start(valkey.url, conf=conf_with(tmp_path / "conf", slow))
    room = unique("room")
    async with Client.connect(server.url) as ann:
        joining = asyncio.create_task(ann.ask(type="join_room", room_id=room))
        reading = asyncio.create_task(fetch(f"{server.http}/room/{room}/selections"))
        await thinking.asked(f"asked join {room}", f"asked read {room}")
        thinking.end("no")
        assert (await joining)["code"] == "forbidden"
        problem_of(await reading, 403, "forbidden")
        assert (await ann.select(room, "A1"))["code"] == "forbidden"
        assert (await ann.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_whose_connection_ends_while_a_plugin_thinks_is_in_no_room(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """The yes comes too late: nobody would take the connection out again."""
    conf = conf_with(tmp_path / "conf", TOKENS, f'{SLOW}\nactions = ["join"]')
    server, room = start(valkey.url, conf=conf), unique("room")
    async with Client.connect(server.url, "ann", **with_token(good("ann", 0.3))) as ann:
        await ann.send(type="join_room", room_id=room)
        await thinking.asked(f"asked join {room}")
        assert await ann.closed() == 4401
    await until_connections(server, 0)
    thinking.end()
    await thinking.asked(f"answered join {room}")
    for _ in range(2):
        stats = json_of(await fetch(f"{server.http}/stats", **bearer(good("ann"))))
        assert stats["active_rooms"] == 0
        assert room not in stats["rooms"]


@pytest.mark.gen_test(timeout=60)
async def test_a_client_is_not_taken_for_dead_while_a_plugin_thinks(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """The server reads nothing from it meanwhile: that it hears nothing is no wonder."""
    fast = {"SEATWS_HEARTBEAT__INTERVAL_SECONDS": "1", "SEATWS_HEARTBEAT__TIMEOUT_SECONDS": "0.1"}
    conf = conf_with(tmp_path / "conf", f'{SLOW}\nactions = ["join"]')
    server, room = start(valkey.url, conf=conf, **fast), unique("room")
    async with RawSocket.connect(server) as ann:
        await ann.say(type="join_room", room_id=room)
        await thinking.asked(f"asked join {room}")
        async with RawSocket.connect(server) as dead:
            assert (await dead.end()).code == 4408  # who was heard of before him would be, too
        thinking.end()
        assert (await ann.message())["type"] == "room_joined"
        await ann.say(type="ping")
        assert await ann.message("pong")


@pytest.mark.gen_test(timeout=60)
async def test_who_goes_while_the_sign_in_is_looked_at_is_forgotten(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """No connection stays, and nothing is logged that someone should look at."""
    conf = conf_with(tmp_path / "conf", f'{TOKENS}\nfile = "go"\ndeadline_seconds = 30')
    server = start(valkey.url, conf=conf)
    async with RawSocket.open(server) as raw:
        await raw.send(handshake("ann", good("ann", kind="slow")))
        await fetch(f"{server.http}/health")
    await fetch(f"{server.http}/health")
    thinking.end()
    async with Client.connect(server.url, "ann", **with_token(good("ann", kind="slow"))) as ann:
        assert (await ann.ask(type="ping"))["type"] == "pong"
        await until_connections(server, 1)
    await until_connections(server, 0)
    assert "ERROR" not in server.log
    assert "WARNING" not in server.log


@pytest.mark.gen_test(timeout=60)
async def test_places_are_counted_when_the_sign_in_is_done(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """Many at a time whom a plugin looks at: no more get in than one after the other."""
    conf = conf_with(tmp_path / "conf", f'{TOKENS}\nfile = "go"\ndeadline_seconds = 30')
    server = start(valkey.url, conf=conf, SEATWS_LIMITS__CONNECTIONS_PER_ADDRESS="1")

    stay = asyncio.Event()

    async def connect(name: str) -> int | None:
        token = good(name, kind="slow")
        async with Client.connect(server.url, name, **with_token(token)) as client:
            if (await client.heard(lambda _: True))["type"] == "goodbye":
                return await client.closed()
            await stay.wait()
            return None

    connecting = [asyncio.create_task(connect(name)) for name in ("ann", "bob", "eve")]
    for _ in range(3):
        await fetch(f"{server.http}/health")
    thinking.end()
    done = asyncio.as_completed(connecting)
    assert [await next(done), await next(done)] == [4429, 4429]
    stay.set()
    assert await next(done) is None


@pytest.mark.gen_test(timeout=60)
async def test_a_server_that_goes_down_waits_for_no_plugin(
    start: Starter, valkey: Valkey, tmp_path: Path, thinking: Thinking
) -> None:
    """Whoever waits for one is sent away as everybody; it goes down in order."""
    conf = conf_with(tmp_path / "conf", f'{SLOW}\nactions = ["join"]')
    server, room = start(valkey.url, conf=conf), unique("room")
    async with Client.connect(server.url) as ann:
        await ann.send(type="join_room", room_id=room)
        await thinking.asked(f"asked join {room}")
        down = asyncio.create_task(asyncio.to_thread(server.terminate))
        assert await ann.closed() == 1012
        assert await down == 0
    assert "answered" not in thinking.log
