"""With traffic on all shards, primaries die, hang and change; only their own rooms notice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.clusters import Cluster, itself, slot_of
from tests.e2e.shards import Load, now
from tests.e2e.traffic import seeded
from tests.fetch import until_health_says
from tests.harness import Instance, wait_until_async
from tests.nodes import Node


def loads(cluster: Cluster, fleet: Sequence[Instance]) -> tuple[Node, Load, Load]:
    """A primary, traffic in rooms of its, and traffic in rooms of the others."""
    victim, *others = rooms = cluster.rooms_by_primary(2)
    chance = seeded()
    struck = Load(rooms[victim], fleet, chance, cluster.of)
    spared = Load([room for node in others for room in rooms[node]], fleet, chance, cluster.of)
    return victim, struck, spared


async def replaced(cluster: Cluster, struck: Load, victim: Node) -> Node:
    """Wait until another node has the rooms of one that died or hangs."""
    slot = slot_of(struck.traffic[0].room_id)
    return await asyncio.to_thread(cluster.until_replaced, slot, victim)


@pytest.mark.gen_test(timeout=60)
async def test_a_primary_is_killed_and_comes_back_as_a_replica(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Its rooms are refused until there is a new primary, and soon right; the others go on.

    When it is back, nobody asks it for what is not its any more.
    """
    victim, struck, spared = loads(cluster, fleet)
    async with struck, spared:
        victim.kill()
        lost_at = now()
        await struck.is_refused()
        await spared.flows()
        await until_health_says(200, fleet)  # a balancer that takes all away would help nobody
        await replaced(cluster, struck, victim)
        await struck.is_right()
        await struck.is_mapped_anew()
        refusals, maps = struck.refusals(), struck.maps()
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(cluster.until_well)
        assert not itself(victim).slots
        await struck.flows()
        assert (struck.refusals(), struck.maps()) == (refusals, maps)
        await struck.judge([lost_at])
        await spared.judge()
        spared.assert_undisturbed()


@pytest.mark.gen_test(timeout=60)
async def test_a_primary_hangs_and_comes_to_itself(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """What it was asked before is done late, for nobody: its rooms are another's by then."""
    victim, struck, spared = loads(cluster, fleet)
    async with struck, spared:
        victim.pause()
        lost_at = now()
        await replaced(cluster, struck, victim)
        await struck.is_right()
        victim.resume()
        await wait_until_async(lambda: not itself(victim).slots)
        await struck.flows()
        await struck.judge([lost_at])
        await spared.judge()
        spared.assert_undisturbed()


@pytest.mark.gen_test(timeout=60)
async def test_planned_failovers_lose_nothing(cluster: Cluster, fleet: Sequence[Instance]) -> None:
    """Every primary hands over under traffic, and its replica hands back: no promise is broken."""
    rooms = [room for several in cluster.rooms_by_primary(2).values() for room in several]
    async with Load(rooms, fleet, seeded(), cluster.of) as load:
        for primary in cluster.primaries:
            replica = await asyncio.to_thread(cluster.fail_over, primary)
            await load.is_right()
            await asyncio.to_thread(cluster.until_well)
            assert await asyncio.to_thread(cluster.fail_over, replica) is primary
            await load.is_right()
            await asyncio.to_thread(cluster.until_well)
        await load.judge()


@pytest.mark.gen_test(timeout=60)
async def test_nobody_notices_that_replicas_die(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """All of them: they are there for the day on which a primary dies."""
    rooms = [room for several in cluster.rooms_by_primary(2).values() for room in several]
    async with Load(rooms, fleet, seeded(), cluster.of) as load:
        for primary in cluster.primaries:
            for replica in cluster.replicas_of(primary):
                replica.kill()
        await load.flows()
        await asyncio.to_thread(cluster.mend)
        await load.flows()
        await load.judge()
        load.assert_undisturbed()
