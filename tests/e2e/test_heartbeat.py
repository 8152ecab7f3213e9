"""The server's pings: who answers stays, who doesn't is let go, who talks is left in peace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.fetch import until_connections
from tests.harness import Client, Instance, Valkey, without_uvloop
from tests.raw import PING, PONG, TEXT, RawSocket, frame

FAST = {"SEATWS_HEARTBEAT__INTERVAL_SECONDS": "1", "SEATWS_HEARTBEAT__TIMEOUT_SECONDS": "0.5"}
INTERVAL_S = 1.0
LATE_S = 4.0
"""The server looks once a second; the rest is for a machine that is busy."""
TALK = frame('{"type": "ping"}')


@pytest.mark.gen_test(timeout=60)
async def test_who_answers_is_pinged_again_and_again(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """A ping comes when nothing was heard for the interval; a pong is enough to stay."""
    now = asyncio.get_running_loop().time

    async def stay(server: Instance) -> None:
        async with RawSocket.connect(server) as raw:
            for _ in range(2):
                since = now()
                assert await raw.receive() == (PING, b"")
                assert 0.95 * INTERVAL_S < now() - since < INTERVAL_S + LATE_S
                await raw.send(frame("", PONG))
            await raw.send(TALK)
            assert (await raw.message())["type"] == "pong"

    async with asyncio.TaskGroup() as both_loops:
        both_loops.create_task(stay(start(valkey.url, **FAST)))
        both_loops.create_task(stay(start(valkey.url, **FAST, **without_uvloop(tmp_path))))


@pytest.mark.gen_test(timeout=60)
async def test_who_does_not_answer_is_let_go(start: Starter, valkey: Valkey) -> None:
    """A ping, then `goodbye` and 4408, and he may come back; who answers stays."""
    server = start(valkey.url, **FAST)
    async with (
        Client.connect(server.url, "ann") as polite,
        RawSocket.connect(server) as silent,
    ):
        since = asyncio.get_running_loop().time()
        assert await silent.receive() == (PING, b"")
        end = await silent.end()
        took = asyncio.get_running_loop().time() - since
        assert end.code == end.goodbye["code"] == 4408
        assert end.goodbye["reconnect"] is True
        assert end.goodbye["retry_after_ms"] > 0
        assert 1.4 < took < 1.5 + LATE_S
        await silent.hang_up()
        await until_connections(server, 1)
        assert (await polite.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_who_talks_is_not_pinged(start: Starter, valkey: Valkey) -> None:
    """Any frame is a sign of life, so that a busy connection carries no pings."""
    server = start(valkey.url, **FAST)
    async with RawSocket.connect(server) as talker, RawSocket.connect(server) as silent:
        silence = asyncio.ensure_future(silent.end())
        while not silence.done():
            await talker.send(TALK)
            opcode, _ = await talker.receive()
            assert opcode == TEXT
            await asyncio.wait([silence], timeout=0.1)  # so that it talks, but does not shout
        assert (await silence).code == 4408


@pytest.mark.gen_test(timeout=60)
async def test_without_an_interval_nobody_is_pinged(start: Starter, valkey: Valkey) -> None:
    """`heartbeat.interval_seconds = 0`: who is let go elsewhere, hears nothing here."""
    without = start(valkey.url, SEATWS_HEARTBEAT__INTERVAL_SECONDS="0")
    server = start(valkey.url, **FAST)
    async with RawSocket.connect(without) as left_alone, RawSocket.connect(server) as silent:
        assert (await silent.end()).code == 4408
        await left_alone.send(TALK)
        assert (await left_alone.message())["type"] == "pong"  # and before it, nothing
