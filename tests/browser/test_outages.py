"""What a visitor sees when servers, Redis or the network fail: the page mends itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import LOST_REQUEST, LOST_SOCKET, Opener, Window
from tests.browser.proxy import Proxy
from tests.conftest import Starter
from tests.harness import Instance, Valkey, unique, wait_until


@pytest.fixture
def proxy(server: Instance) -> Iterator[Proxy]:
    """What stands between a visitor and the server."""
    with Proxy(server.port) as proxy:
        yield proxy


def never_reload(*windows: Window) -> None:
    """Mark the pages, for `expect_never_reloaded`."""
    for window in windows:
        window.page.evaluate("() => { window.isTheSame = true }")


def expect_never_reloaded(*windows: Window) -> None:
    """Whatever happened, it happened on the very page."""
    for window in windows:
        assert window.page.evaluate("() => window.isTheSame")


def test_windows_converge_when_a_server_was_killed(
    instances: tuple[Instance, Instance], open_window: Opener
) -> None:
    """Without a reload: what happened meanwhile is shown, and seats can be chosen again."""
    room = unique("room")
    one, two = instances
    ann, bob = open_window(one, room, "Ann"), open_window(two, room, "Bob")
    never_reload(ann, bob)
    ann.click("A1")
    bob.expect_seat("A1", "other")
    one.kill()
    ann.expect_disconnected()
    ann.expect_message("The connection was lost.", "error")
    ann.expect_seat("A1", "mine")  # the map stays, but nothing can be chosen
    bob.click("B1")
    bob.expect_seat("B1", "mine")
    one.start()
    ann.try_now()
    ann.expect_connected()
    ann.expect_message("Connected again.", "good")
    ann.expect_seat("B1", "other")
    ann.expect_seat("A1", "mine")
    ann.click("C1")
    bob.expect_seat("C1", "other")
    two.terminate()
    two.start()
    bob.try_now()
    bob.expect_connected()
    bob.expect_seat("B1", "mine")
    bob.click("B1")
    ann.expect_seat("B1", "free")
    expect_never_reloaded(ann, bob)
    for window in (ann, bob):
        window.forgive(LOST_SOCKET, LOST_REQUEST)


def test_windows_converge_when_redis_was_killed(
    own_valkey: Valkey, start: Starter, open_window: Opener
) -> None:
    """Nothing is promised meanwhile, and that is said; then all is had again, old seats too."""
    one, two = start(own_valkey.url), start(own_valkey.url)
    room = unique("room")
    ann, bob = open_window(one, room, "Ann"), open_window(two, room, "Bob")
    never_reload(ann, bob)
    ann.click("A1")
    bob.expect_seat("A1", "other")
    own_valkey.kill()
    ann.click("A2")
    ann.expect_message("The cinema can't confirm seats at the moment.", "error")
    ann.expect_seat("A2", "free")
    ann.expect_seat("A1", "mine")
    own_valkey.start()
    # The servers find it again in their own time; a click that comes too early is refused in words.
    for window, seat_id in ((ann, "A2"), (bob, "B2")):
        take_in_the_end(window, seat_id)
    ann.expect_seat("B2", "other")
    bob.expect_seat("A2", "other")
    bob.expect_seat("A1", "other")
    expect_never_reloaded(ann, bob)


def take_in_the_end(window: Window, seat_id: str) -> None:
    """Click until the seat is had."""

    def is_had() -> bool:
        if window.seat(seat_id) == "free":
            window.click(seat_id)
        return window.seat(seat_id) == "mine"

    wait_until(is_had)


def test_seats_are_had_by_polling_where_websockets_are_blocked(
    server: Instance, proxy: Proxy, open_window: Opener
) -> None:
    """A proxy cuts and refuses them: seats work both ways by HTTP, until they pass again."""
    room = unique("room")
    ann, bob = open_window(proxy.http, room, "Ann"), open_window(server, room, "Bob")
    never_reload(ann)
    ann.click("A1")
    bob.expect_seat("A1", "other")
    proxy.block_websockets()
    ann.expect_connected("polling")
    ann.expect_message("going on by polling")
    assert proxy.refused >= 3
    ann.expect_seat("A1", "mine")
    bob.click("B1")
    ann.expect_seat("B1", "other")
    expect(ann.page.locator("#seat_B1")).to_have_attribute(
        "aria-label", "Row B, seat 1, taken by Bob"
    )
    ann.click("C1")
    ann.expect_seat("C1", "mine")
    bob.expect_seat("C1", "other")
    assert 280 <= ann.time_left("C1") <= 300
    ann.click("A1")
    bob.expect_seat("A1", "free")
    ann.page.get_by_role("button", name="2 together").click()
    expect(bob.page.locator("#count-other")).to_have_text("3")
    ann.page.locator("#ping").click()
    proxy.unblock()
    ann.try_now()
    ann.expect_connected()
    ann.expect_message("Connected again.", "good")
    ann.expect_seat("C1", "mine")
    bob.click("B1")
    ann.expect_seat("B1", "free")
    ann.click("D1")
    bob.expect_seat("D1", "other")
    expect_never_reloaded(ann)
    ann.forgive(LOST_SOCKET)


def test_a_seat_taken_by_someone_else_is_refused_by_polling_too(
    server: Instance, proxy: Proxy, open_window: Opener
) -> None:
    """The loser is told in the same words, whatever carried the question."""
    room = unique("room")
    proxy.block_websockets()
    ann, bob = open_window(proxy.http, room, connected=False), open_window(server, room)
    ann.expect_connected("polling")
    bob.click("E5")
    ann.expect_seat("E5", "other")
    ann.page.evaluate("() => { seats.client.selectSeat('E5') }")  # as a click just before would
    ann.expect_message("Someone was faster: seat E5 is taken", "error")
    ann.expect_seat("E5", "other")
    bob.expect_seat("E5", "mine")
    ann.forgive(LOST_SOCKET, LOST_REQUEST)


def test_a_server_that_stays_away_is_said_to_be_and_tried_again(
    start: Starter, valkey: Valkey, open_window: Opener
) -> None:
    """Says that it can't be reached, and connects when it can."""
    server = start(valkey.url)
    window = open_window(server, unique("room"))
    server.kill()
    window.expect_disconnected()
    window.expect_message("The server can't be reached. We keep trying.", "error")
    expect(window.page.get_by_role("button", name="Try now")).to_be_visible()
    server.start()
    window.try_now()
    window.expect_connected()
    expect(window.page.locator("#connect-now")).to_be_hidden()
    window.forgive(LOST_SOCKET, LOST_REQUEST)
