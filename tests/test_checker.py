"""The checker finds nothing in a good history, and every kind of broken promise by its name."""

from __future__ import annotations

import typing

import pytest

from tests.checker import Entry, Message, Rule, check

ANN, BOB, EVE = 1, 2, 3
NAMES = {ANN: "ann", BOB: "bob", EVE: "eve"}
LOST_AT = "2024-01-15T10:30:00.000Z"
"""When the room's data was lost, in the histories in which it was."""


def ends(seat: str, who: int) -> str:
    """When a hold ends: here each has a moment of its own."""
    return f"2024-01-15T10:35:00.{ord(seat[0]):02}{who}Z"


def asked(who: int, request: str, *seats: str) -> Entry:
    """A request; its id is made of what it says."""
    ids: Message = {"seat_ids": list(seats)} if request == "select_seats" else {"seat_id": seats[0]}
    request_id = f"{request} {seats[0]}"
    message = {"type": request, "room_id": "r", "request_id": request_id} | ids
    return Entry(who, NAMES[who], "asked", message)


def told(who: int, kind: str, **fields: object) -> Entry:
    """A message of the room."""
    return Entry(who, NAMES[who], "told", {"type": kind, "room_id": "r"} | fields)


def whole(who: int, rev: int, *, after_loss: bool = False, **holders: int) -> Entry:
    """A map: `whole(ANN, 3, A=BOB)`."""
    selections = [
        {"seat_id": seat, "client_id": NAMES[holder], "expires_at": ends(seat, holder)}
        for seat, holder in holders.items()
    ]
    at = "2024-01-15T10:30:01.000Z" if after_loss else "2024-01-15T10:29:59.000Z"
    return told(who, "current_selections", rev=rev, server_time=at, selections=selections)


def selected(who: int, rev: int | None, seat: str, by: int, answers: str = "") -> Entry:
    """A selection, as an event or as the answer to a request of that id."""
    fields: Message = {"seat_id": seat, "client_id": NAMES[by], "expires_at": ends(seat, by)}
    return told(who, "seat_selected", **fields, **_known(rev=rev, request_id=answers or None))


def released(who: int, rev: int | None, seat: str, by: int, answers: str = "") -> Entry:
    """A release, as an event or as the answer to a request of that id."""
    fields: Message = {"seat_id": seat, "client_id": NAMES[by], "reason": "released"}
    return told(who, "seat_released", **fields, **_known(rev=rev, request_id=answers or None))


def _known(**fields: object) -> Message:
    return {name: value for name, value in fields.items() if value is not None}


def refused(who: int, code: str, request: str, seat: str, by: int = 0) -> Entry:
    """An error; with `by` the holder in the way."""
    conflicts = [{"seat_id": seat, "expires_at": ends(seat, by)}]
    return told(who, "error", code=code, request_id=f"{request} {seat}", conflicts=conflicts)


def closed(who: int) -> Entry:
    return Entry(who, NAMES[who], "closed", {})


def rules(
    history: list[Entry], redis: dict[str, int], *, lost: bool = False, is_rollback: bool = False
) -> set[str]:
    """The rules that were broken."""
    holders = {seat: NAMES[who] for seat, who in redis.items()}
    lives = [LOST_AT] if lost else []
    return {found.rule for found in check(history, "r", holders, lives, is_rollback=is_rollback)}


JOINED = [whole(ANN, 0), whole(BOB, 0)]
"""Two viewers of a room that is new."""
ANN_HAS_A = [
    *JOINED,
    asked(ANN, "select_seat", "A"),
    selected(ANN, 1, "A", ANN, answers="select_seat A"),
    selected(BOB, 1, "A", ANN),
]
"""Ann selects a seat, Bob hears of it."""
ANN_HAD_A = [
    *ANN_HAS_A,
    asked(ANN, "release_seat", "A"),
    released(ANN, 2, "A", ANN, answers="release_seat A"),
    released(BOB, 2, "A", ANN),
]
"""She also gives it back."""
BOB_ASKS_FOR_A = asked(BOB, "select_seat", "A")
BOB_GETS_A = [selected(BOB, 3, "A", BOB, answers="select_seat A"), selected(ANN, 3, "A", BOB)]


