"""Takes connections in, a few at a time, and gives them to Tornado's HTTP server.

Tornado itself accepts up to 128 in one turn of the loop, each with a handshake to come, while
everybody else waits 100 ms and more.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.iostream import IOStream

from seatws.logs import Repeats

log = logging.getLogger(__name__)

ACCEPTS_PER_TURN: Final = 16
"""A turn of the loop with so many handshakes takes some 5 ms."""
READ_BYTES: Final = 8192
"""Room for one read: Tornado makes it anew for each, and nearly all requests are far smaller."""
LONGEST_ANSWER_S: Final = 4.0
"""Redis is given less to answer in (PROTOCOL section 4); longer nobody needs to be waited for."""
PAUSE_S: Final = 0.5
"""Before trying again where the process or the system has nothing left for one more connection."""

_USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Server(HTTPServer):
    """Tornado's, which can also go down without losing an answer.

    Whoever stands behind a balancer must not do what was asked and hang up: the balancer would ask
    another instance for it once more.
    """

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Set it up (Tornado calls it with the constructor's arguments)."""
        super().initialize(*args, **kwargs)
        self._requests: dict[HTTP1ServerConnection, int] = {}
        """Of each connection: how many it has had, the one counted that it waits for."""
        self._lets_go = False
        self._one_is_gone = asyncio.Event()

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Tornado calls it when a connection is ready for a request, its first or the next."""
        assert isinstance(server_conn, HTTP1ServerConnection)  # noqa: S101  Tornado has no other
        count = self._requests[server_conn] = self._requests.get(server_conn, 0) + 1
        if server_conn.stream.closed():
            # Tornado goes on with what it has read already, though nobody would get the answer.
            return HTTPMessageDelegate()
        if count > 1 and self._lets_go:
            # Not at once: the next request may be here already, and is then answered.
            asyncio.get_running_loop().call_soon(self._close_if_idle, server_conn)
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: object) -> None:
        """Tornado calls it when a connection is gone, or has become a WebSocket."""
        assert isinstance(server_conn, HTTP1ServerConnection)  # noqa: S101
        del self._requests[server_conn]
        self._one_is_gone.set()
        super().on_close(server_conn)

    def let_go(self) -> None:
        """End each connection that has had a request, at once or when that is answered.

        Else a balancer would send newcomers on them. A connection that has not had its first
        request yet still gets it answered.
        """
        self._lets_go = True
        self.conn_params.no_keep_alive = True  # the last answer on a connection says so
        for connection, count in list(self._requests.items()):
            if count > 1:
                self._close_if_idle(connection)

    async def settle(self) -> None:
        """Wait for the answers that are due, but not for ever; then end all connections.

        Call `let_go` before.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_ANSWER_S):
                while not all(map(_is_idle, self._requests)):
                    self._one_is_gone.clear()
                    await self._one_is_gone.wait()
        for connection in list(self._requests):
            connection.stream.close()

    def _close_if_idle(self, connection: HTTP1ServerConnection) -> None:
        if connection in self._requests and _is_idle(connection):
            connection.stream.close()


def _is_idle(connection: HTTP1ServerConnection) -> bool:
    """Whether it owes no answer: it reads, so its next request is not here, or not all of it."""
    return connection.stream.reading()


class Listener:
    """Accepts on listening sockets, which it owns, until it is closed.

    Args:
        server: Gets the connections.
        sockets: Bound and listening.
    """

    def __init__(self, server: Server, sockets: Sequence[socket.socket]) -> None:
        self._server = server
        self._sockets = tuple(sockets)
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._repeats = Repeats()
        for sock in self._sockets:
            sock.setblocking(False)
        self._watch()

    def close(self) -> None:
        """Accept no more. What was accepted goes on."""
        if self._pause is not None:
            self._pause.cancel()
        for sock in self._sockets:
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock)
                sock.close()

    def let_go(self) -> None:
        """Once closed: end the HTTP connections that wait for another request, and keep no more."""
        self._server.let_go()

    async def settle(self) -> None:
        """Once they are let go: wait for the last answers, then end all HTTP connections."""
        await self._server.settle()

    async def close_all_connections(self) -> None:
        """End the HTTP connections at once, once it is closed."""
        await self._server.close_all_connections()

    def _watch(self) -> None:
        self._pause = None
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _USED_UP:
                    self._rest(exc)
                    return
                continue  # this one was gone before it was taken (accept(2), "Error handling")
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # gone already; reading will tell
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = IOStream(sock, read_chunk_size=READ_BYTES)
            self._server.handle_stream(stream, address)

    def _rest(self, exc: OSError) -> None:
        """Those who wait stay in the kernel's queue; accepting at once would only fail again."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        self._pause = self._loop.call_later(PAUSE_S, self._watch)
        if self._repeats.is_due():
            log.error(
                "can't accept connections: %s; raise the limit on open files (ulimit -n) or lower "
                "limits.connections",
                exc.strerror,
            )
