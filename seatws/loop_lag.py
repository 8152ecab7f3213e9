"""How late the event loop is: what everybody waits for when something takes it for too long."""

from __future__ import annotations

import asyncio
from typing import Final

from seatws.counts import Histogram

LOOK_S: Final = 0.25


class LoopLag:
    """Sets a timer again and again, and counts how late each comes."""

    def __init__(self, lag_s: Histogram) -> None:
        self._lag_s = lag_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        late = self._loop.time() - self._timer.when()
        self._lag_s.observe(max(0.0, late))
        self._timer = self._loop.call_later(LOOK_S, self._look)
