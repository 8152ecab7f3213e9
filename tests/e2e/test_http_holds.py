"""Holds by HTTP: the same rooms, the same rules, for clients without a WebSocket."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Starter
from tests.fetch import fetch, json_of, problem_of
from tests.harness import Client, Instance, Valkey, holders_in_redis, unique

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def selections(server: Instance, room: str) -> str:
    return f"{server.http}/room/{room}/selections"


def seat(server: Instance, room: str, seat_id: str) -> str:
    return f"{selections(server, room)}/{seat_id}"


async def tag_of(server: Instance, room: str) -> str:
    return (await fetch(selections(server, room))).headers["ETag"]


@pytest.mark.gen_test(timeout=60)
async def test_a_seat_is_held_and_given_back(server: Instance) -> None:
    """PUT: 201 with the guide's six fields, and 200 with the same again; DELETE: 204."""
    room = unique("room")
    ann = {"client_id": "ann", "user_info": {"name": "Ann"}}
    first = json_of(await fetch(seat(server, room, "A1"), "PUT", ann), 201)
    assert first == {
        "client_id": "ann",
        "seat_id": "A1",
        "room_id": room,
        "user_info": {"name": "Ann"},
        "timestamp": first["timestamp"],
        "expires_at": first["expires_at"],
    }
    assert TIME.fullmatch(first["timestamp"])
    assert TIME.fullmatch(first["expires_at"])
    again = ann | {"user_info": {"name": "Somebody else"}}
    assert json_of(await fetch(seat(server, room, "A1"), "PUT", again), 200) == first
    assert json_of(await fetch(selections(server, room))) == {
        "room_id": room,
        "selections": [first],
        "count": 1,
    }
    gone = await fetch(seat(server, room, "A1") + "?client_id=ann", "DELETE")
    assert (gone.code, gone.body) == (204, b"")
    assert json_of(await fetch(selections(server, room)))["count"] == 0


@pytest.mark.gen_test(timeout=60)
async def test_a_hold_by_http_is_news_to_viewers(server: Instance) -> None:
    """As one by WebSocket: once, with `user_info`, and its end as well."""
    room = unique("room")
    async with Client.connect(server.url) as viewer:
        await viewer.join(room)
        body = {"client_id": "ann", "user_info": {"name": "Ann"}}
        hold = json_of(await fetch(seat(server, room, "A1"), "PUT", body), 201)
        await fetch(seat(server, room, "A1"), "PUT", body)
        await fetch(seat(server, room, "A1") + "?client_id=ann", "DELETE")
        await viewer.until(lambda: len(viewer.received) == 4)
        assert viewer.received[2:] == [
            {
                "type": "seat_selected",
                "seat_id": "A1",
                "room_id": room,
                "client_id": "ann",
                "user_info": {"name": "Ann"},
                "rev": 1,
                "expires_at": hold["expires_at"],
            },
            {
                "type": "seat_released",
                "seat_id": "A1",
                "room_id": room,
                "client_id": "ann",
                "rev": 2,
                "reason": "released",
            },
        ]


@pytest.mark.gen_test(timeout=60)
async def test_a_hold_by_websocket_counts_for_http(server: Instance) -> None:
    """It is on the map, refuses others, is one's own, and can be given back."""
    room = unique("room")
    async with Client.connect(server.url) as ann:
        answer = await ann.select(room, "A1", user_info={"name": "Ann"})
        (hold,) = json_of(await fetch(selections(server, room)))["selections"]
        assert hold["expires_at"] == answer["expires_at"]
        taken = await fetch(seat(server, room, "A1"), "PUT", {"client_id": "bob"})
        problem = problem_of(taken, 409, "seat_taken")
        assert problem["conflicts"] == [{"seat_id": "A1", "expires_at": answer["expires_at"]}]
        own = await fetch(seat(server, room, "A1"), "PUT", {"client_id": ann.client_id})
        assert json_of(own, 200) == hold
        foreign = await fetch(seat(server, room, "A1") + "?client_id=bob", "DELETE")
        problem_of(foreign, 409, "not_holder")
        gone = await fetch(seat(server, room, "A1") + f"?client_id={ann.client_id}", "DELETE")
        assert gone.code == 204
        assert (await ann.release(room, "A1"))["code"] == "not_holder"