@pytest.mark.parametrize(
    ("history", "redis"),
    [
        pytest.param([*ANN_HAD_A, BOB_ASKS_FOR_A, *BOB_GETS_A], {"A": BOB}, id="one after another"),
        pytest.param(
            [*ANN_HAS_A, BOB_ASKS_FOR_A, refused(BOB, "seat_taken", "select_seat", "A", ANN)],
            {"A": ANN},
            id="refused for the holder",
        ),
        pytest.param(
            [BOB_ASKS_FOR_A, *ANN_HAD_A, refused(BOB, "seat_taken", "select_seat", "A", ANN)],
            {},
            id="refused for a hold that ended meanwhile",
        ),
        pytest.param(
            [*ANN_HAS_A, whole(EVE, 1, A=ANN), released(EVE, 2, "A", ANN), *ANN_HAD_A[5:]],
            {},
            id="joined in the middle",
        ),
        pytest.param(
            [
                *ANN_HAS_A,
                asked(EVE, "select_seat", "B"),
                whole(BOB, 2, A=ANN, B=EVE),
                selected(ANN, 2, "B", EVE),
                selected(EVE, 2, "B", EVE, answers="select_seat B"),
            ],
            {"A": ANN, "B": EVE},
            id="answered outside the room",
        ),
        pytest.param(
            [
                *JOINED,
                asked(ANN, "select_seats", "A", "B"),
                selected(BOB, 1, "A", ANN),
                selected(ANN, 1, "A", ANN, answers="select_seats A"),
                selected(BOB, 2, "B", ANN),
                selected(ANN, 2, "B", ANN, answers="select_seats A"),
            ],
            {"A": ANN, "B": ANN},
            id="a group",
        ),
        pytest.param(
            [
                *ANN_HAS_A,
                asked(ANN, "release_seat", "A"),
                whole(BOB, 2),
                whole(ANN, 2),
                refused(ANN, "store_unavailable", "release_seat", "A"),
            ],
            {},
            id="done without an answer",
        ),
        pytest.param(
            [*ANN_HAS_A, asked(ANN, "release_seat", "A"), closed(ANN)], {"A": ANN}, id="cut off"
        ),
    ],
)
def test_a_good_history_passes(history: list[Entry], redis: dict[str, int]) -> None:
    """What the protocol allows is not blamed."""
    assert rules(history, redis) == set()


def test_data_may_be_lost_when_that_is_said() -> None:
    """After a loss revs begin anew, and a viewer that is sent the new map has lost no hold."""
    history = [
        *ANN_HAS_A,
        whole(ANN, 0, after_loss=True),
        whole(BOB, 0, after_loss=True),
        BOB_ASKS_FOR_A,
        selected(BOB, 1, "A", BOB, answers="select_seat A"),
        selected(ANN, 1, "A", BOB),
    ]
    assert rules(history, {"A": BOB}, lost=True) == set()
    assert {"went_back", "disagreement"} <= rules(history, {"A": BOB})


def test_the_latest_changes_may_be_lost_when_that_is_said() -> None:
    """A hold whose end was lost is back; one that never was, or is another's, is blamed."""

    def after(holder: int) -> list[Entry]:
        maps = [whole(who, 1, after_loss=True, A=holder) for who in (ANN, BOB)]
        return [*ANN_HAD_A, *maps]

    assert rules(after(ANN), {"A": ANN}, lost=True, is_rollback=True) == set()
    assert rules(after(ANN), {"A": ANN}, lost=True) == {"changed_unasked"}
    assert rules(after(ANN), {"A": ANN}) >= {"went_back"}
    assert rules(after(EVE), {"A": EVE}, lost=True, is_rollback=True) == {"changed_unasked"}
    again = [*after(ANN), released(ANN, 2, "A", ANN), released(BOB, 2, "A", ANN)]
    back = [*again, whole(ANN, 4, after_loss=True, A=ANN), whole(BOB, 4, after_loss=True, A=ANN)]
    assert rules(back, {"A": ANN}, lost=True, is_rollback=True) == {"changed_unasked"}


