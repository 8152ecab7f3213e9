"""The page at `/`: what visitors do with it, in two real browser windows on two instances."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Opener, Window, put
from tests.conftest import Starter
from tests.harness import Instance, Valkey, holders_in_redis, unique


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


def test_the_hall_is_shown(server: Instance, open_window: Opener) -> None:
    """Eight curved rows, all free, the guide's seats among them; nothing is from elsewhere."""
    room = unique("room")
    window = open_window(server, room)
    page = window.page
    expect(page.locator("#seats [role=row]")).to_have_count(8)
    expect(page.locator("#seats .seat[data-state=free]")).to_have_count(92)
    expect(page.locator("#room-name")).to_have_text(room)
    for seat_id in ("A1", "A10", "E1", "E10"):
        expect(page.locator(f"#seat_{seat_id}")).to_be_visible()
    edge, middle = (page.locator(f"#seat_H{n}").bounding_box() for n in (1, 6))
    assert edge
    assert middle
    assert edge["y"] < middle["y"] - 10  # its ends are nearer to the screen
    assert f"{server.http}/static/seat-selection-client.js" in window.requests
    assert all(url.startswith((server.http, "data:")) for url in window.requests)


@pytest.mark.parametrize(
    ("locale", "language", "words"),
    [("es-MX", "es", "En directo"), ("en-US", "en", "Live"), ("ja-JP", "en", "Live")],
    ids=["Spanish", "English", "neither"],
)
def test_the_page_speaks_the_visitors_language(
    locale: str, language: str, words: str, server: Instance, open_window: Opener
) -> None:
    """Spanish as the guide, English to everybody else; and says which, for screen readers."""
    window = open_window(server, unique("room"), locale=locale)
    expect(window.page.locator("#status-text")).to_have_text(words)
    expect(window.page.locator("html")).to_have_attribute("lang", language)


def test_both_languages_have_the_same_words(server: Instance, open_window: Opener) -> None:
    """Each key is in both, with the same placeholders, and the page uses no other."""
    page = open_window(server, unique("room")).page
    words = page.evaluate(
        """async () => [(await import("/static/words-es.js")).ES,
                        (await import("/static/words-en.js")).EN]"""
    )
    spanish, english = (
        {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in one.items()} for one in words
    )
    assert spanish == english
    used = page.evaluate(
        """() => [...document.querySelectorAll("[data-i18n], [data-i18n-label]")]
            .flatMap(({ dataset }) => [dataset.i18n, dataset.i18nLabel]).filter(Boolean)"""
    )
    assert set(used) <= set(english)


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
    expect(ann.page.locator("#seat_A1 .seat-time")).to_have_text(re.compile(r"^[45]:\d\d$"))
    left = ann.time_left("A1")
    assert 290 <= left <= 300
    expect(ann.page.locator("#mine [data-seat=A1]")).to_contain_text("Row A")
    expect(ann.page.locator("#seat_A1 .seat-time")).not_to_have_text("5:00")  # it goes on
    bob.expect_seat("A1", "other")
    expect(bob.page.locator("#seat_A1")).to_have_attribute("aria-label", re.compile("by Ann$"))
    for window, free, mine, other in ((ann, "91", "1", "0"), (bob, "91", "0", "1")):
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
    ann.expect_message("You gave back seat A1.")
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


def test_names_are_shown_only_where_the_server_shares_them(
    start: Starter, valkey: Valkey, open_window: Opener
) -> None:
    """With `privacy.shared_user_info` empty, others read that a seat is taken, and by nobody."""
    server = start(valkey.url, SEATWS_PRIVACY__SHARED_USER_INFO="[]")
    room = unique("room")
    ann, bob = open_window(server, room, "Ann Onymous"), open_window(server, room)
    ann.click("C3")
    bob.expect_seat("C3", "other")
    expect(bob.page.locator("#seat_C3")).to_have_attribute("aria-label", "Row C, seat 3, taken")
    bob.click_anyway("C3")
    bob.expect_message("Seat C3 is someone else's.")
    assert "Onymous" not in bob.page.content()


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
    loser.expect_message("Someone was faster: seat C5 is taken", "error")
    expect(loser.page.locator("#seat_C5")).to_have_class(re.compile(r"\brefused\b"))
    expect(loser.page.locator("#mine li")).to_have_count(0)
    assert len(holders_in_redis(own_valkey, room)) == 1


def test_seats_side_by_side_are_found_and_taken_at_once(
    server: Instance, open_window: Opener
) -> None:
    """The best that are free, never across an aisle; and given back together."""
    room = unique("room")
    first, second = open_window(server, room), open_window(server, room)
    for window in (first, second):
        expect(window.page.locator("#count-free")).to_have_text("92" if window is first else "88")
        window.page.get_by_role("button", name="4 together").click()
        window.expect_message("are yours for", "good")
    expect(first.page.locator("#count-other")).to_have_text("4")
    held = [
        sorted(
            window.page.locator("#seats .selected").evaluate_all("all => all.map(seat => seat.id)")
        )
        for window in (first, second)
    ]
    assert not set(held[0]) & set(held[1])
    for ids in held:
        numbers = [int(each.partition("_")[2][1:]) for each in ids]
        assert numbers == list(range(numbers[0], numbers[0] + 4))
        assert numbers[0] >= 4
        assert numbers[-1] <= 9
        assert len({each[5] for each in ids}) == 1
    first.page.get_by_role("button", name="Give all back").click()
    expect(first.page.locator("#mine li")).to_have_count(0)
    expect(second.page.locator("#count-other")).to_have_text("0")


def test_more_seats_than_allowed_are_refused_in_words(
    start: Starter, valkey: Valkey, open_window: Opener
) -> None:
    """The seat shows that it was refused, goes back to free, and the page says why."""
    server = start(valkey.url, SEATWS_HOLDS__MAX_SEATS_PER_CLIENT="2")
    window = open_window(server, unique("room"))
    for seat_id in ("D1", "D2"):
        window.click(seat_id)
        window.expect_seat(seat_id, "mine")
    window.click("D3")
    window.expect_message("You have as many seats as you may.", "error")
    window.expect_seat("D3", "free")
    expect(window.page.locator("#seat_D3")).to_have_class(re.compile(r"\brefused\b"))
    window.page.get_by_role("button", name="2 together").click()
    window.expect_message("You have as many seats as you may.", "error")
    expect(window.page.locator("#mine li")).to_have_count(2)
