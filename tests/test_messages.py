"""Every frame of the protocol, read and written: PROTOCOL sections 1 to 4."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatws import messages
from seatws.errors import BadMessage, LimitReached, NotHolder, RateLimited, SeatTaken, StoreError
from seatws.messages import (
    CurrentSelections,
    Error,
    Goodbye,
    Message,
    Pong,
    PutHold,
    RoomJoined,
    RoomLeft,
    SeatReleased,
    SeatSelected,
    Selection,
    SelectSeat,
    SelectSeats,
    Unreadable,
    decode,
    decode_put,
    encode,
    has_repeats,
    refusal,
    rfc3339,
    type_of,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMIT = 1024
TIME = "2024-01-15T10:30:00.000Z"

# A legal value for each field, and each command with what it can't do without.
FIELDS: dict[str, Any] = {
    "room_id": "funcion_123",
    "seat_id": "A1",
    "seat_ids": ["A1", "A2"],
    "user_info": {"name": "Ann"},
    "request_id": "q1",
}
COMMANDS = {
    "join_room": ["room_id"],
    "leave_room": ["room_id"],
    "select_seat": ["room_id", "seat_id"],
    "select_seats": ["room_id", "seat_ids"],
    "release_seat": ["room_id", "seat_id"],
    "ping": [],
}
ID_RULE = "of A-Z a-z 0-9 . _ : @ -"
USER_INFO_COMMANDS = ["select_seat", "select_seats"]


def frame_of(kind: str, **fields: Any) -> str:
    """A frame with all that it needs, and with these fields."""
    needed = {name: FIELDS[name] for name in COMMANDS.get(kind, ["room_id", "seat_id"])}
    return json.dumps({"type": kind} | needed | fields)


def refused(frame: str | bytes, limit: int = LIMIT) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        decode(frame, limit)
    return caught.value


def with_user_info(text: str) -> str:
    """A frame with a `user_info` that is written as it stands here."""
    return frame_of("select_seat", user_info="HERE").replace('"HERE"', text)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_is_read_as_it_is_written(kind: str) -> None:
    """With all its fields, or with those it needs; what is unknown is ignored."""
    needed = {name: FIELDS[name] for name in COMMANDS[kind]}
    bare = decode(frame_of(kind), LIMIT)
    assert type_of(bare) == kind
    assert bare.request_id is None
    full = decode(frame_of(kind, request_id="q1", later="whatever", user_id=5), LIMIT)
    assert full.request_id == "q1"
    assert {name: getattr(full, name) for name in needed} == needed


@pytest.mark.parametrize("kind", USER_INFO_COMMANDS)
def test_user_info_may_be_left_out(kind: str) -> None:
    """It is `{}` then."""
    command = decode(frame_of(kind), LIMIT)
    assert isinstance(command, SelectSeat | SelectSeats)
    assert bytes(command.user_info) == b"{}"


@pytest.mark.parametrize(
    ("kind", "missing"), [(kind, name) for kind, names in COMMANDS.items() for name in names]
)
def test_a_missing_field_is_named(kind: str, missing: str) -> None:
    """And the answer has the request's type and its other ids."""
    fields = json.loads(frame_of(kind, request_id="q1"))
    del fields[missing]
    error = refused(json.dumps(fields))
    assert str(error) == f"{missing}: missing"
    assert error.request == kind
    ids = {"room_id", "seat_id", "request_id"} & fields.keys()
    assert error.facts() == {name: FIELDS[name] for name in ids}


WRONG: dict[str, list[Any]] = {
    "room_id": ["", "a" * 65, "a b", "a\n", "sala/1", "ñ", "a\x00", 5, None, ["a"], {"a": 1}, True],
    "seat_id": ["", "a" * 33, "a b", "A1\n", "A,1", "é", 5, None, ["a"]],
    "seat_ids": [[], ["A1", "A 2"], ["A1", 2], [f"S{n}" for n in range(51)], "A1", {}, None, [[]]],
    "request_id": ["q" * 65, 5, {}, [], False],
    "user_info": ["Ann", 5, None, [], True],
}
ALLOWED: dict[str, list[Any]] = {
    "room_id": ["a", "a" * 64, "AZaz09._:@-", "user@example.com"],
    "seat_id": ["a", "a" * 32, "AZaz09._:@-"],
    "seat_ids": [["A1"], [f"S{n}" for n in range(50)]],
    "request_id": ["", "q" * 64, "\U0001f600" * 64, "a b\n", None],
    "user_info": [{}, {"a": {"b": [1, 2.5, None, True, "ñ\u2028\U0001f600"]}}],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_value_outside_its_rule_is_named_and_not_repeated(field: str, value: Any) -> None:
    """The answer has the other ids, not the wrong one."""
    kind = "select_seats" if field == "seat_ids" else "select_seat"
    error = refused(frame_of(kind, **{field: value}))
    assert str(error).startswith(f"{field}: must ")
    assert error.request == kind
    assert field not in error.facts()
    assert ("room_id" in error.facts()) == (field != "room_id")


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in ALLOWED.items() for value in values]
)
def test_a_value_at_the_end_of_its_rule_is_taken(field: str, value: Any) -> None:
    """Both ends count."""
    kind = "select_seats" if field == "seat_ids" else "select_seat"
    command = decode(frame_of(kind, **{field: value}), LIMIT)
    found = getattr(command, field)
    assert (json.loads(bytes(found)) if field == "user_info" else found) == value


