"""The log of a running server: who closed and how, which request it is about, nothing forged."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import re
import signal
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from seatws import config
from seatws.app import App
from seatws.web import mass_disconnection, sockets
from tests.conftest import Starter
from tests.fetch import fetch
from tests.harness import ROOT, Client, Instance, Valkey, conf_with, unique, wait_until_async
from tests.raw import CLOSE, PING, RawSocket, frame
from tests.sample_plugins.running import TOKENS, bearer, good, refusing, turned_away, with_token

DEBUG = {"SEATWS_LOG__LEVEL": "debug"}
FORGED = "\x1b[2J\n2024-01-15T10:30:00.000Z ERROR seatws.app: all is lost"
CLOSED = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO seatws\.web\.sockets: "
    r"closed: client (?P<client>\S+), code (?P<code>\d+), from (?P<address>\S+), "
    r"after (?P<seconds>\d+\.\d) s, "
    r"(?P<frames>\d+) frames in, (?P<sends>\d+) sends out, rooms: (?P<rooms>.+)"
)


async def closed_line(server: Instance, client_id: str) -> dict[str, str]:
    """The line of a connection that is closed, in its parts; there must be one and no more."""
    start = f"closed: client {client_id}, "
    await wait_until_async(lambda: f"{start}" in server.log)
    (line,) = (line for line in server.log.splitlines() if start in line)
    found = CLOSED.fullmatch(line)
    assert found is not None, line
    return found.groupdict()


async def line_with(server: Instance, text: str) -> str:
    """The first line in which a text stands."""
    await wait_until_async(lambda: text in server.log)
    return next(line for line in server.log.splitlines() if text in line)


def level_of(line: str) -> str:
    return line.split(" ")[1]


# ---------------------------------------------------------------- at the end of a connection


@pytest.mark.gen_test(timeout=60)
async def test_one_line_says_who_has_gone(server: Instance) -> None:
    """From where, how long it was there, what was said, where it was, and with which code."""
    ann, rooms = unique("ann"), [unique("room"), unique("room")]
    async with Client.connect(server.url, ann) as client:
        for room in rooms:
            await client.join(room)
        await client.ask(type="ping")
        # The answer to the handshake, the maps with the joins' answers, the pong.
        received = len(client.received)
        assert received == 5
    line = await closed_line(server, ann)
    assert float(line.pop("seconds")) < 30
    assert line == {
        "client": ann,
        "code": "1000",
        "address": "127.0.0.1",
        "frames": "4",  # two joins, a ping, and the close
        "sends": "5",  # the handshake's answer, two of two frames each, the pong, and the close
        "rooms": " ".join(rooms),
    }


@pytest.mark.gen_test(timeout=60)
async def test_who_leaves_without_a_word_and_was_nowhere(server: Instance) -> None:
    """1006, and no rooms."""
    bob = unique("bob")
    async with RawSocket.open(server) as raw:
        await raw.shake_hands(f"/ws/{bob}")
    line = await closed_line(server, bob)
    assert (line["code"], line["rooms"], line["frames"]) == ("1006", "-", "0")


@pytest.mark.gen_test(timeout=60)
async def test_who_is_sent_away_at_the_end_was_in_rooms_until_then(
    start: Starter, valkey: Valkey
) -> None:
    """1012, though it has left its rooms when it is gone; and no mass of lost connections."""
    server, room = start(valkey.url), unique("room")
    async with contextlib.AsyncExitStack() as crowd:
        ann = await crowd.enter_async_context(Client.connect(server.url, "ann"))
        for _ in range(30):
            await crowd.enter_async_context(Client.connect(server.url))
        await ann.join(room)
        assert await asyncio.to_thread(server.terminate) == 0
        assert await ann.closed() == 1012
    line = await closed_line(server, "ann")
    assert (line["code"], line["rooms"]) == ("1012", room)
    assert len(re.findall("closed: client ", server.log)) == 31, "each has its line before the end"
    assert "mass disconnection" not in server.log
    assert server.log.splitlines()[-1].endswith("INFO seatws.app: stopped")


@pytest.mark.gen_test(timeout=60)
async def test_as_json_each_part_is_a_key(start: Starter, valkey: Valkey) -> None:
    """With numbers as numbers; the message is the same."""
    server, room = start(valkey.url, SEATWS_LOG__FORMAT="json"), unique("room")
    async with Client.connect(server.url, "ann") as ann:
        await ann.join(room)
    line = json.loads(await line_with(server, "closed: client "))
    assert re.fullmatch(r"closed: client ann, code 1000, .* rooms: \S+", line.pop("message"))
    assert line.pop("time").endswith("Z")
    assert 0 <= line.pop("seconds") < 30
    assert line == {
        "level": "info",
        "logger": "seatws.web.sockets",
        "client": "ann",
        "close_code": 1000,
        "address": "127.0.0.1",
        "frames_in": 2,
        "sends": 3,
        "rooms": room,
    }


@pytest.mark.gen_test(timeout=60)
async def test_no_person_and_no_token_stands_in_it(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """An id that is an e-mail address is cut, a room's too; of the token nothing is there."""
    server = start(valkey.url, conf=conf_with(tmp_path / "conf", TOKENS), **DEBUG)
    ann, room = "ann.lee@example.com", "party.of.eve@example.com"
    async with Client.connect(server.url, ann, **with_token(good(ann))) as client:
        await client.join(room)
        await client.select(room, "A1", user_info={"name": "Ann Lee"})
        await client.select(room, "A1@example.com")
        await client.ask(type="leave_room", room_id=room)
        await client.join(room)
    line = await closed_line(server, r"a...@...")
    assert line["rooms"] == "p...@..."
    await turned_away(server, ann, **bearer("bad:secret"))
    await wait_until_async(lambda: "code 4401" in server.log)
    await fetch(f"{server.http}/room/x/selections?token=good:secret&client_id={ann}")
    await line_with(server, "GET /room/x/selections 401")
    for personal in ("lee", "Lee", "eve", "example.com", "secret", "good:"):
        assert personal not in server.log


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("believed", "header", "address"),
    [
        ("false", "192.0.2.7", "127.0.0.1"),
        ("true", "192.0.2.7", "192.0.2.7"),
        ("true", "192.0.2.7\x1b[2J", "127.0.0.1"),
        ("true", "nobody", "127.0.0.1"),
    ],
    ids=["not believed", "behind a proxy", "what a terminal obeys", "no address"],
)
async def test_the_address_is_the_proxy_s_word_only_where_a_proxy_is(
    start: Starter, valkey: Valkey, believed: str, header: str, address: str
) -> None:
    """`server.xheaders`; else anybody could be from anywhere, or write into the log."""
    server = start(valkey.url, SEATWS_SERVER__XHEADERS=believed)
    async with RawSocket.open(server) as raw:
        if "\x1b" in header:  # refused before anything is logged
            raw.writer.write(
                f"GET /ws/ann HTTP/1.1\r\nHost: l\r\nX-Forwarded-For: {header}\r\n\r\n".encode()
            )
            assert b"400" in await raw.reader.readline()
            assert "\x1b" not in server.log
            return
        await raw.shake_hands("/ws/ann", X_Forwarded_For=header)
    assert (await closed_line(server, "ann"))["address"] == address


