"""What a request is answered, given what became of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seatws.errors import ClientError, LimitReached, NotHolder, SeatTaken
from seatws.holds import Outcome
from seatws.messages import ReleaseSeat, SelectSeat, SelectSeats, encode
from seatws.rooms.answers import answers_to, error_of

ENDS = 1_705_314_900_000
ENDS_TEXT = "2024-01-15T10:35:00.000Z"
SELECT = SelectSeat(room_id="r", seat_id="A1", request_id="q1")
SELECT_ALL = SelectSeats(room_id="r", seat_ids=["A1", "A2"])
RELEASE = ReleaseSeat(room_id="r", seat_id="A1", request_id="q1")
SELECTED = {
    "type": "seat_selected",
    "seat_id": "A1",
    "room_id": "r",
    "client_id": "ann",
    "expires_at": ENDS_TEXT,
}
RELEASED = {
    "type": "seat_released",
    "seat_id": "A1",
    "room_id": "r",
    "client_id": "ann",
    "rev": 7,
    "reason": "released",
    "request_id": "q1",
}

REFUSED = {
    "taken": (Outcome("taken", [("A1", 0, ENDS), ("A2", 0, ENDS + 1)]), SeatTaken),
    "limit": (Outcome("limit"), LimitReached),
    "not holder": (Outcome("not_holder"), NotHolder),
}
DONE: dict[str, tuple[Any, Outcome, list[tuple[int, dict[str, Any]]]]] = {
    "a seat": (
        SELECT,
        Outcome("ok", [("A1", 7, ENDS)]),
        [(7, SELECTED | {"rev": 7, "request_id": "q1"})],
    ),
    "a seat of one's own": (
        SELECT,
        Outcome("ok", [("A1", 0, ENDS)]),
        [(0, SELECTED | {"request_id": "q1"})],
    ),
    "several, one of them one's own, without a request_id": (
        SELECT_ALL,
        Outcome("ok", [("A1", 0, ENDS), ("A2", 8, ENDS + 5)]),
        [
            (0, SELECTED),
            (8, SELECTED | {"seat_id": "A2", "rev": 8, "expires_at": "2024-01-15T10:35:00.005Z"}),
        ],
    ),
    "a release": (RELEASE, Outcome("ok", [("A1", 7, 0)]), [(7, RELEASED)]),
}


@pytest.mark.parametrize(("outcome", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_becomes_its_error(outcome: Outcome, kind: type[ClientError]) -> None:
    """Each code of the script is one error of the protocol."""
    assert type(error_of(outcome, 10)) is kind


def test_taken_seats_are_listed_with_their_ends() -> None:
    """So that a page can say when to try again."""
    error = error_of(REFUSED["taken"][0], 10)
    assert isinstance(error, SeatTaken)
    later = "2024-01-15T10:35:00.001Z"
    assert error.conflicts == [
        {"seat_id": "A1", "expires_at": ENDS_TEXT},
        {"seat_id": "A2", "expires_at": later},
    ]


def test_the_limit_is_told() -> None:
    """The text has the number that is configured."""
    assert "4 seats" in str(error_of(Outcome("limit"), 4))


def test_what_was_done_is_no_error() -> None:
    """Nor is what was done already."""
    assert error_of(Outcome("ok", [("A1", 0, ENDS)]), 10) is None


@pytest.mark.parametrize(("command", "outcome", "expected"), DONE.values(), ids=DONE.keys())
def test_a_request_that_was_done_is_answered_seat_by_seat(
    command: Any, outcome: Outcome, expected: list[tuple[int, dict[str, Any]]]
) -> None:
    """Each with the rev of its change, without `user_info`; no rev where nothing changed."""
    found = [
        (rev, json.loads(encode(message))) for rev, message in answers_to(command, "ann", outcome)
    ]
    assert found == expected