def test_the_rule_is_told() -> None:
    """So that a client is mended from the error alone."""
    fields = ("room_id", "seat_id", "request_id", "user_info")
    texts = {field: str(refused(frame_of("select_seat", **{field: 5}))) for field in fields}
    assert texts["room_id"] == f"room_id: must be 1 to 64 {ID_RULE}"
    assert texts["seat_id"] == f"seat_id: must be 1 to 32 {ID_RULE}"
    assert texts["request_id"] == "request_id: must be a string of at most 64 characters"
    assert texts["user_info"] == "user_info: must be a JSON object"
    seats = str(refused(frame_of("select_seats", seat_ids=[])))
    assert seats == f"seat_ids: must be a list of 1 to 50 seats, each 1 to 32 {ID_RULE}"


def test_a_seat_twice_in_a_list_is_refused() -> None:
    """`seat_ids` with a repeat is `invalid_message`."""
    assert str(refused(frame_of("select_seats", seat_ids=["A1", "A2", "A1"]))).startswith(
        "seat_ids: "
    )
    assert has_repeats(["A1", "A1"])
    assert not has_repeats(["A1", "a1"])


NO_MESSAGES = {
    "nothing": "",
    "a space": " ",
    "no JSON": "hello",
    "half an object": '{"type": "ping"',
    "more than an object": '{"type": "ping"}{}',
    "a list": "[]",
    "a list with a command": '[{"type": "ping"}]',
    "a string": '"ping"',
    "a number": "1",
    "null": "null",
    "NaN": with_user_info('{"a": NaN}'),
    "half a surrogate pair": '{"type": "ping", "request_id": "\\ud800"}',
    "half a surrogate pair, bare": '{"type": "ping", "request_id": "\ud800"}',
    "a control character, bare": '{"type": "join_room", "room_id": "a\n"}',
    "not UTF-8": b'{"type": "ping", "request_id": "\xff"}',
    "a byte order mark": '\ufeff{"type": "ping"}',
    "lists in lists": "[" * 16_000,
    "lists in a field": '{"type": "ping", "x": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "lists in a user_info": with_user_info('{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"),
}


@pytest.mark.parametrize("frame", NO_MESSAGES.values(), ids=NO_MESSAGES.keys())
def test_what_is_no_json_object_is_no_message(frame: str | bytes) -> None:
    """Nothing of it is known, and the text says what is wrong with it."""
    error = refused(frame)
    assert str(error) in {"not valid JSON", "a message must be a JSON object", "nested too deeply"}
    assert (error.request, error.facts()) == (None, {})


@pytest.mark.parametrize(
    ("kind", "request_type"), [("sit_down", "sit_down"), (5, None), (None, None), ("x" * 33, None)]
)
def test_an_unknown_type_is_refused(kind: Any, request_type: str | None) -> None:
    """It comes back in the answer as far as it can be one."""
    error = refused(json.dumps({"type": kind, "room_id": "r", "seat_id": "?", "request_id": "q"}))
    assert str(error).startswith(f"type: must be one of {', '.join(COMMANDS)}")
    assert error.request == request_type
    assert error.facts() == {"room_id": "r", "request_id": "q"}


def test_a_message_without_a_type_is_refused() -> None:
    """It is told what is missing."""
    assert str(refused("{}")) == "type: missing"


@pytest.mark.parametrize("kind", ["field `hack`", "at `$.hack`", "<b>hack</b>"])
def test_nothing_that_was_sent_comes_back_in_the_text(kind: str) -> None:
    """A page may show the text: it is the server's own, whatever a client writes."""
    assert str(refused(json.dumps({"type": kind}))).startswith("type: must be one of ")


@unhurried
@given(
    st.one_of(
        st.text(),
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda one: (
                st.lists(one) | st.dictionaries(st.sampled_from(["type", *FIELDS]) | st.text(), one)
            ),
        ).map(json.dumps),
    )
)
def test_whatever_comes_is_a_command_or_unreadable(frame: str | bytes) -> None:
    """Nothing else is ever raised, and the refusal can be sent."""
    try:
        decode(frame, LIMIT)
    except Unreadable as error:
        sent = json.loads(encode(refusal(error, request=error.request)))
        assert sent["code"] == "invalid_message"
        assert sent["message"]


