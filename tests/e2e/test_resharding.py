"""With traffic on all shards, slots and nodes come and go; nobody loses a seat or the order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.clusters import Cluster, Move, itself, slot_of
from tests.e2e.shards import RIGHT_S, Load
from tests.e2e.traffic import seeded
from tests.harness import Client, Instance, holders_in_redis, unique
from tests.nodes import Node


@contextlib.asynccontextmanager
async def busy(
    cluster: Cluster, fleet: Sequence[Instance], rooms: Sequence[str], clients: int = 4
) -> AsyncIterator[Load]:
    """Traffic in rooms that no promise is broken to, nor anybody refused in."""
    async with Load(rooms, fleet, seeded(), cluster.of, clients) as load:
        yield load
        await load.judge()
        assert load.refusals() == 0


def other_than(cluster: Cluster, *nodes: Node) -> Node:
    """Another primary."""
    return next(node for node in cluster.primaries if node not in nodes)


@pytest.mark.gen_test(timeout=60)
async def test_a_busy_rooms_slot_goes_round_key_by_key(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """As redis-cli moves it: for a moment its keys are at two nodes, and nobody is refused."""
    room = unique("room")
    async with busy(cluster, fleet, [room], clients=12) as load:
        for _ in range(2):
            for target in cluster.primaries:
                if target is not cluster.owner_of(room):
                    await asyncio.to_thread(cluster.move_slots, [slot_of(room)], target)
                    await load.is_right()
    await asyncio.to_thread(cluster.until_well)


@pytest.mark.gen_test(timeout=60)
async def test_a_busy_rooms_slot_goes_round_at_once(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """As Valkey 9 moves it, in one atomic step."""
    room = unique("room")
    slot = slot_of(room)
    async with busy(cluster, fleet, [room], clients=12) as load:
        for _ in range(4):
            target = other_than(cluster, cluster.owner_of(room))
            await asyncio.to_thread(cluster.move_slots_at_once, slot, slot, target)
            await load.is_right()
    await asyncio.to_thread(cluster.until_well)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("how", "count"), [("key by key", 8), ("at once", 2000)], ids=["key by key", "at once"]
)
async def test_many_slots_move_and_come_back(
    cluster: Cluster, fleet: Sequence[Instance], how: str, count: int
) -> None:
    """Rooms among them, rooms beside them and rooms of other shards: all go on."""
    source = cluster.primaries[0]
    target = other_than(cluster, source)
    # Other tests have moved single slots out of its ranges, and into them.
    slots = max(itself(source).slots, key=len)[:count]
    assert len(slots) == count
    moving = [rooms_in(slots) for _ in range(3)]
    staying = [room for several in cluster.rooms_by_primary(1).values() for room in several]
    async with busy(cluster, fleet, [*moving, *staying]) as load:
        for there in (target, source):
            if how == "at once":
                ends = slots[0], slots[-1]
                await asyncio.to_thread(cluster.move_slots_at_once, *ends, there)
            else:
                await asyncio.to_thread(cluster.move_slots, slots, there)
            await load.is_right()
            assert all(cluster.owner_of(room) is there for room in moving)
    await asyncio.to_thread(cluster.until_well)


def rooms_in(slots: range) -> str:
    """A new room in one of these slots."""
    while slot_of(room := unique("room")) not in slots:
        pass
    return room


@pytest.mark.gen_test(timeout=60)
async def test_a_move_that_stops_half_way_holds_up_its_own_rooms_alone(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """They are refused in time, and go on when the move does; what they had stands."""
    room = unique("room")
    source = cluster.owner_of(room)
    (neighbour,) = cluster.rooms_by_primary(1)[source]
    async with (
        Load([room], fleet, seeded(), cluster.of) as held_up,
        busy(cluster, fleet, [neighbour]) as beside,
    ):
        move = Move(cluster, slot_of(room), other_than(cluster, source))
        move.begin()
        for key in move.keys()[:2]:
            move.carry(key)
        await held_up.is_refused()
        await beside.flows()
        beside.assert_undisturbed()
        move.carry(*move.keys())
        move.finish()
        await held_up.is_right()
        await held_up.judge()
    await asyncio.to_thread(cluster.until_well)


@pytest.mark.gen_test(timeout=60)
async def test_a_room_whose_keys_are_all_at_the_new_node_goes_on_before_the_slot_is_there(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Who asks is sent on (ASK); who only listens is at the old node, and soon right by looking."""
    room = unique("room")
    move = Move(cluster, slot_of(room), other_than(cluster, cluster.owner_of(room)))
    async with Client.connect(fleet[0].url) as ann, Client.connect(fleet[1].url) as bob:
        for client in (ann, bob):
            await client.join(room)
        assert (await ann.select(room, "A1"))["rev"] == 1
        move.begin()
        move.carry(*move.keys())
        assert (await ann.select(room, "A2"))["rev"] == 2
        async with asyncio.timeout(RIGHT_S):
            await bob.until(lambda: bob.maps[room].get("A2") == ann.client_id)
        await asyncio.to_thread(move.finish)
        assert (await bob.select(room, "A3"))["type"] == "seat_selected"
        await ann.until(lambda: ann.maps[room].get("A3") == bob.client_id)
        assert ann.maps[room] == bob.maps[room] == holders_in_redis(cluster.of(room), room)
    await asyncio.to_thread(cluster.until_well)


@pytest.mark.gen_test(timeout=60)
async def test_a_primary_joins_and_leaves(cluster: Cluster, fleet: Sequence[Instance]) -> None:
    """It gets a busy room and slots around it, and gives them back before it goes."""
    room = unique("room")
    source = cluster.owner_of(room)
    (neighbour,) = cluster.rooms_by_primary(1)[source]
    async with busy(cluster, fleet, [room, neighbour]) as load:
        joined = await asyncio.to_thread(cluster.add)
        await asyncio.to_thread(cluster.move_slots, [slot_of(room)], joined)
        await load.is_right()
        assert cluster.owner_of(room) is joined
        await asyncio.to_thread(cluster.move_slots, [slot_of(room)], source)
        await load.is_right()
        await asyncio.to_thread(cluster.remove, joined)
        await load.is_right()
    await asyncio.to_thread(cluster.until_well)
