"""With traffic running, instances and Redis die, stop and are cut off; no promise is broken."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.e2e.traffic import Traffic, seeded
from tests.fetch import until_health_says
from tests.harness import Instance, Valkey, unique, wait_until_async

ANSWER_S = 3.0
"""The longest that a client waits for an answer, whatever Redis does (PROTOCOL section 4)."""
NOTICED_S = 5.0
"""How soon `/health` says 503 when Redis is away (PROTOCOL section 4)."""
RIGHT_S = 5.0
"""How soon every viewer is right again after Redis's return."""
STOPPED_S = 5.0


async def outage(traffic: Traffic, instances: list[Instance]) -> None:
    """Redis has gone this moment: wait until that shows, everywhere and to every client."""
    async with asyncio.timeout(NOTICED_S):
        await until_health_says(503, instances)
    await traffic.is_refused()


async def comeback(traffic: Traffic, instances: list[Instance], valkey: Valkey) -> dict[str, str]:
    """Redis answers again since this moment: wait until all is well. Returns what Redis has."""
    async with asyncio.timeout(RIGHT_S):
        await traffic.flows()
        holders = await traffic.settle(valkey)
        await until_health_says(200, instances)
    return holders


def times_told(instance: Instance) -> tuple[int, int]:
    """How often the log says that Redis is away, and that it is back."""
    return instance.log.count("Redis is away"), instance.log.count("Redis is back")


async def told_of_comebacks(instance: Instance, times: int) -> None:
    """Wait until the log has said so often that Redis is back."""
    await wait_until_async(lambda: times_told(instance)[1] == times)


def now() -> str:
    """The moment as it stands on the wire; Valkey runs on this machine."""
    moment = datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def judge(traffic: Traffic, holders: dict[str, str], lives: Sequence[str] = ()) -> None:
    """Fail if a promise was broken, or an answer was late."""
    traffic.history.judge(traffic.room_id, holders, lives)
    assert traffic.history.slowest_s <= ANSWER_S


@pytest.mark.gen_test(timeout=60)
async def test_an_instance_is_killed(own_valkey: Valkey, start: Starter) -> None:
    """Its clients go on elsewhere with the holds they had; the others notice nothing."""
    instances = [start(own_valkey.url) for _ in range(3)]
    async with Traffic(unique("room"), instances, seeded()) as traffic:
        for victim in instances[:2]:
            its_clients = [one for one in traffic.viewers.values() if one.url == victim.url]
            assert its_clients
            await asyncio.to_thread(victim.kill)
            await asyncio.wait([client.reading for client in its_clients])
            async with asyncio.timeout(RIGHT_S):
                await traffic.flows()
                await traffic.settle(own_valkey)
            traffic.go_on()
            await traffic.flows()
        judge(traffic, await traffic.settle(own_valkey))
    assert traffic.history.count("store_unavailable") == 0
    assert times_told(instances[2]) == (0, 0)


def on_its_data(valkey: Valkey) -> None:
    """Start Redis again; what was acknowledged is there."""
    valkey.start()


def empty(valkey: Valkey) -> None:
    """Start Redis again without its data."""
    for file in (valkey.directory / "appendonlydir").iterdir():
        file.unlink()
    valkey.start()


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("restart", [on_its_data, empty])
async def test_redis_is_killed_and_started_again(
    own_valkey: Valkey, start: Starter, restart: Callable[[Valkey], None]
) -> None:
    """Nobody is disconnected; refused at once while it is away, right soon after its return."""
    instances = [start(own_valkey.url) for _ in range(2)]
    async with Traffic(unique("room"), instances, seeded()) as traffic:
        await asyncio.to_thread(own_valkey.kill)
        await outage(traffic, instances)
        maps, lost_at = traffic.history.maps(), now()
        await asyncio.to_thread(restart, own_valkey)
        holders = await comeback(traffic, instances, own_valkey)
        judge(traffic, holders, [lost_at] if restart is empty else [])
        assert traffic.history.maps() >= maps + traffic.clients
        assert traffic.history.closed() == 0
    assert [times_told(instance) for instance in instances] == [(1, 1)] * 2


