"""A town's evening, drawn: who looks at which room, and which instance and shard that falls to."""

from __future__ import annotations

import binascii
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final

from bench.scaling import formulas
from bench.scaling.formulas import Room

SLOTS: Final = 16_384
"""Of a Redis Cluster."""


@dataclass(frozen=True)
class Town:
    """What is asked of the whole, in a steady state."""

    viewers: int = 1_000_000
    rooms: int = 5_000
    skew: float = 0.8
    """Zipf's exponent: the n-th room draws n^-skew as many as the first; 0: all alike."""
    clicks_per_viewer: float = 0.02
    """Selects a second; 0.02 is one in 50 s."""
    seats: int = 250
    """Of a room."""
    held_s: float = 150.0
    """How long a seat is held, on average."""
    released: float = 0.5
    """The share of holds that end by release; the others run out."""
    visit_s: float = 300.0
    """How long a viewer stays: so many of them join anew in that time."""


@dataclass(frozen=True)
class Drawn:
    """Rooms with their viewers, and for each viewer a number that decides on the instance."""

    rooms: list[Room]
    names: list[str]
    viewers: array[int]
    """The room of each viewer, by number; in order."""
    lots: array[float]
    """From 0 to 1, of each viewer; the same one whatever the number of instances."""


def draw(town: Town, seed: int) -> Drawn:
    """Every viewer picks a room by its popularity; the same seed, the same town."""
    random = Random(seed)
    weights = list(accumulate((rank + 1) ** -town.skew for rank in range(town.rooms)))
    numbers = range(town.rooms)
    viewers = array("l", sorted(random.choices(numbers, cum_weights=weights, k=town.viewers)))
    lots = array("d", (random.random() for _ in range(town.viewers)))
    counts = Counter(viewers)
    rooms = [
        formulas.room(counts[n], town.clicks_per_viewer, town.seats, town.held_s, town.released)
        for n in numbers
    ]
    names = [f"funcion_{random.randrange(10**6):06}_{number}" for number in numbers]
    return Drawn(rooms, names, viewers, lots)


Placed = list[dict[int, int]]
"""For each instance: the viewers it has of each room, by the room's number."""


def place(drawn: Drawn, instances: int) -> Placed:
    """Each viewer to any instance alike, as by a balancer that knows nothing of rooms."""
    placed: Placed = [{} for _ in range(instances)]
    chosen = (int(lot * instances) for lot in drawn.lots)
    for (instance, room), count in Counter(zip(chosen, drawn.viewers, strict=True)).items():
        placed[instance][room] = count
    return placed


def place_by_room(drawn: Drawn, instances: int, balance: float) -> Placed:
    """Each viewer to the instance that its room's name says, or the next one that has space.

    That is consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018),
    `hash-balance-factor` in HAProxy. Rooms come one after the other here; where their viewers come
    mixed, more rooms are passed on in part.

    Args:
        drawn: The town.
        instances: How many there are.
        balance: No instance has more than so many times the mean of connections; above 1.
    """
    placed: Placed = [{} for _ in range(instances)]
    most = math.ceil(len(drawn.viewers) / instances * balance)
    space = [most] * instances
    for room, viewers in enumerate(drawn.rooms):
        left, at = viewers.viewers, binascii.crc32(drawn.names[room].encode()) % instances
        while left:
            if taken := min(left, space[at]):
                placed[at][room] = placed[at].get(room, 0) + taken
                space[at] -= taken
                left -= taken
            at = (at + 1) % instances
    return placed


def followers(placed: Placed, rooms: int) -> list[int]:
    """How many instances follow each room."""
    counts = [0] * rooms
    for instance in placed:
        for room in instance:
            counts[room] += 1
    return counts


def slot(room_id: str) -> int:
    """The room's slot in a Redis Cluster: its keys share the hash tag, which is its name."""
    return binascii.crc_hqx(room_id.encode(), 0) % SLOTS


def shards(names: Sequence[str], count: int) -> list[list[int]]:
    """The rooms of each shard, by number, where shards have slots side by side, as many each."""
    found: list[list[int]] = [[] for _ in range(count)]
    for number, name in enumerate(names):
        found[slot(name) * count // SLOTS].append(number)
    return found
