"""Deadlines and clocks: what is left of a hold is right, whatever a visitor's device believes."""

from __future__ import annotations

import datetime
import urllib.request

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import LOST_REQUEST, LOST_SOCKET, Opener, Window
from tests.browser.proxy import Proxy
from tests.conftest import Starter
from tests.harness import LIMIT_S, Instance, Valkey, unique


def test_a_hold_that_ends_is_free_in_both_windows(
    valkey: Valkey, start: Starter, open_window: Opener
) -> None:
    """Its holder is warned, and told when the time is up."""
    settings = {"SEATWS_HOLDS__SECONDS": "5"}
    one, two = start(valkey.url, **settings), start(valkey.url, **settings)
    room = unique("room")
    ann, bob = open_window(one, room), open_window(two, room)
    ann.click("D1")
    bob.expect_seat("D1", "other")
    ann.expect_seat("D1", "mine")
    expect(ann.page.locator("#mine .ticket.urgent")).to_have_count(1)
    ann.expect_message("Time is up for your seat D1", "error")
    ann.expect_seat("D1", "free")
    bob.expect_seat("D1", "free")
    expect(ann.page.locator("#mine li")).to_have_count(0)


def test_a_hold_about_to_end_is_announced(
    valkey: Valkey, start: Starter, open_window: Opener
) -> None:
    """A minute before, in the line that screen readers follow."""
    server = start(valkey.url, SEATWS_HOLDS__SECONDS="61")
    window = open_window(server, unique("room"))
    window.click("D2")
    window.expect_message("Seat D2 is yours for 1:01.", "good")
    window.expect_message("Seat D2 is yours for 1:00 more.")


@pytest.mark.parametrize("wrong_by", [1, -1], ids=["an hour fast", "an hour slow"])
def test_the_countdown_is_right_on_a_clock_that_is_not(
    wrong_by: int, server: Instance, open_window: Opener
) -> None:
    """It goes by the server's clock; so does a seat that was taken before."""
    room = unique("room")
    wrong = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=wrong_by)

    def before(page: Page) -> None:
        page.clock.install(time=wrong)

    window = open_window(server, room, before=before)
    believed = window.page.evaluate("() => Date.now()") / 1000
    assert abs(believed - wrong.timestamp()) < LIMIT_S
    window.click("A1")
    window.expect_message("Seat A1 is yours for 5:00", "good")
    assert 290 <= window.time_left("A1") <= 300
    window.page.reload()
    window.expect_connected()
    assert 280 <= window.time_left("A1") <= 300


def show(window: Window, state: str) -> None:
    """What a browser does when a tab goes to the back or comes to the front."""
    window.page.evaluate(
        """state => {
            Object.defineProperty(document, "visibilityState",
                { configurable: true, get: () => state });
            Object.defineProperty(document, "hidden",
                { configurable: true, get: () => state === "hidden" });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


def test_a_tab_that_was_hidden_for_twenty_minutes_is_right_again(
    server: Instance, open_window: Opener
) -> None:
    """Its connection has died in silence, its timers slept, and its seat went to another."""
    room = unique("room")
    with Proxy(server.port) as proxy:
        ann = open_window(proxy.http, room, "Ann", before=lambda page: page.clock.install())
        bob = open_window(server, room, "Bob")
        ann.click("A1", "C1")
        bob.expect_seat("A1", "other")
        bob.expect_seat("C1", "other")
        show(ann, "hidden")
        proxy.freeze()
        give_back(server, room, "A1", ann.page.evaluate("() => seats.client.clientId"))
        bob.expect_seat("A1", "free")
        bob.click("A1", "B1")
        bob.expect_seat("B1", "mine")
        ann.page.clock.fast_forward("20:00")
        show(ann, "visible")
        ann.page.clock.fast_forward("00:11")  # longer than it waits for a sign of life
        ann.expect_disconnected()
        proxy.cut()
        proxy.thaw()
        ann.try_now()
        ann.expect_connected()
        ann.expect_message("Seat A1 is now Bob's.", "error")
        ann.expect_seat("A1", "other")
        ann.expect_seat("B1", "other")
        ann.expect_seat("C1", "mine")
        # Twenty minutes went by on its clock, and far fewer for the server: it has learned that.
        assert 240 <= ann.time_left("C1") <= 300
        ann.click("D1")
        bob.expect_seat("D1", "other")
        ann.forgive(LOST_SOCKET, LOST_REQUEST)


def give_back(server: Instance, room: str, seat_id: str, client_id: str) -> None:
    """Release a seat by HTTP, for its holder."""
    url = f"{server.http}/room/{room}/selections/{seat_id}?client_id={client_id}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=LIMIT_S).close()
