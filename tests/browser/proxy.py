"""A proxy before the server that can refuse WebSockets, cut what stands, and hold its breath."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

_CHUNK = 65_536
_FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Passes bytes between a port of its own and another's, as many a network does: not always.

    Args:
        target: The port on this machine that it stands before.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: dict[socket.socket, bool] = {}
        """Each connection's two ends, and whether it is a WebSocket."""
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        self._blocked = False
        self.refused = 0
        """How many WebSockets it has refused."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def http(self) -> str:
        """Where a browser finds the server behind it."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def block_websockets(self) -> None:
        """Cut those that stand and refuse new ones; plain HTTP passes."""
        self._blocked = True
        self.cut(websockets_only=True)

    def unblock(self) -> None:
        """Let all pass again."""
        self._blocked = False

    def freeze(self) -> None:
        """Pass nothing, and tell nobody: connections stand and are silent."""
        self._passing.clear()

    def thaw(self) -> None:
        """Go on; what came meanwhile is passed now."""
        self._passing.set()

    def cut(self, *, websockets_only: bool = False) -> None:
        """End connections at once."""
        with self._lock:
            for one, is_websocket in list(self._open.items()):
                if is_websocket or not websockets_only:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.thaw()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(browser,), daemon=True).start()

    def _serve(self, browser: socket.socket) -> None:
        """One connection. Its first request tells what it is: a handshake never comes second."""
        with browser, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                read = browser.recv(_CHUNK)
                if not read:
                    return
                head += read
            is_websocket = b"upgrade: websocket" in head.lower()
            if is_websocket and self._blocked:
                self.refused += 1
                browser.sendall(_FORBIDDEN)
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                with self._lock:
                    self._open |= {browser: is_websocket, server: is_websocket}
                server.sendall(head)
                back = threading.Thread(target=self._pass, args=(server, browser), daemon=True)
                back.start()
                self._pass(browser, server)
                back.join()
                with self._lock:
                    del self._open[browser], self._open[server]

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while read := source.recv(_CHUNK):
                self._passing.wait()
                target.sendall(read)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
