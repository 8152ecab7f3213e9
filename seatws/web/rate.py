"""How often a client may ask: a token bucket."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_BUCKETS: Final = 10_000


class Bucket:
    """Tokens that come back with time; each message takes one.

    What is refused takes one too, so that a client that goes on without a pause runs into debt.

    Args:
        rate: Tokens a second; 0: no limit.
        burst: The most that it holds, and what it holds at first.
        now: Seconds on any steady clock, as in `take`.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> int:
        """Count one message.

        Returns:
            0 if it may pass; else after how many milliseconds of silence the next one may.
        """
        rate = self._rate
        if not rate:
            return 0
        tokens = min(self._burst, self._tokens + (now - self._at) * rate) - 1
        tokens = max(tokens, -self._burst)  # a debt that can be waited out
        self._tokens = tokens
        self._at = now
        return 0 if tokens >= 0 else int((1 - tokens) * 1000 / rate) + 1

    @property
    def is_in_debt(self) -> bool:
        """Whether as many messages were refused as a burst may have."""
        return self._tokens <= -self._burst


class Buckets:
    """A bucket for each of many keys; those not used for longest are forgotten.

    Args:
        rate: Of each bucket, as its burst.
        burst: See `Bucket`.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def take(self, key: tuple[str, str], now: float) -> int:
        """Count one message of `key`; see `Bucket.take`."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._rate, self._burst, now)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket.take(now)
