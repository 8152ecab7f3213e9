"""For everyone: the keyboard alone, a screen reader, a phone, both colour schemes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import LOST_REQUEST, LOST_SOCKET, Opener, Window, put
from tests.harness import ROOT, Instance, unique

SCREENSHOTS = ROOT / "build/screenshots"
"""Where people look at the page as tests saw it; not kept by git."""


def test_seats_are_chosen_with_the_keyboard_alone(server: Instance, open_window: Opener) -> None:
    """One tab stop; arrows, Home and End move; Enter chooses, Space gives back."""
    room = unique("room")
    window, other = open_window(server, room), open_window(server, room)
    page = window.page
    page.locator("#hall-title").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#seat_A1")).to_be_focused()
    expect(page.locator("#seats [tabindex='0']")).to_have_count(1)
    for key, seat_id in [
        ("ArrowRight", "A2"),
        ("ArrowDown", "B2"),
        ("ArrowDown", "C3"),  # the nearest: that row is longer
        ("End", "C12"),
        ("ArrowRight", "C12"),
        ("ArrowUp", "B10"),
        ("Home", "B1"),
        ("ArrowLeft", "B1"),
        ("Control+End", "H12"),
        ("ArrowDown", "H12"),
        ("Control+Home", "A1"),
        ("ArrowUp", "A1"),
        ("ArrowDown", "B1"),
    ]:
        page.keyboard.press(key)
        expect(page.locator(f"#seat_{seat_id}")).to_be_focused()
    page.keyboard.press("Enter")
    window.expect_seat("B1", "mine")
    window.expect_message("Seat B1 is yours", "good")
    other.expect_seat("B1", "other")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    window.expect_seat("B2", "mine")
    page.keyboard.press("Space")
    window.expect_message("You gave back seat B2.")
    expect(page.locator("#seat_B2")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#seat_B2")).to_be_focused()  # where one was


def test_a_ticket_is_given_back_with_the_keyboard(server: Instance, open_window: Opener) -> None:
    """And the focus goes to what is next, not to nowhere."""
    window = open_window(server, unique("room"))
    window.click("A1", "A2")
    window.expect_message("Seat A2 is yours", "good")
    page = window.page
    page.get_by_role("button", name="Give back A1").focus()
    page.keyboard.press("Enter")
    window.expect_seat("A1", "free")
    expect(page.get_by_role("button", name="Give back A2")).to_be_focused()
    page.keyboard.press("Enter")
    window.expect_seat("A2", "free")
    expect(page.locator("#mine-title")).to_be_focused()


def test_a_screen_reader_is_told_what_is_seen(server: Instance, open_window: Opener) -> None:
    """A grid of rows and cells, each with its state in words; what happens is said politely."""
    room = unique("room")
    put(server, room, "A3", name="Eve")
    window = open_window(server, room)
    page = window.page
    grid = page.get_by_role("grid", name=re.compile("^Seats"))
    expect(grid.get_by_role("row")).to_have_count(8)
    expect(grid.get_by_role("gridcell")).to_have_count(92)
    expect(grid.get_by_role("rowheader", name="Row A")).to_have_count(1)
    free = grid.get_by_role("gridcell", name="Row A, seat 1, free")
    free.click()
    mine = grid.get_by_role("gridcell", name="Row A, seat 1, yours; press to give it back")
    expect(mine).to_have_attribute("aria-selected", "true")
    taken = grid.get_by_role("gridcell", name="Row A, seat 3, taken by Eve")
    expect(taken).to_have_attribute("aria-disabled", "true")
    expect(page.get_by_role("status")).to_contain_text("Seat A1 is yours")
    assert page.locator("[aria-live], [role=status], [role=alert], [role=log]").count() == 1


def test_states_differ_by_more_than_colour(server: Instance, open_window: Opener) -> None:
    """A glyph each, also where a system's high contrast takes the colours away."""
    room = unique("room")
    put(server, room, "A3")
    window = open_window(server, room, forced_colors="active")
    window.click("A1")
    window.expect_message("Seat A1 is yours", "good")
    window.page.evaluate("() => { seats.client.selectSeat('A3') }")
    window.expect_message("Someone was faster", "error")
    glyphs = {
        seat_id: window.page.locator(f"#seat_{seat_id}").evaluate(
            """seat => ["::before", "::after"]
                .map(part => getComputedStyle(seat, part).content[1] ?? "").join("").trim()"""
        )
        for seat_id in ("A1", "A2", "A3")
    }
    assert "✓" in glyphs["A1"]
    assert "✕" in glyphs["A3"]
    assert "!" in glyphs["A3"]
    assert not {"✓", "✕", "!"} & set(glyphs["A2"])


