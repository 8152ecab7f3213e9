"""A real browser agrees to deflate, and its page shows a map and changes that came so."""

from __future__ import annotations

from tests.browser.conftest import Opener, put
from tests.conftest import Starter
from tests.harness import Valkey, unique


def test_a_deflated_map_is_shown(valkey: Valkey, start: Starter, open_window: Opener) -> None:
    """Half of the room is taken, a map of 7,000 bytes; then a seat with much to say."""
    server = start(valkey.url, SEATWS_HOLDS__MAX_SEATS_PER_CLIENT="0")
    room = unique("room")
    taken = [f"{row}{number}" for row in "BCDEFGH" for number in range(1, 10, 2)]
    for seat_id in taken:
        put(server, room, seat_id, name="Eve")
    window = open_window(server, room)
    extensions = window.page.evaluate("() => seats.client.ws.extensions")
    assert extensions.startswith("permessage-deflate")
    for seat_id in taken:
        window.expect_seat(seat_id, "other")
    window.expect_seat("A2", "free")
    put(server, room, "A2", name="Eve", note="one seat and another, " * 40)
    window.expect_seat("A2", "other")
    window.click("A4")
    window.expect_seat("A4", "mine")
