"""On a Redis Cluster: rooms on every shard, instances that hear of each other, seeds, deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.conftest import Starter
from tests.e2e.shards import NOTICED_S, Load
from tests.e2e.traffic import seeded
from tests.fetch import fetch, json_of, until_health_says
from tests.harness import (
    ROOT,
    Client,
    Instance,
    Message,
    holders_in_redis,
    unique,
)
from tests.nodes import Node
from tests.ports import free_port

ROOMS_A_SHARD = 20
ROOMS_A_CLIENT = 10
"""`limits.rooms_per_connection`."""


@contextlib.asynccontextmanager
async def trio(fleet: Sequence[Instance]) -> AsyncIterator[list[Client]]:
    """A client on each of three instances."""
    async with contextlib.AsyncExitStack() as stack:
        connections = [Client.connect(instance.url) for instance in fleet]
        yield [await stack.enter_async_context(each) for each in connections]


async def guide_scenario(cluster: Cluster, room: str, clients: Sequence[Client]) -> None:
    """What the guide does in a room, its clients on different instances."""
    ann, bob, carla = clients

    async def news(client: Client, kind: str, seat: str) -> Message:
        return await client.heard(
            lambda message: (
                (message["type"], message.get("room_id"), message.get("seat_id"))
                == (kind, room, seat)
            )
        )

    for client in clients:
        assert (await client.join(room))["selections"] == []
    answer = await ann.select(room, "A1", user_info={"name": "Ann"})
    assert (answer["type"], answer["rev"]) == ("seat_selected", 1)
    for client in (bob, carla):
        heard = await news(client, "seat_selected", "A1")
        assert (heard["client_id"], heard["user_info"], heard["rev"]) == (
            ann.client_id,
            {"name": "Ann"},
            1,
        )
    refusal = await bob.select(room, "A1")
    assert (refusal["code"], refusal["conflicts"][0]["seat_id"]) == ("seat_taken", "A1")
    assert (await bob.select(room, "A2"))["rev"] == 2
    assert (await ann.release(room, "A1"))["rev"] == 3
    for client in (bob, carla):
        assert (await news(client, "seat_released", "A1"))["rev"] == 3
    assert (await carla.select(room, "A1"))["rev"] == 4
    left = {"A1": carla.client_id, "A2": bob.client_id}
    for client in clients:
        await client.until(lambda client=client: client.maps[room] == left)  # type: ignore[misc]
        assert client.revs[room] == [1, 2, 3, 4]
    assert holders_in_redis(cluster.of(room), room) == left


@pytest.mark.gen_test(timeout=60)
async def test_the_guide_is_kept_in_rooms_on_every_shard(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Sixty rooms at once, each with viewers on three instances."""
    by_primary = cluster.rooms_by_primary(ROOMS_A_SHARD)
    assert len(by_primary) == 3
    rooms = [room for several in zip(*by_primary.values(), strict=True) for room in several]
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as scenarios:
        for at in range(0, len(rooms), ROOMS_A_CLIENT):
            clients = await stack.enter_async_context(trio(fleet))
            for room in rooms[at : at + ROOMS_A_CLIENT]:
                scenarios.create_task(guide_scenario(cluster, room, clients))


