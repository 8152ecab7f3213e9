"""What is no message is answered `invalid_message`, names the field, and touches nobody else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.harness import Client, Instance, Valkey, holders_in_redis, unique
from tests.raw import BINARY, CLOSE, RawSocket, deflated, frame
from tests.witness import watched_room

KIB_16 = 16_384
GONE: Any = object()
"""In a table: the field is left out."""


def of_size(size: int) -> str:
    """A ping with something unknown in it, so that it has so many bytes."""
    text = json.dumps({"type": "ping", "more": ""})
    return text.replace('""', f'"{"x" * (size - len(text))}"')


def user_info(value: str) -> str:
    """A request for a seat with this as its `user_info`, as it stands."""
    return f'{{"type": "select_seat", "room_id": "ROOM", "seat_id": "A1", "user_info": {value}}}'


NO_COMMANDS = {  # the frame, and what the answer's text names
    "nothing": ("", "JSON"),
    "no json": ("hello", "JSON"),
    "half a message": ('{"type": "ping"', "JSON"),
    "two messages": ('{"type": "ping"} {"type": "ping"}', "JSON"),
    "an array": ('[{"type": "ping"}]', "object"),
    "a string": ('"ping"', "object"),
    "a number": ("1e999", "object"),
    "null": ("null", "object"),
    "half a surrogate": (r'{"type": "ping", "request_id": "\ud800"}', "JSON"),
    "a byte order mark": ('\ufeff{"type": "ping"}', "JSON"),
    "no type": ('{"room_id": "ROOM"}', "type"),
    "an unknown type": ('{"type": "sing"}', "type"),
    "a type of the server": ('{"type": "seat_selected"}', "type"),
    "a type that is none": ('{"type": {"type": "ping"}}', "type"),
    "two types": ('{"type": "ping", "type": "sing"}', "type"),
    # How deep is too deep depends on the Python: it is "too deep" or "not JSON".
    "deep lists": ("[" * 16_000, ""),
    "deep objects": ('{"a":' * 3_000, ""),
    "deep in an unknown field": (f'{{"type": "ping", "x": {"[" * 8_000}', ""),
    "user_info a list": (user_info("[]"), "user_info"),
    "user_info a string": (user_info('"Ann"'), "user_info"),
    "user_info null": (user_info("null"), "user_info"),
    "user_info of 1,025 bytes": (user_info(json.dumps({"a": "x" * 1_017})), "user_info"),
    "user_info with a nul": (user_info(r'{"a": "\u0000"}'), "user_info"),
    "user_info with an escape code": (user_info(r'{"a": ["\u001b[2J"]}'), "user_info"),
    "user_info with a delete": (user_info('{"a": {"b": "\x7f"}}'), "user_info"),
    "user_info with a c1 control": (user_info('{"a\u0085": 1}'), "user_info"),
    "user_info with a number too large": (user_info('{"a": 1e999}'), "user_info"),
    "user_info deep": (user_info(f'{{"a": {"[" * 6_000}{"]" * 6_000}}}'), ""),
}

LONG, ODD = "x" * 65, "a b"
WRONG_IDS = [GONE, None, 7, "", LONG, ODD, "é", "{x}", "a/b", "a\n", ["a"], {"a": "b"}]
WRONG_SEATS = [*WRONG_IDS, "x" * 33]
WRONG_GROUPS = [GONE, None, "A1", {}, [], [7], [None], ["A1", "A1"], ["a b"], ["x" * 33]]
WRONG_REQUEST_IDS = [7, LONG, ["a"], True]
WRONG_FIELDS = [
    (kind, field, value)
    for kind, fields in {
        "join_room": {"room_id": WRONG_IDS, "request_id": WRONG_REQUEST_IDS},
        "leave_room": {"room_id": WRONG_IDS, "request_id": WRONG_REQUEST_IDS},
        "select_seat": {"room_id": WRONG_IDS, "seat_id": WRONG_SEATS},
        "select_seats": {"room_id": WRONG_IDS, "seat_ids": WRONG_GROUPS},
        "release_seat": {"room_id": WRONG_IDS, "seat_id": WRONG_SEATS},
        "ping": {"request_id": WRONG_REQUEST_IDS},
    }.items()
    for field, values in fields.items()
    for value in values
]


def with_wrong(kind: str, field: str, value: object, room: str) -> dict[str, Any]:
    """A request that is right but for one field."""
    fields = {"room_id": room, "seat_id": "A1", "seat_ids": ["A1"], "request_id": "q"}
    message: dict[str, Any] = {"type": kind, **fields, field: value}
    if value is GONE:
        del message[field]
    return message


async def refusal_of(client: Client, text: str | bytes) -> dict[str, Any]:
    """The next thing that comes after a frame; an `invalid_message`."""
    seen = len(client.received)
    await client.socket.send(text)
    await client.until(lambda: len(client.received) > seen)
    answer = client.received[seen]
    assert (answer["type"], answer["code"]) == ("error", "invalid_message"), answer
    assert answer["retryable"] is False
    return answer


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("case", NO_COMMANDS)
async def test_what_is_no_command_is_refused(server: Instance, valkey: Valkey, case: str) -> None:
    """`invalid_message` that names what is wrong; the connection stays, and nothing happens."""
    text, names = NO_COMMANDS[case]
    async with watched_room(server) as room, Client.connect(server.url) as client:
        await client.join(room)
        answer = await refusal_of(client, text.replace("ROOM", room))
        assert names in answer["message"]
        assert (await client.ask(type="ping"))["type"] == "pong"
        assert set(holders_in_redis(valkey, room)) == {"W1"}


@pytest.mark.gen_test(timeout=60)
async def test_each_field_of_each_command_is_checked(server: Instance, valkey: Valkey) -> None:
    """Missing, of the wrong type, too long or of other characters: the answer names the field."""
    async with watched_room(server) as room, Client.connect(server.url) as client:
        for kind, field, value in WRONG_FIELDS:
            message = with_wrong(kind, field, value, room)
            answer = await refusal_of(client, json.dumps(message))
            assert answer["message"].startswith(f"{field}: "), (message, answer)
            assert answer["request"] == kind
            known = {"room_id": room, "request_id": "q"} | (
                {"seat_id": "A1"} if message.get("seat_id") == "A1" else {}
            )
            known.pop(field, None)
            shown = {name: answer.get(name) for name in known}
            assert shown == known, "what is known of the request comes back"
            assert (await client.ask(type="ping"))["type"] == "pong"
        assert set(holders_in_redis(valkey, room)) == {"W1"}


@pytest.mark.gen_test(timeout=60)
async def test_a_refusal_repeats_nothing_of_what_was_wrong(server: Instance) -> None:
    """What one client sends another may be shown in a log or a page: it is not echoed."""
    async with Client.connect(server.url) as client:
        evil = "<script>"
        for message in (
            {"type": evil * 20},
            {"type": "join_room", "room_id": evil},
            {"type": "select_seat", "room_id": "r", "seat_id": evil},
            {"type": "select_seats", "room_id": "r", "seat_ids": [evil]},
            {"type": "ping", "request_id": evil * 20},
        ):
            assert evil not in json.dumps(await refusal_of(client, json.dumps(message)))


@pytest.mark.gen_test(timeout=60)
async def test_what_is_just_allowed_is_taken(server: Instance) -> None:
    """The longest ids and `user_info`, all of their characters, and unknown fields."""
    room, seat = unique("A.z_0:9@-").ljust(64, "r"), "A.z_0:9@-".ljust(32, "s")
    wide = {"a": "x" * 1_016}
    assert len(json.dumps(wide, separators=(",", ":"))) == 1_024
    async with Client.connect(server.url, unique("A.z:@-").ljust(64, "c")) as client:
        await client.join(room)
        answer = await client.select(room, seat, user_info=wide, more=[{}], x=10**30)
        assert answer["type"] == "seat_selected"
        answer = await client.select(room, "B", user_info={"name": "Ñandú 🎬", "n": 10**40})
        assert answer["type"] == "seat_selected"
        async with Client.connect(server.url) as other:
            holds = (await other.join(room))["selections"]
    assert [hold["user_info"] for hold in holds] == [wide, {"name": "Ñandú 🎬", "n": 10**40}]


@pytest.mark.gen_test(timeout=60)
async def test_a_binary_frame_is_refused(server: Instance) -> None:
    """Even if a message is in it: messages are text."""
    async with watched_room(server) as room, Client.connect(server.url) as client:
        await client.join(room)
        message = json.dumps({"type": "select_seat", "room_id": room, "seat_id": "A1"})
        answer = await refusal_of(client, message.encode())
        assert "binary" in answer["message"]


@pytest.mark.gen_test(timeout=60)
async def test_twenty_bad_frames_in_a_row_are_too_many(server: Instance) -> None:
    """19 are answered; the 20th is closed with 4400, after a `goodbye` that says so."""
    async with watched_room(server) as room, RawSocket.connect(server) as raw:
        await raw.join(room)
        bad = [frame(text.replace("ROOM", room)) for text, _ in NO_COMMANDS.values()]
        await raw.send(*bad[:18], frame(b"\x00", BINARY), bad[18])
        end = await raw.end()
    assert end.code == 4400
    goodbye = end.goodbye
    assert [message["code"] for message in end.messages[:-1]] == ["invalid_message"] * 19
    assert (goodbye["code"], goodbye["reconnect"]) == (4400, False)
    assert goodbye.keys() == {"type", "code", "reason", "reconnect", "retry_after_ms"}


@pytest.mark.gen_test(timeout=60)
async def test_a_good_frame_forgives_the_bad_ones(server: Instance) -> None:
    """It is 20 in a row: after 19 and a good one there may be 19 more. A refusal is good, too."""
    async with RawSocket.connect(server) as raw:
        nineteen = [frame("bad")] * 19
        release = frame('{"type": "release_seat", "room_id": "r", "seat_id": "none"}')
        await raw.send(*nineteen, frame('{"type": "ping"}'), *nineteen, release, *nineteen)
        await raw.send(frame('{"type": "ping"}'))
        heard = [await raw.message() for _ in range(60)]
    kinds = [message.get("code", message["type"]) for message in heard]
    assert kinds.count("invalid_message") == 57
    assert kinds.count("pong") == 2
    assert kinds.count("not_holder") == 1


@pytest.mark.gen_test(timeout=60)
async def test_sixteen_kibibytes_are_not_too_much(server: Instance) -> None:
    """A frame of exactly 16,384 bytes is read; so is one in fragments, and one that inflates."""
    text = of_size(KIB_16)
    assert len(text.encode()) == KIB_16
    offer = "permessage-deflate"
    async with RawSocket.connect(server, Sec_WebSocket_Extensions=offer) as raw:
        await raw.send(frame(text))
        await raw.send(frame(text[:9_000], fin=False), frame(text[9_000:], 0))
        await raw.send(frame(deflated(text), rsv1=True))
        for _ in range(3):
            assert (await raw.message())["type"] == "pong"
        await raw.send(frame(b"", CLOSE))
        assert (await raw.end()).messages == []


def peak_mib(server: Instance) -> float:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


@pytest.mark.gen_test(timeout=60)
async def test_bad_input_leaves_nothing_behind(start: Starter, valkey: Valkey) -> None:
    """After thousands of bad frames the process is as large as after some, and was never larger."""
    server = start(valkey.url)
    texts = [text for text, _ in NO_COMMANDS.values()]
    texts += [json.dumps(with_wrong(*wrong, "r")) for wrong in WRONG_FIELDS if wrong[2] is not GONE]
    bad = [frame(b"", BINARY), *map(frame, texts)]
    good = frame('{"type": "ping"}')
    frames = b"".join(one + good for one in bad)
    async with Client.connect(server.url) as witness:
        for turn in range(24):
            if turn == 4:
                before = peak_mib(server)
            async with RawSocket.connect(server) as raw:
                await raw.send(frames, frame(b"", CLOSE))
                assert len((await raw.end()).messages) == 2 * len(bad)
        assert (await witness.ask(type="ping"))["type"] == "pong"
    assert peak_mib(server) < before + 3
