"""What an unplanned failover loses, and that with `redis.replicas_ack` it is nothing confirmed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Self

import pytest

from tests.clusters import Cluster, slot_of
from tests.e2e.conftest import start_together
from tests.e2e.shards import ANSWER_S, Load, now
from tests.e2e.traffic import seeded
from tests.fetch import fetch
from tests.harness import Client, Instance, holders_in_redis, unique, wait_until, wait_until_async
from tests.nodes import Node


@pytest.fixture(scope="module")
def careful_fleet(
    shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sequence[Instance]]:
    """Two instances that confirm nothing before the replica has it."""
    path = tmp_path_factory.mktemp("careful")
    url = shared_cluster.url()
    fleet = [Instance(path, url, SEATWS_REDIS__REPLICAS_ACK="1") for _ in range(2)]
    yield start_together(fleet)
    for instance in fleet:
        instance.stop()


@pytest.fixture
def careful(cluster: Cluster, careful_fleet: Sequence[Instance]) -> Sequence[Instance]:
    """The two, on a cluster that is whole."""
    del cluster
    return careful_fleet


@contextlib.asynccontextmanager
async def duo(fleet: Sequence[Instance], room: str) -> AsyncIterator[tuple[Client, Client]]:
    """Ann and Bob, in a room at two instances."""
    async with Client.connect(fleet[0].url) as ann, Client.connect(fleet[1].url) as bob:
        await ann.join(room)
        await bob.join(room)
        yield ann, bob


def cut_off(cluster: Cluster, primary: Node) -> Node:
    """Let a primary's replica hear no more of it. Returns the replica, which is to be resumed."""
    (replica,) = cluster.replicas_of(primary)
    replica.pause()
    primary.ask("CLIENT", "KILL", "TYPE", "replica")
    return replica


async def lose(cluster: Cluster, primary: Node, replica: Node, room: str) -> None:
    """Kill a primary, and wait until its replica takes its place."""
    primary.kill()
    replica.resume()
    assert await asyncio.to_thread(cluster.until_replaced, slot_of(room), primary) is replica


def left_at(replica: Node, room: str) -> dict[str, str]:
    """What of a dead primary's room its replica has, before it takes its place and goes on."""
    wait_until(lambda: replica.info("replication").get("master_link_status") == "down")
    with replica.client() as client:
        client.readonly()
        records = client.hgetall(f"seatws:{{{room}}}:holds")
    assert replica.role == "slave", "too late: it has taken its place"
    return {seat: record.split(" ")[2] for seat, record in records.items()}


async def see(clients: Sequence[Client], room: str, holders: dict[str, str]) -> None:
    """Wait until the clients have been sent a map with these, and Redis has them."""
    for client in clients:
        await client.until(lambda client=client: client.maps[room] == holders)  # type: ignore[misc]