@pytest.mark.gen_test(timeout=60)
async def test_redis_stops_for_five_seconds(own_valkey: Valkey, start: Starter) -> None:
    """Connections stand and nothing is answered: that is an outage like any other."""
    instances = [start(own_valkey.url) for _ in range(2)]
    async with Traffic(unique("room"), instances, seeded()) as traffic:
        stopped = asyncio.create_task(asyncio.sleep(STOPPED_S))
        own_valkey.pause()
        await outage(traffic, instances)
        maps = traffic.history.maps()
        await stopped
        own_valkey.resume()
        judge(traffic, await comeback(traffic, instances, own_valkey))
        assert traffic.history.maps() >= maps + traffic.clients
        assert traffic.history.closed() == 0
    assert [times_told(instance) for instance in instances] == [(1, 1)] * 2


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((), id="all"),
        pytest.param(("normal",), id="those for commands"),
        pytest.param(("pubsub",), id="those for events"),
    ],
)
async def test_connections_to_redis_are_cut(
    own_valkey: Valkey, start: Starter, kinds: tuple[str, ...]
) -> None:
    """They are opened again, and what was missed meanwhile is made good."""
    instances = [start(own_valkey.url) for _ in range(2)]
    async with Traffic(unique("room"), instances, seeded()) as traffic:
        for times in (1, 2, 3):
            maps = traffic.history.maps()
            own_valkey.cut(*kinds)
            for instance in instances:
                await told_of_comebacks(instance, times)
            await comeback(traffic, instances, own_valkey)
            assert traffic.history.maps() >= maps + traffic.clients
            traffic.go_on()
        judge(traffic, await traffic.settle(own_valkey))
        assert traffic.history.closed() == 0
    assert [times_told(instance) for instance in instances] == [(3, 3)] * 2


@pytest.mark.gen_test(timeout=60)
async def test_redis_forgets_the_scripts(own_valkey: Valkey, start: Starter) -> None:
    """Nobody notices."""
    instances = [start(own_valkey.url) for _ in range(2)]
    async with Traffic(unique("room"), instances, seeded()) as traffic:
        for _ in range(5):
            with own_valkey.client() as client:
                client.script_flush()
            await traffic.flows()
        judge(traffic, await traffic.settle(own_valkey))
        assert traffic.history.count("store_unavailable") == 0
        assert traffic.history.maps() == traffic.clients
        with own_valkey.client() as client:
            assert client.info("errorstats").keys() == {"errorstat_NOSCRIPT"}
    for instance in instances:
        assert times_told(instance) == (0, 0)
        assert "Redis answered" not in instance.log


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("busy", [True, False], ids=["in mid-traffic", "in a quiet moment"])
async def test_redis_is_flushed(own_valkey: Valkey, start: Starter, busy: bool) -> None:
    """Every viewer is sent a map without the holds that are lost."""
    instances = [start(own_valkey.url) for _ in range(2)]
    async with Traffic(unique("room"), instances, seeded()) as traffic:
        if not busy:
            assert await traffic.settle(own_valkey)
        lost_at = now()
        with own_valkey.client() as client:
            client.flushall()
        async with asyncio.timeout(RIGHT_S):
            if busy:
                await traffic.flows()
            await traffic.settle(own_valkey)
        traffic.go_on()
        await traffic.flows()
        judge(traffic, await traffic.settle(own_valkey), [lost_at])
        assert traffic.history.count("store_unavailable") == 0
    assert [times_told(instance) for instance in instances] == [(0, 0)] * 2


@pytest.mark.gen_test(timeout=60)
async def test_the_embedded_redis_is_killed(short_path: Path) -> None:
    """It comes back by itself, with the holds."""
    instance = Instance(short_path, "embedded", SEATWS_REDIS__DATA_DIR="data").start()
    embedded = Valkey(short_path / "data")
    embedded.socket = short_path / "data" / "valkey.sock"
    try:
        async with Traffic(unique("room"), [instance], seeded()) as traffic:
            kill_child_of(instance)
            await told_of_comebacks(instance, 1)
            before = await comeback(traffic, [instance], embedded)
            kill_child_of(instance)
            await told_of_comebacks(instance, 2)
            assert await traffic.settle(embedded) == before != {}
            traffic.go_on()
            judge(traffic, await comeback(traffic, [instance], embedded))
            assert traffic.history.closed() == 0
        assert times_told(instance) == (2, 2)
    finally:
        instance.stop()


def kill_child_of(instance: Instance) -> None:
    """kill -9 the one process that it has started."""
    (child,) = Path(f"/proc/{instance.pid}/task/{instance.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