# ---------------------------------------------------------------- user_info


def test_user_info_is_kept_as_compact_json_in_its_order() -> None:
    """It is stored and sent as text: no space in it, nothing added."""
    command = decode(
        with_user_info('{ "b" : 1.50 , "a" : [ "\\u00f1" , 123456789012345678901 ] }'), LIMIT
    )
    assert isinstance(command, SelectSeat)
    assert bytes(command.user_info).decode() == '{"b":1.5,"a":["ñ",123456789012345678901]}'


def test_user_info_is_measured_in_bytes_as_it_is_kept() -> None:
    """Spaces don't count, letters beyond ASCII count as the bytes that they are."""
    fits = json.dumps({"n": "ñ" * 508}, ensure_ascii=False).replace(" ", "     ")
    command = decode(with_user_info(fits), LIMIT)
    assert isinstance(command, SelectSeat)
    assert len(bytes(command.user_info)) == LIMIT
    error = refused(with_user_info(fits.replace("ñ", "ññ", 1)))
    assert str(error) == "user_info: must be at most 1024 bytes, is 1026"
    decode(with_user_info(fits.replace("ñ", "ñ" * 1000, 1)), 0)  # 0: no limit


@pytest.mark.parametrize(
    "char", ["\\u0000", "\\n", "\\u001f", "\x7f", "\\u007f", "\x80", "\\u009f"]
)
@pytest.mark.parametrize("shape", ['{"a": "x%s"}', '{"x%s": 1}', '{"a": [{"b": ["%s"]}]}'])
def test_user_info_holds_no_control_characters(shape: str, char: str) -> None:
    """Neither in a key nor in a value, however deep and however written."""
    assert (
        str(refused(with_user_info(shape % char))) == "user_info: must not hold control characters"
    )


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 5000], ids=["inf", "-inf", "digits"])
def test_a_number_that_is_none_is_the_fault_of_user_info(number: str) -> None:
    """A value outside its rule is refused by its name, and the answer has the `request_id`."""
    error = refused(
        with_user_info(f'{{"a": {number}}}').replace('"type"', '"request_id": "q1", "type"')
    )
    assert str(error).startswith("user_info: ")
    assert error.facts().get("request_id") == "q1"


@unhurried
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
        lambda one: (
            st.lists(one, max_size=3)
            | st.dictionaries(
                st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])), one, max_size=3
            )
        ),
    )
)
def test_any_json_without_control_characters_comes_through(value: Any) -> None:
    """What a visitor says of itself arrives as it was said."""
    command = decode(with_user_info(json.dumps({"x": value})), 0)
    assert isinstance(command, SelectSeat)
    assert json.loads(bytes(command.user_info)) == {"x": value}


PUTS = {
    "no JSON": (b"", "not valid JSON"),
    "a list": (b"[]", "a message must be a JSON object"),
    "an illegal client": (b'{"client_id": "a b"}', f"client_id: must be 1 to 64 {ID_RULE}"),
    "no object": (b'{"client_id": "a", "user_info": 1}', "user_info: must be a JSON object"),
    "not UTF-8": (b'{"client_id": "a", "user_info": {"x": "\xff"}}', "not valid JSON"),
}


@pytest.mark.parametrize(("body", "text"), PUTS.values(), ids=PUTS.keys())
def test_the_body_of_a_put_keeps_the_same_rules(body: bytes, text: str) -> None:
    """Everything behind the socket goes for HTTP too."""
    with pytest.raises(BadMessage) as caught:
        decode_put(body, LIMIT)
    assert str(caught.value) == text


def test_the_body_of_a_put_is_read() -> None:
    """`user_info` may be left out."""
    assert decode_put(b'{"client_id": "ann", "x": 1}', LIMIT) == PutHold(client_id="ann")
    put = decode_put(b'{"client_id": "ann", "user_info": {"a": 1}}', LIMIT)
    assert bytes(put.user_info) == b'{"a":1}'


# ---------------------------------------------------------------- writing

