"""Visitors of http://localhost:8001, whoever answers there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import websockets.exceptions

from tests.docker.compose import ContainerRedis, check, docker, say, wait_for
from tests.e2e.traffic import Traffic, seeded
from tests.harness import Client, Instance, Message, unique

HTTP = "http://localhost:8001"
WS = "ws://localhost:8001"
PROBE_S = 0.05
"""Between two looks at whether a visitor would get in."""
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks no proxy that the environment may name."""


class Balanced(Instance):
    """All replicas, behind their balancer."""

    def __init__(self) -> None:
        """Nothing is started: they run."""

    @property
    def url(self) -> str:
        """Where WebSockets connect."""
        return WS


def get(path: str) -> Any:
    """What a path answers; None if it does not, or not with 200."""
    try:
        with _direct.open(HTTP + path, timeout=10) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def answers() -> None:
    """Wait until the server answers and is well."""
    wait_for(lambda: (get("/health") or {}).get("status") == "healthy", f"{HTTP}/health is healthy")


def put(room: str, seat: str, client_id: str) -> int:
    """Take a seat by HTTP. Returns the status."""
    request = urllib.request.Request(
        f"{HTTP}/room/{room}/selections/{seat}",
        json.dumps({"client_id": client_id}).encode(),
        method="PUT",
    )
    with _direct.open(request, timeout=10) as answer:
        return int(answer.status)


def holders(room: str) -> dict[str, str] | None:
    """Who holds what, by HTTP; None while nobody can say."""
    if (found := get(f"/room/{room}/selections")) is None:
        return None
    return {each["seat_id"]: each["client_id"] for each in found["selections"]}


def selection_of(seat: str) -> Callable[[Message], bool]:
    """Whether a message says that the seat was taken."""
    return lambda message: message["type"] == "seat_selected" and message["seat_id"] == seat


def is_free_for(client: Client, room: str, seat: str) -> Callable[[], bool]:
    """Whether the client sees the seat free."""
    return lambda: seat not in client.maps[room]


async def scenario(visitors: int = 2) -> None:
    """The guide's: join, take a seat, everybody sees it, with whom; give it back; ping; leave."""
    room = unique("funcion")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client.connect(WS)) for _ in range(visitors)]
        for client in clients:
            await client.join(room)
        for number, client in enumerate(clients):
            others = [one for one in clients if one is not client]
            seat, mine = f"A{number}", {"name": "Juan Pérez", "email": "juan@example.com"}
            answer = await client.select(room, seat, user_info=mine)
            assert answer["type"] == "seat_selected", answer
            for other in others:
                news = await other.heard(selection_of(seat))
                assert news["client_id"] == client.client_id, news
                assert news["user_info"] == mine, news
                assert (await other.select(room, seat))["code"] == "seat_taken"
        assert await asyncio.to_thread(holders, room) == clients[0].maps[room]
        answer = await clients[0].release(room, "A0")
        assert answer["type"] == "seat_released", answer
        for client in clients:
            await client.until(is_free_for(client, room, "A0"))
            assert (await client.ask(type="ping"))["type"] == "pong"
            assert (await client.ask(type="leave_room", room_id=room))["type"] == "room_left"
    check(True, f"the guide's scenario with {visitors} visitors over {WS}")


@contextlib.asynccontextmanager
async def door(*, always_open: bool) -> AsyncIterator[None]:
    """Try meanwhile, again and again, to get in as a new visitor, by WebSocket and by HTTP.

    Args:
        always_open: Whether nobody may be refused.
    """
    refused: list[str] = []
    shut_s, tries, shut_since = 0.0, 0, None

    async def knock() -> None:
        nonlocal shut_s, tries, shut_since
        while True:
            tries += 1
            try:
                async with Client.connect(WS, open_timeout=10):
                    pass
                room = unique("door")
                assert await asyncio.to_thread(put, room, "A1", "knocker") in {200, 201}
                shut_since = None
            except (OSError, websockets.exceptions.WebSocketException) as exc:
                refused.append(f"{type(exc).__name__}: {exc}")
                shut_since = shut_since or time.monotonic()
                shut_s = max(shut_s, time.monotonic() - shut_since)
            await asyncio.sleep(PROBE_S)

    knocking = asyncio.create_task(knock())
    try:
        yield
    finally:
        knocking.cancel()
        await asyncio.gather(knocking, return_exceptions=True)
    what = f"{tries} new visitors, by WebSocket and PUT: {len(refused)} refused, for {shut_s:.1f} s"
    if always_open:
        check(not refused, f"{what}{''.join(f'; {one}' for one in refused[:5])}")
    else:
        say(f"    {what}")


@contextlib.asynccontextmanager
async def absences(traffic: Traffic, limit_s: float) -> AsyncIterator[None]:
    """Watch for how long each of the traffic's visitors is out of the room."""
    since: dict[int, float] = {}
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            now = time.monotonic()
            for number in range(traffic.clients):
                if number in traffic.viewers:
                    since.pop(number, None)
                else:
                    longest = max(longest, now - since.setdefault(number, now))
            await asyncio.sleep(PROBE_S)

    watching = asyncio.create_task(watch())
    try:
        yield
        await traffic.flows()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    check(longest < limit_s, f"nobody was away for {limit_s:g} s; the longest: {longest:.2f} s")


@contextlib.asynccontextmanager
async def traffic_flows(*, may_be_shut: bool, away_s: float) -> AsyncIterator[Traffic]:
    """Visitors select and release meanwhile, and every promise to them is kept.

    Args:
        may_be_shut: Whether there may be moments at which nobody gets in.
        away_s: How long each of them may be away, at most.
    """
    async with Traffic(unique("funcion"), [Balanced()], seeded()) as traffic:
        async with door(always_open=not may_be_shut), absences(traffic, away_s):
            yield traffic
        history = traffic.history
        say(
            f"    {len(history.entries)} entries, {history.connections} connections, "
            f"{history.closed()} closed, the slowest answer after {history.slowest_s:.2f} s"
        )


async def judge(traffic: Traffic, redis: ContainerRedis) -> None:
    """Let everybody rest: each sees what Redis has, and no acknowledged hold was lost."""
    holds = await traffic.settle(redis)
    traffic.history.judge(traffic.room_id, holds)
    check(True, f"each viewer sees what Redis has ({len(holds)} holds), and no promise was broken")


def connections_of(containers: Iterable[str]) -> list[int]:
    """How many connections each replica has, by its own word."""
    ask = (
        "import http.client as h, json; c = h.HTTPConnection('127.0.0.1', 8001); "
        "c.request('GET', '/stats'); print(json.load(c.getresponse())['active_connections'])"
    )
    return [int(docker("exec", one, "python", "-c", ask)) for one in containers]
