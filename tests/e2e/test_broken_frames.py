"""What breaks WebSocket itself is closed with the code that RFC 6455 names, and the client gets it.

The close must arrive: a server that closes a socket with something unread resets the connection,
and its last words are lost.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import websockets

from tests.conftest import Starter
from tests.fetch import until_connections
from tests.harness import Client, Instance, Valkey, unique
from tests.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, deflated, frame
from tests.witness import watched_room

MOST = 16_384
DEFLATE = "permessage-deflate"
TOO_LARGE = {
    "one byte more": [frame("x" * (MOST + 1))],
    "a mebibyte": [frame("x" * 1_048_576)],
    "a binary one": [frame(b"\x00" * (MOST + 1), BINARY)],
    "a length alone": [frame(announced=1 << 62)],
    "in fragments": [
        frame("x" * MOST, fin=False),
        frame("x", CONTINUATION),
    ],
    "without an end": [frame("x", fin=False), *[frame("x" * 999, CONTINUATION, fin=False)] * 20],
    "inflated by one byte": [frame(deflated("x" * (MOST + 1)), rsv1=True)],
    "a zip bomb": [frame(deflated(" " * 16_000_000), rsv1=True)],
    "a zip bomb in fragments": [
        frame(deflated(" " * 16_000_000)[:8_000], fin=False, rsv1=True),
        frame(deflated(" " * 16_000_000)[8_000:], CONTINUATION),
    ],
}
NOT_TEXT = {
    "a lone byte": [frame(b"\xff")],
    "in a message": [frame(b'{"type": "ping", "x": "\xc3"}')],
    "a surrogate": [frame("\ud800".encode(errors="surrogatepass"))],
    "an overlong form": [frame(b"\xc0\xaf")],
    "cut off": [frame("é".encode()[:1], fin=False), frame(b"", CONTINUATION)],
    "inflated": [frame(deflated(b"\xff"), rsv1=True)],
    "in a reason": [frame(b"\x03\xe8\xff", CLOSE)],
    "damaged deflate": [frame(b"\xff\xff\xff", rsv1=True)],
}
AGAINST_THE_RULES = {
    "not masked": [frame('{"type": "ping"}', masked=False)],
    "a reserved opcode": [frame("", 0x3)],
    "a reserved control opcode": [frame("", 0xB)],
    "a continuation of nothing": [frame("x", CONTINUATION)],
    "a message inside a message": [frame("x", fin=False), frame("x")],
    "a ping in fragments": [frame("", PING, fin=False)],
    "a ping of 126 bytes": [frame("x" * 126, PING)],
    "a deflated ping": [frame("", PING, rsv1=True)],
    "a length too long": [b"\x81\xfe\x00\x05" + bytes(9)],
    "a length below nothing": [b"\x81\xff" + b"\xff" * 8 + bytes(4)],
    "a close code that is reserved": [frame((1005).to_bytes(2), CLOSE)],
    "a close code cut off": [frame(b"\x03", CLOSE)],
}
BROKEN = [
    *[pytest.param(1009, frames, id=f"too large: {name}") for name, frames in TOO_LARGE.items()],
    *[pytest.param(1007, frames, id=f"not text: {name}") for name, frames in NOT_TEXT.items()],
    *[pytest.param(1002, frames, id=name) for name, frames in AGAINST_THE_RULES.items()],
]


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(("code", "frames"), BROKEN)
async def test_a_broken_frame_is_closed_with_its_code(
    server: Instance, code: int, frames: list[bytes]
) -> None:
    """The close frame comes, then the end; what was sent after it is not read; nobody notices."""
    async with (
        watched_room(server) as room,
        RawSocket.connect(server, Sec_WebSocket_Extensions=DEFLATE) as raw,
    ):
        await raw.join(room)
        late = {"type": "select_seat", "room_id": room, "seat_id": "A1"}
        await raw.send(*frames, frame(json.dumps(late)))
        end = await raw.end()
        assert (end.code, end.messages) == (code, [])
        await raw.hang_up()


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("code", "data"),
    [(1009, b"x" * (MOST + 1)), (1009, b"x" * 9_000_000), (1007, b"\xff")],
    ids=["one byte more", "nine megabytes", "not utf-8"],
)
async def test_a_library_hears_the_code_too(server: Instance, code: int, data: bytes) -> None:
    """A client that is still sending when it is refused gets the close, not a reset."""
    url = f"{server.url}/ws/{unique('library')}"
    socket = await websockets.connect(url, ping_interval=None, compression=None)
    with pytest.raises(websockets.ConnectionClosed) as closed:  # noqa: PT012
        await socket.send(data, text=True)
        await socket.recv()
    await socket.wait_closed()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


@pytest.mark.gen_test(timeout=60)
async def test_without_deflate_a_deflated_frame_breaks_the_rules(server: Instance) -> None:
    """1002: what was not agreed on is not understood (RFC 7692 6)."""
    async with RawSocket.connect(server) as raw:
        assert "sec-websocket-extensions" not in raw.headers
        await raw.send(frame(deflated('{"type": "ping"}'), rsv1=True))
        assert (await raw.end()).code == 1002


@pytest.mark.gen_test(timeout=60)
async def test_compressed_messages_work(server: Instance) -> None:
    """By hand, whole and in fragments; and from a library that compresses all it sends."""
    ping = '{"type": "ping", "request_id": "%s"}'
    async with RawSocket.connect(server, Sec_WebSocket_Extensions=DEFLATE) as raw:
        assert raw.headers["sec-websocket-extensions"].startswith(DEFLATE)
        await raw.send(frame(deflated(ping % "whole"), rsv1=True))
        payload = deflated(ping % "parts")
        await raw.send(
            frame(payload[:9], fin=False, rsv1=True),
            frame("between", PING),
            frame(payload[9:], CONTINUATION),
        )
        assert (await raw.message())["request_id"] == "whole"
        assert await raw.receive() == (PONG, b"between")
        assert (await raw.message())["request_id"] == "parts"
    room = unique("room")
    async with Client.connect(server.url, compression="deflate") as client:
        await client.join(room)
        names = {"name": "Ann " * 200}
        assert (await client.select(room, "A1", user_info=names))["type"] == "seat_selected"
        assert (await client.select(room, "A2", user_info=names))["type"] == "seat_selected"


@pytest.mark.gen_test(timeout=60)
async def test_text_may_be_cut_anywhere(server: Instance) -> None:
    """A character may be split by fragments, and a frame by packets."""
    message = '{"type": "ping", "request_id": "ñ🎬"}'.encode()
    whole = b"".join(
        frame(message[at : at + 1], TEXT if not at else CONTINUATION, fin=at == len(message) - 1)
        for at in range(len(message))
    )
    async with RawSocket.connect(server) as raw:
        for at in range(0, len(whole), 5):
            await raw.send(whole[at : at + 5])
        assert (await raw.message())["request_id"] == "ñ🎬"


@pytest.mark.gen_test(timeout=60)
async def test_a_zip_bomb_is_never_inflated(start: Starter, valkey: Valkey) -> None:
    """Each would take 16 MB: the process never has that much more than before."""

    def peak_mib() -> float:
        status = Path(f"/proc/{server.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024

    server = start(valkey.url)
    async with Client.connect(server.url) as client:
        assert (await client.ask(type="ping"))["type"] == "pong"
    before = peak_mib()
    for _ in range(20):
        async with RawSocket.connect(server, Sec_WebSocket_Extensions=DEFLATE) as raw:
            await raw.send(*TOO_LARGE["a zip bomb"])
            assert (await raw.end()).code == 1009
    assert peak_mib() < before + 3


@pytest.mark.gen_test(timeout=60)
async def test_whoever_breaks_off_in_the_middle_is_forgotten(
    start: Starter, valkey: Valkey
) -> None:
    """A connection that ends inside a handshake, a frame or a message takes nobody along."""
    server = start(valkey.url)
    async with watched_room(server) as room:
        for cut in (b"", frame("x" * 999)[:500], frame("x", fin=False), b"\x81"):
            async with RawSocket.connect(server) as raw:
                await raw.join(room)
                await raw.send(cut)
        for head in (b"", b"GET /ws/x HT", b"GET /ws/x HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01"):
            async with RawSocket.open(server) as raw:
                await raw.send(head)
        await until_connections(server, 1)
