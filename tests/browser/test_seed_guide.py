"""The code of the first guide, word for word, in a browser: its test page and its client class.

`tests/data/guia-websocket.md` is that guide as it came. Nothing in its code is replaced: the
browser is told that `localhost:8001` is our server.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.conftest import OPTIONS
from tests.browser.reader import CLIENTS, FIRST_GUIDE, blocks
from tests.harness import LIMIT_S, Instance, unique

(TEST_PAGE,) = blocks(FIRST_GUIDE, "html")
(CLASS,) = blocks(FIRST_GUIDE, "javascript", "class SeatSelectionClient")
LIBRARY = CLIENTS / "js/src/seat-selection-client.js"

Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def context(server: Instance) -> Iterator[BrowserContext]:
    """A browser to which the guide's address is that of our server."""
    rule = f"--host-resolver-rules=MAP localhost:8001 127.0.0.1:{server.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*OPTIONS, rule]
        )
        yield browser.new_context()
        browser.close()


@pytest.fixture
def open_page(context: BrowserContext, tmp_path: Path) -> Iterator[Opener]:
    """Opens a page from a file, as who follows the guide does; its console must have no errors."""
    pages: list[Page] = []
    problems: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    def open_one(html: str) -> Page:
        file = tmp_path / f"{unique('page')}.html"
        file.write_text(html)
        page = context.new_page()
        page.set_default_timeout(LIMIT_S * 1000)
        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert problems == []


def log_of(page: Page, text: str) -> None:
    """Wait until the page's log says this."""
    expect(page.locator("#logs")).to_contain_text(text)


def joined(page: Page) -> Page:
    """Connect as a visitor does, and wait for the room."""
    page.get_by_role("button", name="Conectar", exact=True).click()
    expect(page.locator("#status")).to_have_text("Conectado")
    log_of(page, "Unido a sala: test_room")
    log_of(page, "current_selections")
    return page


def test_the_test_page_shows_everybodys_seats(open_page: Opener) -> None:
    """It connects, joins, takes a seat and gives it back; a second one sees both."""
    ann, bob = joined(open_page(TEST_PAGE)), joined(open_page(TEST_PAGE))
    ann.locator("#seat_C7").click()
    for page in (ann, bob):
        expect(page.locator("#seat_C7")).to_have_class("seat selected")
    bob.locator("#seat_C7").click()
    log_of(bob, '"code":"seat_taken"')
    # It has no button for giving a seat back.
    ann.evaluate(
        'ws.send(JSON.stringify({type: "release_seat", room_id: "test_room", seat_id: "C7"}))'
    )
    for page in (ann, bob):
        expect(page.locator("#seat_C7")).to_have_class("seat available")
        page.get_by_role("button", name="Desconectar").click()
        expect(page.locator("#status")).to_have_text("Desconectado")


USE = """([room, named]) => new Promise((resolve) => {
    const client = new (named ? SeatSelectionClient : window.SeatSelectionClient)();
    const heard = [], went = [];
    let released = false;
    client.setErrorCallback((error) => went.push(String(error)));
    client.setCloseCallback(() => resolve({ heard, went, me: client.clientId }));
    client.setMessageCallback((message) => {
        heard.push(message);
        if (message.type === "current_selections") client.selectSeat("A1", { name: "Juan Pérez" });
        if (message.type === "seat_selected") client.releaseSeat("A1");
        if (message.type === "seat_released") {
            released = true; // before that, a pong is the answer to a ping of ours
            client.ping();
        }
        if (message.type === "pong" && released) client.leaveRoom();
        if (message.type === "room_left") client.disconnect();
    });
    client.connect();
    if (named) client.ws.addEventListener("open", () => client.joinRoom(room));
    else client.joinRoom(room);
})"""
"""All that the class can do, by its own names. The guide's own has to wait for the connection."""


def used(page: Page, room: str, *, named: bool) -> Any:
    """What a client of the class heard until it was disconnected, but for pings of its own."""
    end = page.evaluate(USE, [room, named])
    end["kinds"] = [message["type"] for message in end["heard"]]
    return end


IN_TURN = [
    "room_joined",
    "current_selections",
    "seat_selected",
    "seat_released",
    "pong",
    "room_left",
]


def test_the_client_class_does_all_it_offers(open_page: Opener) -> None:
    """Join, select, release, ping, leave, disconnect: each is answered, in this order."""
    page = open_page(f"<!DOCTYPE html><script>{CLASS}</script>")
    end = used(page, unique("room"), named=True)
    assert end["kinds"] == IN_TURN
    assert end["went"] == []
    assert {message.get("client_id", end["me"]) for message in end["heard"]} == {end["me"]}


def test_code_for_that_class_runs_on_ours(open_page: Opener) -> None:
    """The same calls on the library of clients/js, without waiting for the connection."""
    library = LIBRARY.read_text() + "\nwindow.SeatSelectionClient = SeatSelectionClient;"
    page = open_page(f'<!DOCTYPE html><script type="module">{library}</script>')
    end = used(page, unique("room"), named=False)
    assert [kind for kind in end["kinds"] if kind != "pong"] == [
        kind for kind in IN_TURN if kind != "pong"
    ]
    assert "pong" in end["kinds"]
    assert end["went"] == []