@pytest.mark.gen_test(timeout=60)
async def test_the_limit_of_seats_counts_for_http(server: Instance) -> None:
    """409 `limit_reached` at the eleventh."""
    room = unique("room")
    for number in range(10):
        json_of(await fetch(seat(server, room, f"A{number}"), "PUT", {"client_id": "ann"}), 201)
    refused = await fetch(seat(server, room, "B1"), "PUT", {"client_id": "ann"})
    problem_of(refused, 409, "limit_reached")


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff", "JSON"),
        (b"[]", "object"),
        (b"[" * 9000, ""),
        (b"{}", "client_id"),
        (b'{"client_id": 7}', "client_id"),
        (b'{"client_id": "with space"}', "client_id"),
        (b'{"client_id": "%s"}' % (b"x" * 65), "client_id"),
        (b'{"client_id": "ann", "user_info": []}', "user_info"),
        (b'{"client_id": "ann", "user_info": null}', "user_info"),
        (b'{"client_id": "ann", "user_info": {"a": 1e999}}', "user_info"),
        (b'{"client_id": "ann", "user_info": {"a": "%s"}}' % (b"x" * 1017), "user_info"),
        (rb'{"client_id": "ann", "user_info": {"a": "\u0000"}}', "user_info"),
    ],
    ids=lambda value: value[:60].decode(errors="replace") if isinstance(value, bytes) else "",
)
async def test_a_wrong_body_is_refused(
    server: Instance, valkey: Valkey, body: bytes, names: str
) -> None:
    """400 `invalid_message` that names the field, and nothing is held."""
    room = unique("room")
    problem = problem_of(await fetch(seat(server, room, "A1"), "PUT", body), 400, "invalid_message")
    assert names in problem["detail"]
    assert holders_in_redis(valkey, room) == {}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/room/a%20b/selections/A1?client_id=ann", "room_id"),
        ("/room/a%2Fb/selections/A1?client_id=ann", "room_id"),
        (f"/room/{'r' * 65}/selections/A1?client_id=ann", "room_id"),
        ("/room//selections/A1?client_id=ann", "room_id"),
        ("/room/%ff/selections/A1?client_id=ann", ""),
        ("/room/r%0A/selections/A1?client_id=ann", "room_id"),
        ("/room/%7Br%7D/selections/A1?client_id=ann", "room_id"),
        ("/room/r/selections/A%001?client_id=ann", "seat_id"),
        (f"/room/r/selections/{'A' * 33}?client_id=ann", "seat_id"),
        ("/room/r/selections/?client_id=ann", "seat_id"),
        ("/room/r/selections/A1", "client_id"),
        ("/room/r/selections/A1?client_id=", "client_id"),
        ("/room/r/selections/A1?client_id=a%0A", "client_id"),
        ("/room/r/selections/A1?client_id=%ff", ""),
    ],
)
async def test_an_illegal_id_is_refused(server: Instance, path: str, names: str) -> None:
    """400 `invalid_message` that names it, wherever it stands and however it is written."""
    responses = [await fetch(server.http + path, "DELETE")]
    if names != "client_id" and "%ff" not in path.partition("?")[2]:
        responses.append(await fetch(server.http + path, "PUT", {"client_id": "ann"}))
    if names == "room_id":
        responses.append(await fetch(server.http + path.replace("/A1?", "?")))
    for response in responses:
        assert names in problem_of(response, 400, "invalid_message")["detail"]


@pytest.mark.gen_test(timeout=60)
async def test_an_id_may_be_percent_encoded(server: Instance) -> None:
    """`ann%40x` is `ann@x` everywhere."""
    room = unique("room:@")
    url = f"{server.http}/room/{room.replace('@', '%40').replace(':', '%3A')}/selections"
    hold = json_of(await fetch(f"{url}/A%2D1", "PUT", {"client_id": "ann@x"}), 201)
    assert (hold["room_id"], hold["seat_id"]) == (room, "A-1")
    assert (await fetch(f"{url}/A-1?client_id=ann%40x", "DELETE")).code == 204


@pytest.mark.gen_test(timeout=60)
async def test_a_body_that_is_too_large_is_refused(server: Instance, valkey: Valkey) -> None:
    """413 above the 16 KiB of a message; at 16 KiB it is read."""
    room = unique("room")
    body = b'{"client_id": "ann", "more": "%s"}'
    body %= b"x" * (16_384 - len(body) + 2)
    assert len(body) == 16_384
    large = await fetch(seat(server, room, "A1"), "PUT", body + b" ")
    problem_of(large, 413, "invalid_message")
    assert holders_in_redis(valkey, room) == {}
    json_of(await fetch(seat(server, room, "A1"), "PUT", body), 201)


@pytest.mark.gen_test(timeout=60)
async def test_who_asks_too_often_is_slowed_down(start: Starter, valkey: Valkey) -> None:
    """429 with `Retry-After` after a burst, for PUT and DELETE together; others are not."""
    server = start(valkey.url, SEATWS_LIMITS__MESSAGES_PER_SECOND="1", SEATWS_LIMITS__BURST="3")
    room = unique("room")
    responses = []
    for number in range(5):
        responses.append(await fetch(seat(server, room, f"A{number}"), "PUT", {"client_id": "ann"}))
    responses.append(await fetch(seat(server, room, "A0") + "?client_id=ann", "DELETE"))
    assert [response.code for response in responses[:3]] == [201] * 3
    for response in responses[-2:]:
        problem = problem_of(response, 429, "rate_limited")
        assert problem["retry_after_ms"] > 0
        assert int(response.headers["Retry-After"]) * 1000 >= problem["retry_after_ms"]
    json_of(await fetch(seat(server, room, "B0"), "PUT", {"client_id": "bob"}), 201)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("shared", "seen"),
    [("[]", {}), ('["name"]', {"name": "Ann"}), ('["*"]', {"name": "Ann", "email": "a@x"})],
    ids=["nothing", "the name", "everything"],
)
async def test_only_shared_keys_of_user_info_leave_the_server(
    start: Starter, valkey: Valkey, shared: str, seen: dict[str, str]
) -> None:
    """By whatever way: news, the map, HTTP; `user_info` is there even if nothing is in it."""
    server = start(valkey.url, SEATWS_PRIVACY__SHARED_USER_INFO=shared)
    room, user_info = unique("room"), {"name": "Ann", "email": "a@x"}
    async with Client.connect(server.url) as ann, Client.connect(server.url) as viewer:
        await viewer.join(room)
        await ann.select(room, "A1", user_info=user_info)
        await ann.ask(type="select_seats", room_id=room, seat_ids=["A2"], user_info=user_info)
        body = {"client_id": "ann", "user_info": user_info}
        held = json_of(await fetch(seat(server, room, "A3"), "PUT", body), 201)
        await viewer.until(lambda: len(viewer.received) == 5)
        map_ = json_of(await fetch(selections(server, room)))["selections"]
        on_joining = (await ann.join(room))["selections"]
    assert held["user_info"] == seen
    assert [news["user_info"] for news in viewer.received[2:]] == [seen] * 3
    assert [hold["user_info"] for hold in map_] == [seen] * 3
    assert [hold["user_info"] for hold in on_joining] == [seen] * 3
