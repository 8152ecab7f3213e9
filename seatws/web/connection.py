"""One WebSocket after its handshake: bytes in, bytes out, and never more waiting than allowed.

Tornado checks the handshake; then the socket is ours (`web/handshake.py`). Tornado's stream encodes
and schedules for each viewer anew, keeps what a slow client does not read without a limit, and
cannot close with 1007. Here a send is one `socket.send` of bytes that all viewers share.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import deque
from typing import Final

from seatws.config import Limits
from seatws.errors import CUT_OFF, NO_CODE, CloseCode
from seatws.frames import (
    Binary,
    Close,
    Event,
    FrameReader,
    Ping,
    Pong,
    Text,
    Violation,
    close_frame,
    ping_frame,
    pong_frame,
)
from seatws.web.rate import Bucket

CLOSE_S: Final = 5.0
"""How long the client may take to answer a close."""
_BUFFERS_PER_WRITE: Final = 64
_PING: Final = ping_frame()

# All connections are read into one buffer: a reader keeps nothing of it but copies.
_inbox = memoryview(bytearray(65_536))


class Connection:
    """The socket of one client.

    Subclasses say what its messages mean: `on_text`, `on_binary`, `on_flood`, `on_drained`,
    `on_closed`. All of it runs on the loop and returns at once.

    Args:
        loop: The loop that watches the socket.
        sock: A connected, non-blocking TCP socket; owned from now on.
        limits: What the client may send and leave unread.
        deflates: Whether permessage-deflate was agreed on, both ways.
    """

    __slots__ = (
        "__weakref__",
        "_allowance",
        "_backlog",
        "_bucket",
        "_ends_writing",
        "_hangs_up",
        "_is_held",
        "_is_open",
        "_is_paused",
        "_limits",
        "_loop",
        "_reader",
        "_sock",
        "behind_since",
        "close_code",
        "closing_since",
        "deflates",
        "frames_in",
        "heard_at",
        "opened_at",
        "pinged_at",
        "sends",
        "unsent",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        limits: Limits,
        *,
        deflates: bool,
    ) -> None:
        now = loop.time()
        self._loop = loop
        self._sock = sock
        self._limits = limits
        self._reader = FrameReader(limits.message_bytes, deflates)
        self._backlog: deque[memoryview] | None = None
        self._is_open = True
        self._is_held = False
        self._is_paused = False
        self._hangs_up = False
        self._ends_writing = False
        self._allowance = limits.unsent_bytes
        self._bucket = Bucket(limits.messages_per_second, limits.burst, now)
        self.deflates = deflates
        """Whether it may be sent deflated frames."""
        self.pinged_at = 0.0
        self.unsent = 0
        """Bytes that the client has not made room for."""
        self.frames_in = 0
        self.sends = 0
        """Of a frame each, or of several that were due together. To count their frames would cost
        something for each viewer of each flush."""
        self.opened_at = now
        self.heard_at = now
        """When the client last sent anything, loop time; as all moments here."""
        self.behind_since: float | None = None
        """Since when more is unsent than allowed; until all of it is out."""
        self.closing_since: float | None = None
        """Since when it waits for the client's close."""
        self.close_code = CUT_OFF
        loop.add_reader(sock, self._readable)

    # ------------------------------------------------------------ what it means, for subclasses

    def on_text(self, text: str) -> None:
        """A message came."""

    def on_binary(self) -> None:
        """A binary message came."""

    def on_flood(self, retry_after_ms: int, *, goes_on: bool) -> None:
        """A frame came above the rate limit and was not read; `goes_on`: as many as a burst."""

    def on_drained(self) -> None:
        """All that was unsent is out."""

    def on_closed(self) -> None:
        """The connection is gone. Called once."""

    # ------------------------------------------------------------ sending

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._is_open

    @property
    def is_behind(self) -> bool:
        """Whether more is unsent than allowed, so that changes must not be added to it."""
        return self.unsent > self._allowance

    def send(self, frames: bytes) -> None:
        """Send whole frames, after all that was sent before; dropped once it is closing."""
        if self._is_open:
            self.sends += 1
            self._write(frames)

    def send_snapshot(self, frames: bytes) -> None:
        """Send frames that the limit on what is unsent must not count: a map may be larger."""
        if self._is_open:
            self._allowance += len(frames)
            self.send(frames)

    def ping(self) -> None:
        """Ask for a sign of life; `heard_at` moves when it comes."""
        self.pinged_at = self._loop.time()
        self.send(_PING)

    def close(self, code: CloseCode, reason: str, last_words: bytes = b"") -> None:
        """Close with a code, and wait a while for the client to do the same.

        Args:
            code: Why.
            reason: The same for people; cut to 123 bytes.
            last_words: Frames to be sent just before.
        """
        if not self._is_open:
            return
        if self.is_behind and self._backlog is not None:
            # The client reads nothing; only what it has got a part of must be completed.
            while len(self._backlog) > 1:
                self.unsent -= len(self._backlog.pop())
        self._begin_close(code, last_words + close_frame(code, reason))

    def abort(self) -> None:
        """Close without a word."""
        self._lost()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        if self._backlog is None:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                # Not at once: whoever sends may be walking through all viewers.
                self._is_open = False
                self._loop.call_soon(self._lost)
                return
            if sent == len(data):
                return
            rest = rest[sent:]
            self._backlog = deque()
            self._loop.add_writer(self._sock, self._writable)
        self._backlog.append(rest)
        self.unsent += len(rest)
        if self.unsent > self._allowance and self.behind_since is None:
            self.behind_since = self._loop.time()
            self._pause()

    def _writable(self) -> None:
        backlog = self._backlog
        if backlog is None:
            return
        try:
            sent = self._sock.sendmsg(list(itertools.islice(backlog, _BUFFERS_PER_WRITE)))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost()
            return
        self.unsent -= sent
        while backlog and sent >= len(backlog[0]):
            sent -= len(backlog.popleft())
        if backlog:
            backlog[0] = backlog[0][sent:]
        else:
            self._drained()

    def _drained(self) -> None:
        self._backlog = None
        self._loop.remove_writer(self._sock)
        self._allowance = self._limits.unsent_bytes
        self.behind_since = None
        if self._hangs_up:
            self._lost()
            return
        self._end_writing()
        if not self._is_held or not self._is_open:
            self._resume()
        if self._is_open:
            self.on_drained()

    # ------------------------------------------------------------ receiving

    def hold(self) -> None:
        """Read nothing more until `go_on`: something has to be decided first."""
        self._is_held = True
        self._pause()

    def go_on(self) -> None:
        """Read again."""
        self._is_held = False
        if self.behind_since is None:
            self._resume()

    def _pause(self) -> None:
        """Read nothing from a client that does not read: its requests would make more answers."""
        if self._is_open and not self._is_paused:
            self._is_paused = True
            self._loop.remove_reader(self._sock)

    def _resume(self) -> None:
        if self._is_paused and self._sock.fileno() >= 0:
            self._is_paused = False
            self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        try:
            size = self._sock.recv_into(_inbox)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._lost()
            return
        self.receive(_inbox[:size])

    def receive(self, data: bytes | memoryview) -> None:
        """Take bytes that came from the client."""
        self.heard_at = self._loop.time()
        for event in self._reader.feed(data):
            self.frames_in += 1
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Close):
            self._take_close(event)
        elif isinstance(event, Violation):
            self.close(event.code, event.reason)
            self._ends_writing = True  # what the client answers can't be read any more
            self._end_writing()
        elif isinstance(event, Pong) or not self._is_open:
            pass
        elif retry_after_ms := self._bucket.take(self.heard_at):
            self.on_flood(retry_after_ms, goes_on=self._bucket.is_in_debt)
        elif isinstance(event, Text):
            self.on_text(event.text)
        elif isinstance(event, Ping):
            self.send(pong_frame(event.payload))
        elif isinstance(event, Binary):
            self.on_binary()

    # ------------------------------------------------------------ the end

    def _take_close(self, event: Close) -> None:
        if self._is_open:
            code = NO_CODE if event.code is None else event.code
            self._begin_close(code, close_frame(event.code))
        self._hangs_up = True
        if self._backlog is None:
            self._lost()

    def _begin_close(self, code: int, frames: bytes) -> None:
        self.close_code = code
        self.closing_since = self._loop.time()
        self.sends += 1
        self._write(frames)
        self._is_open = False
        self._resume()  # for its close, and its end

    def _end_writing(self) -> None:
        """After a last frame let the client see the end, and wait for its own.

        Closing at once, with something unread, would reset the connection and take the frame along.
        """
        if self._ends_writing and self._backlog is None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def _lost(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._is_open = False
        self._loop.remove_reader(self._sock)
        if self._backlog is not None:
            self._loop.remove_writer(self._sock)
            self._backlog = None
        self._sock.close()
        self.unsent = 0
        self.on_closed()
