"""One connection over a real TCP socket, on both loops: what is sent, kept, read and closed."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from tornado.ioloop import IOLoop

from seatws.config import Limits
from seatws.errors import CUT_OFF, NO_CODE, CloseCode
from seatws.frames import close_frame, ping_frame, text_frame
from seatws.web.connection import Connection
from tests.harness import LIMIT_S, wait_until_async
from tests.raw import BINARY, CLOSE, PING, PONG, TEXT, frame

UNSENT = 65_536
FRAME = text_frame(b"x" * 8_000)
A_LOT = 4_000_000
"""Bytes, more than the kernel's buffers between the two hold."""
BYE = text_frame(b"bye")

pytestmark = [pytest.mark.gen_test(timeout=60), pytest.mark.usefixtures("io_loop")]


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def io_loop(request: pytest.FixtureRequest) -> Iterator[IOLoop]:
    """Each of the loops that the server runs on."""
    loop: asyncio.AbstractEventLoop = request.param()
    asyncio.set_event_loop(loop)
    yield IOLoop.current()
    assert not asyncio.all_tasks(loop)
    asyncio.set_event_loop(None)
    loop.close()


class Recorder(Connection):
    """Writes down what it is told."""

    __slots__ = ("does", "heard")

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self.heard: list[str] = []
        self.does: dict[str, Callable[[], None]] = {}
        """What is done, once, when something is heard."""
        super().__init__(asyncio.get_running_loop(), sock, limits, deflates=False)

    def note(self, what: str) -> None:
        self.heard.append(what)
        self.does.pop(what, lambda: None)()

    def on_text(self, text: str) -> None:
        self.note(text)

    def on_binary(self) -> None:
        self.note("(binary)")

    def on_flood(self, retry_after_ms: int, *, goes_on: bool) -> None:
        self.note("(flood, goes on)" if goes_on else "(flood)")

    def on_drained(self) -> None:
        self.note("(drained)")

    def on_closed(self) -> None:
        self.note("(closed)")

    def fill(self, unsent: int) -> int:
        """Send frames until more than `unsent` waits for the client; how many they are."""
        frames = 0
        while self.unsent <= unsent:
            self.send(FRAME)
            frames += 1
        return frames


class Peer:
    """The client's end, which reads when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""

    async def send(self, *frames: bytes) -> None:
        """Send frames, in one packet if they fit."""
        async with asyncio.timeout(LIMIT_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(frames))

    async def read_until(self, is_enough: Callable[[], bool]) -> None:
        """Read on until something is so."""
        async with asyncio.timeout(LIMIT_S):
            while not is_enough():
                data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
                assert data, "the end came early"
                self.data += data

    async def read_frames(self, last: int) -> list[tuple[int, bytes]]:
        """All frames up to one of this kind, the last of what came."""
        await self.read_until(lambda: self._cut()[0][-1:] != [] and self._cut()[0][-1][0] == last)
        return self._cut()[0]

    async def read_to_the_end(self) -> list[tuple[int, bytes]]:
        """All frames up to the end of the connection, which must be no reset."""
        async with asyncio.timeout(LIMIT_S):
            while data := await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16):
                self.data += data
        frames, rest = self._cut()
        assert rest == b"", "a frame was cut"
        return frames

    def reset(self) -> None:
        """Go without a word, whatever is under way."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _cut(self) -> tuple[list[tuple[int, bytes]], bytes]:
        """What came, in frames: opcode and payload; and the rest that is no whole frame."""
        frames, rest = [], self.data
        while len(rest) >= 2:
            extra = {126: 2, 127: 8}.get(rest[1], 0)
            start = 2 + extra
            end = start + (int.from_bytes(rest[2:start]) if extra else rest[1])
            if len(rest) < end:
                break
            frames.append((rest[0] & 0x0F, rest[start:end]))
            rest = rest[end:]
        return frames, rest


