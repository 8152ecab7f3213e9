"""permessage-deflate on the wire: clients of every kind see the same, and large messages shrink.

What a client may send, broken and bombs included, is in `test_broken_frames.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from seatws import config
from seatws.app import App
from tests.conftest import Starter
from tests.fetch import fetch
from tests.harness import (
    ROOT,
    Client,
    Instance,
    Message,
    Valkey,
    holders_in_redis,
    unique,
    without_uvloop,
)
from tests.raw import RawSocket, deflated, frame
from tests.recording import Deflations

OFFER = "permessage-deflate; client_max_window_bits"
NO_CAP = {"SEATWS_HOLDS__MAX_SEATS_PER_CLIENT": "0"}
NOTE = " ".join(f"row {number} seat {number * 7}" for number in range(99))[:900]
LARGE = {"name": "Ann", "note": NOTE}
"""With it a change has more than `compression.min_bytes`."""


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(
    request: pytest.FixtureRequest, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """An instance on each of the loops."""
    directory = tmp_path_factory.mktemp("compression")
    settings: dict[str, Any] = dict(NO_CAP)
    if request.param == "asyncio":
        settings |= without_uvloop(directory)
    instance = Instance(directory, valkey.url, **settings)
    yield instance.start()
    instance.stop()


async def fill(client: Client, room: str, seats: int, user_info: Message) -> None:
    """Hold so many seats."""
    for at in range(0, seats, 50):
        seat_ids = [f"S{number}" for number in range(at, min(at + 50, seats))]
        answer = await client.ask(
            type="select_seats", room_id=room, seat_ids=seat_ids, user_info=user_info
        )
        assert answer["type"] == "seat_selected", answer


def offer(**options: Any) -> dict[str, Any]:
    """What makes the `websockets` client offer this and nothing else."""
    return {"compression": None, "extensions": [ClientPerMessageDeflateFactory(**options)]}


CLIENTS: dict[str, dict[str, Any]] = {
    "plain": {"compression": None},
    "websockets": {"compression": "deflate"},
    "chrome": offer(client_max_window_bits=True),
    "firefox and safari": offer(),
    "no takeover": offer(server_no_context_takeover=True, client_no_context_takeover=True),
    "largest window": offer(server_max_window_bits=15, client_max_window_bits=15),
    "small windows": offer(server_max_window_bits=12, client_max_window_bits=9),
    "too small a window": offer(server_max_window_bits=9),
}
UNCOMPRESSED = {"plain", "too small a window"}


@pytest.mark.gen_test(timeout=90)
async def test_clients_of_every_kind_see_the_same(server: Instance, valkey: Valkey) -> None:
    """Maps, large and small changes, answers among them: for all of them the room is the same."""
    room = unique("room")
    async with AsyncExitStack() as stack:
        viewers = {
            name: await stack.enter_async_context(Client.connect(server.url, **options))
            for name, options in CLIENTS.items()
        }
        for name, viewer in viewers.items():
            assert bool(viewer.socket.protocol.extensions) is (name not in UNCOMPRESSED), name
        await fill(viewers["plain"], room, 100, LARGE)
        for viewer in viewers.values():
            await viewer.join(room)

        async def act(name: str, viewer: Client) -> None:
            mine = random.Random(name)
            for turn in range(20):
                info = LARGE if turn % 2 else {}
                seat = f"T{mine.randrange(40)}"
                answer = await viewer.select(room, seat, user_info=info)
                if answer["type"] == "seat_selected" and turn % 3:
                    await viewer.release(room, seat)

        await asyncio.gather(*(act(*each) for each in viewers.items()))
        late = await stack.enter_async_context(Client.connect(server.url))
        joined = await late.join(room)
        for viewer in viewers.values():
            await viewer.until(lambda: viewer.revs[room][-1:] == [joined["rev"]])  # noqa: B023
            assert viewer.revs[room] == list(range(101, joined["rev"] + 1))
            assert viewer.maps[room] == late.maps[room]
        assert late.maps[room] == holders_in_redis(valkey, room)


@pytest.mark.gen_test(timeout=60)
async def test_only_large_messages_are_deflated(server: Instance) -> None:
    """A map and a change with much in it; all else is as without compression."""
    room = unique("room")
    async with (
        Client.connect(server.url, compression=None) as busy,
        RawSocket.connect(server) as plain,
        RawSocket.connect(server, Sec_WebSocket_Extensions=OFFER) as raw,
    ):
        await raw.join(room)
        assert raw.deflated["current_selections"] == [False]  # an empty one
        await fill(busy, room, 200, {"name": "Ann"})
        await busy.select(room, "T1", user_info=LARGE)
        await busy.release(room, "T1")
        await raw.message("seat_released")
        for viewer in (raw, plain):
            await viewer.say(type="join_room", room_id=room)
        maps = [await viewer.message("current_selections") for viewer in (raw, plain)]
        assert maps[0] | {"server_time": ""} == maps[1] | {"server_time": ""}
        assert raw.deflated == {
            "room_joined": [False, False],
            "current_selections": [False, True],
            "seat_selected": [False] * 200 + [True],
            "seat_released": [False],
        }
        assert raw.sizes["current_selections"][1] < plain.sizes["current_selections"][0] / 5
        assert raw.sizes["seat_selected"][-1] < len(NOTE) / 1.5


@pytest.mark.gen_test(timeout=60)
async def test_the_least_size_is_a_setting(start: Starter, valkey: Valkey) -> None:
    """With 64 even single changes are deflated, as far as that makes them shorter."""
    server = start(valkey.url, SEATWS_COMPRESSION__MIN_BYTES="64")
    room = unique("room")
    async with (
        Client.connect(server.url) as busy,
        RawSocket.connect(server, Sec_WebSocket_Extensions=OFFER) as raw,
    ):
        await raw.join(room)
        await busy.select(room, "A1", user_info={"name": "Ann"})
        await raw.message("seat_selected")
        assert raw.deflated["seat_selected"] == [True]


@pytest.mark.gen_test(timeout=60)
async def test_it_can_be_turned_off(start: Starter, valkey: Valkey) -> None:
    """Then nobody's offer is taken up, everything works, and a deflated frame breaks the rules."""
    server = start(valkey.url, SEATWS_COMPRESSION__ENABLED="false", **NO_CAP)
    room = unique("room")
    async with (
        Client.connect(server.url, compression="deflate") as client,
        RawSocket.connect(server, Sec_WebSocket_Extensions=OFFER) as raw,
    ):
        assert not client.socket.protocol.extensions
        assert "sec-websocket-extensions" not in raw.headers
        await fill(client, room, 100, LARGE)
        await raw.join(room)
        assert raw.deflated["current_selections"] == [False]
        await raw.send(frame(deflated('{"type": "ping"}'), rsv1=True))
        assert (await raw.end()).code == 1002


