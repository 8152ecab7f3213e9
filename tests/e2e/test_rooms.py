"""What viewers of a room see, over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Starter
from tests.harness import Client, Instance, Valkey, holders_in_redis, unique


@pytest.mark.gen_test(timeout=60)
async def test_everybody_in_the_room_sees_a_seat_taken_at_once(server: Instance) -> None:
    """The requester gets the answer, the others the news with `user_info`; nobody gets both."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await bob.join(room)
        answer = await ann.select(room, "A1", user_info={"name": "Ann"})
        news = await bob.heard(lambda message: message["type"] == "seat_selected")
        assert answer["type"] == "seat_selected"
        assert "user_info" not in answer
        assert news["user_info"] == {"name": "Ann"}
        assert news["rev"] == answer["rev"] == 1
        await ann.ask(type="ping")
        assert [message["type"] for message in ann.received].count("seat_selected") == 1


@pytest.mark.gen_test(timeout=60)
async def test_fifty_clients_see_one_order(valkey: Valkey, start: Starter) -> None:
    """Every viewer's sequence of revs is gapless and the same, its own answers in their places."""
    one, two = start(valkey.url), start(valkey.url)
    room = unique("room")
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        ready = asyncio.Barrier(50)
        done = asyncio.Barrier(50)
        clients: list[Client] = []

        async def hammer(number: int) -> None:
            url = (one, two)[number % 2].url
            async with Client.connect(url) as client:
                clients.append(client)
                await client.join(room)
                await ready.wait()
                for turn in range(20):
                    seat = f"S{(number * 7 + turn * 13) % 40}"
                    answer = await client.select(room, seat)
                    if answer["type"] == "seat_selected":
                        await client.release(room, seat)
                await done.wait()
                last = max(max(one.revs[room], default=0) for one in clients)
                await client.until(lambda: client.revs[room][-1] == last)

        for number in range(50):
            group.create_task(hammer(number))
    for client in clients:
        revs = client.revs[room]
        assert revs == list(range(revs[0], revs[-1] + 1))
        assert client.maps[room] == holders_in_redis(valkey, room)
