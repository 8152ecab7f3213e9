"""Connections are taken in a few at a time, and none is lost when there is no room for more."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.harness import Client, Instance, Valkey, wait_until_async
from tests.raw import RawSocket


@pytest.fixture
def server(valkey: Valkey, tmp_path: Path) -> Iterator[Instance]:
    """An instance whose limit on open files the test may change."""
    instance = Instance(tmp_path, valkey.url)
    yield instance.start()
    instance.stop()


def last_file(server: Instance) -> int:
    """The highest number of a file that it has open."""
    return max(int(file.name) for file in Path(f"/proc/{server.pid}/fd").iterdir())


@pytest.mark.gen_test(timeout=60)
async def test_who_finds_no_free_file_waits_and_is_served_later(server: Instance) -> None:
    """The log says what to raise, once and not in a loop; present clients notice nothing."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    async with AsyncExitStack() as clients:
        present = await clients.enter_async_context(Client.connect(server.url))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (last_file(server) + 1, hard))
        waiting = [await clients.enter_async_context(RawSocket.open(server)) for _ in range(5)]
        await wait_until_async(lambda: "can't accept connections" in server.log)
        assert (await present.ask(type="ping"))["type"] == "pong"

        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
        await asyncio.gather(*(raw.shake_hands("/ws/ann") for raw in waiting))
        assert [raw.status for raw in waiting] == [101] * 5
    assert server.log.count("can't accept connections") == 1
    assert "ulimit -n" in server.log
    assert "Traceback" not in server.log


@pytest.mark.gen_test(timeout=60)
async def test_more_connections_at_once_than_a_turn_accepts_are_all_served(
    server: Instance,
) -> None:
    """What is left in the kernel's queue is taken in the turns that follow."""
    async with AsyncExitStack() as clients:
        some = await asyncio.gather(
            *(clients.enter_async_context(RawSocket.open(server)) for _ in range(100))
        )
        await asyncio.gather(*(raw.shake_hands(f"/ws/c{n}") for n, raw in enumerate(some)))
        assert [raw.status for raw in some] == [101] * 100
