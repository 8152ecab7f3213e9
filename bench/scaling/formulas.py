"""The formulas of docs/scaling.md. Pure: numbers in, numbers out; no draw, no clock, no file.

A share is of one core: 1.0 is a core that does nothing else. Rates are a second, costs in µs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

COMPARE_S: Final = 2.0
"""Every instance compares each room that it follows with Redis so often (rooms/hub.py)."""
COMPARE_AT_ONCE: Final = 100
"""Of them, in one pipeline."""
PAUSE_FACTOR: Final = 1.5
LONGEST_PAUSE_S: Final = 0.1
"""How a busy room's fan-out gathers (rooms/fanout.py)."""
EXPIRY_SPREAD_S: Final = 0.15
"""Instances look for ended holds at moments that differ by up to this (rooms/room.py)."""
US: Final = 1e-6


@dataclass(frozen=True)
class Room:
    """What a room's viewers do, all together, a second."""

    viewers: int
    clicks: float
    """Selects, granted or refused."""
    granted: float
    releases: float
    expiries: float

    @property
    def changes(self) -> float:
        """Each takes a rev, is published, and is told to every viewer."""
        return self.granted + self.releases + self.expiries

    @property
    def requests(self) -> float:
        """Operations that clients ask for."""
        return self.clicks + self.releases


def room(
    viewers: int, clicks_per_viewer: float, seats: int, held_s: float, released: float
) -> Room:
    """What happens in a room, in a steady state.

    No more seats can be granted than come free: `seats / held_s` a second. That is an upper bound,
    reached when whoever clicks finds the free ones at once.

    Args:
        viewers: How many look at it.
        clicks_per_viewer: Selects a second of each.
        seats: That the room has.
        held_s: How long one is held on average, to release or deadline.
        released: The share of holds that end by release, 0 to 1; the others end at their deadline.
    """
    clicks = viewers * clicks_per_viewer
    granted = min(clicks, seats / held_s)
    return Room(viewers, clicks, granted, granted * released, granted * (1 - released))


def held_seats(granted: float, held_s: float) -> float:
    """Seats held at a time (Little's law)."""
    return granted * held_s


def followers(viewers: int, instances: int) -> float:
    """Instances that follow a room, on average: those on which at least one viewer landed.

    Each viewer lands on any instance alike: N * (1 - (1 - 1/N)^V).
    """
    if instances == 1:
        return float(viewers > 0)
    # expm1 and log1p: (1 - 1/N)^V loses its digits for large N.
    return -instances * math.expm1(viewers * math.log1p(-1 / instances))


def gathered(rate: float, low: tuple[float, float], high: tuple[float, float]) -> float:
    """Share of a core for work that gets cheaper the more of it comes at once.

    Two rates were measured. Below the first each costs what it did there; between them the share
    is on the straight line; above the second each costs what it did there, no less.

    Args:
        rate: Of the work.
        low: A rate, and the cost of each there.
        high: The same at a higher rate.
    """
    (low_rate, low_us), (high_rate, high_us) = low, high
    if rate <= low_rate:
        return rate * low_us * US
    if rate >= high_rate:
        return rate * high_us * US
    at = (rate - low_rate) / (high_rate - low_rate)
    return ((1 - at) * low_rate * low_us + at * high_rate * high_us) * US


def flushes(viewers: float, changes: float, send_us: float) -> float:
    """Flushes a second of a room on one instance: one a change, or as often as pauses let it.

    A flush takes `viewers * send_us`; the next one starts half as long again after it, 0.1 s later
    at most. So one room never takes more than 1 / (1 + 1.5) = 40 % of a core, up to the size where
    the pause no longer grows.
    """
    took = viewers * send_us * US
    shortest = took + min(PAUSE_FACTOR * took, LONGEST_PAUSE_S)
    return min(changes, 1 / shortest) if shortest else changes


def sending(viewers: float, changes: float, send_us: float) -> float:
    """Share of a core that telling a room's viewers on this instance takes."""
    return flushes(viewers, changes, send_us) * viewers * send_us * US


def comparing(rooms: float, look_us: float) -> float:
    """Share of a core for comparing so many rooms with Redis; the instance's or Redis's."""
    return rooms / COMPARE_S * look_us * US


def look_us(rooms: float, shards: int, together_us: float, alone_us: float) -> float:
    """What one comparison costs Redis where an instance follows so many rooms.

    It asks for a hundred rooms at once, which fall to all shards: the fewer arrive together, the
    more of a round trip each pays.

    Args:
        rooms: That an instance follows.
        shards: That they are spread over.
        together_us: Cost of each of a hundred that come together.
        alone_us: Cost of one that comes alone.
    """
    at_once = max(1.0, min(rooms, COMPARE_AT_ONCE) / shards)
    return together_us + (alone_us - together_us) * (1 / at_once - 1 / COMPARE_AT_ONCE)


def idle_looks(followers: float, expiries: float, delay_s: float) -> float:
    """Script calls a second that find that another instance has ended the hold already.

    Every follower looks within 0.15 s of the deadline; those whose moment comes before the news
    does look in vain.
    """
    return expiries * max(0.0, followers - 1) * min(1.0, delay_s / EXPIRY_SPREAD_S)


def redis_turn_s(subscribers: float, write_us: float, floor: float) -> float:
    """How long one turn of Redis's loop takes, as events gather in it; infinite when it is full.

    A turn writes to each subscriber once, whatever it has for it. The fuller Redis is, the longer a
    turn, the more share a write: it looks busy long before it is full.

    Args:
        subscribers: Instances that are connected to it.
        write_us: Cost of one write.
        floor: The share of a core without the writes.
    """
    return math.inf if floor >= 1 else subscribers * write_us * US / (1 - floor)


def fullest(mean: float, bins: int) -> float:
    """Balls in the fullest of some bins, about: mean + sqrt(2 * mean * ln(bins)).

    For many balls a bin (Raab and Steger, "Balls into Bins", RANDOM 1998).
    """
    return mean + math.sqrt(2 * mean * math.log(bins))


def storm_s(viewers: float, join_us: float, share: float) -> float:
    """How long an instance needs to let so many in, on that share of its core."""
    return viewers * join_us * US / share
