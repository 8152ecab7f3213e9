"""The load of each instance and of each shard, by the formulas, and what carries it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from bench.scaling import costs, formulas, sizes, town
from bench.scaling.costs import Costs
from bench.scaling.formulas import US
from bench.scaling.town import Drawn, Placed, Town

NEWS_S: Final = 0.002
"""From a script call to the other instances, assumed: for looks at deadlines in vain."""
MOST: Final = 0.7
"""Of a core: what lies above is for the moments that are busier than the mean."""


@dataclass(frozen=True)
class OnInstance:
    """One instance. The first six are shares of its core."""

    connections_cpu: float
    joins_cpu: float
    operations_cpu: float
    events_cpu: float
    sending_cpu: float
    comparing_cpu: float
    connections: int
    rooms: int
    operations: float
    events: float
    """From other instances, a second."""
    deliveries: float
    mib: float
    mbit: float
    """To clients, a second, with the headers of a packet for each delivery."""

    @property
    def cpu(self) -> float:
        """Of its one core."""
        return sum(share for _, share in self.parts)

    @property
    def parts(self) -> list[tuple[str, float]]:
        """What the core does, by name."""
        return [
            (field.name.removesuffix("_cpu"), getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name.endswith("_cpu")
        ]


@dataclass(frozen=True)
class OnShard:
    """One Redis: the first three are shares of its core, apart from writing to subscribers."""

    calls_cpu: float
    events_cpu: float
    comparing_cpu: float
    rooms: int
    calls: float
    events: float
    """Published a second, times who hears them."""
    looks: float
    turn_ms: float
    """Of its loop, as full as it is; what writing to subscribers adds."""
    mib: float
    hottest: float
    """Share of a core that its busiest room takes: no more shards make that less."""

    @property
    def floor(self) -> float:
        """Of its one core; when this nears 1, it is full."""
        return self.calls_cpu + self.events_cpu + self.comparing_cpu


@dataclass(frozen=True)
class Loads:
    """The whole: a town on so many instances and shards."""

    town: Town
    drawn: Drawn
    placed: Placed
    shards: int
    costs: Costs

    @cached_property
    def followers(self) -> list[int]:
        """Instances that follow each room."""
        return town.followers(self.placed, len(self.drawn.rooms))

    @cached_property
    def on_instances(self) -> list[OnInstance]:
        """Each instance's load."""
        return [self._on_instance(viewers) for viewers in self.placed]

    @cached_property
    def on_shards(self) -> list[OnShard]:
        """Each shard's load."""
        return [self._on_shard(rooms) for rooms in town.shards(self.drawn.names, self.shards)]

    @property
    def fullest_instance(self) -> OnInstance:
        """The one that gives out first."""
        return max(self.on_instances, key=lambda each: each.cpu)

    @property
    def fullest_shard(self) -> OnShard:
        """Likewise."""
        return max(self.on_shards, key=lambda each: each.floor)

    def _on_instance(self, viewers: dict[int, int]) -> OnInstance:
        cost, rooms = self.costs, self.drawn.rooms
        here = sum(viewers.values())
        operations = events = deliveries = sending = holds = 0.0
        for number, count in viewers.items():
            room = rooms[number]
            mine = count / room.viewers
            # Whoever is first ends a hold: as likely any of the instances that follow the room.
            expiries = room.expiries / self.followers[number]
            operations += room.requests * mine + expiries
            own = (room.granted + room.releases) * mine + expiries
            events += room.changes - own
            deliveries += room.changes * count
            sending += formulas.sending(count, room.changes, cost.send_us)
            holds += formulas.held_seats(room.granted, self.town.held_s)
        low = (costs.LOW_OPERATIONS, cost.operation_low_us)
        high = (costs.HIGH_OPERATIONS, cost.operation_high_us)
        heard_low = (costs.LOW_EVENTS, cost.event_low_us)
        heard_high = (costs.HIGH_EVENTS, cost.event_high_us)
        memory = here * cost.connection_kib + len(viewers) * cost.room_kib + holds * cost.hold_kib
        return OnInstance(
            connections_cpu=here * cost.connection_us * US,
            joins_cpu=here / self.town.visit_s * cost.join_us * US,
            operations_cpu=formulas.gathered(operations, low, high),
            events_cpu=formulas.gathered(events, heard_low, heard_high),
            sending_cpu=sending,
            comparing_cpu=formulas.comparing(len(viewers), cost.look_us),
            connections=here,
            rooms=len(viewers),
            operations=operations,
            events=events,
            deliveries=deliveries,
            mib=cost.instance_mib + memory / 1024,
            mbit=deliveries * sizes.on_the_wire(sizes.delivery()) * 8 / 1e6,
        )

    def _on_shard(self, numbers: Sequence[int]) -> OnShard:
        cost = self.costs
        followed = math.fsum(len(each) for each in self.placed) / len(self.placed)
        together, alone = cost.redis_look_us, cost.redis_look_alone_us
        look_us = formulas.look_us(followed, self.shards, together, alone)
        calls = calls_cpu = events = looks = memory = hottest = 0.0
        for number in numbers:
            room, follow = self.drawn.rooms[number], self.followers[number]
            refused = room.clicks - room.granted
            vain = formulas.idle_looks(follow, room.expiries, NEWS_S)
            room_calls = room.changes + refused + vain
            room_cpu = US * (
                room.changes * cost.redis_call_us
                + refused * cost.redis_refused_us
                + vain * cost.redis_nothing_due_us
            )
            calls += room_calls
            calls_cpu += room_cpu
            events += room.changes * follow
            looks += follow / formulas.COMPARE_S
            held = formulas.held_seats(room.granted, self.town.held_s)
            memory += cost.redis_room_bytes + held * cost.redis_hold_bytes
            memory += follow * cost.redis_subscription_bytes
            follow_cpu = US * room.changes * follow * cost.redis_event_us
            follow_cpu += formulas.comparing(follow, look_us)
            hottest = max(hottest, room_cpu + follow_cpu)
        events_cpu = events * cost.redis_event_us * US
        comparing_cpu = looks * look_us * US
        floor = calls_cpu + events_cpu + comparing_cpu
        turn_s = formulas.redis_turn_s(len(self.placed), cost.redis_write_us, floor)
        return OnShard(
            calls_cpu=calls_cpu,
            events_cpu=events_cpu,
            comparing_cpu=comparing_cpu,
            rooms=len(numbers),
            calls=calls,
            events=events,
            looks=looks,
            turn_ms=turn_s * 1000,
            mib=memory / 2**20,
            hottest=hottest,
        )


