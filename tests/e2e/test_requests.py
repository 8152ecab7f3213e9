"""What PROTOCOL adds to the guide: request ids, repeats, refusals, limits, several tabs."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.harness import Client, Instance, Message, unique
from tests.raw import RawSocket, frame


def kinds(client: Client) -> list[str]:
    return [message["type"] for message in client.received]


async def answer_to(client: Client, request: Message) -> Message:
    """The next message after a request, and after the map too if it is a join."""
    seen = len(client.received)
    await client.send(**request)
    comes = 2 if request["type"] == "join_room" else 1
    await client.until(lambda: len(client.received) == seen + comes)
    return client.received[seen]


def all_kinds(room: str, taken: str) -> list[tuple[Message, str]]:
    """Requests, one after the other, and what each is answered: a type, or the code of an error."""
    return [
        ({"type": "ping"}, "pong"),
        ({"type": "join_room", "room_id": room}, "room_joined"),
        ({"type": "select_seat", "room_id": room, "seat_id": "A1"}, "seat_selected"),
        ({"type": "select_seat", "room_id": room, "seat_id": "A1"}, "seat_selected"),
        ({"type": "select_seats", "room_id": room, "seat_ids": ["A2"]}, "seat_selected"),
        ({"type": "select_seats", "room_id": taken, "seat_ids": ["B1"]}, "seat_taken"),
        ({"type": "select_seat", "room_id": taken, "seat_id": "B1"}, "seat_taken"),
        ({"type": "release_seat", "room_id": room, "seat_id": "A1"}, "seat_released"),
        ({"type": "release_seat", "room_id": room, "seat_id": "A1"}, "not_holder"),
        ({"type": "select_seat", "room_id": room}, "invalid_message"),
        ({"type": "sing"}, "invalid_message"),
        ({"type": "leave_room", "room_id": room}, "room_left"),
    ]


@pytest.mark.gen_test(timeout=60)
async def test_every_answer_brings_its_request_id_back(server: Instance) -> None:
    """Of whatever type it is, errors included; up to 64 characters of any kind."""
    room, taken = unique("room"), unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await bob.select(taken, "B1")
        for number, (request, kind) in enumerate(all_kinds(room, taken)):
            request_id = f"{number:02} ñ\n{'x' * 59}"
            answer = await answer_to(ann, request | {"request_id": request_id})
            assert answer["request_id"] == request_id
            assert answer.get("code", answer["type"]) == kind


@pytest.mark.gen_test(timeout=60)
async def test_without_a_request_id_no_answer_has_one(server: Instance) -> None:
    """As in the guide, which knows no such field."""
    room, taken = unique("room"), unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await bob.select(taken, "B1")
        for request, kind in all_kinds(room, taken):
            answer = await answer_to(ann, request)
            assert answer.get("code", answer["type"]) == kind
        assert not any("request_id" in message for message in ann.received)


@pytest.mark.gen_test(timeout=60)
async def test_selecting_ones_own_seat_again_changes_nothing(server: Instance) -> None:
    """A repeat is safe and renews nothing: the same deadline, no rev, no news to anyone."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await bob.join(room)
        first = await ann.select(room, "A1", user_info={"name": "Ann"})
        again = await ann.select(room, "A1", user_info={"name": "Somebody else"})
        assert first.pop("rev") == 1
        first.pop("request_id")
        again.pop("request_id")
        assert again == first
        assert (await bob.select(room, "A2"))["rev"] == 2
        assert kinds(bob)[2:] == ["seat_selected", "seat_selected"]
        async with Client.connect(server.url) as late:
            assert (await late.join(room))["selections"][0]["user_info"] == {"name": "Ann"}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("holder", ["nobody", "somebody else"])
