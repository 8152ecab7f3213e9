"""The rule by which many lost connections are told from visitors who leave."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from seatws.errors import CloseCode
from seatws.web.mass_disconnection import (
    AT_LEAST,
    WINDOW_S,
    Begun,
    MassDisconnection,
    Over,
    by_code,
)

CUT_OFF = 1006


class Audience:
    """Connections that come and go, looked at once a second."""

    def __init__(self, connections: int) -> None:
        self.watch = MassDisconnection()
        self.now = 1000.0
        self.connections = connections
        self.came_at = self.now - 3600
        self.news: list[Begun | Over] = []
        self.pass_seconds(WINDOW_S + 2)

    def pass_seconds(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            if news := self.watch.look(self.now, self.connections):
                self.news.append(news)

    def lose(self, count: int, code: int = CUT_OFF, opened_at: float | None = None) -> None:
        """Some go, between two looks."""
        for _ in range(count):
            self.watch.closed(code, self.came_at if opened_at is None else opened_at)
        self.connections -= count


def test_it_begins_once_and_is_over_once() -> None:
    """However long it goes on; what is lost meanwhile counts to it, with each code."""
    audience = Audience(1000)
    audience.lose(150)
    audience.pass_seconds(1)
    assert audience.news == [], "15 % are not enough yet"
    audience.lose(60)
    audience.pass_seconds(1)
    (begun,) = audience.news
    assert begun == Begun(Counter({CUT_OFF: 210}), stood=1000, seconds=2.0)
    audience.lose(300, CloseCode.TIMED_OUT)
    audience.pass_seconds(5)
    audience.lose(200)
    audience.pass_seconds(WINDOW_S - 1)
    assert audience.news == [begun]
    audience.pass_seconds(3)
    _, over = audience.news
    assert isinstance(over, Over)
    assert over.lost == {CUT_OFF: 410, CloseCode.TIMED_OUT: 300}
    assert WINDOW_S < over.seconds < 2 * WINDOW_S
    audience.pass_seconds(100)
    assert len(audience.news) == 2


def test_the_next_one_is_another() -> None:
    """It is told again, and its losses are its own."""
    audience = Audience(1000)
    for _ in range(2):
        audience.lose(300)
        audience.pass_seconds(WINDOW_S + 5)
        audience.connections = 1000
        audience.pass_seconds(WINDOW_S + 5)
    assert [type(news) for news in audience.news] == [Begun, Over, Begun, Over]
    assert all(news.lost == {CUT_OFF: 300} for news in audience.news)


@pytest.mark.parametrize(
    ("connections", "lost", "is_one"),
    [
        (1000, 200, False),
        (1000, 201, True),
        (30, AT_LEAST, False),
        (30, AT_LEAST + 1, True),
        (21, 21, True),
        (0, 0, False),
    ],
)
def test_how_many_are_too_many(connections: int, lost: int, is_one: bool) -> None:
    """More than a fifth, and more than a handful."""
    audience = Audience(connections)
    audience.lose(lost)
    audience.pass_seconds(1)
    assert bool(audience.news) is is_one


@pytest.mark.parametrize("spread_s", [0, 4, 9])
def test_within_the_window_it_does_not_matter_how_fast(spread_s: int) -> None:
    """A dead network shows over some seconds."""
    audience = Audience(1000)
    for _ in range(spread_s):
        audience.lose(250 // (spread_s + 1))
        audience.pass_seconds(1)
    audience.lose(250 - 250 // (spread_s + 1) * spread_s)
    audience.pass_seconds(2 * WINDOW_S)
    begun, over = audience.news
    assert begun.lost.total() > 200
    assert over.lost.total() == 250


def test_a_sale_s_end_is_none() -> None:
    """Half are gone each minute, all of them without a word: a normal night."""
    audience = Audience(5000)
    while audience.connections > 10:
        audience.lose(math.ceil(audience.connections * 0.0115))
        audience.pass_seconds(1)
    assert audience.news == []


@pytest.mark.parametrize(
    "code", [1000, 1001, 1005, 3000, 4000, CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER]
)
def test_who_leaves_or_is_sent_to_another_instance_is_not_lost(code: int) -> None:
    """Not even all at once."""
    audience = Audience(1000)
    audience.lose(1000, code)
    audience.pass_seconds(WINDOW_S)
    assert audience.news == []


@pytest.mark.parametrize(
    "code",
    [
        CUT_OFF,
        CloseCode.TIMED_OUT,
        CloseCode.TOO_SLOW,
        CloseCode.UNAUTHENTICATED,
        CloseCode.BAD_FRAMES,
        CloseCode.PROTOCOL_ERROR,
    ],
)
def test_who_is_cut_off_or_thrown_out_is_lost(code: int) -> None:
    """A broken network, a dead proxy, lost keys, a bad release of a client."""
    audience = Audience(1000)
    audience.lose(500, code)
    audience.pass_seconds(1)
    assert [news.lost for news in audience.news] == [{code: 500}]


def test_those_who_come_and_are_turned_away_at_once_are_no_mass() -> None:
    """Ten thousand bad tokens, or a client that connects again and again."""
    audience = Audience(1000)
    for _ in range(20):
        audience.connections += 500
        audience.lose(500, CloseCode.UNAUTHENTICATED, opened_at=audience.now + 0.5)
        audience.pass_seconds(1)
    assert audience.news == []


def test_an_audience_that_has_just_come_can_be_lost_too() -> None:
    """A sale starts, all come within seconds, and the balancer dies under them."""
    audience = Audience(0)
    for _ in range(4):
        audience.connections += 2000
        audience.pass_seconds(1)
    audience.lose(4000, opened_at=audience.now - 2)
    audience.pass_seconds(1)
    assert [news.lost.total() for news in audience.news] == [4000]


def test_a_look_that_comes_late_misses_nothing() -> None:
    """The loop stood still for longer than the window."""
    audience = Audience(1000)
    audience.lose(500)
    audience.now += 3 * WINDOW_S
    audience.pass_seconds(1)
    (begun,) = audience.news
    assert begun.lost == {CUT_OFF: 500}
    assert begun.seconds == 3 * WINDOW_S + 1


def test_codes_are_told_by_their_number() -> None:
    """The most frequent first."""
    assert by_code(Counter({CloseCode.TIMED_OUT: 2, CUT_OFF: 5})) == "1006: 5, 4408: 2"