@pytest.mark.gen_test(timeout=60)
async def test_no_seat_is_given_away_twice_on_any_shard(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Everybody sees one order of changes, and the same map as Redis."""
    rooms = [room for several in cluster.rooms_by_primary(2).values() for room in several]
    async with Load(rooms, fleet, seeded(), cluster.of) as load:
        for _ in range(10):
            await load.flows()
        await load.judge()
        load.assert_undisturbed()


@pytest.mark.gen_test(timeout=60)
async def test_events_go_to_the_shard_that_has_the_room_and_to_no_other(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Sharded pub/sub: a node that has nothing to do with a room hears nothing of it."""
    room = unique("room")
    channel = f"seatws:{{{room}}}:events"
    async with trio(fleet) as clients:
        for client in clients:
            await client.join(room)
        for node in cluster.primaries:
            expected = len(fleet) if node is cluster.owner_of(room) else 0
            assert node.ask("PUBSUB", "SHARDNUMSUB", channel) == [channel, expected]
            assert channel not in node.ask("PUBSUB", "CHANNELS", "*")


async def deadline_is_kept(node: Node, room: str, fleet: Sequence[Instance]) -> None:
    """A hold that is made to end soon does, and viewers on every instance are told."""
    hold = f"{fleet[0].http}/room/{room}/selections/A1"
    assert (await fetch(hold, "PUT", {"client_id": "ann"})).code == 201
    deadline = now_ms(node) + 500
    holds, deadlines = (f"seatws:{{{room}}}:{key}" for key in ("holds", "deadlines"))
    _, rest = node.ask("HGET", holds, "A1").split(" ", 1)
    node.ask("HSET", holds, "A1", f"{deadline} {rest}")
    node.ask("ZADD", deadlines, deadline, "A1")
    async with trio(fleet) as clients:
        for client in clients:
            await client.join(room)
        for client in clients:
            told = await client.heard(lambda message: message["type"] == "seat_released")
            assert (told["reason"], told["client_id"]) == ("expired", "ann")
            assert deadline <= now_ms(node) <= deadline + 1000
            assert client.maps[room] == {}


def now_ms(node: Node) -> int:
    """A node's clock."""
    seconds, micros = node.ask("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


@pytest.mark.gen_test(timeout=60)
async def test_deadlines_are_kept_on_every_shard(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Each shard's own clock says when a hold ends."""
    async with asyncio.TaskGroup() as shards:
        for node, (room,) in cluster.rooms_by_primary(1).items():
            shards.create_task(deadline_is_kept(node, room, fleet))


@pytest.mark.gen_test(timeout=60)
async def test_http_and_polling_work_across_instances(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Who waits at one instance is woken by a change made at another, on every shard."""
    for (room,) in cluster.rooms_by_primary(1).values():
        here, there = (f"{instance.http}/room/{room}/selections" for instance in fleet[:2])
        before = await fetch(here)
        etag = {"If_None_Match": before.headers["ETag"]}
        waiting = asyncio.create_task(fetch(f"{here}?wait=25", **etag))
        made = await fetch(f"{there}/A1", "PUT", {"client_id": "ann"})
        assert made.code == 201
        selections = json_of(await waiting)["selections"]
        assert [(one["seat_id"], one["client_id"]) for one in selections] == [("A1", "ann")]
        assert (await fetch(f"{there}/A1?client_id=ann", "DELETE")).code == 204


@pytest.mark.gen_test(timeout=60)
async def test_the_whole_cluster_is_killed_and_started_again(
    cluster: Cluster, fleet: Sequence[Instance]
) -> None:
    """Nobody is disconnected, everybody is refused meanwhile, nothing that was stored is lost."""
    rooms = [room for (room,) in cluster.rooms_by_primary(1).values()]
    async with Load(rooms, fleet, seeded(), cluster.of) as load:
        for node in cluster.nodes:
            node.kill()
        await load.is_refused()
        async with asyncio.timeout(NOTICED_S):
            await until_health_says(503, fleet)
        await asyncio.to_thread(cluster.mend)
        await load.is_right()
        await load.is_mapped_anew()
        await load.judge()
        await until_health_says(200, fleet)


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", free_port())) as listening:
        yield listening.getsockname()[1]


@pytest.mark.gen_test(timeout=60)
async def test_one_seed_that_lives_is_enough(
    cluster: Cluster, start: Starter, deaf: int, tmp_path: Path
) -> None:
    """Dead ones and one that does not answer are passed over; all shards are found."""
    dead = [f"127.0.0.1:{free_port()}" for _ in range(4)]
    hosts = ",".join([*dead, f"127.0.0.1:{deaf}", cluster.nodes[-1].at])
    instance = start(f"redis+cluster://{hosts}")
    for node, (room,) in cluster.rooms_by_primary(1).items():
        hold = f"{instance.http}/room/{room}/selections/A1"
        assert (await fetch(hold, "PUT", {"client_id": "ann"})).code == 201
        assert "ann" in node.ask("HGET", f"seatws:{{{room}}}:holds", "A1")


@pytest.mark.gen_test(timeout=60)
async def test_the_user_that_the_manual_makes_may_do_all_that_is_needed(
    cluster: Cluster, start: Starter
) -> None:
    """Its rights are enough in a cluster, too, while a primary hands over."""
    manual = (ROOT / "docs/operations.md").read_text()
    (line,) = re.findall(r"^ *ACL SETUSER (.*)$", manual, re.MULTILINE)
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", *line.split())
    user, password = re.findall(r"^(\w+) on >(\w+) ", line)[0]
    instances = [
        start(cluster.url().replace("://", f"://{user}:{password}@")),
        start(cluster.url().replace("://", f"://{user}:{password}@")),
    ]
    rooms = [room for (room,) in cluster.rooms_by_primary(1).values()]
    async with Load(rooms, instances, seeded(), cluster.of) as load:
        await asyncio.to_thread(cluster.fail_over, cluster.owner_of(rooms[0]))
        await load.is_right()
        await load.judge()
    for instance in instances:
        assert "NOPERM" not in instance.log
        assert password not in instance.log
