"""A connection to a Redis server that is kept up: opened by redis-py, then driven by hiredis alone.

redis-py knows how to open every kind of connection (TLS, passwords, unix sockets, HELLO). Its way
of sending a command costs more than the command does, so once a connection stands, its transport
gets a protocol of ours that hands packed commands to the socket and replies to a callback.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions

from seatws.errors import StoreError
from seatws.store.servers import Server, explain

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.05
LAST_RETRY_S = 0.5
"""Between attempts: short enough that viewers are right again well within 5 s of Redis's return."""
SETTLED_S = 1.0
"""A connection that stood so long was a good one: the pauses begin anew after it."""

Reply = Any
"""What hiredis makes of a RESP2 reply: bytes, int, None, a list of these, or a ReplyError."""
ReplyError = hiredis.ReplyError


def pack(*command: str | bytes | int) -> bytes:
    """A command as Redis reads it."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # a stub's mistake
    return packed


class Head:
    """The first words of a command, packed once for many."""

    __slots__ = ("_count", "_packed")

    def __init__(self, *words: str | bytes | int) -> None:
        self._count = len(words)
        self._packed = _without_count(pack(*words))

    def pack(self, *rest: str | bytes | int) -> bytes:
        """The command with these words behind."""
        return b"*%d\r\n%b%b" % (
            self._count + len(rest),
            self._packed,
            _without_count(pack(*rest)),
        )


def _without_count(packed: bytes) -> bytes:
    return packed[packed.index(b"\n") + 1 :]


class Link(asyncio.Protocol):
    """One open connection. Replies come to `on_reply` in order; `on_lost` is called once."""

    def __init__(
        self,
        connection: redis.asyncio.Connection,
        on_reply: Callable[[Reply], None],
        on_lost: Callable[[Link], None],
    ) -> None:
        """Take over a connection that redis-py has opened and that has nothing under way."""
        self._connection = connection
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        # `_writer` and `_close` are redis-py's private names; tests/test_connect.py watches them.
        writer = connection._writer
        if writer is None:
            raise StoreError("the connection is closed")
        self._transport: asyncio.WriteTransport = writer.transport
        self._transport.set_protocol(self)

    def send(self, packed: bytes) -> None:
        """Write packed commands. Without an open connection they go nowhere; `on_lost` tells."""
        self._transport.write(packed)

    def abort(self) -> None:
        """Close at once, whatever is under way. `on_lost` follows."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into replies (asyncio.Protocol)."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._on_reply(reply)
        except hiredis.ProtocolError:
            log.error("Redis sent what is not RESP; closing the connection")
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner (asyncio.Protocol)."""
        del exc
        self._connection._close()  # type: ignore[no-untyped-call]
        self._on_lost(self)


Greet = Callable[[redis.asyncio.Connection], Awaitable[None]]
"""What is said on a new connection before it is used; may raise what `explain` knows."""


async def say_nothing(connection: redis.asyncio.Connection) -> None:
    """Greet nobody."""


class KeptLink:
    """Keeps one connection up: opens it, and after a loss opens it again until that works.

    Args:
        server: Which.
        connect_timeout_s: For opening, all its steps together.
        greet: Called with each new connection before it is handed out.
        on_reply: Gets every reply, in order.
        on_up: A connection stands; called after `greet`.
        on_down: The connection is lost; what was under way on it has no answer.
    """

    def __init__(
        self,
        server: Server,
        connect_timeout_s: float,
        *,
        greet: Greet,
        on_reply: Callable[[Reply], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> None:
        self._server = server
        self._connect_timeout_s = connect_timeout_s
        self._greet = greet
        self._on_reply = on_reply
        self._on_up = on_up
        self._on_down = on_down
        self._link: Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self.is_starting = False
        """Whether the first attempt after `start` is under way."""
        self._up_at = 0.0
        self._pause = FIRST_RETRY_S

    @property
    def is_up(self) -> bool:
        """Whether a connection stands, as far as one knows."""
        return self._link is not None

    async def open(self) -> None:
        """Open the first connection.

        Raises:
            StoreError: It can't be had; nothing goes on in the background.
        """
        await self._open_once()

    def start(self) -> None:
        """Open the first connection as soon as it can be had."""
        self.is_starting = True
        self._keeper = asyncio.get_running_loop().create_task(self._reopen())

    def send(self, packed: bytes) -> None:
        """Write packed commands; only while `is_up`."""
        if self._link is not None:
            self._link.send(packed)

    def abort(self) -> None:
        """Give this connection up and open another."""
        if self._link is not None:
            self._link.abort()

    async def close(self) -> None:
        """Close for good. No callback is called any more."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link is not None:
            self._link.abort()
            self._link = None
            await asyncio.sleep(0)  # so that the transport sees its end before the loop does

    async def _open_once(self) -> None:
        connection: redis.asyncio.Connection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._server.connect()
                await self._greet(connection)
            self._link = Link(connection, self._on_reply, self._lost)
        except BaseException as exc:
            if connection is not None:
                await connection.disconnect(nowait=True)
            if isinstance(exc, OSError | redis.exceptions.RedisError):
                raise StoreError(explain(exc)) from exc
            raise
        self._up_at = time.monotonic()
        self._on_up()

    def _lost(self, link: Link) -> None:
        if self._closed or link is not self._link:
            return
        self._link = None
        self._on_down()
        self._keeper = asyncio.get_running_loop().create_task(self._reopen())

    async def _reopen(self) -> None:
        if time.monotonic() - self._up_at > SETTLED_S:
            self._pause = FIRST_RETRY_S
        while True:
            if not self.is_starting:
                # Jitter, so that many instances don't all come back in the same instant.
                await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311
                self._pause = min(self._pause * 2, LAST_RETRY_S)
            try:
                return await self._open_once()
            except StoreError as exc:
                log.debug("Redis is still away: %s", exc)
            except Exception:
                log.exception("opening a connection to Redis failed in a way that is a bug")
            finally:
                self.is_starting = False