@pytest.mark.gen_test(timeout=60)
async def test_when_many_go_at_once_each_has_its_line(start: Starter, valkey: Valkey) -> None:
    """They are written some at a time; none is lost, and those of the same moment keep apart."""
    server = start(valkey.url)
    async with _crowd(server, 250):
        pass
    await wait_until_async(lambda: len(CLOSED.findall(server.log)) == 250)
    assert len({found["client"] for found in CLOSED.finditer(server.log)}) == 250


# ---------------------------------------------------------------- which request it was


@pytest.mark.gen_test(timeout=60)
async def test_an_http_request_keeps_the_id_that_it_brings(start: Starter, valkey: Valkey) -> None:
    """In the answer, a refusal too, and in the log; pages may send it and read it."""
    server = start(valkey.url, **DEBUG)
    for path, status in (("/health", 200), ("/nowhere", 404), ("/room/a%20b/selections", 400)):
        given = unique("from-the-proxy")
        response = await fetch(f"{server.http}{path}", X_Request_ID=given)
        assert (response.code, response.headers["X-Request-ID"]) == (status, given)
        line = await line_with(server, given)
        assert re.search(rf"GET {path} {status} \d+\.\d ms \(request {given}\)$", line), line
    response = await fetch(f"{server.http}/health", "OPTIONS", X_Request_ID="mine")
    assert "X-Request-ID" in response.headers["Access-Control-Allow-Headers"].split(", ")
    assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"].split(", ")


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("given", [None, "", "a" * 65, "two words", "ann@example.com", "'; --"])
async def test_one_that_brings_no_sound_id_gets_one(server: Instance, given: str | None) -> None:
    """Each request its own; nothing of the other is repeated."""
    headers = {} if given is None else {"X-Request-ID": given}
    ids = [
        (await fetch(f"{server.http}/health", **headers)).headers["X-Request-ID"] for _ in range(2)
    ]
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", one) for one in ids)
    assert len(set(ids)) == 2


