"""Behind a real nginx and a real HAProxy instances die, go and come back; nobody loses a hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.balancers import Balancer, HAProxy, Site, three_instances
from tests.e2e.asking import Asking
from tests.e2e.test_going_down import exit_code, stops_accepting, tell
from tests.e2e.traffic import Traffic, seeded
from tests.fetch import fetch, problem_of
from tests.harness import Client, Valkey, holders_in_redis, unique, wait_until_async

RIGHT_S = 5.0
"""How soon all are served again, and right, after an instance is lost."""
ASKING = 2
DRAIN_S = "1"


@pytest.fixture
def site(balancer_kind: type[Balancer], own_valkey: Valkey, short_path: Path) -> Iterator[Site]:
    """Three instances of the test's own."""
    instances = three_instances(short_path, own_valkey.url, SEATWS_SERVER__DRAIN_SECONDS=DRAIN_S)
    balancer = balancer_kind(short_path, instances)
    balancer.start()
    yield Site(balancer, instances)
    balancer.stop()
    for instance in instances:
        instance.stop()


@contextlib.asynccontextmanager
async def asking(site: Site, room_id: str) -> AsyncIterator[list[Asking]]:
    """Visitors without WebSockets, in a room of their own."""
    async with contextlib.AsyncExitStack() as stack:
        visitors = [Asking(site.balancer.port, room_id) for _ in range(ASKING)]
        for visitor in visitors:
            await stack.enter_async_context(visitor)
        yield visitors


@pytest.mark.gen_test(timeout=60)
async def test_an_instance_is_killed(site: Site, own_valkey: Valkey) -> None:
    """Its viewers are back at their first try, and those who ask by HTTP notice nothing."""
    async with (
        Traffic(unique("room"), [site.balancer], seeded()) as traffic,
        asking(site, unique("room")) as visitors,
    ):
        victim = site.instances[0]
        viewers = (await site.connections())[0]
        assert viewers > 0
        await asyncio.to_thread(victim.kill)
        async with asyncio.timeout(RIGHT_S):
            await wait_until_async(lambda: traffic.history.closed() == viewers)
            await traffic.flows()
            holders = await traffic.settle(own_valkey)
            for visitor in visitors:
                await visitor.goes_on()
        traffic.history.judge(traffic.room_id, holders)
        assert traffic.history.connections == traffic.clients + viewers
        assert traffic.turned_away == []
        secret = unique("hush")
        await fetch(f"{site.balancer.http}/room/r/selections?access_token={secret}")
        assert secret not in site.balancer.log

        await asyncio.to_thread(victim.start)
        async with asyncio.timeout(RIGHT_S), contextlib.AsyncExitStack() as stack:
            while not (await site.connections())[0]:
                await stack.enter_async_context(Client.connect(site.balancer.url))
    for visitor in visitors:
        assert visitor.broken == []
        statuses = {status for _, status in visitor.answers}
        # What was done but not answered is asked for again: it is one's own already, or gone.
        assert statuses <= {200, 201, 204, 304, 409}
        assert visitor.count(409) <= 1


@pytest.mark.gen_test(timeout=60)
async def test_an_instance_is_drained(site: Site, own_valkey: Valkey) -> None:
    """Its viewers are told and go; nobody new comes to it; no request fails, no hold is lost."""
    room, leaver = unique("room"), site.instances[0]
    async with contextlib.AsyncExitStack() as stack:
        visitors = await stack.enter_async_context(asking(site, unique("room")))
        clients: list[Client] = []
        while (await site.connections())[0] < 3:
            client = await stack.enter_async_context(Client.connect(site.balancer.url))
            await client.join(room)
            assert (await client.select(room, f"A{len(clients)}"))["type"] == "seat_selected"
            clients.append(client)
        leaving = (await site.connections())[0]
        tell(leaver)
        await stops_accepting(leaver)
        end, newcomers = asyncio.ensure_future(exit_code(leaver)), 0
        while not end.done():
            async with Client.connect(site.balancer.url) as newcomer:
                await newcomer.join(room)
                newcomers += 1
        assert await end == 0
        assert newcomers > 5
        stayed = [client for client in clients if client.socket.close_code is None]
        left = [client for client in clients if client not in stayed]
        assert len(left) == leaving
        for client in left:
            assert await client.closed() == 1012
            goodbye = client.received[-1]
            assert (goodbye["type"], goodbye["code"]) == ("goodbye", 1012)
        held = {f"A{number}": client.client_id for number, client in enumerate(clients)}
        for client in stayed:
            assert (await client.ask(type="ping"))["type"] == "pong"
        for client in left:
            back = await stack.enter_async_context(
                Client.connect(site.balancer.url, client.client_id)
            )
            await back.join(room)
            assert back.maps[room] == held == holders_in_redis(own_valkey, room)
        for visitor in visitors:
            await visitor.goes_on()
    assert_served(visitors)


def assert_served(visitors: list[Asking]) -> None:
    """Every request was answered, and every hold was there until it was given back."""
    for visitor in visitors:
        assert visitor.broken == []
        statuses = {status for _, status in visitor.answers}
        assert statuses <= {200, 201, 204, 304}, visitor.answers


@pytest.mark.gen_test(timeout=60)
async def test_all_are_restarted_one_after_the_other(site: Site, own_valkey: Valkey) -> None:
    """Under traffic: viewers are back at their first try, nobody else notices, no hold is lost."""
    async with (
        Traffic(unique("room"), [site.balancer], seeded()) as traffic,
        asking(site, unique("room")) as visitors,
    ):
        for instance in site.instances:
            tell(instance)
            assert await exit_code(instance) == 0
            await asyncio.to_thread(instance.start)
            async with asyncio.timeout(RIGHT_S):
                await traffic.flows()
                holders = await traffic.settle(own_valkey)
            traffic.go_on()
            for visitor in visitors:
                await visitor.goes_on()
        async with asyncio.timeout(RIGHT_S):
            holders = await traffic.settle(own_valkey)
        traffic.history.judge(traffic.room_id, holders)
        assert holders
        assert traffic.turned_away == []
        assert traffic.history.count("store_unavailable") == 0
        assert traffic.history.connections == traffic.clients + traffic.history.closed()
    assert_served(visitors)


@pytest.mark.gen_test(timeout=60)
async def test_redis_is_away_for_all(site: Site, own_valkey: Valkey) -> None:
    """The instances say so themselves, in their own words, and let viewers in who wait."""
    room = unique("room")
    url = f"{site.balancer.http}/room/{room}/selections"
    await asyncio.to_thread(own_valkey.kill)
    for instance in site.instances:
        while (await fetch(f"{instance.http}/health")).code != 503:
            pass
    if isinstance(site.balancer, HAProxy):  # the other one does not look
        await wait_until_async(site.balancer.has_none_left)
    for _ in range(6):
        problem_of(await fetch(url), 503, "store_unavailable")
    async with Client.connect(site.balancer.url) as client:
        assert (await client.ask(type="join_room", room_id=room))["code"] == "store_unavailable"
        await asyncio.to_thread(own_valkey.start)
        async with asyncio.timeout(RIGHT_S):
            while (await client.ask(type="join_room", room_id=room))["type"] != "room_joined":
                pass