@asynccontextmanager
async def connected(*, per_second: int = 0) -> AsyncIterator[tuple[Recorder, Peer]]:
    """A connection and its client, with small buffers between them."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client.connect(listening.getsockname())
        server, _ = listening.accept()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
    server.setblocking(False)
    client.setblocking(False)
    limits = Limits(unsent_bytes=UNSENT, messages_per_second=per_second, burst=2)
    connection = Recorder(server, limits)
    try:
        yield connection, Peer(client)
    finally:
        connection.abort()
        client.close()


# ---------------------------------------------------------------- sending


async def test_unsent_is_all_that_is_not_with_the_network() -> None:
    """Each byte is unsent or with the kernel; in the end all came, which is told once."""
    async with connected() as (connection, peer):
        sent = [text_frame(bytes([65 + size % 26]) * size) for size in range(0, 9_000, 50)]
        for each in sent:
            connection.send(each)
        whole = b"".join(sent)
        with_kernel = len(whole) - connection.unsent
        assert 0 < with_kernel < len(whole)
        peer.sock.settimeout(LIMIT_S)  # reads while the loop stands still
        while len(peer.data) < with_kernel:
            peer.data += peer.sock.recv(with_kernel - len(peer.data))
        peer.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.sock.recv(1)
        await peer.read_until(lambda: len(peer.data) == len(whole))
        assert peer.data == whole
        assert connection.unsent == 0
        assert connection.heard == ["(drained)"]
        assert connection.sends == len(sent)


async def test_a_client_is_behind_above_the_limit_until_all_is_out() -> None:
    """At the limit it is not yet; once above it, `behind_since` stands until the last byte went."""
    async with connected() as (connection, peer):
        connection.fill(0)
        connection.send(b"x" * (UNSENT - connection.unsent))
        assert not connection.is_behind
        assert connection.behind_since is None
        connection.send(b"x")
        assert connection.is_behind
        assert connection.behind_since is not None
        connection.behind_since = 1.0  # long ago
        connection.send(b"x")
        await peer.read_until(lambda: connection.unsent <= UNSENT // 2)
        assert not connection.is_behind
        assert connection.behind_since == 1.0
        await peer.read_until(lambda: connection.unsent == 0)
        assert not connection.is_behind
        assert connection.behind_since is None


async def test_a_snapshot_does_not_count_against_the_limit() -> None:
    """However large it is; what comes on top counts as ever, and the next time it is as before."""
    async with connected() as (connection, peer):
        connection.send_snapshot(text_frame(b"x" * 5 * UNSENT))
        assert connection.unsent > UNSENT
        assert not connection.is_behind
        connection.send(b"x" * UNSENT)
        assert not connection.is_behind
        connection.send(b"x" * UNSENT)
        assert connection.is_behind
        await peer.read_until(lambda: connection.unsent == 0)
        connection.fill(UNSENT)
        assert connection.is_behind


async def test_nothing_is_read_from_a_client_that_is_behind() -> None:
    """Its requests would only make more answers; they are read when it has caught up."""
    async with connected() as (connection, peer):
        connection.fill(UNSENT)
        await peer.send(frame("hello"))
        await peer.read_until(lambda: connection.unsent == 0)
        await wait_until_async(lambda: "hello" in connection.heard)
        assert connection.heard == ["(drained)", "hello"]


async def test_a_client_below_the_limit_is_read_from() -> None:
    """Something unsent alone is no reason to wait."""
    async with connected() as (connection, peer):
        connection.fill(UNSENT // 2)
        await peer.send(frame("hello"))
        await wait_until_async(lambda: "hello" in connection.heard)
        assert connection.unsent
        await peer.read_until(lambda: connection.unsent == 0)
        assert connection.heard == ["hello", "(drained)"]


# ---------------------------------------------------------------- receiving


async def test_frames_are_told_in_order_however_they_are_cut() -> None:
    """Texts, binaries and pings, several in a packet and one in many."""
    async with connected() as (connection, peer):
        frames = frame("one") + frame(b"\0", BINARY) + frame(b"?", PING)
        await peer.send(frames, frames)
        for at in range(len(frames)):
            await peer.send(frames[at : at + 1])
        await wait_until_async(lambda: connection.frames_in == 9)
        assert connection.heard == ["one", "(binary)"] * 3
        await peer.read_until(lambda: len(peer.data) == 9)
        assert await peer.read_frames(PONG) == [(PONG, b"?")] * 3


async def test_a_pong_is_a_sign_of_life_and_no_more() -> None:
    """It moves `heard_at`; a ping of ours notes when it went."""
    async with connected() as (connection, peer):
        connection.heard_at = connection.pinged_at = 0.0
        connection.ping()
        assert connection.pinged_at
        assert await peer.read_frames(PING) == [(PING, b"")]
        await peer.send(frame(b"", PONG))
        await wait_until_async(lambda: connection.frames_in == 1)
        assert connection.heard_at
        assert connection.heard == []


async def test_a_flood_is_told_in_place_of_its_frames() -> None:
    """Above the burst texts and pings are not looked at; after as many again it "goes on"."""
    async with connected(per_second=1) as (connection, peer):
        await peer.send(frame("1"), frame("2"), frame(b"", PONG))
        await peer.send(frame("3"), frame(b"", PING), frame("6"))
        await wait_until_async(lambda: connection.frames_in == 6)
        assert connection.heard[:3] == ["1", "2", "(flood)"]
        assert connection.heard[-1] == "(flood, goes on)"
        assert len(connection.heard) == 5


# ---------------------------------------------------------------- closing


async def test_a_close_comes_after_all_that_was_sent_and_its_answer_ends_it() -> None:
    """What follows on either side is nothing; the code is the one that was closed with."""
    async with connected() as (connection, peer):
        frames = connection.fill(0)
        connection.close(CloseCode.SERVICE_RESTART, "bye", BYE)
        connection.close(CloseCode.TOO_SLOW, "again")
        connection.send(FRAME)
        connection.ping()
        assert not connection.is_open
        got = await peer.read_frames(CLOSE)
        assert got == [(TEXT, FRAME[4:])] * frames + [(TEXT, b"bye"), (CLOSE, b"\x03\xf4bye")]
        await peer.send(frame("late"), frame(b"", PING))
        await peer.send(frame(b"\x03\xe8", CLOSE))
        assert await peer.read_to_the_end() == got
        assert connection.heard == ["(closed)"]
        assert connection.close_code == CloseCode.SERVICE_RESTART


async def test_closing_a_client_that_is_behind_drops_what_waits_but_cuts_no_frame() -> None:
    """The frame of which it has a part is completed; then come the last words."""
    async with connected() as (connection, peer):
        frames = connection.fill(UNSENT)
        connection.close(CloseCode.TOO_SLOW, "too slow", BYE)
        assert connection.unsent <= len(FRAME) + len(BYE) + len(close_frame(4440, "too slow"))
        await peer.read_frames(CLOSE)
        await peer.send(frame(b"\x11\x58", CLOSE))
        *before, last_words, close = await peer.read_to_the_end()
        assert before == [(TEXT, FRAME[4:])] * len(before)
        assert len(before) <= frames - UNSENT // len(FRAME)
        assert (last_words, close) == ((TEXT, b"bye"), (CLOSE, b"\x11\x58too slow"))
        assert connection.heard == ["(closed)"]
        assert connection.unsent == 0


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\x03\xe8", 1000), (b"\x0f\xa1bye", 4001), (b"", NO_CODE)],
    ids=["1000", "4001 bye", "no code"],
)
@pytest.mark.parametrize("unsent", [-1, UNSENT // 2, UNSENT], ids=["idle", "sending", "behind"])
async def test_the_clients_close_is_answered_after_what_was_sent(
    unsent: int, payload: bytes, code: int
) -> None:
    """With its code, or none if it gave none; then the connection ends."""
    async with connected() as (connection, peer):
        frames = connection.fill(unsent) if unsent >= 0 else 0
        await peer.send(frame(payload, CLOSE), frame("late"))
        got = await peer.read_to_the_end()
        assert got == [(TEXT, FRAME[4:])] * frames + [(CLOSE, payload[:2])]
        assert "late" not in connection.heard
        assert connection.heard[-1] == "(closed)"
        assert connection.close_code == code


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame("hello", masked=False), CloseCode.PROTOCOL_ERROR),
        (frame(b"\xff"), CloseCode.NOT_UTF8),
        (frame(b"x" * 16_385), CloseCode.TOO_BIG),
    ],
    ids=["unmasked", "not UTF-8", "too big"],
)
async def test_a_violation_is_answered_although_more_is_on_its_way(
    broken: bytes, code: CloseCode
) -> None:
    """The close arrives, and then the end and no reset, while the client goes on sending."""
    async with connected() as (connection, peer):
        await peer.send(frame("fine"), broken, b"x" * A_LOT)
        ((opcode, payload),) = await peer.read_to_the_end()
        assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2))
        assert connection.heard == ["fine"]
        peer.sock.close()
        await wait_until_async(lambda: connection.heard == ["fine", "(closed)"])
        assert connection.close_code == code


async def test_abort_ends_it_at_once() -> None:
    """Nothing more is sent, and its end is told once."""
    async with connected() as (connection, peer):
        connection.fill(UNSENT)
        connection.abort()
        connection.abort()
        assert connection.heard == ["(closed)"]
        assert connection.unsent == 0
        connection.send(FRAME)
        connection.close(CloseCode.NORMAL, "")
        await peer.read_until(lambda: len(peer.data) >= len(FRAME))
        assert connection.close_code == CUT_OFF


@pytest.mark.parametrize("unsent", [-1, UNSENT // 2, UNSENT], ids=["idle", "sending", "behind"])
async def test_a_client_that_vanishes_is_told_once(unsent: int) -> None:
    """By the reader or by the writer, whichever hears of it first."""
    async with connected() as (connection, peer):
        if unsent >= 0:
            connection.fill(unsent)
        peer.reset()
        await wait_until_async(lambda: connection.heard == ["(closed)"])
        connection.send(FRAME)
        connection.ping()
        connection.close(CloseCode.NORMAL, "")
        assert connection.unsent == 0
        assert not connection.is_open
        assert connection.close_code == CUT_OFF


async def test_a_send_into_a_dead_connection_tells_of_it_later() -> None:
    """Who sends may be walking through all viewers, and is not called back in the middle of it."""
    async with connected() as (connection, peer):
        peer.reset()
        while connection.is_open:
            connection.send(ping_frame())
        assert connection.heard == []
        await wait_until_async(lambda: connection.heard == ["(closed)"])


# ---------------------------------------------------------------- being called back


@pytest.mark.parametrize("last", ["d", "(closed)"], ids=["then silence", "then a close"])
async def test_a_close_in_the_middle_of_a_packet_is_the_last_that_happens(last: str) -> None:
    """What follows in the packet is not told any more; a close in it still counts."""
    async with connected() as (connection, peer):
        connection.does["b"] = lambda: connection.close(CloseCode.BAD_FRAMES, "no more")
        frames = [frame(text) for text in "abc"]
        if last == "(closed)":
            frames.append(frame(b"\x03\xe8", CLOSE))
        await peer.send(*frames, frame("d"))
        await peer.read_frames(CLOSE)
        assert connection.heard[:2] == ["a", "b"]
        if last == "d":
            await peer.send(frame(b"\x03\xe8", CLOSE))
        assert await peer.read_to_the_end() == [(CLOSE, b"\x11\x30no more")]
        assert connection.heard == ["a", "b", "(closed)"]


async def test_an_abort_in_the_middle_of_a_packet_is_the_last_that_happens() -> None:
    """Whatever else is in the packet, a violation included."""
    async with connected() as (connection, peer):
        connection.does["a"] = connection.abort
        await peer.send(frame("a"), frame("b"), frame("hello", masked=False))
        await wait_until_async(lambda: "(closed)" in connection.heard)
        assert connection.heard == ["a", "(closed)"]


async def test_what_is_sent_when_all_is_out_goes_behind_it() -> None:
    """Also from within the call that tells of it: a message, and the next time a close."""
    async with connected() as (connection, peer):
        connection.does["(drained)"] = lambda: connection.send(text_frame(b"after"))
        frames = connection.fill(UNSENT)
        await peer.read_until(lambda: peer.data.endswith(b"after"))
        connection.does["(drained)"] = lambda: connection.close(CloseCode.NORMAL, "", BYE)
        frames += connection.fill(UNSENT)
        got = await peer.read_frames(CLOSE)
        assert len(got) == frames + 3
        assert [payload for _, payload in got[-2:]] == [b"bye", b"\x03\xe8"]
        await peer.send(frame(b"\x03\xe8", CLOSE))
        assert await peer.read_to_the_end() == got
        assert connection.heard == ["(drained)", "(drained)", "(closed)"]