@pytest.mark.gen_test(timeout=60)
async def test_without_it_a_confirmed_hold_can_be_lost_but_not_in_silence(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """The replica that takes over had not heard of it: everybody is sent a map without it."""
    room = unique("room")
    primary = cluster.owner_of(room)
    async with duo(fleet, room) as (ann, bob):
        assert (await ann.select(room, "A1"))["type"] == "seat_selected"
        await see([ann, bob], room, {"A1": ann.client_id})
        await asyncio.to_thread(wait_for_replica, primary)
        replica = cut_off(cluster, primary)
        assert (await ann.select(room, "A2"))["type"] == "seat_selected"
        await see([bob], room, {"A1": ann.client_id, "A2": ann.client_id})
        await lose(cluster, primary, replica, room)
        await see([ann, bob], room, {"A1": ann.client_id})
        assert (await bob.select(room, "A2"))["type"] == "seat_selected"
        await see([ann, bob], room, {"A1": ann.client_id, "A2": bob.client_id})
        assert holders_in_redis(cluster.of(room), room) == ann.maps[room]


def wait_for_replica(primary: Node) -> None:
    """Wait until the replica has all that the primary has."""
    assert primary.ask("WAIT", 1, 10_000) == 1


@pytest.mark.gen_test(timeout=60)
async def test_with_it_what_can_be_lost_is_not_confirmed(
    cluster: Cluster, careful: Sequence[Instance]
) -> None:
    """Neither a hold nor a release, nor the repetition of one at another instance."""
    room = unique("room")
    primary = cluster.owner_of(room)
    async with (
        duo(careful, room) as (ann, bob),
        Client.connect(careful[1].url, ann.client_id) as tab,
    ):
        assert (await ann.select(room, "A1"))["type"] == "seat_selected"
        replica = cut_off(cluster, primary)
        began = asyncio.get_running_loop().time()
        changes = ann.select(room, "A2"), ann.release(room, "A1")
        for answer in [*await asyncio.gather(*changes), await tab.select(room, "A2")]:
            assert answer["code"] == "store_unavailable"
        assert asyncio.get_running_loop().time() - began <= 2 * ANSWER_S
        await lose(cluster, primary, replica, room)
        await see([ann, bob], room, {"A1": ann.client_id})
        assert holders_in_redis(cluster.of(room), room) == {"A1": ann.client_id}
        await asyncio.to_thread(cluster.mend)
        assert (await bob.select(room, "A2"))["type"] == "seat_selected"
        await see([ann, bob], room, {"A1": ann.client_id, "A2": bob.client_id})


@pytest.mark.gen_test(timeout=60)
async def test_what_was_not_confirmed_may_stand_and_is_confirmed_when_the_replica_is_back(
    cluster: Cluster, careful: Sequence[Instance]
) -> None:
    """Everybody sees it meanwhile, as Redis has it; asking again is safe."""
    room = unique("room")
    replica = cut_off(cluster, cluster.owner_of(room))
    async with duo(careful, room) as (ann, bob):
        assert (await ann.select(room, "A1"))["code"] == "store_unavailable"
        await see([ann, bob], room, {"A1": ann.client_id})
        assert (await bob.select(room, "A1"))["code"] in ("seat_taken", "store_unavailable")
        replica.resume()
        await asyncio.to_thread(cluster.until_well)
        again = await ann.select(room, "A1")
        assert (again["type"], "rev" in again) == ("seat_selected", False)
        await see([ann, bob], room, holders_in_redis(cluster.of(room), room))


class Keepers:
    """Clients who hold seats of a room and give every other one back, each seat once.

    An async context manager: entered, they do.
    """

    def __init__(self, instances: Sequence[Instance], room: str) -> None:
        self.room = room
        self.held: dict[str, str] = {}
        """Seat and holder of what was confirmed, but for what was asked to be given back."""
        self.free: set[str] = set()
        """Seats that were confirmed to be given back."""
        self._instances = instances
        self._are_done = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        keepers = [self._keep(instance) for instance in self._instances]
        self._tasks = [asyncio.create_task(keeper) for keeper in keepers]
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._are_done = True
        await asyncio.gather(*self._tasks)

    async def are_confirmed_another(self) -> None:
        """Wait until each kind of thing was confirmed once more, or several times."""
        before = len(self.held), len(self.free)
        await wait_until_async(
            lambda: len(self.held) > before[0] + 1 and len(self.free) > before[1] + 1
        )

    async def _keep(self, instance: Instance) -> None:
        while not self._are_done:
            for is_kept in (True, False):
                client, seat = unique("keeper"), unique("S")
                hold = f"{instance.http}/room/{self.room}/selections/{seat}"
                if (await fetch(hold, "PUT", {"client_id": client})).code == 201:
                    self.held[seat] = client
                    if not is_kept:
                        del self.held[seat]
                        given_back = await fetch(f"{hold}?client_id={client}", "DELETE")
                        if given_back.code == 204:
                            self.free.add(seat)


@pytest.mark.gen_test(timeout=60)
async def test_with_it_nothing_confirmed_is_lost_however_often_a_primary_dies(
    cluster: Cluster, careful: Sequence[Instance]
) -> None:
    """Under traffic; its replica hears all, or was cut off at a moment of no one's choosing."""
    room, kept = next(iter(cluster.rooms_by_primary(2).values()))
    chance, deaths = seeded(), []
    async with (
        Load([room], careful, chance, cluster.of) as load,
        Keepers(careful, kept) as keepers,
    ):
        for hears_all in (True, False, False):
            await keepers.are_confirmed_another()
            primary = cluster.owner_of(room)
            (replica,) = cluster.replicas_of(primary)
            if not hears_all:
                cut_off(cluster, primary)
            await asyncio.sleep(chance.uniform(0, 1))
            primary.kill()
            held, free = dict(keepers.held), set(keepers.free)
            deaths.append(now())
            replica.resume()
            left = await asyncio.to_thread(left_at, replica, kept)
            assert held.items() <= left.items()
            assert free.isdisjoint(left)
            await asyncio.to_thread(cluster.until_replaced, slot_of(room), primary)
            await asyncio.to_thread(cluster.mend)
            await load.is_right()
        await load.judge(deaths)
