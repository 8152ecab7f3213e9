"""The words and codes by which clients are refused and closed: PROTOCOL sections 4 and 5."""

from __future__ import annotations

import itertools

import pytest

from seatws import errors
from seatws.errors import (
    BadMessage,
    ClientError,
    CloseCode,
    ConfigError,
    LimitReached,
    NotAllowed,
    NotHolder,
    RateLimited,
    SeatTaken,
    SeatwsError,
    StoreError,
    Unauthenticated,
)

CONFLICTS = [
    {"seat_id": "A1", "expires_at": "2024-01-15T10:35:00.000Z"},
    {"seat_id": "A2", "expires_at": "2024-01-15T10:36:00.000Z"},
]

# PROTOCOL section 4: code, an error with it, whether the same request may work later, what else
# goes into the answer.
CODES = [
    ("invalid_message", BadMessage("seat_id: missing"), False, {}),
    ("seat_taken", SeatTaken(CONFLICTS), False, {"conflicts": CONFLICTS}),
    ("not_holder", NotHolder(), False, {}),
    ("limit_reached", LimitReached("at most 10 seats"), False, {}),
    ("unauthenticated", Unauthenticated("no token"), False, {}),
    ("forbidden", NotAllowed("the reason"), False, {}),
    ("rate_limited", RateLimited(250), True, {"retry_after_ms": 250}),
    ("store_unavailable", StoreError("Redis is away"), True, None),
]

# PROTOCOL section 5: code, whether to come back as one is; and 1000 to 1009 as RFC 6455 has them.
CLOSES = [
    (1000, False),
    (1001, True),
    (1002, False),
    (1007, False),
    (1009, False),
    (1012, True),
    (1013, True),
    (4400, False),
    (4401, False),
    (4403, False),
    (4408, True),
    (4429, True),
    (4440, True),
]


@pytest.mark.parametrize(
    ("code", "error", "retryable", "facts"), CODES, ids=[code for code, *_ in CODES]
)
def test_an_error_has_its_word_and_says_if_to_try_again(
    code: str, error: ClientError | StoreError, retryable: bool, facts: dict[str, object] | None
) -> None:
    """As the protocol's table has it; the text is for people and never empty."""
    assert (error.code, error.retryable) == (code, retryable)
    if facts is not None:
        assert isinstance(error, ClientError)
        assert error.facts() == facts
        assert str(error)


def test_each_word_has_one_error_and_each_error_its_word() -> None:
    """A new kind of refusal is a new line of the protocol."""

    def below(kind: type[ClientError]) -> list[type[ClientError]]:
        return [kind, *itertools.chain(*map(below, kind.__subclasses__()))]

    kinds = [kind for kind in below(ClientError)[1:] if kind.__module__ == errors.__name__]
    words = [StoreError.code, *(kind.code for kind in kinds if "code" in vars(kind))]
    assert sorted(words) == sorted(code for code, *_ in CODES)


def test_what_a_plugin_has_against_a_client_stays_here() -> None:
    """The client learns `forbidden` and no more."""
    assert NotAllowed("the reason").facts() == {}


def test_a_taken_seat_is_named_in_the_text_too() -> None:
    """For a client that shows the text alone."""
    assert str(SeatTaken(CONFLICTS)) == "held by someone else: A1, A2"


def test_every_problem_of_a_configuration_is_a_line() -> None:
    """They are mended one by one, from the line alone."""
    error = ConfigError("a.b: expected 1", "c.d: expected 2")
    assert error.problems == ("a.b: expected 1", "c.d: expected 2")
    assert str(error) == "a.b: expected 1\nc.d: expected 2"


def test_an_edge_can_catch_everything_raised_on_purpose() -> None:
    """All have one base; nothing of the server's own is caught with them."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = [kind for kind in kinds if issubclass(kind, Exception)]
    assert all(issubclass(kind, SeatwsError) for kind in raised)
    assert not issubclass(StoreError, ClientError)


@pytest.mark.parametrize(("code", "come_back"), CLOSES, ids=[str(code) for code, _ in CLOSES])
def test_a_close_code_says_if_to_come_back(code: int, come_back: bool) -> None:
    """By this `goodbye` says `reconnect`."""
    assert CloseCode(code).come_back is come_back


def test_there_is_no_close_code_beside_the_protocols() -> None:
    """A new one is a new line of the protocol."""
    assert sorted(CloseCode) == [code for code, _ in CLOSES]