@pytest.mark.gen_test(timeout=60)
async def test_each_message_is_deflated_once_for_all_viewers(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty viewers, forty of whom take it: one map and one change are two deflaters' work."""
    given = {"SEATWS_REDIS__URL": valkey.url, "SEATWS_SERVER__PORT": "0"}
    app = App(config.load(ROOT / "conf", given), ROOT / "conf")
    await app.start()
    room = unique("room")
    try:
        async with AsyncExitStack() as stack:
            url = f"ws://127.0.0.1:{app.port}"
            busy = await stack.enter_async_context(Client.connect(url, compression=None))
            for at in range(10):
                await busy.select(room, f"A{at}", user_info={"name": f"Ann {at}"})
            deflations = Deflations(monkeypatch)  # of the server, in this process; no client's
            offers = [{"Sec_WebSocket_Extensions": OFFER} if at % 3 else {} for at in range(60)]
            viewers = [
                await stack.enter_async_context(RawSocket.connect(app, **headers))
                for headers in offers
            ]
            for viewer in viewers:
                await viewer.join(room)
            assert len(deflations) == 1
            await busy.release(room, "A0")
            await busy.select(room, "A0", user_info=LARGE)
            for viewer in viewers:
                await viewer.message("seat_selected")
            assert len(deflations) == 2
            told = [viewer.deflated["seat_selected"] for viewer in viewers]
            assert told == [[at % 3 > 0] for at in range(60)]
    finally:
        await app.stop()


def maps(client: Client) -> int:
    """How many maps it was sent."""
    return sum(message["type"] == "current_selections" for message in client.received)


async def slow_viewers(server: Instance) -> float:
    """How often a viewer has fallen behind."""
    text = (await fetch(f"{server.http}/metrics")).body.decode()
    (line,) = (line for line in text.splitlines() if line.startswith("seatws_slow_viewers_total "))
    return float(line.split()[1])


@contextlib.asynccontextmanager
async def lazy_client(server: Instance, compression: str | None) -> AsyncIterator[Client]:
    """A client that can stop reading: the kernel takes little in its place."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.connect(("127.0.0.1", server.port))
        async with Client.connect(server.url, sock=sock, compression=compression) as client:
            yield client


@pytest.mark.gen_test(timeout=90)
async def test_what_is_unsent_is_counted_as_it_is_sent(start: Starter, valkey: Valkey) -> None:
    """Changes that deflate to a fiftieth: only who gets them as they are falls behind."""
    server = start(valkey.url, SEATWS_LIMITS__USER_INFO_BYTES="16000", **NO_CAP)
    room = unique("room")
    big = {"note": "the same again and again " * 600}
    async with (
        lazy_client(server, "deflate") as ann,
        lazy_client(server, None) as bob,
        Client.connect(server.url) as busy,
    ):
        for viewer in (ann, bob):
            await viewer.join(room)
            viewer.socket.transport.pause_reading()
        while not await slow_viewers(server):
            for _ in range(20):
                await busy.select(room, "A1", user_info=big)
                last = await busy.release(room, "A1")
        for viewer in (ann, bob):
            viewer.socket.transport.resume_reading()
        await ann.until(lambda: ann.revs[room][-1:] == [last["rev"]])
        assert ann.revs[room] == list(range(1, last["rev"] + 1))
        await bob.until(lambda: maps(bob) == 2)
        assert maps(ann) == 1
        assert bob.maps[room] == ann.maps[room] == {}
        assert await slow_viewers(server) == 1


@pytest.mark.gen_test(timeout=90)
async def test_a_storm_of_joins_to_a_large_map_holds_nobody_up(server: Instance) -> None:
    """Everyone gets all 2,000 seats, those too who come before all of them are deflated."""
    room = unique("room")
    async with AsyncExitStack() as stack:
        busy = await stack.enter_async_context(Client.connect(server.url))
        await fill(busy, room, 2_000, {"name": "Ann", "email": "ann@example.com"})
        viewers = [
            await stack.enter_async_context(
                RawSocket.connect(server, Sec_WebSocket_Extensions=OFFER)
            )
            for _ in range(20)
        ]
        for viewer in viewers:
            await viewer.say(type="join_room", room_id=room)
        for viewer in viewers:
            assert len((await viewer.message("current_selections"))["selections"]) == 2_000
        assert [viewer.deflated["current_selections"] for viewer in viewers] == [[True]] * 20
        plain = await stack.enter_async_context(RawSocket.connect(server))
        await plain.join(room)
        size, sizes = plain.sizes["current_selections"][0], viewers[0].sizes["current_selections"]
        assert sizes[0] > size / 2  # a fifth of it deflated
        while sizes[-1] > size / 4:
            await viewers[0].join(room)
