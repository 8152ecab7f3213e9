"""Visitors without WebSockets, who ask again and again over one kept connection each."""

from __future__ import annotations

import asyncio
import collections
import http.client
import json
import threading
from types import TracebackType
from typing import Any, Self

from tests.harness import LIMIT_S, unique, wait_until_async

WAIT_S = 0.2
"""The longest that it waits for a change."""
THINKING_S = 0.02
"""How long it thinks before the next round."""


class Asking:
    """One visitor: holds a seat, loads the map, waits for a change, gives the seat back.

    An async context manager: entered, it goes on until the end.

    Args:
        port: Of an instance, or of a balancer before several.
        room_id: In which there is no other with its client id.
    """

    def __init__(self, port: int, room_id: str) -> None:
        self.answers: collections.Counter[tuple[str, int]] = collections.Counter()
        """Method and status."""
        self.broken: list[str] = []
        """What no answer came to."""
        self.rounds = 0
        self._port = port
        self._map = f"/room/{room_id}/selections"
        self._client_id = unique("asking")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)

    async def __aenter__(self) -> Self:
        self._thread.start()
        await self.goes_on()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, LIMIT_S)

    async def goes_on(self) -> None:
        """Wait until it has done all of that once more."""
        before = self.rounds
        await wait_until_async(lambda: self.rounds > before + 1 or not self._thread.is_alive())
        assert self._thread.is_alive(), "it broke"

    def count(self, status: int) -> int:
        """How often there was such an answer."""
        return sum(count for (_, code), count in self.answers.items() if code == status)

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LIMIT_S)
        seat = f"{self._map}/{self._client_id}"
        holds = json.dumps({"client_id": self._client_id})
        while not self._stop.is_set():
            self._ask(connection, "PUT", seat, holds)
            tag = self._ask(connection, "GET", self._map)
            known = {"If-None-Match": tag}
            self._ask(connection, "GET", f"{self._map}?wait={WAIT_S}", headers=known)
            self._ask(connection, "DELETE", f"{seat}?client_id={self._client_id}")
            self.rounds += 1
            self._stop.wait(THINKING_S)
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, path: str, *a: Any, **b: Any
    ) -> str:
        """Ask once; the map's tag."""
        try:
            connection.request(method, path, *a, **b)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as failure:
            self.broken.append(f"{method} {path}: {failure!r}")
            connection.close()
            return ""
        self.answers[method, answer.status] += 1
        return answer.headers.get("ETag", "")
