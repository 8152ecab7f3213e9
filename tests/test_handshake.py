"""The way from HTTP to our own socket, on both loops: it leans on Tornado's inner parts.

A Tornado that has other ones fails here, and not at a customer's.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
import websockets.asyncio.client
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream
from tornado.web import RequestHandler
from tornado.websocket import WebSocketProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.typing import Subprotocol

from seatws import config
from seatws.app import App
from tests.fetch import until_connections
from tests.harness import (
    ROOT,
    Client,
    Instance,
    Valkey,
    unique,
    wait_until_async,
    without_uvloop,
)
from tests.raw import CLOSE, CONTINUATION, PING, PONG, RawSocket, frame

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
REQUEST = (
    b"GET /ws/ann HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ANSWER = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""To that key (RFC 6455 1.3)."""


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(
    request: pytest.FixtureRequest, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """An instance on each of the loops."""
    directory = tmp_path_factory.mktemp("handshake")
    settings: dict[str, Any] = {}
    if request.param == "asyncio":
        settings |= without_uvloop(directory)
    instance = Instance(directory, valkey.url, **settings)
    yield instance.start()
    instance.stop()


def open_files(server: Instance) -> int:
    """How many file descriptors it has."""
    return sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir())


@pytest.fixture
def no_traceback(server: Instance) -> Iterator[None]:
    """Fails the test in which the server logs one."""
    before = len(server.log)
    yield
    assert "".join(server.log[before:].partition("Traceback")[1:])[:2000] == ""


# ---------------------------------------------------------------- handing over


@pytest.mark.gen_test(timeout=60)
async def test_frames_in_the_packet_of_the_handshake_are_not_lost(server: Instance) -> None:
    """What came before the socket changed hands is read first, a frame's beginning included."""
    whole, cut = frame('{"type": "ping", "request_id": "1"}'), frame('{"type": "ping"}')
    async with RawSocket.open(server) as raw:
        await raw.send(REQUEST, whole, cut[:9])
        assert ANSWER in await raw.reader.readuntil(b"\r\n\r\n")
        assert (await raw.message())["request_id"] == "1"
        await raw.send(cut[9:])
        assert (await raw.message())["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_a_close_in_the_packet_of_the_handshake_is_answered(server: Instance) -> None:
    """Even a client that only says hello and goodbye gets the close, then the end."""
    async with RawSocket.open(server) as raw:
        await raw.send(REQUEST, frame(b"\x03\xe8", CLOSE))
        assert ANSWER in await raw.reader.readuntil(b"\r\n\r\n")
        assert await raw.reader.read() == b"\x88\x02\x03\xe8"


TORNADOS = (
    RequestHandler,
    WebSocketProtocol,
    HTTPServerRequest,
    HTTP1Connection,
    HTTP1ServerConnection,
    IOStream,
)


def tornados_objects() -> Counter[str]:
    """What of Tornado's is alive for single connections, by type; in circles, too."""
    alive = [type(each) for each in gc.get_objects()]
    return Counter(kind.__name__ for kind in alive if issubclass(kind, TORNADOS))


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_a_connection_keeps_nothing_of_tornado(
    run: Callable[[Coroutine[Any, Any, None]], None], valkey: Valkey
) -> None:
    """Of fifty open connections no handler, request, HTTP connection or stream is left.

    Not even for the garbage collector, which would find them late.
    """

    async def check() -> None:
        given = {"SEATWS_REDIS__URL": valkey.url, "SEATWS_SERVER__PORT": "0"}
        app = App(config.load(ROOT / "conf", given), ROOT / "conf")
        await app.start()
        try:
            gc.collect()
            gc.disable()
            before = tornados_objects()
            async with AsyncExitStack() as clients:
                for _ in range(50):
                    url = f"ws://127.0.0.1:{app.port}"
                    client = await clients.enter_async_context(Client.connect(url))
                    await client.join("garbage")
                assert tornados_objects() == before
        finally:
            await app.stop()

    before = gc.get_threshold()
    try:
        run(check())
    finally:
        gc.enable()
        gc.unfreeze()  # what `App.start` set for the whole process
        gc.set_threshold(*before)


@pytest.mark.gen_test(timeout=60)
async def test_connections_leave_no_file_open(server: Instance) -> None:
    """After 200 of them, closed politely or cut, there are as many descriptors as before."""
    room = unique("room")
    await until_connections(server, 0)
    before = open_files(server)
    for _ in range(100):
        async with Client.connect(server.url) as polite, RawSocket.connect(server) as rude:
            await polite.join(room)
            await rude.join(room)
    await until_connections(server, 0)
    await wait_until_async(lambda: open_files(server) <= before)


@pytest.mark.usefixtures("no_traceback")
@pytest.mark.parametrize("how", ["reset", "end", "half-close"])
@pytest.mark.gen_test(timeout=60)
async def test_a_client_that_vanishes_in_the_handshake_leaves_no_trace(
    how: str, server: Instance
) -> None:
    """Its socket is closed, and the log holds no traceback."""
    before = open_files(server)
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(REQUEST)
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            elif how == "half-close":
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):  # what it still says; then its end
                    pass
    async with RawSocket.connect(server):  # so those before it were accepted
        pass
    await wait_until_async(lambda: open_files(server) <= before)
    await until_connections(server, 0)


@pytest.mark.usefixtures("no_traceback")
@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.gen_test(timeout=60)
async def test_a_client_that_vanishes_later_is_forgotten(how: str, server: Instance) -> None:
    """Without a close frame, the server has one connection less all the same."""
    async with RawSocket.connect(server) as raw:
        await until_connections(server, 1)
        if how == "reset":
            raw.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE
            )
    await until_connections(server, 0)


