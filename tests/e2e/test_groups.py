"""`select_seats`: all of the seats or none."""

from __future__ import annotations

import pytest

from tests.conftest import Starter
from tests.harness import Client, Instance, Message, Valkey, holders_in_redis, unique


def answers(client: Client, request_id: str) -> list[Message]:
    return [message for message in client.received if message.get("request_id") == request_id]


async def select_all(client: Client, room: str, seats: list[str], **fields: object) -> Message:
    """Ask for several seats; the first answer."""
    return await client.ask(type="select_seats", room_id=room, seat_ids=seats, **fields)


@pytest.mark.gen_test(timeout=60)
async def test_a_group_of_seats_is_answered_seat_by_seat(server: Instance) -> None:
    """One `seat_selected` a seat, each with its own rev; the others hear of each, with the name."""
    room, seats = unique("room"), ["A1", "A2", "A3"]
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await bob.join(room)
        first = await select_all(ann, room, seats, user_info={"name": "Ann"})
        await ann.until(lambda: len(answers(ann, first["request_id"])) == 3)
        await bob.until(lambda: len(bob.received) == 5)
        mine, news = answers(ann, first["request_id"]), bob.received[2:]
        assert [answer["seat_id"] for answer in mine] == seats
        assert [answer["rev"] for answer in mine] == [1, 2, 3]
        assert not any("user_info" in answer for answer in mine)
        assert [one["user_info"] for one in news] == [{"name": "Ann"}] * 3
        told = [(one["seat_id"], one["rev"], one["expires_at"]) for one in mine]
        assert [(one["seat_id"], one["rev"], one["expires_at"]) for one in news] == told


@pytest.mark.gen_test(timeout=60)
async def test_a_group_is_all_or_none(server: Instance, valkey: Valkey) -> None:
    """With a seat in the way nothing is held, and the answer names every seat in the way."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await bob.join(room)
        ends = [(await bob.select(room, seat))["expires_at"] for seat in ("A2", "A4")]
        await ann.join(room)
        refusal = await select_all(ann, room, ["A1", "A2", "A3", "A4"])
        assert refusal == {
            "type": "error",
            "code": "seat_taken",
            "message": refusal["message"],
            "request": "select_seats",
            "retryable": False,
            "room_id": room,
            "request_id": refusal["request_id"],
            "conflicts": [
                {"seat_id": "A2", "expires_at": ends[0]},
                {"seat_id": "A4", "expires_at": ends[1]},
            ],
        }
        assert set(holders_in_redis(valkey, room)) == {"A2", "A4"}
        assert (await bob.select(room, "A1"))["rev"] == 3


@pytest.mark.gen_test(timeout=60)
async def test_a_group_may_hold_seats_of_ones_own(server: Instance) -> None:
    """Own seats in a group stay as they are and need no rev; the free ones are added."""
    room = unique("room")
    async with Client.connect(server.url) as ann:
        own = await ann.select(room, "A1")
        first = await select_all(ann, room, ["A1", "A2"])
        await ann.until(lambda: len(answers(ann, first["request_id"])) == 2)
        again, new = answers(ann, first["request_id"])
        assert again["expires_at"] == own["expires_at"]
        assert "rev" not in again
        assert (new["seat_id"], new["rev"]) == ("A2", 2)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "seats",
    [[], ["A1", "A2", "A1"], [f"A{number}" for number in range(51)], ["A1", "A 2"]],
    ids=["none", "one twice", "fifty-one", "one illegal"],
)
async def test_a_wrong_group_is_refused_whole(
    server: Instance, valkey: Valkey, seats: list[str]
) -> None:
    """`seat_ids` are 1 to 50 seats, each once."""
    room = unique("room")
    async with Client.connect(server.url) as ann:
        refusal = await select_all(ann, room, seats)
        assert refusal["code"] == "invalid_message"
        assert "seat_ids" in refusal["message"]
        assert holders_in_redis(valkey, room) == {}


@pytest.mark.gen_test(timeout=60)
async def test_fifty_seats_at_once_are_not_too_many(start: Starter, valkey: Valkey) -> None:
    """The limit of a group is 50, that of a client is the configured one (0: none)."""
    server = start(valkey.url, SEATWS_HOLDS__MAX_SEATS_PER_CLIENT="0")
    room, seats = unique("room"), [f"A{number}" for number in range(50)]
    async with Client.connect(server.url) as ann:
        first = await select_all(ann, room, seats)
        await ann.until(lambda: len(answers(ann, first["request_id"])) == 50)
        assert [one["rev"] for one in answers(ann, first["request_id"])] == list(range(1, 51))
