"""What strangers write is text, and no script but the page's own runs."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, WebSocketRoute, expect

from tests.browser.conftest import LOST_SOCKET, Opener, put
from tests.harness import Instance, unique

XSS = '<img src=x onerror="hacked=1"><b>Eve</b>'


def expect_nothing_ran(page: Page) -> None:
    """Neither as markup nor as a script did it get into the page."""
    assert page.locator("main img, main b:text-is('Eve')").count() == 0
    assert page.evaluate("() => typeof hacked") == "undefined"


def test_what_visitors_write_is_shown_as_text(
    instances: tuple[Instance, Instance], open_window: Opener
) -> None:
    """A name with a script in it runs nowhere: not on the seat, nor in the message, nor the log."""
    room = unique("room")
    one, two = instances
    eve, bob = open_window(one, room, XSS), open_window(two, room)
    eve.click("A1")
    put(one, room, "A2", name=XSS, **{XSS: XSS})
    put(one, room, "A3", name={"toString": XSS})
    later = open_window(two, room)
    for window in (bob, later):
        for seat_id in ("A1", "A2", "A3"):
            window.expect_seat(seat_id, "other")
        for number in (1, 2):
            label = f"Row A, seat {number}, taken by {XSS}"
            seat = window.page.locator(f"#seat_A{number}")
            expect(seat).to_have_attribute("aria-label", label)
            seat.hover(force=True)
            expect(window.page.locator("#detail")).to_have_text(label)
            window.click_anyway(f"A{number}")
            window.expect_message(f"Seat A{number} is held by {XSS}.")
        expect(window.page.locator("#log")).to_contain_text("onerror")
    for window in (eve, bob, later):
        expect_nothing_ran(window.page)


def test_a_room_in_the_address_is_text(server: Instance, open_window: Opener) -> None:
    """One that can't be is refused in words, and stands in the field to be mended."""
    window = open_window(server, XSS, connected=False)
    window.expect_message("Not a room", "error")
    expect(window.page.locator("#room-id")).to_have_value(XSS)
    expect(window.page.locator("#room-id")).to_have_attribute("aria-invalid", "true")
    expect_nothing_ran(window.page)


@pytest.mark.parametrize("field", ["client-id", "room-id"])
def test_a_name_that_cannot_be_is_refused_on_the_spot(
    field: str, server: Instance, open_window: Opener
) -> None:
    """Markup in a client id or a room never gets further than its field."""
    window = open_window(server, unique("room"))
    window.page.locator(f"#{field}").fill(XSS)
    window.page.locator(f"#{field}").press("Enter")
    window.expect_message("Not a", "error")
    expect_nothing_ran(window.page)


def test_whatever_a_server_says_is_text(server: Instance, open_window: Opener) -> None:
    """Even if markup got past the server's own rules, in any field of any message."""
    room = unique("room")

    def lie(socket: WebSocketRoute) -> None:
        hold = {
            "room_id": room,
            "seat_id": "A1",
            "client_id": XSS,
            "user_info": {"name": XSS, XSS: XSS},
            "timestamp": XSS,
            "expires_at": XSS,
        }
        frames = [
            {"type": "auth_ok", "client_id": XSS, "expires_at": XSS},
            {"type": "room_joined", "room_id": room, "client_id": XSS},
            {
                "type": "current_selections",
                "room_id": room,
                "rev": 1,
                "server_time": XSS,
                "selections": [hold, hold | {"seat_id": XSS}],
            },
            {"type": "seat_selected", **hold, "seat_id": XSS, "rev": 2},
            {"type": XSS, XSS: XSS},
            {"type": "error", "code": XSS, "message": XSS, "room_id": XSS, "seat_id": XSS},
        ]
        socket.on_message(lambda _: None)
        for frame in frames:
            socket.send(json.dumps(frame))

    def before(page: Page) -> None:
        page.route_web_socket("**/ws/*", lie)

    window = open_window(server, room, before=before, connected=False)
    window.expect_message(f"The server refused: {XSS}", "error")
    expect(window.page.locator("#log")).to_contain_text("onerror")
    expect_nothing_ran(window.page)
    window.forgive(LOST_SOCKET)


def test_no_script_but_the_pages_own_would_run(server: Instance, open_window: Opener) -> None:
    """If markup ever got in, the Content-Security-Policy would still stop it."""
    window = open_window(server, unique("room"))
    policy = window.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    blocked = window.page.evaluate(
        """markup => new Promise(resolve => {
            document.addEventListener("securitypolicyviolation", event =>
                resolve(event.violatedDirective));
            document.body.insertAdjacentHTML("beforeend", markup);
        })""",
        XSS.replace("src=x", "src=data:,x"),
    )
    assert blocked == "script-src-attr"
    assert window.page.evaluate("() => typeof hacked") == "undefined"
    assert window.problems
    assert all("Content Security Policy" in text for text in window.problems)
    window.problems.clear()
