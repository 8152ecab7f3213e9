"""The page at `/`, in two real browser windows on two instances."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Opener, Window
from tests.conftest import Starter
from tests.harness import LIMIT_S, Instance, Valkey, holders_in_redis, unique

XSS = '<img src=x onerror="hacked=1"><b>Eve</b>'


@pytest.fixture
def instances(valkey: Valkey, start: Starter) -> tuple[Instance, Instance]:
    """Two processes on one Redis."""
    return start(valkey.url), start(valkey.url)


def colour(window: Window, seat_id: str) -> tuple[int, int, int]:
    """Red, green and blue of a seat, of its first stripe if it has stripes."""
    seat = window.page.locator(f"#seat_{seat_id}")
    style = seat.evaluate(
        """seat => {
            seat.style.transition = "none";
            const style = getComputedStyle(seat);
            return style.backgroundImage + style.backgroundColor;
        }"""
    )
    red, green, blue = map(int, re.findall(r"rgba?\((\d+), (\d+), (\d+)", style)[0])
    return red, green, blue


def put(server: Instance, room: str, seat_id: str, **user_info: object) -> None:
    """Hold a seat by HTTP."""
    body = json.dumps({"client_id": "eve", "user_info": user_info}).encode()
    url = f"{server.http}/room/{room}/selections/{seat_id}"
    urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=LIMIT_S).close()


def test_the_hall_is_shown(server: Instance, open_window: Opener) -> None:
    """Fifty seats in five rows, all free, and the name of the room; nothing is from elsewhere."""
    room = unique("room")
    window = open_window(server, room)
    expect(window.page.locator("#seats .seat")).to_have_count(50)
    expect(window.page.locator("#seats [data-state=free]")).to_have_count(50)
    expect(window.page.locator("#room-name")).to_have_text(room)
    assert window.page.locator("#seats .seat").last.get_attribute("id") == "seat_E10"
    assert len(window.requests) >= 3
    assert all(url.startswith((server.http, "data:")) for url in window.requests)


@pytest.mark.parametrize(
    ("locale", "words"),
    [("es-MX", "Conectado"), ("en-US", "Connected"), ("ja-JP", "Connected")],
    ids=["Spanish", "English", "neither"],
)
def test_the_page_speaks_the_visitors_language(
    locale: str, words: str, server: Instance, open_window: Opener
) -> None:
    """Spanish as the guide, English to everybody else."""
    window = open_window(server, unique("room"), locale=locale)
    expect(window.page.locator("#status-text")).to_have_text(words)


def test_a_seat_is_chosen_and_given_back_for_all_to_see(
    instances: tuple[Instance, Instance], open_window: Opener
) -> None:
    """One's own is green and counts down, the other's is red and has a name; then it is free."""
    room = unique("room")
    ann, bob = (
        open_window(each, room, name) for each, name in zip(instances, ("Ann", "Bob"), strict=True)
    )
    ann.click("A1")
    ann.expect_seat("A1", "mine")
    ann.expect_message("Seat A1 is yours", "good")
    expect(ann.page.locator("#seat_A1")).to_contain_text(re.compile(r"[45]:\d\d"))
    expect(ann.page.locator("#mine")).to_contain_text("A1")
    left = ann.page.locator("#seat_A1").text_content() or ""
    expect(ann.page.locator("#seat_A1")).not_to_have_text(left)  # it goes on
    bob.expect_seat("A1", "other")
    expect(bob.page.locator("#seat_A1")).to_have_attribute("aria-label", re.compile("by Ann$"))
    for window, free, mine, other in ((ann, "49", "1", "0"), (bob, "49", "0", "1")):
        expect(window.page.locator("#count-free")).to_have_text(free)
        expect(window.page.locator("#count-mine")).to_have_text(mine)
        expect(window.page.locator("#count-other")).to_have_text(other)

    red, green, _ = colour(ann, "A1")
    assert green > red
    red, green, _ = colour(bob, "A1")
    assert red > green

    bob.click_anyway("A1")
    bob.expect_message("Seat A1 is held by Ann.")
    bob.expect_seat("A1", "other")
    ann.click("A1")
    ann.expect_seat("A1", "free")
    ann.expect_message("You have released seat A1.")
    bob.expect_seat("A1", "free")


def test_who_comes_later_sees_what_is_taken(
    instances: tuple[Instance, Instance], open_window: Opener
) -> None:
    """On another instance, by window or by HTTP; and a reload keeps one's own seats one's own."""
    room = unique("room")
    one, two = instances
    ann = open_window(one, room, "Ann")
    ann.click("B1", "B2")
    ann.expect_seat("B2", "mine")
    put(two, room, "B3", name="Eve")
    bob = open_window(two, room)
    for seat_id, state in (("B1", "other"), ("B2", "other"), ("B3", "other"), ("B4", "free")):
        bob.expect_seat(seat_id, state)
    ann.page.reload()
    ann.expect_connected()
    for seat_id, state in (("B1", "mine"), ("B2", "mine"), ("B3", "other"), ("B4", "free")):
        ann.expect_seat(seat_id, state)


def test_a_race_for_a_seat_has_one_winner_and_the_loser_is_told(
    own_valkey: Valkey, start: Starter, open_window: Opener
) -> None:
    """Both ask before either is answered: one has the seat, the other sees whose it is and why."""
    one, two = start(own_valkey.url), start(own_valkey.url)
    room = unique("room")
    windows = [open_window(one, room, "Ann"), open_window(two, room, "Bob")]
    own_valkey.pause()
    for window in windows:
        window.click("C5")
        window.expect_seat("C5", "pending")
    own_valkey.resume()
    for window in windows:
        expect(window.page.locator("#seat_C5")).to_have_attribute(
            "data-state", re.compile("mine|other")
        )
    assert sorted(window.seat("C5") for window in windows) == ["mine", "other"]
    winner, loser = sorted(windows, key=lambda window: window.seat("C5"))
    winner.expect_message("Seat C5 is yours", "good")
    loser.expect_message("Seat C5 is already someone else's", "error")
    assert len(holders_in_redis(own_valkey, room)) == 1


def test_a_hold_that_ends_is_free_in_both_windows(
    valkey: Valkey, start: Starter, open_window: Opener
) -> None:
    """Its holder is told that the time is up."""
    settings = {"SEATWS_HOLDS__SECONDS": "5"}
    one, two = start(valkey.url, **settings), start(valkey.url, **settings)
    room = unique("room")
    ann, bob = open_window(one, room), open_window(two, room)
    ann.click("D1")
    bob.expect_seat("D1", "other")
    ann.expect_message("Time is up for your seat D1", "error")
    ann.expect_seat("D1", "free")
    bob.expect_seat("D1", "free")


def test_windows_converge_when_a_server_was_killed(
    instances: tuple[Instance, Instance], open_window: Opener
) -> None:
    """Without a reload: what happened meanwhile is shown, and seats can be chosen again."""
    room = unique("room")
    one, two = instances
    ann, bob = open_window(one, room, "Ann"), open_window(two, room, "Bob")
    for window in (ann, bob):
        window.page.evaluate("() => { window.neverReloaded = true }")
    ann.click("A1")
    bob.expect_seat("A1", "other")
    one.kill()
    expect(ann.page.locator("#status")).not_to_have_attribute("data-state", "open")
    ann.expect_seat("A1", "mine")  # the map stays, but nothing can be chosen
    expect(ann.page.locator("#seat_A2")).to_have_attribute("aria-disabled", "true")
    bob.click("B1")
    bob.expect_seat("B1", "mine")
    one.start()
    ann.expect_connected()
    ann.expect_seat("B1", "other")
    ann.expect_seat("A1", "mine")
    ann.click("C1")
    bob.expect_seat("C1", "other")
    two.terminate()
    two.start()
    bob.expect_connected()
    bob.expect_seat("B1", "mine")
    bob.click("B1")
    ann.expect_seat("B1", "free")
    for window in (ann, bob):
        assert window.page.evaluate("() => window.neverReloaded")
        lost = re.compile(r"WebSocket connection to 'ws://\S+' failed: .*")
        window.problems[:] = [text for text in window.problems if not lost.fullmatch(text)]


def test_a_visitor_connects_and_joins_by_hand(server: Instance, open_window: Opener) -> None:
    """Disconnect, connect, leave, and another room: the seats follow."""
    first, second = unique("room"), unique("room")
    put(server, second, "E5", name="Eve")
    window = open_window(server, first)
    page = window.page
    window.click("A1")
    window.expect_seat("A1", "mine")
    page.locator("#disconnect").click()
    expect(page.locator("#status")).to_have_attribute("data-state", "closed")
    window.expect_message("You have disconnected.")
    page.locator("#connect").click()
    window.expect_connected()
    window.expect_seat("A1", "mine")
    page.locator("#room-id").fill(second)
    page.locator("#join").click()
    window.expect_seat("E5", "other")
    window.expect_seat("A1", "free")
    page.locator("#leave").click()
    window.expect_message(f"You have left room {second}.")
    expect(page.locator("#seat_A1")).to_have_attribute("aria-disabled", "true")
    page.locator("#ping").click()
    expect(page.locator("#latency")).to_have_text(re.compile(r"^\d.* ms$"))
    for text in ("join_room", "seat_selected", "room_left", "pong"):
        expect(page.locator("#log")).to_contain_text(text)


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
        for seat_id in ("A1", "A2"):
            label = window.page.locator(f"#seat_{seat_id}").get_attribute("aria-label")
            assert label == f"Seat {seat_id}, taken by {XSS}"
            window.click_anyway(seat_id)
            window.expect_message(f"Seat {seat_id} is held by {XSS}.")
        expect(window.page.locator("#log")).to_contain_text("onerror")
    for window in (eve, bob, later):
        assert window.page.locator("main img, main b:text('Eve')").count() == 0
        assert window.page.evaluate("() => typeof hacked") == "undefined"


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