@dataclass(frozen=True)
class Wanted:
    """How a town is to be carried."""

    most: float = MOST
    """Of each core."""
    connections: int = 20_000
    """Of an instance: its `limits.connections`."""
    by_room: float = 0
    """The balancer goes by the room, and lets no instance have more than so many times the mean of
    connections; 0: it takes any instance."""
    most_instances: int = 2_000
    most_shards: int = 1_000


def placed(drawn: Drawn, instances: int, wanted: Wanted) -> Placed:
    """The town on so many instances, as the balancer does it."""
    if wanted.by_room:
        return town.place_by_room(drawn, instances, wanted.by_room)
    return town.place(drawn, instances)


def instances_for(asked: Town, drawn: Drawn, cost: Costs, wanted: Wanted) -> Loads | None:
    """The fewest instances that stay below the limits, found by halves; None: no number does."""

    def loads(count: int) -> Loads:
        return Loads(asked, drawn, placed(drawn, count, wanted), 1, cost)

    def fits(tried: Loads) -> bool:
        crowded = max(each.connections for each in tried.on_instances)
        return tried.fullest_instance.cpu <= wanted.most and crowded <= wanted.connections

    low, best, high = 0, None, max(1, -(-asked.viewers // wanted.connections))
    while best is None:
        if high > wanted.most_instances:
            return None
        tried = loads(high)
        if fits(tried):
            best = tried
        else:
            low, high = high, max(high + 1, high * 3 // 2)
    # Fewer than that are not always too few where luck decides, but nearly so: 2 % is enough.
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        tried = loads(middle)
        if fits(tried):
            high, best = middle, tried
        else:
            low = middle
    return best


def shards_for(loads: Loads, wanted: Wanted) -> Loads | None:
    """The fewest shards, of those tried, that stay below the limit; None: one room is too much."""
    for count in _shard_counts(wanted.most_shards):
        tried = dataclasses.replace(loads, shards=count)
        if tried.fullest_shard.floor <= wanted.most:
            return tried
        if max(each.hottest for each in tried.on_shards) > wanted.most:
            return None
    return None


def _shard_counts(most: int) -> Iterable[int]:
    """1, and from 3 on (a cluster has three at least) ever larger steps."""
    yield 1
    count = 3
    while count <= most:
        yield count
        count += max(1, count // 10)


def first_limit(loads: Loads, wanted: Wanted) -> str:
    """What is nearest to its limit, and for an instance's CPU what takes most of it."""
    instance, shard = loads.fullest_instance, loads.fullest_shard
    crowded = max(each.connections for each in loads.on_instances)
    name, share = max(instance.parts, key=lambda part: part[1])
    causes = {
        "calls": shard.calls_cpu,
        "events": shard.events_cpu,
        "comparisons": shard.comparing_cpu,
    }
    cause = max(causes, key=lambda each: causes[each])
    limits: list[tuple[float, str]] = [
        (instance.cpu / wanted.most, f"an instance's CPU, {share / instance.cpu:.0%} of it {name}"),
        (crowded / wanted.connections, "connections of an instance (limits.connections)"),
        (
            shard.floor / wanted.most,
            f"a Redis's CPU, {causes[cause] / shard.floor:.0%} of it {cause}",
        ),
    ]
    used, what = max(limits)
    return f"{what}; {used:.0%} of what it may be"