SELECTION = {
    "client_id": "ann",
    "seat_id": "A1",
    "room_id": "r",
    "user_info": {"name": "Ann"},
    "timestamp": TIME,
    "expires_at": TIME,
}
ANN = msgspec.Raw(b'{"name":"Ann"}')
WRITTEN: list[tuple[Message, dict[str, Any]]] = [
    (
        RoomJoined(room_id="r", client_id="ann"),
        {"type": "room_joined", "room_id": "r", "client_id": "ann"},
    ),
    (
        RoomLeft(room_id="r", client_id="ann", request_id="q"),
        {"type": "room_left", "room_id": "r", "client_id": "ann", "request_id": "q"},
    ),
    (
        CurrentSelections(
            room_id="r",
            selections=[Selection("ann", "A1", "r", ANN, TIME, TIME)],
            rev=3,
            server_time=TIME,
        ),
        {
            "type": "current_selections",
            "room_id": "r",
            "selections": [SELECTION],
            "rev": 3,
            "server_time": TIME,
        },
    ),
    (
        SeatSelected(seat_id="A1", room_id="r", client_id="ann", expires_at=TIME),
        {
            "type": "seat_selected",
            "seat_id": "A1",
            "room_id": "r",
            "client_id": "ann",
            "expires_at": TIME,
        },
    ),
    (
        SeatReleased(seat_id="A1", room_id="r", client_id="ann", rev=4, reason="expired"),
        {
            "type": "seat_released",
            "seat_id": "A1",
            "room_id": "r",
            "client_id": "ann",
            "rev": 4,
            "reason": "expired",
        },
    ),
    (Pong(timestamp=TIME), {"type": "pong", "timestamp": TIME}),
    (
        Goodbye(code=4400, reason="no", reconnect=False, retry_after_ms=0),
        {"type": "goodbye", "code": 4400, "reason": "no", "reconnect": False, "retry_after_ms": 0},
    ),
    (
        Error(code="forbidden", message="no", request=None, retryable=False),
        {
            "type": "error",
            "code": "forbidden",
            "message": "no",
            "request": None,
            "retryable": False,
        },
    ),
]


@pytest.mark.parametrize(
    ("message", "expected"), WRITTEN, ids=[fields["type"] for _, fields in WRITTEN]
)
def test_a_message_is_written_with_exactly_its_fields(
    message: Message, expected: dict[str, Any]
) -> None:
    """`type` first; what does not apply is left out, what is false or 0 is not."""
    assert list(json.loads(encode(message)).items()) == list(expected.items())


CONFLICTS = [{"seat_id": "A1", "expires_at": TIME}]
REFUSALS = [
    (NotHolder(), {"code": "not_holder", "retryable": False}),
    (SeatTaken(CONFLICTS), {"code": "seat_taken", "conflicts": CONFLICTS, "retryable": False}),
    (LimitReached("at most 1"), {"code": "limit_reached", "retryable": False}),
    (RateLimited(7), {"code": "rate_limited", "retryable": True, "retry_after_ms": 7}),
    (StoreError("away"), {"code": "store_unavailable", "retryable": True}),
]


@pytest.mark.parametrize(
    ("error", "expected"), REFUSALS, ids=[str(fields["code"]) for _, fields in REFUSALS]
)
def test_a_refusal_says_what_is_known(error: Any, expected: dict[str, Any]) -> None:
    """The ids of the request and the facts of the error; no field for what is not known."""
    sent = json.loads(encode(refusal(error, request="select_seat")))
    always = {"type": "error", "message": str(error), "request": "select_seat"}
    assert sent == always | expected
    ids = {"room_id": "r", "seat_id": "A1", "request_id": "q1"}
    assert json.loads(encode(refusal(error, request="select_seat", **ids))) == sent | ids


TIMES = [
    (0, "1970-01-01T00:00:00.000Z"),
    (1, "1970-01-01T00:00:00.001Z"),
    (1_705_314_600_000, TIME),
    (1_705_314_600_999, "2024-01-15T10:30:00.999Z"),
    (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
    (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
]


@pytest.mark.parametrize(("unix_ms", "text"), TIMES, ids=[text for _, text in TIMES])
def test_times_are_utc_to_the_millisecond(unix_ms: int, text: str) -> None:
    """RFC 3339 with `Z`, always three digits."""
    assert rfc3339(unix_ms) == text


def test_every_message_is_of_the_protocol() -> None:
    """A new type needs a new line there, and here."""

    def leaves(kind: type[Message]) -> list[type[Message]]:
        below = kind.__subclasses__()
        return [leaf for one in below for leaf in leaves(one)] if below else [kind]

    kinds = [kind for kind in leaves(Message) if kind.__module__ == messages.__name__]
    known = {*COMMANDS, *(fields["type"] for _, fields in WRITTEN)}
    tags = {str(kind.__struct_config__.tag) for kind in kinds}
    assert tags - {"auth", "auth_ok", "auth_expiring"} == known  # those have tests of their own
