"""The developers' panel: rooms, the log, latency, and ways to break the connection."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Opener, put
from tests.harness import Instance, unique


def test_several_rooms_on_one_connection(server: Instance, open_window: Opener) -> None:
    """Join another, look from one to the other, leave: the seats follow."""
    first, second = unique("room"), unique("room")
    put(server, second, "E5", name="Eve")
    window = open_window(server, first)
    page = window.page
    window.click("A1")
    window.expect_seat("A1", "mine")
    page.locator("#room-id").fill(second)
    page.locator("#join").click()
    window.expect_message(f"You are at {second}.")
    window.expect_seat("E5", "other")
    window.expect_seat("A1", "free")
    page.get_by_role("button", name=f"Show {first}").click()
    window.expect_seat("A1", "mine")
    window.expect_seat("E5", "free")
    page.get_by_role("button", name=f"Leave {first}").click()
    window.expect_seat("E5", "other")
    expect(page.locator("#rooms li")).to_have_count(1)
    page.get_by_role("button", name=f"Leave {second}").click()
    window.expect_message(f"You have left {second}.")
    expect(page.locator("#room-name")).to_have_text("—")
    window.click_anyway("A1")
    window.expect_message("You are in no room. Join one below.", "error")


def test_the_log_has_what_went_over_the_wire(server: Instance, open_window: Opener) -> None:
    """Both ways, as JSON; it can be paused and cleared. A ping shows the round trip."""
    window = open_window(server, unique("room"))
    page = window.page
    log = page.locator("#log")
    window.click("A1")
    window.expect_seat("A1", "mine")
    expect(log.locator("li.sent", has_text='"type":"select_seat"')).to_have_count(1)
    expect(log.locator("li.received", has_text='"type":"seat_selected"')).to_have_count(1)
    page.locator("#ping").click()
    expect(page.locator("#latency")).to_have_text(re.compile(r"^\d+\.\d ms$"))
    expect(log).to_contain_text('"type":"pong"')
    page.locator("#log-pause").click()
    page.locator("#log-clear").click()
    window.click("A1")
    window.expect_seat("A1", "free")
    expect(log.locator("li")).to_have_count(0)
    page.locator("#log-pause").click()
    window.click("A2")
    expect(log).to_contain_text("seat_selected")


def test_the_connection_can_be_dropped_and_ended(server: Instance, open_window: Opener) -> None:
    """Dropped, it comes back by itself; ended, it waits to be asked. Seats are kept either way."""
    window = open_window(server, unique("room"))
    page = window.page
    window.click("A1")
    window.expect_seat("A1", "mine")
    page.locator("#drop").click()
    window.expect_message("Connected again.", "good")
    window.expect_connected()
    window.expect_seat("A1", "mine")
    page.locator("#disconnect").click()
    window.expect_disconnected()
    window.expect_message("You have disconnected.")
    window.click_anyway("A2")
    window.expect_message("Not connected", "error")
    page.get_by_role("button", name="Connect", exact=True).first.click()
    window.expect_connected()
    window.expect_seat("A1", "mine")
    window.expect_seat("A2", "free")


def test_blocking_websockets_on_the_page_shows_polling(
    server: Instance, open_window: Opener
) -> None:
    """As a proxy might, for developers to see; pressed again, the socket is back."""
    window = open_window(server, unique("room"))
    window.page.locator("#block").click()
    window.expect_connected("polling")
    expect(window.page.locator("#status-text")).to_have_text("Live, by polling")
    window.click("B2")
    window.expect_seat("B2", "mine")
    window.page.locator("#block").click()
    window.try_now()
    window.expect_connected()
    window.expect_seat("B2", "mine")


def test_another_client_id_is_another_visitor(server: Instance, open_window: Opener) -> None:
    """The seats of the one before are someone else's then; an illegal id is refused on the spot."""
    window = open_window(server, unique("room"))
    page = window.page
    window.click("C1")
    window.expect_seat("C1", "mine")
    page.locator("#client-id").fill("not legal")
    page.locator("#apply").click()
    window.expect_message("Not a client id", "error")
    expect(page.locator("#client-id")).to_have_attribute("aria-invalid", "true")
    name = unique("bob")
    page.locator("#client-id").fill(name)
    page.locator("#apply").click()
    window.expect_seat("C1", "other")
    page.reload()
    window.expect_seat("C1", "other")
    expect(page.locator("#client-id")).to_have_value(name)