@pytest.mark.parametrize("width", [360, 412])
def test_the_page_fits_a_phone(width: int, server: Instance, open_window: Opener) -> None:
    """Nothing is cut off or scrolls sideways, and seats are as far apart as fingers ask."""
    window = open_window(
        server,
        unique("room"),
        viewport={"width": width, "height": 780},
        is_mobile=True,
        has_touch=True,
    )
    page = window.page
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    middles = page.locator("#seats .seat").evaluate_all(
        """seats => seats.map(seat => {
            const { x, y, width, height } = seat.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        })"""
    )
    assert all(0 < x < width for x, _ in middles)
    closest = min(
        (x - u) ** 2 + (y - v) ** 2
        for index, (x, y) in enumerate(middles)
        for u, v in middles[:index]
    )
    assert closest**0.5 >= 24  # WCAG 2.2, 2.5.8
    page.locator("#seat_D4").tap()
    window.expect_seat("D4", "mine")


State = Callable[[Window, Instance, str], None]


def hold_some(window: Window, server: Instance, room: str) -> None:
    """An evening like any other."""
    for seat_id in ("A5", "B8", "C3", "C4", "D8", "D9", "F1", "G6", "G7", "H12"):
        put(server, room, seat_id, name="Beatriz")
    window.page.locator(".best").nth(1).click()
    expect(window.page.locator("#mine li")).to_have_count(3)
    expect(window.page.locator("#message")).to_have_attribute("data-kind", "good")
    expect(window.page.locator("#count-other")).to_have_text("10")


def be_refused(window: Window, server: Instance, room: str) -> None:
    """Someone was faster."""
    hold_some(window, server, room)
    window.page.evaluate("() => { seats.client.selectSeat('C3') }")
    expect(window.page.locator("#seats .refused")).to_have_count(1)


def be_cut_off(window: Window, server: Instance, room: str) -> None:
    """The visitor has left."""
    hold_some(window, server, room)
    window.page.locator("#disconnect").click()
    window.expect_disconnected()


def lose_the_server(window: Window, server: Instance, room: str) -> None:
    """No way to the server: neither socket nor HTTP."""
    hold_some(window, server, room)
    window.page.context.set_offline(True)
    window.page.locator("#drop").click()
    window.expect_disconnected()
    expect(window.page.locator("#connect-now")).to_be_visible()
    expect(window.page.locator("#message")).to_have_attribute("data-kind", "error")


def poll(window: Window, server: Instance, room: str) -> None:
    """Where WebSockets are blocked."""
    window.page.locator("#block").click()
    window.expect_connected("polling")
    hold_some(window, server, room)


def mistype(window: Window, server: Instance, room: str) -> None:
    """A room that can't be."""
    hold_some(window, server, room)
    window.page.locator("#room-id").fill("sala 3 ñ")
    window.page.locator("#join").click()
    expect(window.page.locator("#room-id")).to_have_attribute("aria-invalid", "true")


DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "locale": "es-MX"}
DARK = DESKTOP | {"color_scheme": "dark", "locale": "en-US"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
    "locale": "es-ES",
}


@pytest.mark.parametrize(
    ("name", "state", "context"),
    [
        ("light", hold_some, DESKTOP),
        ("dark", hold_some, DARK),
        ("phone", hold_some, PHONE),
        ("phone-dark", hold_some, PHONE | {"color_scheme": "dark"}),
        ("refused", be_refused, DESKTOP),
        ("refused-dark", be_refused, DARK),
        ("disconnected", be_cut_off, DESKTOP),
        ("server-lost", lose_the_server, DESKTOP),
        ("server-lost-dark", lose_the_server, DARK),
        ("polling", poll, DARK),
        ("mistyped", mistype, DESKTOP),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_axe_finds_nothing_in_any_state(
    name: str, state: State, context: dict[str, Any], server: Instance, open_window: Opener
) -> None:
    """All its rules, the size of targets too; and the state is there to look at."""
    room = unique("sala")
    window = open_window(server, room, reduced_motion="reduce", **context)
    state(window, server, room)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    window.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
    options = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
    found = Axe().run(window.page, options=options).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    window.forgive(LOST_SOCKET, LOST_REQUEST)