async def test_releasing_what_one_does_not_hold_is_refused(server: Instance, holder: str) -> None:
    """`not_holder`, and nobody else hears of it."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await bob.join(room)
        if holder == "somebody else":
            await bob.select(room, "A1")
        heard = len(bob.received)
        refusal = await ann.release(room, "A1")
        assert refusal == {
            "type": "error",
            "code": "not_holder",
            "message": refusal["message"],
            "request": "release_seat",
            "retryable": False,
            "room_id": room,
            "seat_id": "A1",
            "request_id": refusal["request_id"],
        }
        await bob.ask(type="ping")
        assert kinds(bob)[heard:] == ["pong"]


@pytest.mark.gen_test(timeout=60)
async def test_ten_seats_of_a_room_are_one_clients_limit(server: Instance) -> None:
    """The eleventh is refused, also to another tab and in a group; one given back makes room."""
    room, other = unique("room"), unique("room")
    group = {"type": "select_seats", "room_id": room, "seat_ids": ["B1", "B2"]}
    async with Client.connect(server.url) as ann, Client.connect(server.url, ann.client_id) as tab:
        for number in range(9):
            assert (await ann.select(room, f"A{number}"))["type"] == "seat_selected"
        assert (await ann.ask(**group))["code"] == "limit_reached"
        assert (await tab.select(room, "A9"))["type"] == "seat_selected"
        refusal = await ann.select(room, "B1")
        assert (refusal["code"], refusal["retryable"]) == ("limit_reached", False)
        assert (refusal["room_id"], refusal["seat_id"]) == (room, "B1")
        assert "rev" not in await ann.select(room, "A9")
        assert (await ann.select(other, "B1"))["type"] == "seat_selected"
        assert (await ann.release(room, "A0"))["rev"] == 11
        assert (await ann.select(room, "B1"))["rev"] == 12


@pytest.mark.gen_test(timeout=60)
async def test_ten_rooms_are_one_connections_limit(server: Instance) -> None:
    """The eleventh is refused; a room joined again does not count, one left makes room."""
    rooms = [unique("room") for _ in range(11)]
    async with Client.connect(server.url) as ann:
        for room in rooms[:10]:
            await ann.join(room)
        refusal = await ann.ask(type="join_room", room_id=rooms[10])
        assert (refusal["code"], refusal["request"]) == ("limit_reached", "join_room")
        assert refusal["room_id"] == rooms[10]
        await ann.join(rooms[0])
        await ann.ask(type="leave_room", room_id=rooms[1])
        await ann.join(rooms[10])


@pytest.mark.gen_test(timeout=60)
async def test_another_tab_of_the_same_client_hears_the_news(server: Instance) -> None:
    """Each connection is a viewer of its own: the other tab gets the broadcast with `user_info`."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url, ann.client_id) as tab:
        await ann.join(room)
        await tab.join(room)
        answer = await ann.select(room, "A1", user_info={"name": "Ann"})
        await tab.until(lambda: len(tab.received) == 3)
        assert "user_info" not in answer
        assert tab.received[2] == {
            "type": "seat_selected",
            "seat_id": "A1",
            "room_id": room,
            "client_id": ann.client_id,
            "user_info": {"name": "Ann"},
            "rev": 1,
            "expires_at": answer["expires_at"],
        }


@pytest.mark.gen_test(timeout=60)
async def test_another_tab_may_release_the_clients_seats(server: Instance) -> None:
    """Holds belong to the client: whichever connection ends one, the other hears of it."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url, ann.client_id) as tab:
        await ann.join(room)
        await ann.select(room, "A1")
        assert (await tab.release(room, "A1"))["type"] == "seat_released"
        news = await ann.heard(lambda message: message["type"] == "seat_released")
        assert (news["client_id"], news["rev"], news["reason"]) == (ann.client_id, 2, "released")


@pytest.mark.gen_test(timeout=60)
async def test_holds_survive_a_reconnect(server: Instance) -> None:
    """The connection ends, the hold does not, and it is still the client's own."""
    room = unique("room")
    async with Client.connect(server.url) as ann:
        await ann.join(room)
        first = await ann.select(room, "A1")
    async with Client.connect(server.url, ann.client_id) as back:
        (hold,) = (await back.join(room))["selections"]
        assert (hold["client_id"], hold["expires_at"]) == (ann.client_id, first["expires_at"])
        assert (await back.release(room, "A1"))["type"] == "seat_released"


