"""Behind Sentinels: the primary dies or hands over, under traffic, and the old one comes back."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.e2e.conftest import start_together
from tests.e2e.shards import Load, now
from tests.e2e.traffic import seeded
from tests.fetch import fetch
from tests.harness import Instance, unique
from tests.ports import free_port
from tests.sentinels import NAME, Sentinels


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    """Three, and three servers. Tests leave them well, whoever is the primary then."""
    path = Path(tempfile.mkdtemp(prefix="seatws-"))
    group = Sentinels(path)
    try:
        group.start()
        yield group
    finally:
        group.stop()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def pair(
    sentinels: Sentinels, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sequence[Instance]]:
    """Two instances."""
    path = tmp_path_factory.mktemp("pair")
    instances = start_together([Instance(path, sentinels.url) for _ in range(2)])
    yield instances
    for instance in instances:
        instance.stop()


def load_on(sentinels: Sentinels, pair: Sequence[Instance]) -> Load:
    """Traffic in two rooms."""
    rooms = [unique("room") for _ in range(2)]
    return Load(rooms, pair, seeded(), lambda _: sentinels)


@pytest.mark.gen_test(timeout=60)
async def test_the_primary_is_killed_and_comes_back(
    sentinels: Sentinels, pair: Sequence[Instance], start: Starter
) -> None:
    """Refused until there is a new one, then soon right.

    The old one believes to be a primary still, until it is told; nobody asks it for anything.
    """
    victim = sentinels.primary
    async with load_on(sentinels, pair) as load:
        victim.kill()
        lost_at = now()
        await load.is_refused()
        primary = await asyncio.to_thread(sentinels.until_replaced, victim)
        await load.is_right()
        await load.is_mapped_anew()
        refusals, maps = load.refusals(), load.maps()
        await asyncio.to_thread(victim.start)
        assert victim.role == "master"
        late, room = start(sentinels.url), unique("room")
        hold = f"{late.http}/room/{room}/selections/A1"
        assert (await fetch(hold, "PUT", {"client_id": "ann"})).code == 201
        assert primary.ask("HEXISTS", f"seatws:{{{room}}}:holds", "A1") == 1
        await asyncio.to_thread(sentinels.demote_others)
        assert victim.role == "slave"
        await load.flows()
        assert (load.refusals(), load.maps()) == (refusals, maps)
        await load.judge([lost_at])


@pytest.mark.gen_test(timeout=60)
async def test_a_coordinated_failover_loses_nothing(
    sentinels: Sentinels, pair: Sequence[Instance]
) -> None:
    """As Valkey 9 does it: no promise is broken."""
    async with load_on(sentinels, pair) as load:
        before = sentinels.primary
        after = await asyncio.to_thread(sentinels.fail_over, coordinated=True)
        assert after is not before
        await load.is_right()
        await asyncio.to_thread(sentinels.until_well)
        await load.judge()


@pytest.mark.gen_test(timeout=60)
async def test_a_planned_failover_loses_nothing_when_writing_is_paused(
    sentinels: Sentinels, pair: Sequence[Instance]
) -> None:
    """As docs/operations.md says, for every Redis: no promise is broken."""
    async with load_on(sentinels, pair) as load:
        before = sentinels.primary
        before.ask("CLIENT", "PAUSE", 20_000, "WRITE")
        await asyncio.to_thread(sentinels.fail_over)
        before.ask("CLIENT", "KILL", "TYPE", "normal")
        before.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await load.is_right()
        await asyncio.to_thread(sentinels.demote_others)
        await load.judge()


@pytest.mark.gen_test(timeout=60)
async def test_a_plain_failover_is_noticed_soon(
    sentinels: Sentinels, pair: Sequence[Instance]
) -> None:
    """The old primary goes on for ten seconds; what it confirmed is lost, and that is told."""
    async with load_on(sentinels, pair) as load:
        began = now()
        await asyncio.to_thread(sentinels.fail_over)
        await load.is_right()
        await load.is_mapped_anew()
        await asyncio.to_thread(sentinels.demote_others)
        await load.flows()
        await load.judge([began])


@pytest.mark.gen_test(timeout=60)
async def test_one_sentinel_that_lives_is_enough(sentinels: Sentinels, start: Starter) -> None:
    """A dead one and one that does not answer are passed over."""
    with socket.create_server(("127.0.0.1", free_port())) as deaf:
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{deaf.getsockname()[1]}"
        instance = start(f"redis+sentinel://{hosts},{sentinels.sentinels[2].at}/{NAME}")
        hold = f"{instance.http}/room/{unique('room')}/selections/A1"
        assert (await fetch(hold, "PUT", {"client_id": "ann"})).code == 201
