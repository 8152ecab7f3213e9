"""What the server counts: plain numbers on the way of a frame, which metrics.py shows.

Kinds come from the server's own code, never from a client, so there are few of each.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from typing import Final, Literal, get_args

from seatws.errors import CUT_OFF, ERROR_CODES, NO_CODE, CloseCode
from seatws.messages import COMMAND_TYPES

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Bounds for what should take milliseconds, and is too late after seconds."""
LAG_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
"""Bounds for the end of a hold, which is promised within a second."""
NUMBERS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
"""Bounds for how many."""


OTHER: Final = 0
"""Stands for close codes that clients made up."""

Cause = Literal["subscribed", "reconnected", "moved", "gap", "epoch", "rolled back", "again"]
"""Why a room is read from Redis; docs/operations.md explains each."""


class Histogram:
    """How often a value was within which bounds.

    prometheus_client's own takes a lock and a few microseconds for each value.

    Args:
        bounds: Each the greatest value of its bucket; above the last there is one more.
    """

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counts:
    """Everything counted since the start.

    Every kind is there from the start, with 0: what appears with a first count has not risen, for
    Prometheus.
    """

    def __init__(self) -> None:
        self.connections_opened = 0
        self.closes: Counter[int] = Counter(dict.fromkeys((*CloseCode, NO_CODE, CUT_OFF, OTHER), 0))
        """By close code."""
        self.mass_disconnections = 0
        self.joins = 0
        self.messages: Counter[str] = Counter(dict.fromkeys(COMMAND_TYPES, 0))
        """What clients sent, by type."""
        self.refusals: Counter[str] = Counter(dict.fromkeys(ERROR_CODES, 0))
        """Errors answered, by code."""
        self.sign_ins: Counter[str] = Counter(accepted=0, refused=0)
        """By outcome."""
        self.changes: Counter[str] = Counter(selected=0, released=0, expired=0)
        """Of holds, by our own script calls, by kind."""
        self.slow_viewers = 0
        self.resyncs: Counter[Cause] = Counter(dict.fromkeys(get_args(Cause), 0))
        """Snapshots read, by cause."""
        self.deliveries = 0
        self.http_requests: Counter[tuple[str, int]] = Counter()
        """By route and status."""
        self.redis_losses = 0
        self.answer_s = Histogram(SECONDS)
        self.fanout_s = Histogram(SECONDS)
        self.expiry_lag_s = Histogram(LAG_SECONDS)
        self.flush_viewers = Histogram(NUMBERS)
        self.flush_changes = Histogram(NUMBERS)
        self.redis_round_trip_s = Histogram(SECONDS)
        self.loop_lag_s = Histogram(SECONDS)

    def closed(self, code: int) -> None:
        """Count a connection that is gone, by its close code."""
        self.closes[code if code in self.closes else OTHER] += 1

    def answered(self, asked_at: float) -> None:
        """Count an answer that goes out now.

        Args:
            asked_at: When its request was read, `time.monotonic()`; 0: that is not of interest.
        """
        if asked_at:
            self.answer_s.observe(time.monotonic() - asked_at)

    def flushed(self, viewers: int, changes: int, seconds: float) -> None:
        """Count a flush: to how many, how many changes, and how long the first of them waited."""
        self.flush_viewers.observe(viewers)
        self.flush_changes.observe(changes)
        self.fanout_s.observe(seconds)
        self.deliveries += viewers * changes