@pytest.mark.gen_test(timeout=60)
async def test_joining_twice_answers_as_the_first_time(server: Instance) -> None:
    """`room_joined` and the map again; and every change still comes once."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await bob.select(room, "A1")
        await ann.until(lambda: len(ann.received) == 3)
        again = await ann.ask(type="join_room", room_id=room)
        assert again["type"] == "room_joined"
        await ann.until(lambda: len(ann.received) == 5)
        assert [hold["seat_id"] for hold in ann.received[4]["selections"]] == ["A1"]
        await bob.select(room, "A2")
        await ann.until(lambda: len(ann.received) == 6)
        await ann.ask(type="ping")
        assert kinds(ann)[5:] == ["seat_selected", "pong"]


@pytest.mark.gen_test(timeout=60)
async def test_leaving_a_room_that_was_not_joined_is_answered(server: Instance) -> None:
    """`room_left`, without a reason: that is for those who are put out."""
    room = unique("room")
    async with Client.connect(server.url) as ann:
        answer = await ann.ask(type="leave_room", room_id=room)
        request_id = answer.pop("request_id")
        assert request_id
        assert answer == {"type": "room_left", "room_id": room, "client_id": ann.client_id}


@pytest.mark.gen_test(timeout=60)
async def test_who_left_hears_no_more(server: Instance) -> None:
    """After `room_left` nothing of the room comes, but requests are still answered."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await ann.ask(type="leave_room", room_id=room)
        await bob.select(room, "A1")
        assert (await ann.select(room, "A2"))["rev"] == 2
        assert kinds(ann)[2:] == ["room_left", "seat_selected"]


@pytest.mark.gen_test(timeout=60)
async def test_user_info_left_out_is_an_empty_object(server: Instance) -> None:
    """The key is always there for the others."""
    room = unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await bob.join(room)
        await ann.select(room, "A1")
        await bob.until(lambda: len(bob.received) == 3)
        assert bob.received[2]["user_info"] == {}
        async with Client.connect(server.url) as late:
            assert (await late.join(room))["selections"][0]["user_info"] == {}


@pytest.mark.gen_test(timeout=60)
async def test_who_does_not_wait_for_the_map_is_answered_all_the_same(server: Instance) -> None:
    """Joining and selecting in one breath: the map that follows holds the seat, nothing is lost."""
    room = unique("room")
    select = {"type": "select_seat", "room_id": room, "seat_id": "A1"}
    async with RawSocket.connect(server) as ann, Client.connect(server.url) as bob:
        join = frame(json.dumps({"type": "join_room", "room_id": room}))
        await ann.send(join, frame(json.dumps(select)))
        heard = [await ann.message() for _ in range(3)]
        (map_,) = [message for message in heard if message["type"] == "current_selections"]
        (answer,) = [message for message in heard if message["type"] == "seat_selected"]
        (hold,) = map_["selections"] or [answer]
        assert hold["seat_id"] == "A1"
        await bob.select(room, "A2")
        assert (await ann.message())["rev"] == 2


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("second", "answer"), [("join_room", "room_joined"), ("leave_room", "room_left")]
)
async def test_no_join_stays_without_an_answer(server: Instance, second: str, answer: str) -> None:
    """Not in a room that must be opened first, either, where the next request overtakes it."""
    room = unique("room")
    async with RawSocket.connect(server) as ann:
        await ann.send(
            frame(json.dumps({"type": "join_room", "room_id": room, "request_id": "1"})),
            frame(json.dumps({"type": second, "room_id": room, "request_id": "2"})),
        )
        async with asyncio.timeout(5):
            answered: dict[str, str] = {}
            while len(answered) < 2:
                message = await ann.message()
                if "request_id" in message:
                    answered[message["request_id"]] = message["type"]
        assert answered == {"1": "room_joined", "2": answer}