# ---------------------------------------------------------------- what is agreed on


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (["seatws.v1"], "seatws.v1"),
        (["chat", "seatws.v1", "seatws.v2"], "seatws.v1"),
        (["chat"], None),
        (["SEATWS.V1"], None),
        (None, None),
    ],
    ids=["ours", "ours among others", "another", "ours in capitals", "none"],
)
@pytest.mark.gen_test(timeout=60)
async def test_the_subprotocol_is_ours_or_none(
    offered: list[Subprotocol] | None, selected: str | None, server: Instance
) -> None:
    """`seatws.v1` is selected where it is offered, and nothing else is ever echoed."""
    async with websockets.asyncio.client.connect(
        f"{server.url}/ws/ann", subprotocols=offered
    ) as client:
        assert client.subprotocol == selected


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        ("permessage-deflate; unknown=1", None),
        ("x-webkit-deflate-frame", None),
        (None, None),
    ],
    ids=["as browsers do", "unknown parameter", "another extension", "none"],
)
@pytest.mark.gen_test(timeout=60)
async def test_no_window_is_kept_between_messages(
    offer: str | None, answer: str | None, server: Instance
) -> None:
    """Deflate is agreed on without context takeover on both sides, or not at all."""
    headers = {"Sec_WebSocket_Extensions": offer} if offer else {}
    async with RawSocket.connect(server, **headers) as raw:
        assert raw.headers.get("sec-websocket-extensions") == answer


@pytest.mark.gen_test(timeout=60)
async def test_a_foreign_client_speaks_deflated_and_in_fragments(server: Instance) -> None:
    """What a message looked like on its way makes no difference to its answer."""
    async with Client.connect(server.url, compression="deflate") as client:
        (extension,) = client.socket.protocol.extensions
        assert isinstance(extension, PerMessageDeflate)
        assert extension.remote_no_context_takeover
        assert extension.local_no_context_takeover
        for _ in range(2):  # the second would need the first one's window, were it kept
            assert (await client.ask(type="ping"))["type"] == "pong"
        await client.socket.send(["", '{"type": "pi', "", 'ng", "request_id": "cut"}', ""])
        answer = await client.heard(lambda message: message.get("request_id") == "cut")
        assert answer["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_a_handshake_without_a_key_is_refused_in_words(server: Instance) -> None:
    """As a problem, on a connection that stays good for a better request."""
    async with RawSocket.open(server) as raw:
        await raw.send(REQUEST.replace(b"Sec-WebSocket-Key", b"X-Key"))
        head = await raw.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in head
        assert b"Sec-WebSocket-Key" in await raw.reader.readuntil(b"}")
        await raw.send(REQUEST)
        assert ANSWER in await raw.reader.readuntil(b"\r\n\r\n")


# ---------------------------------------------------------------- control frames


@pytest.mark.gen_test(timeout=60)
async def test_the_servers_close_can_be_read(server: Instance) -> None:
    """Code and reason of the server's close reach the client, after all that it was told."""
    async with Client.connect(server.url) as client:
        for _ in range(20):
            await client.socket.send("[]")
        assert await client.closed() == 4400
        assert client.socket.close_reason == "too many frames that are no messages"
        assert [each["type"] for each in client.received] == ["error"] * 19 + ["goodbye"]


@pytest.mark.parametrize(
    "payload", [b"\x03\xe8", b"\x0f\xa1bye", b""], ids=["1000", "4001 bye", "no code"]
)
@pytest.mark.gen_test(timeout=60)
async def test_the_clients_close_is_answered_with_its_code(
    payload: bytes, server: Instance
) -> None:
    """The answer has the same code or none, and then the server ends the connection."""
    async with RawSocket.connect(server) as raw:
        await raw.send(frame('{"type": "ping"}'), frame(payload, CLOSE))
        assert (await raw.message())["type"] == "pong"
        assert await raw.receive() == (CLOSE, payload[:2])
        assert await raw.reader.read() == b""
        await until_connections(server, 0)


@pytest.mark.gen_test(timeout=60)
async def test_a_ping_brings_its_payload_back_in_the_middle_of_a_message(server: Instance) -> None:
    """Control frames come between fragments (RFC 6455 5.4), and are answered at once."""
    async with RawSocket.connect(server) as raw:
        await raw.send(frame('{"type": ', fin=False), frame("still there?", PING))
        assert await raw.receive() == (PONG, b"still there?")
        await raw.send(frame("", PONG), frame('"ping"}', CONTINUATION))
        assert (await raw.message())["type"] == "pong"


# ---------------------------------------------------------------- agreeing to deflate

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        (None, None),
        ("permessage-deflate; client_max_window_bits", AGREED),  # Chrome
        ("permessage-deflate", AGREED),  # Firefox, Safari
        (
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            f"{AGREED}; server_max_window_bits=12",
        ),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate; server_max_window_bits=9", None),
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", AGREED),
        ("x-webkit-deflate-frame\r\nSec-WebSocket-Extensions: permessage-deflate", AGREED),
        ("permessage-deflate; client_max_window_bits=potato", None),
        (";;,,==", None),
    ],
    ids=[
        "none",
        "Chrome",
        "Firefox",
        "Python",
        "another",
        "too small a window",
        "the second one",
        "on two lines",
        "wrong value",
        "rubbish",
    ],
)
async def test_an_offer_to_deflate_is_taken_up_or_not(
    server: Instance, offers: str | None, answer: str | None
) -> None:
    """Either way the connection works; a wrong offer is no reason to refuse it."""
    headers = {} if offers is None else {"Sec_WebSocket_Extensions": offers}
    async with RawSocket.connect(server, **headers) as raw:
        assert raw.headers.get("sec-websocket-extensions") == answer
        await raw.say(type="ping", request_id="1")
        assert (await raw.message())["request_id"] == "1"
