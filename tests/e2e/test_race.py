"""Many clients on several instances want the same few seats at the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import Starter
from tests.e2e.traffic import REFUSALS, History, RecordedClient, seeded
from tests.harness import Instance, Message, Valkey, holders_in_redis, unique, wait_until_async

CLIENTS, SEATS, ROUNDS = 200, 20, 30
LONG_ENOUGH_S = 10.0
"""No new round after so long: where the machine has much else to do, fewer of them must do."""


@contextlib.asynccontextmanager
async def crowd(
    history: History, instances: list[Instance], room: str
) -> AsyncIterator[list[RecordedClient]]:
    """Clients in the room, spread over the instances."""
    async with contextlib.AsyncExitStack() as stack:

        async def come(number: int) -> RecordedClient:
            url = instances[number % len(instances)].url
            client = RecordedClient.recorded(history, url)
            return await stack.enter_async_context(client)

        clients = [await come(number) for number in range(CLIENTS)]
        await asyncio.gather(*(client.join(room) for client in clients))
        yield clients


def rounds() -> Iterator[int]:
    """Count them."""
    loop = asyncio.get_running_loop()
    end = loop.time() + LONG_ENOUGH_S
    return itertools.takewhile(lambda _: loop.time() < end, range(ROUNDS))


async def settled(valkey: Valkey, room: str, clients: list[RecordedClient]) -> dict[str, str]:
    """What Redis has, once every client sees the same."""
    holders = holders_in_redis(valkey, room)
    await wait_until_async(lambda: all(client.maps[room] == holders for client in clients))
    return holders


@pytest.mark.gen_test(timeout=120)
async def test_two_hundred_clients_fight_for_twenty_seats(valkey: Valkey, start: Starter) -> None:
    """Nobody holds another's seat, nobody is refused a free one, and everyone sees the same."""
    instances = [start(valkey.url) for _ in range(3)]
    room, history, chance = unique("room"), History(), seeded()
    seats = [f"A{number}" for number in range(SEATS)]

    async with crowd(history, instances, room) as clients:
        for _ in rounds():
            chance.shuffle(clients)
            codes = await asyncio.gather(*(one.act(room, seats, chance) for one in clients))
            assert set().union(*codes) <= {*REFUSALS, "done"}
        history.judge(room, await settled(valkey, room, clients))
        assert history.maps() == CLIENTS, "somebody had to be sent a map anew"
    assert history.count("seat_taken") > CLIENTS
    assert history.count("limit_reached") + history.count("not_holder") > 0


@pytest.mark.gen_test(timeout=120)
async def test_one_of_two_hundred_wins_each_contest(valkey: Valkey, start: Starter) -> None:
    """All ask for one free seat at once: one has it, all others are told who is in the way."""
    instances = [start(valkey.url) for _ in range(3)]
    room, history, chance = unique("room"), History(), seeded()

    async with crowd(history, instances, room) as clients:
        winners = {
            f"B{number}": await contend(room, f"B{number}", clients, chance) for number in rounds()
        }
        holders = await settled(valkey, room, clients)
        assert {seat: holders.get(seat) for seat in winners} == winners
        assert set(holders.values()) == set(winners.values()), "a group that lost left something"
        history.judge(room, holders)


@pytest.mark.gen_test(timeout=120)
async def test_a_rooms_first_changes_are_events_like_any_other(
    valkey: Valkey, start: Starter
) -> None:
    """Two instances change a new room at once; no viewer is sent a second map for that."""
    one, two = start(valkey.url), start(valkey.url)
    for _ in range(100):
        room, history = unique("room"), History()
        async with (
            RecordedClient.recorded(history, one.url) as ann,
            RecordedClient.recorded(history, two.url) as bob,
        ):
            await asyncio.gather(ann.join(room), bob.join(room))
            await asyncio.gather(ann.select(room, "A1"), bob.select(room, "A2"))
            holders = await settled(valkey, room, [ann, bob])
            history.judge(room, holders)
            assert (ann.revs[room], bob.revs[room]) == ([1, 2], [1, 2])


async def contend(
    room: str, seat: str, clients: list[RecordedClient], chance: random.Random
) -> str:
    """Let all ask for the seat, alone or in a group with a seat of one's own. The winner."""

    async def ask(client: RecordedClient) -> Message:
        if chance.random() < 0.5:
            return await client.select(room, seat)
        seats = [f"own-{client.client_id}"[:32], seat]
        return await client.ask(type="select_seats", room_id=room, seat_ids=seats)

    chance.shuffle(clients)
    answers = await asyncio.gather(*(ask(client) for client in clients))
    won = [answer for answer in answers if answer["type"] == "seat_selected"]
    lost = [answer for answer in answers if answer["type"] == "error"]
    assert len(won) == 1
    assert len(lost) == len(clients) - 1
    in_the_way = {"seat_id": seat, "expires_at": won[0]["expires_at"]}
    assert all(answer["code"] == "seat_taken" for answer in lost)
    assert all(answer["conflicts"] == [in_the_way] for answer in lost)
    return str(won[0]["client_id"])
