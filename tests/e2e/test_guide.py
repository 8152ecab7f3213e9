"""Every example of the guide, taken from the guide's own text and compared field by field."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.fetch import fetch, json_of
from tests.harness import Client, Instance, Message, Valkey, unique

GUIDE = (Path(__file__).parent.parent / "data" / "guia-websocket.md").read_text()
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

ADDED = {  # PROTOCOL section 3
    "room_joined": set[str](),
    "room_left": set[str](),
    "seat_selected": {"rev", "expires_at"},
    "seat_released": {"rev", "reason"},
    "pong": set[str](),
    "current_selections": {"room_id", "rev", "server_time"},
}


def blocks(language: str, text: str = GUIDE) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """What stands below a heading, up to the next one that is not below it."""
    found = re.search(
        rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,4}} |\Z)", GUIDE, re.MULTILINE | re.DOTALL
    )
    assert found, f"the guide has no section {title!r}"
    return found[2]


def sent_in(code: str, **variables: Any) -> list[Message]:
    """The messages that JavaScript sends, with values for the variables in them."""
    messages = []
    for literal in re.findall(r"JSON\.stringify\((\{.*?\})\)\)", code, re.DOTALL):
        quoted = re.sub(r"(?<=[{,\s])(\w+):(?=\s)", r'"\1":', literal)
        for name, value in variables.items():
            quoted = re.sub(rf"(?<=: )(this\.)?{name}\b", json.dumps(value), quoted)
        messages.append(json.loads(quoted))
    return messages


REQUESTS = [
    "1. Unirse a una Sala",
    "2. Salir de una Sala",
    "3. Seleccionar Asiento",
    "4. Liberar Asiento",
    "5. Ping/Pong (Keep Alive)",
]
BROADCASTS = [
    "Asiento Seleccionado por Otro Usuario",
    "Asiento Liberado por Otro Usuario",
    "Selecciones Actuales (al unirse a sala)",
]


def example(title: str) -> Message:
    """The one JSON example of a section."""
    (text,) = blocks("json", section(title))
    message: Message = json.loads(text)
    return message


def request(title: str) -> Message:
    """The one request of a section."""
    (code,) = blocks("javascript", section(title))
    (message,) = sent_in(code)
    return message


ANN = example(REQUESTS[0])["client_id"]
MARIA = example(BROADCASTS[0])["client_id"]
ROOM = example(REQUESTS[0])["room_id"]


def assert_like(got: Any, shown: Any) -> None:
    """`got` is what the example shows: the same kinds, and the same values but for times."""
    assert type(got) is type(shown), (got, shown)
    if isinstance(shown, dict):
        for name, value in shown.items():
            assert name in got, f"{name} is missing in {got}"
            assert_like(got[name], value)
    elif isinstance(shown, list):
        assert len(got) == len(shown)
        for one, other in zip(got, shown, strict=True):
            assert_like(one, other)
    elif isinstance(shown, str) and TIME.fullmatch(shown):
        assert TIME.fullmatch(got), got
    else:
        assert got == shown


def assert_answers(got: Message, shown: Message) -> None:
    """`got` is what the example shows, plus what PROTOCOL adds to it and nothing else."""
    assert_like(got, shown)
    assert got.keys() - shown.keys() == ADDED[got["type"]]


def moment(text: str) -> datetime.datetime:
    assert TIME.fullmatch(text)
    return datetime.datetime.fromisoformat(text)


@pytest.fixture
def guided(start: Starter, valkey: Valkey) -> Instance:
    """A server in whose Redis the guide's own rooms are nobody else's."""
    return start(valkey.url, SEATWS_REDIS__PREFIX=unique("guide"))


@contextlib.asynccontextmanager
async def connected(server: Instance, client_id: str) -> AsyncIterator[Client]:
    """A client at the guide's address: nothing before its first message, no extension needed."""
    async with Client.connect(server.url, client_id, compression=None) as client:
        yield client


async def answer_to(client: Client, message: Message) -> Message:
    """Send exactly this; the next message that comes is the answer."""
    seen = len(client.received)
    await client.send(**message)
    await client.until(lambda: len(client.received) > seen)
    return client.received[seen]


def test_no_json_example_of_the_guide_is_left_out() -> None:
    """The sections compared below hold all of the guide's JSON, and all parse."""
    compared = [example(title) for title in REQUESTS + BROADCASTS]
    assert compared == [json.loads(text) for text in blocks("json")]


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "order", [(0, 1, 2, 3, 4), (0, 2, 3, 4, 1)], ids=["in the guide's order", "inside the room"]
)
async def test_each_request_gets_the_answer_of_the_guide(
    guided: Instance, order: tuple[int, ...]
) -> None:
    """Sent as written, every request is answered as shown, whether the client is in the room."""
    async with connected(guided, ANN) as client:
        for number in order:
            title = REQUESTS[number]
            answer = await answer_to(client, request(title))
            assert_answers(answer, example(title))
            if answer["type"] == "room_joined":
                await client.until(lambda: client.received[-1]["type"] == "current_selections")


