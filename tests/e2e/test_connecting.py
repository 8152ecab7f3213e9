"""Who gets in: ids in the URL, origins, limits on connections, and handshakes that never end."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.conftest import Starter
from tests.fetch import fetch, until_connections
from tests.harness import Client, Instance, Message, Valkey, unique
from tests.raw import RawSocket, frame
from tests.witness import watched_room

GOODBYE = {"type", "code", "reason", "reconnect", "retry_after_ms"}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "client_id",
    [
        "",
        "x" * 65,
        "%20",
        "a%20b",
        "a+b",
        "a%2Fb",
        "%2e%2e%2f",
        "a%00",
        "a%0A",
        "a%0D%0Ab",
        "%C3%B1",
        "%ff",
        "%7Ba%7D",
        "a*",
        "a,b",
        "a%252D",
        "%",
        "<a>",
    ],
)
async def test_an_illegal_client_id_is_refused(server: Instance, client_id: str) -> None:
    """HTTP 400 `invalid_message`, however it is written."""
    async with RawSocket.open(server) as raw:
        body = await raw.shake_hands(f"/ws/{client_id}")
        assert raw.status == 400
        assert raw.headers["content-type"] == "application/problem+json"
        assert json.loads(body)["code"] == "invalid_message"


@pytest.mark.gen_test(timeout=60)
async def test_a_client_id_may_be_percent_encoded(server: Instance) -> None:
    """`ann%40x%2D1` is `ann@x-1`, the same client as without the encoding."""
    room, name = unique("room"), unique("ann@x-1")
    async with (
        Client.connect(server.url, name.replace("@", "%40").replace("-", "%2D")) as one,
        Client.connect(server.url, name) as other,
    ):
        answer = await one.select(room, "A1")
        assert answer["client_id"] == name
        assert (await other.release(room, "A1"))["type"] == "seat_released"


@pytest.mark.gen_test(timeout=60)
async def test_a_request_without_an_upgrade_is_told_to(server: Instance) -> None:
    """426 with `Upgrade: websocket` (RFC 9110 15.5.22)."""
    response = await fetch(f"{server.http}/ws/ann")
    assert response.code == 426
    assert response.headers["Upgrade"] == "websocket"
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upgrade": "h2c"}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": None}, 426),
        ({"Connection": "keep-alive"}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
    ],
    ids=["another protocol", "an old version", "no version", "no upgrade", "no key"],
)
async def test_a_handshake_that_is_none_is_refused(
    server: Instance, headers: dict[str, str | None], status: int
) -> None:
    """With the status that says what to do (RFC 6455 4.2.2)."""
    async with RawSocket.open(server) as raw:
        await raw.shake_hands(f"/ws/{unique('raw')}", **headers)
        assert raw.status == status
        if "Sec-WebSocket-Version" in headers:
            assert "13" in raw.headers["sec-websocket-version"]


@pytest.mark.gen_test(timeout=60)
async def test_pages_of_other_origins_are_kept_out(start: Starter, valkey: Valkey) -> None:
    """403 to the handshake unless the origin is listed; without one, it is no browser."""
    listed = '["https://cine.example", "https://*.cine.example"]'
    server = start(valkey.url, SEATWS_SERVER__ALLOWED_ORIGINS=listed)
    for origin, status in {
        None: 101,
        "https://cine.example": 101,
        "https://www.cine.example": 101,
        "https://evil.example": 403,
        "http://cine.example": 403,
        "http://www.cine.example": 403,
        "https://cine.example:444": 403,
        "https://cine.example.evil.example": 403,
        f"http://127.0.0.1:{server.port}": 403,
        "null": 403,
        "": 403,
    }.items():
        async with RawSocket.open(server) as raw:
            await raw.shake_hands(f"/ws/{unique('raw')}", Origin=origin)
            assert raw.status == status, origin


@pytest.mark.gen_test(timeout=60)
async def test_as_shipped_every_origin_gets_in(server: Instance) -> None:
    """The guide's pages open from a file, whose origin is `null`."""
    for origin in ("null", "https://anywhere.example"):
        async with RawSocket.connect(server, Origin=origin):
            pass


async def farewell_to(server: Instance) -> tuple[int, Message]:
    """Connect where there is no room: the handshake succeeds, then comes the end."""
    async with RawSocket.connect(server) as raw:
        await raw.send(frame('{"type": "ping"}'))
        end = await raw.end()
        assert len(end.messages) == 1
        assert end.goodbye["code"] == end.code
        await raw.hang_up()
        return end.code, end.goodbye


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("limit", "code"),
    [("SEATWS_LIMITS__CONNECTIONS", 1013), ("SEATWS_LIMITS__CONNECTIONS_PER_ADDRESS", 4429)],
    ids=["on the instance", "from an address"],
)
async def test_one_connection_too_many_can_read_why(
    start: Starter, valkey: Valkey, limit: str, code: int
) -> None:
    """A browser can't read a refused handshake: it is accepted, told `goodbye`, and closed."""
    server = start(valkey.url, **{limit: "3"})
    async with watched_room(server):
        async with Client.connect(server.url), Client.connect(server.url):
            for _ in range(3):  # those who were turned away don't count
                closed_with, goodbye = await farewell_to(server)
                assert closed_with == code
                assert goodbye.keys() == GOODBYE
                assert goodbye["reconnect"] is True
                assert goodbye["retry_after_ms"] > 0
            await until_connections(server, 3)
        await until_connections(server, 1)
        async with Client.connect(server.url) as client:
            assert (await client.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_another_address_is_not_counted(start: Starter, valkey: Valkey) -> None:
    """Behind a proxy that is believed, each address has connections of its own."""
    server = start(
        valkey.url,
        SEATWS_LIMITS__CONNECTIONS_PER_ADDRESS="1",
        SEATWS_SERVER__XHEADERS="true",
    )
    async with (
        RawSocket.connect(server, X_Real_Ip="192.0.2.1"),
        RawSocket.connect(server, X_Real_Ip="192.0.2.2") as other,
        RawSocket.connect(server, X_Real_Ip="192.0.2.1") as second,
    ):
        assert (await second.end()).code == 4429
        await other.say(type="ping")
        assert (await other.message())["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_a_handshake_that_never_ends_keeps_nobody_waiting(
    start: Starter, valkey: Valkey
) -> None:
    """Five hundred of them, a byte at a time: others connect and are served all the same."""
    server = start(valkey.url)
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(RawSocket.open(server)) for _ in range(500)]
        for piece in (b"GET /ws/slow HTTP/1.1\r\n", b"Host: localhost\r\nUpgr", b"a", b"d"):
            for one in slow:
                await one.send(piece)
            async with watched_room(server):
                assert (await fetch(f"{server.http}/health")).code == 200
        await until_connections(server, 0)