BROKEN: dict[str, tuple[Rule, list[Entry], dict[str, int]]] = {
    "two viewers disagree": (
        "disagreement",
        [*ANN_HAD_A, selected(ANN, 3, "A", EVE), selected(BOB, 3, "B", EVE)],
        {},
    ),
    "two clients were promised the same rev": (
        "disagreement",
        [*ANN_HAS_A[:-1], BOB_ASKS_FOR_A, selected(BOB, 1, "A", BOB, answers="select_seat A")],
        {"A": ANN},
    ),
    "an event is missing": ("gap", [*ANN_HAS_A, released(BOB, 3, "A", ANN)], {}),
    "an event is missing behind a map": ("gap", [whole(ANN, 4), selected(ANN, 6, "A", BOB)], {}),
    "an event comes twice": ("told_twice", [*ANN_HAD_A, released(BOB, 2, "A", ANN)], {}),
    "an event comes besides the answer": (
        "told_twice",
        [*ANN_HAS_A, selected(ANN, 1, "A", ANN)],
        {"A": ANN},
    ),
    "events come in the wrong order": (
        "told_twice",
        [*ANN_HAS_A[:-1], released(BOB, 2, "A", ANN), selected(BOB, 1, "A", ANN)],
        {},
    ),
    "a map is older than the one before": ("went_back", [*ANN_HAD_A, whole(BOB, 1, A=ANN)], {}),
    "a seat is held twice": (
        "double_hold",
        [*ANN_HAS_A, selected(ANN, 2, "A", BOB), selected(BOB, 2, "A", BOB)],
        {"A": BOB},
    ),
    "a client holds its seat twice": (
        "double_hold",
        [*ANN_HAS_A, selected(ANN, 2, "A", ANN), selected(BOB, 2, "A", ANN)],
        {"A": ANN},
    ),
    "a seat is held twice, as two viewers see it together": (
        "double_hold",
        [
            whole(ANN, 0),
            selected(ANN, 1, "A", ANN),
            whole(BOB, 1, A=ANN),
            selected(BOB, 2, "A", BOB),
            closed(ANN),
        ],
        {"A": BOB},
    ),
    "somebody else's seat is released": (
        "not_the_holder",
        [*ANN_HAS_A, released(ANN, 2, "A", BOB), released(BOB, 2, "A", BOB)],
        {},
    ),
    "a free seat is released": ("not_the_holder", [*ANN_HAD_A, released(BOB, 3, "A", ANN)], {}),
    "a map lacks a hold": ("false_snapshot", [*ANN_HAS_A, whole(EVE, 1)], {"A": ANN}),
    "a map has a hold too many": ("false_snapshot", [*ANN_HAD_A, whole(BOB, 2, A=ANN)], {}),
    "a map names the wrong holder": ("false_snapshot", [*ANN_HAS_A, whole(EVE, 1, A=BOB)], {}),
    "two maps of a rev differ": ("false_snapshot", [whole(ANN, 4), whole(BOB, 4, A=EVE)], {}),
    "a new room has a hold": ("false_snapshot", [whole(ANN, 0, A=BOB)], {"A": BOB}),
    "a hold ends unseen and unasked": (
        "changed_unasked",
        [*ANN_HAS_A, whole(ANN, 2), whole(BOB, 2)],
        {},
    ),
    "a hold changes hands unseen, and its holder did not ask": (
        "changed_unasked",
        [*ANN_HAS_A, BOB_ASKS_FOR_A, whole(ANN, 3, A=BOB), whole(BOB, 3, A=BOB)],
        {"A": BOB},
    ),
    "an acknowledged hold is in nobody's history": (
        "unknown_hold",
        [*JOINED, asked(EVE, "select_seat", "A"), selected(EVE, 1, "A", EVE, "select_seat A")],
        {},
    ),
    "an acknowledged hold is another change in the history": (
        "unknown_hold",
        [*ANN_HAD_A, asked(EVE, "select_seat", "B"), selected(EVE, 2, "B", EVE, "select_seat B")],
        {},
    ),
    "a repeat is acknowledged of a hold that never was": (
        "unknown_hold",
        [*JOINED, asked(ANN, "select_seat", "A"), selected(ANN, None, "A", ANN, "select_seat A")],
        {},
    ),
    "a hold was acknowledged and not stored, while much else was unseen": (
        "unknown_hold",
        [
            *JOINED,
            asked(BOB, "select_seat", "B"),
            asked(ANN, "select_seat", "A"),
            selected(ANN, None, "A", ANN, answers="select_seat A"),
            refused(BOB, "store_unavailable", "select_seat", "B"),
            whole(ANN, 1, B=BOB),
            whole(BOB, 1, B=BOB),
        ],
        {"B": BOB},
    ),
    "an acknowledged hold is lost": ("lost_hold", ANN_HAS_A, {}),
    "an acknowledged hold is lost to somebody": ("lost_hold", ANN_HAS_A, {"A": BOB}),
    "a loser lost to nobody": (
        "wrong_refusal",
        [*JOINED, BOB_ASKS_FOR_A, refused(BOB, "seat_taken", "select_seat", "A", EVE)],
        {},
    ),
    "a loser lost to a hold that was over": (
        "wrong_refusal",
        [*ANN_HAD_A, BOB_ASKS_FOR_A, refused(BOB, "seat_taken", "select_seat", "A", ANN)],
        {},
    ),
    "a client lost to itself": (
        "wrong_refusal",
        [
            *ANN_HAS_A,
            asked(ANN, "select_seats", "A"),
            refused(ANN, "seat_taken", "select_seats", "A", ANN),
        ],
        {"A": ANN},
    ),
    "a request is not answered": ("miscounted_answers", [*JOINED, BOB_ASKS_FOR_A], {}),
    "a request is answered twice": (
        "miscounted_answers",
        [*ANN_HAS_A, selected(ANN, None, "A", ANN, answers="select_seat A")],
        {"A": ANN},
    ),
    "half a group is answered": (
        "miscounted_answers",
        [
            *JOINED,
            asked(ANN, "select_seats", "A", "B"),
            selected(BOB, 1, "A", ANN),
            selected(ANN, 1, "A", ANN, answers="select_seats A"),
        ],
        {"A": ANN},
    ),
    "a viewer missed the end of a hold": ("unequal_to_redis", ANN_HAS_A, {"A": EVE}),
    "a viewer knows nothing of a hold": ("unequal_to_redis", ANN_HAD_A, {"B": EVE}),
    "a viewer was told of a selection without a rev": (
        "unequal_to_redis",
        [*ANN_HAD_A, selected(BOB, None, "A", ANN)],
        {},
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_found_by_name(case: str) -> None:
    """Each of these histories breaks the rule that it stands for."""
    rule, history, redis = BROKEN[case]
    assert rule in rules(history, redis)


def test_every_rule_can_be_broken() -> None:
    """No rule is there for show."""
    assert {rule for rule, _, _ in BROKEN.values()} == set(typing.get_args(Rule))


def test_a_hold_that_a_viewer_was_not_told_the_loss_of_is_found() -> None:
    """When data is lost, a viewer that is not sent the new map still believes in its hold."""
    history = [*ANN_HAS_A, whole(BOB, 0, after_loss=True)]
    assert rules(history, {}, lost=True) == {"lost_hold"}


@pytest.mark.parametrize("left_out", [3, 4, 6, 7, 9, 10])
def test_no_message_can_be_left_out_of_a_history_unnoticed(left_out: int) -> None:
    """Take any one message out of a good history, and something is found."""
    history = [*ANN_HAD_A, BOB_ASKS_FOR_A, *BOB_GETS_A]
    assert history.pop(left_out).kind == "told"
    assert rules(history, {"A": BOB})