@pytest.mark.gen_test(timeout=60)
async def test_a_refusal_in_the_log_names_its_request(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """What a plugin refuses, over the socket and over HTTP, sign-in included."""
    conf = conf_with(tmp_path / "conf", TOKENS, refusing("* no"))
    server = start(valkey.url, conf=conf)
    async with Client.connect(server.url, "ann", **with_token(good("ann"))) as ann:
        await ann.send(type="join_room", room_id="no", request_id="q-17")
        line = await line_with(server, "(request q-17)")
        assert "refused join in room no to ann: the list says so" in line
        await ann.send(type="auth", token="bad:x", request_id="q-18")
        assert "refused a sign-in" in await line_with(server, "(request q-18)")
    await turned_away(server, "ann", X_Request_ID="h-1", **bearer("bad:x"))
    assert "refused a sign-in" in await line_with(server, "(request h-1)")
    url = f"{server.http}/room/no/selections"
    await fetch(url, X_Request_ID="h-2", **bearer(good("ann")))
    assert "refused read in room no to ann" in await line_with(server, "(request h-2)")


@pytest.mark.gen_test(timeout=60)
async def test_at_debug_every_refusal_is_logged(start: Starter, valkey: Valkey) -> None:
    """By whom it was asked, what, where and why not, with the client's own word for the request."""
    server, room = start(valkey.url, **DEBUG), unique("room")
    async with Client.connect(server.url, "ann") as ann, RawSocket.connect(server) as raw:
        await raw.say(type="select_seat", room_id=room, seat_id="A1", user_info={})
        await raw.message("seat_selected")
        asked: list[dict[str, Any]] = [
            {"type": "select_seat", "room_id": room, "seat_id": "A1"},
            {"type": "release_seat", "room_id": room, "seat_id": "B1"},
            {"type": "auth", "token": "secret"},
        ]
        for number, message in enumerate(asked):
            await ann.send(**message, request_id=f"q{number}")
        await ann.send(type="dance", room_id=room)
    lines = [
        f"refused: client ann, select_seat, room {room}: seat_taken (request q0)",
        f"refused: client ann, release_seat, room {room}: not_holder (request q1)",
        "refused: client ann, auth, room -: invalid_message (request q2)",
        f"refused: client ann, dance, room {room}: invalid_message",
    ]
    for text in lines:
        line = await line_with(server, text)
        assert line.endswith(f"DEBUG seatws.refusals: {text}")
    assert "secret" not in server.log


@pytest.mark.gen_test(timeout=60)
async def test_a_client_can_t_write_a_line(start: Starter, valkey: Valkey) -> None:
    """Neither by a request's id, nor a type, nor a path: what is no id is left out or escaped."""
    server, room = start(valkey.url, **DEBUG), unique("room")
    async with Client.connect(server.url, "ann") as ann:
        await ann.send(type="release_seat", room_id=room, seat_id="A1", request_id=FORGED[:64])
        await ann.send(type=FORGED, request_id=FORGED[:64])
        await ann.send(type="release_seat", room_id=FORGED, seat_id="A1")
        await ann.ask(type="ping")
    await fetch(f"{server.http}/%1b%5b2J%0aERROR")
    async with RawSocket.open(server) as raw:
        raw.writer.write(b"GET /\xc2\x9b2J HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await raw.reader.readline()
    await closed_line(server, "ann")
    await wait_until_async(lambda: len(re.findall(" GET ", server.log)) == 2)
    await wait_until_async(lambda: len(re.findall("refused: client ann, ", server.log)) == 3)
    assert "all is lost" not in server.log
    assert server.log.replace("\n", "").isprintable()
    started = server.log.index("Plugins:")
    for line in server.log[started:].splitlines()[1:]:
        assert re.match(r"\d{4}-\d\d-\d\dT[0-9:.]+Z [A-Z]+ \S+: ", line), line


# ---------------------------------------------------------------- how much is logged


@pytest.mark.gen_test(timeout=60)
async def test_the_level_is_switched_while_it_runs(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """SIGUSR1: debug and back. SIGHUP: what `log.level` says by now, if the file is good."""
    conf = conf_with(tmp_path / "conf")
    server = start(valkey.url, conf=conf)
    settings = conf / "seatws.toml"

    async def is_logged(path: str) -> bool:
        """Whether a request leaves a line. What it is asked after is logged in any case."""
        await fetch(f"{server.http}/{path}")
        name = unique("client")
        async with Client.connect(server.url, name):
            pass
        await closed_line(server, name)
        return f"GET /{path} 404" in server.log

    async def tell(which: signal.Signals, answer: str) -> str:
        """Send a signal, and wait for the line that answers it."""
        before = len(server.log)
        os.kill(server.pid, which)
        await wait_until_async(lambda: answer in server.log[before:])
        return next(line for line in server.log[before:].splitlines() if answer in line)

    assert not await is_logged("one")
    await tell(signal.SIGUSR1, "the log level is debug; SIGUSR1 again")
    assert await is_logged("two")
    await tell(signal.SIGUSR1, "the log level is info again")
    assert not await is_logged("three")

    settings.write_text(settings.read_text().replace('level = "info"', 'level = "debug"'))
    await tell(signal.SIGHUP, "the log level is debug now")
    assert await is_logged("four")

    settings.write_text(settings.read_text().replace('level = "debug"', 'level = "loud"'))
    line = await tell(signal.SIGHUP, "not reloaded, the log level stays: ")
    assert level_of(line) == "ERROR"
    assert "seatws.toml: log.level: expected one of " in line
    assert await is_logged("five")

    settings.write_text(settings.read_text().replace('level = "loud"', 'level = "warning"'))
    await tell(signal.SIGHUP, "the log level is warning now")
    await fetch(f"{server.http}/six")
    await tell(signal.SIGUSR1, "the log level is debug; SIGUSR1 again")
    await fetch(f"{server.http}/seven")
    await line_with(server, "GET /seven 404")
    assert "GET /six" not in server.log


# ---------------------------------------------------------------- many at once


@pytest.fixture
def short_window(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[pytest.LogCaptureFixture]:
    """Instances in this process look ten times a second, and back one second; their warnings."""
    monkeypatch.setattr(mass_disconnection, "WINDOW_S", 1.0)
    monkeypatch.setattr(sockets, "SWEEP_S", 0.1)
    caplog.set_level(logging.WARNING, sockets.__name__)
    before = gc.get_threshold()
    yield caplog
    gc.unfreeze()  # what `App.start` set for the whole process
    gc.set_threshold(*before)


@contextlib.asynccontextmanager
async def _audience(valkey: Valkey) -> AsyncIterator[tuple[App, list[Client]]]:
    """An instance in this process, and forty who have stood there for a look at least."""
    given = {
        "SEATWS_REDIS__URL": valkey.url,
        "SEATWS_SERVER__PORT": "0",
        "SEATWS_SERVER__DRAIN_SECONDS": "1",
        "SEATWS_HEARTBEAT__INTERVAL_SECONDS": "2",
        "SEATWS_HEARTBEAT__TIMEOUT_SECONDS": "2",
    }
    app = App(config.load(ROOT / "conf", given), ROOT / "conf")
    await app.start()
    try:
        url = f"ws://127.0.0.1:{app.port}"
        async with contextlib.AsyncExitStack() as crowd:
            clients = [await crowd.enter_async_context(Client.connect(url)) for _ in range(40)]
            reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
            async with contextlib.aclosing(_Witness(reader, writer)) as witness:
                # Whoever is pinged was looked at, and with it all who had come before.
                await witness.shake_hands(f"/ws/{unique('witness')}")
                assert (await witness.receive())[0] == PING
                await witness.send(frame(struct.pack("!H", 1000), CLOSE))
                await witness.receive()
            yield app, clients
    finally:
        await app.stop()


@pytest.mark.gen_test(timeout=60)
async def test_a_mass_disconnection_is_noticed_once(
    valkey: Valkey, short_window: pytest.LogCaptureFixture
) -> None:
    """An error when it begins, with the codes; a warning when it is over; and it is counted."""
    async with _audience(valkey) as (app, clients):
        for client in clients[:30]:
            client.socket.transport.abort()
        await wait_until_async(lambda: len(short_window.records) == 2)
        begun, over = short_window.records
        assert begun.levelno == logging.ERROR
        found = re.fullmatch(
            r"mass disconnection: (\d+) of 4[01] connections lost within \d s "
            r"\(by close code 1006: (\d+)\)",
            begun.getMessage(),
        )
        assert found is not None, begun.getMessage()
        assert 20 < int(found[1]) == int(found[2]) <= 30
        assert over.levelno == logging.WARNING
        assert "30 lost in all (by close code 1006: 30), 10 connections now" in over.getMessage()
        metrics = (await fetch(f"http://127.0.0.1:{app.port}/metrics")).body.decode()
        assert "\nseatws_mass_disconnections_total 1.0\n" in metrics
    assert len(short_window.records) == 2


@pytest.mark.gen_test(timeout=60)
async def test_who_goes_during_a_drain_is_not_lost(
    valkey: Valkey, short_window: pytest.LogCaptureFixture
) -> None:
    """Whichever way: all of them are to go."""
    async with _audience(valkey) as (app, clients):
        draining = asyncio.create_task(app.drain())
        await asyncio.sleep(0)  # it has begun, and has a second to go
        for client in clients[:30]:
            client.socket.transport.abort()
        await draining
        assert app.counts.closes[1006] > 20
    assert short_window.records == []


class _Witness(RawSocket):
    """A connection of its own making, to be closed at the end."""

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def _crowd(server: Instance, count: int) -> AsyncIterator[None]:
    """Some who say nothing, and hear nothing, and go all at once."""
    async with contextlib.AsyncExitStack() as crowd:
        for _ in range(count):
            await crowd.enter_async_context(RawSocket.connect(server))
        yield
