"""A WebSocket client by hand, for what no library sends: broken frames, floods, silence."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from tests.harness import LIMIT_S, Message, unique

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_MASK = b"\x12\x34\x56\x78"


def frame(
    payload: bytes | str = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv1: bool = False,
    masked: bool = True,
    announced: int | None = None,
) -> bytes:
    """One frame as a client sends it (RFC 6455 5.2); `announced` is the length that it claims."""
    if isinstance(payload, str):
        payload = payload.encode()
    length = len(payload) if announced is None else announced
    first, mask_bit = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0), 0x80 if masked else 0
    if length <= 125:
        head = struct.pack("!BB", first, mask_bit | length)
    elif length <= 0xFFFF:
        head = struct.pack("!BBH", first, mask_bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, length)
    if not masked:
        return head + payload
    key = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    return head + _MASK + bytes(byte ^ mask for byte, mask in zip(payload, key, strict=True))


def deflated(payload: bytes | str) -> bytes:
    """A payload for a frame with `rsv1` (RFC 7692 7.2.1)."""
    if isinstance(payload, str):
        payload = payload.encode()
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(payload: bytes) -> bytes:
    """What a deflated message says, in a window of 4 KiB (RFC 7692 7.2.2)."""
    inflater = zlib.decompressobj(-12)
    message = inflater.decompress(payload + b"\x00\x00\xff\xff")
    assert not inflater.unused_data
    assert not inflater.eof, "a final block, though nobody needs one"
    return message


def request(path: str, fields: dict[str, str], method: str = "GET", body: bytes = b"") -> bytes:
    """An HTTP request with these headers."""
    fields = fields | ({"Content-Length": str(len(body))} if body else {})
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body


@dataclass
class End:
    """How a connection ended: what was said before, and the code of the server's close frame."""

    messages: list[Message]
    code: int

    @property
    def goodbye(self) -> Message:
        """The last message, which must be one."""
        assert self.messages
        assert self.messages[-1]["type"] == "goodbye", self.messages[-1]
        return self.messages[-1]


class HasPort(Protocol):
    """A server on this machine: an `Instance`, or an `App` in this process."""

    @property
    def port(self) -> int:
        """Where it listens."""


class RawSocket:
    """One connection, from the bytes of its handshake on. It answers nothing by itself.

    A connection that is reset, or ends where a frame is due, fails the test with an exception.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        """Of the answer to the handshake, names in lower case."""
        self.sizes: dict[str, list[int]] = {}
        """Bytes of the messages that came, by type, as they came."""
        self.deflated: dict[str, list[bool]] = {}
        """Whether they were deflated."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, server: HasPort) -> AsyncIterator[RawSocket]:
        """Connect without a word."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, server: HasPort, **headers: str) -> AsyncIterator[RawSocket]:
        """Connect and shake hands, which must succeed."""
        async with cls.open(server) as raw:
            await raw.shake_hands(f"/ws/{unique('raw')}", **headers)
            assert raw.status == 101
            yield raw

    async def shake_hands(self, path: str, **headers: str | None) -> bytes:
        """Ask for an upgrade; fills `status` and `headers`.

        Args:
            path: What to ask for.
            headers: More headers, `_` for `-`; None takes one of the usual ones away.

        Returns:
            The body of a refusal.
        """
        fields: dict[str, str | None] = {
            "Host": "localhost",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.ask(path, {name: value for name, value in fields.items() if value is not None})
        return await self.answer()

    def ask(
        self, path: str, fields: dict[str, str], method: str = "GET", body: bytes = b""
    ) -> None:
        """Send a request with these headers. What connects after it is read after it."""
        self.writer.write(request(path, fields, method, body))

    async def answer(self) -> bytes:
        """Read an answer; fills `status` and `headers`. Returns its body."""
        async with asyncio.timeout(LIMIT_S):
            answer = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *fields_back = answer.splitlines()[:-1]
            self.status = int(status.split()[1])
            self.headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in fields_back)
            }
            return await self.reader.readexactly(int(self.headers.get("content-length", 0)))

    async def send(self, *frames: bytes) -> None:
        """Send bytes in one go."""
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def say(self, **message: object) -> None:
        """Send a message as it should be sent."""
        await self.send(frame(json.dumps(message)))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload; a message that was deflated is inflated."""
        async with asyncio.timeout(LIMIT_S):
            first, length = await self.reader.readexactly(2)
            assert first & 0x30 == 0
            assert length < 0x80, "a server's frames are not masked"
            if length >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8))
            payload = await self.reader.readexactly(length)
            if first & 0x40:
                assert "permessage-deflate" in self.headers.get("sec-websocket-extensions", "")
                assert first == 0x40 | 0x80 | TEXT, "only the whole of a message is deflated here"
                payload = inflated(payload)
            if first & 0x0F == TEXT:
                kind = json.loads(payload)["type"]
                self.sizes.setdefault(kind, []).append(length)
                self.deflated.setdefault(kind, []).append(bool(first & 0x40))
            return first & 0x0F, payload

    async def message(self, kind: str | None = None) -> Message:
        """The next message, or the next one of a type."""
        while True:
            opcode, payload = await self.receive()
            assert opcode == TEXT, (opcode, payload)
            message: Message = json.loads(payload)
            if kind in (None, message["type"]):
                return message

    async def join(self, room_id: str) -> None:
        """Join a room and wait for its map."""
        await self.say(type="join_room", room_id=room_id)
        await self.message("current_selections")

    async def end(self) -> End:
        """Read on until the server closes; pings and pongs on the way are not looked at."""
        messages: list[Message] = []
        while True:
            opcode, payload = await self.receive()
            if opcode == CLOSE:
                return End(messages, int.from_bytes(payload[:2]))
            if opcode == TEXT:
                messages.append(json.loads(payload))

    async def hang_up(self) -> None:
        """Answer the server's close, and wait until it has let go."""
        await self.send(frame(struct.pack("!H", 1000), CLOSE))
        async with asyncio.timeout(LIMIT_S):
            assert await self.reader.read() == b""
