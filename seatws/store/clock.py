"""Redis's clock, as far as it can be known from here."""

from __future__ import annotations

import time
from typing import Final

TOO_LONG_S: Final = 0.5


class RedisClock:
    """Tells Redis's time between two looks at it.

    Instances' own clocks may be wrong, so only the distance between Redis's and this machine's
    monotonic one is kept, measured anew every few seconds.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._ahead_ms = time.time() * 1000 - time.monotonic() * 1000  # until Redis has been asked

    def now_ms(self) -> int:
        """Unix ms on Redis's clock."""
        return int(time.monotonic() * 1000 + self._ahead_ms)

    def learn(self, redis_ms: float, asked_at: float, answered_at: float) -> None:
        """Take what Redis's TIME said; the moments are `time.monotonic()`, in seconds.

        An answer that took long says little: it may have waited on the way there or back.
        """
        if self._is_set and answered_at - asked_at > TOO_LONG_S:
            return
        self._is_set = True
        self._ahead_ms = redis_ms - (asked_at + answered_at) * 500
