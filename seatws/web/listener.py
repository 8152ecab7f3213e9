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
import time
from collections.abc import Sequence
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

log = logging.getLogger(__name__)

ACCEPTS_PER_TURN: Final = 16
"""A turn of the loop with so many handshakes takes some 5 ms."""
READ_BYTES: Final = 8192
"""Room for one read: Tornado makes it anew for each, and nearly all requests are far smaller."""
PAUSE_S: Final = 0.5
"""Before trying again where the process or the system has nothing left for one more connection."""
COMPLAIN_AGAIN_S: Final = 10.0

_USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Accepts on listening sockets, which it owns, until it is closed.

    Args:
        server: Gets the connections.
        sockets: Bound and listening.
    """

    def __init__(self, server: HTTPServer, sockets: Sequence[socket.socket]) -> None:
        self._server = server
        self._sockets = tuple(sockets)
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._complained_at = -COMPLAIN_AGAIN_S
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

    async def close_all_connections(self) -> None:
        """End the HTTP connections that are left, once it is closed."""
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
        now = time.monotonic()
        if now - self._complained_at >= COMPLAIN_AGAIN_S:
            self._complained_at = now
            log.error(
                "can't accept connections: %s; raise the limit on open files (ulimit -n) or lower "
                "limits.connections",
                exc.strerror,
            )