@pytest.mark.gen_test(timeout=60)
async def test_the_others_are_told_as_the_guide_shows(guided: Instance) -> None:
    """A viewer hears of another's seat with `user_info`, and of its release."""
    selected, released = example(BROADCASTS[0]), example(BROADCASTS[1])
    async with connected(guided, ANN) as ann, connected(guided, MARIA) as maria:
        await ann.send(**request(REQUESTS[0]))
        await ann.until(lambda: len(ann.received) == 2)
        fields = ("room_id", "seat_id", "user_info")
        wish = {name: selected[name] for name in fields}
        await maria.send(type="select_seat", **wish)
        await maria.send(
            type="release_seat", room_id=released["room_id"], seat_id=released["seat_id"]
        )
        await ann.until(lambda: len(ann.received) == 4)
        assert_answers(ann.received[2], selected)
        assert_answers(ann.received[3], released)
        assert [message["rev"] for message in ann.received[2:]] == [1, 2]
        assert ann.received[3]["reason"] == "released"


@pytest.mark.gen_test(timeout=60)
async def test_who_joins_gets_the_map_as_the_guide_shows(guided: Instance) -> None:
    """`current_selections` follows `room_joined`; six fields a hold, which lasts five minutes."""
    shown = example(BROADCASTS[2])
    (hold,) = shown["selections"]
    assert hold["room_id"] == ROOM
    async with connected(guided, hold["client_id"]) as maria, connected(guided, ANN) as ann:
        fields = ("room_id", "seat_id", "user_info")
        wish = {name: hold[name] for name in fields}
        selected = await answer_to(maria, {"type": "select_seat", **wish})
        await ann.send(**request(REQUESTS[0]))
        await ann.until(lambda: len(ann.received) == 2)
        answer = ann.received[1]
        assert_answers(answer, shown)
        (got,) = answer["selections"]
        assert got.keys() == hold.keys()
        lasts = moment(got["expires_at"]) - moment(got["timestamp"])
        assert lasts == moment(hold["expires_at"]) - moment(hold["timestamp"])
        assert lasts == datetime.timedelta(seconds=300)
        assert got["expires_at"] == selected["expires_at"]
        assert answer["room_id"] == ROOM
        assert answer["rev"] == selected["rev"]
        assert moment(got["timestamp"]) <= moment(answer["server_time"])


@pytest.mark.gen_test(timeout=60)
async def test_an_empty_room_gets_a_map_too(guided: Instance) -> None:
    """A client can tell an empty room from one whose map is still to come."""
    async with connected(guided, ANN) as ann:
        await ann.send(**request(REQUESTS[0]))
        await ann.until(lambda: len(ann.received) == 2)
        assert ann.received[1]["type"] == "current_selections"
        assert ann.received[1]["selections"] == []
        assert ann.received[1]["rev"] == 0


@pytest.mark.gen_test(timeout=60)
async def test_the_addresses_of_the_guide_answer(guided: Instance) -> None:
    """All that the guide asks by HTTP, in its list of endpoints and with curl, is there."""
    shown = example(BROADCASTS[2])["selections"][0]
    async with connected(guided, MARIA) as maria:
        fields = ("room_id", "seat_id", "user_info")
        await answer_to(maria, {"type": "select_seat"} | {name: shown[name] for name in fields})
        paths = re.findall(r"(?:GET|curl) http://localhost:8001(/\S+)", GUIDE)
        answers = {
            path: json_of(await fetch(guided.http + path.replace("{room_id}", ROOM)))
            for path in paths
        }
    assert answers.keys() == {"/health", "/stats", "/room/{room_id}/selections"}
    health = answers["/health"]
    assert health.pop("active_connections") == 1
    assert health == {
        "status": "healthy",
        "service": "websocket",
        "active_rooms": 0,
        "redis_connected": True,
    }
    selections = answers["/room/{room_id}/selections"]
    assert selections.keys() == {"room_id", "selections", "count"}
    assert (selections["room_id"], selections["count"]) == (ROOM, 1)
    assert_like(selections["selections"], [shown])
    assert selections["selections"][0].keys() == shown.keys()


@pytest.mark.gen_test(timeout=60)
async def test_the_test_page_of_the_guide_works(guided: Instance) -> None:
    """What the HTML test client sends, for any of its seats, gets the messages it waits for."""
    (page,) = blocks("html")
    join, select = sent_in(page, seatId="E10")
    async with connected(guided, "test_1705314600000") as client:
        await client.send(**join)
        await client.until(lambda: len(client.received) == 2)
        await answer_to(client, select)
        await answer_to(client, select | {"type": "release_seat"})
    waits_for = re.findall(r"case '(\w+)':", page)
    assert waits_for == ["room_joined", "seat_selected", "seat_released"]
    kinds = [message["type"] for message in client.received]
    assert kinds == ["room_joined", "current_selections", "seat_selected", "seat_released"]
    assert {message["room_id"] for message in client.received} == {join["room_id"]}
    assert client.received[2]["seat_id"] == "E10"


@pytest.mark.gen_test(timeout=60)
async def test_the_client_class_of_the_guide_works(guided: Instance) -> None:
    """Each message of the guide's JavaScript class is understood; all that it may omit is."""
    code = next(code for code in blocks("javascript") if "class SeatSelectionClient" in code)
    messages = sent_in(code, roomId=ROOM, currentRoom=ROOM, seatId="C7", userInfo={})
    kinds = ["join_room", "leave_room", "select_seat", "release_seat", "ping"]
    assert [message["type"] for message in messages] == kinds
    async with connected(guided, "user_1705314600000") as client:
        await client.send(**messages[0])
        await client.until(lambda: len(client.received) == 2)
        answers = [await answer_to(client, message) for message in messages[1:]]
    kinds = ["room_left", "seat_selected", "seat_released", "pong"]
    assert [answer["type"] for answer in answers] == kinds
