"""Chromium, driven by Playwright: windows that fail their test over whatever the console says.

Playwright's sync API keeps a loop running, so these tests are plain functions, and the browser ends
with the last of a module: no other test meets that loop.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright

from tests.conftest import Starter
from tests.harness import LIMIT_S, Instance, Valkey

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_MS = 1000

expect.set_options(timeout=LIMIT_S * _MS)


class Window:
    """One visitor's browser window, on the page at an address, in a room."""

    def __init__(self, page: Page, http: str, room: str) -> None:
        self.page = page
        self.problems: list[str] = []
        """Errors in the console. A test that provokes some forgives them."""
        self._forgiven: list[str] = []
        self.requests: list[str] = []
        """Every URL that it asked for."""
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", self._heard)
        page.on("pageerror", self._raised)
        answer = page.goto(f"{http}/?room={quote(room)}")
        assert answer is not None
        self.headers = answer.all_headers()

    def seat(self, seat_id: str) -> str:
        """The state that a seat shows: free, mine, other or pending."""
        return self.page.locator(f"#seat_{seat_id}").get_attribute("data-state") or ""

    def click(self, *seat_ids: str) -> None:
        """Click on seats, each as soon as it may be chosen or given back."""
        for seat_id in seat_ids:
            self.page.locator(f"#seat_{seat_id}").click()

    def click_anyway(self, seat_id: str) -> None:
        """Click on a seat that says that it can't be had."""
        self.page.locator(f"#seat_{seat_id}").click(force=True)

    def expect_seat(self, seat_id: str, state: str) -> None:
        """Wait until the seat shows this state."""
        expect(self.page.locator(f"#seat_{seat_id}")).to_have_attribute("data-state", state)

    def expect_message(self, text: str | re.Pattern[str], kind: str = "info") -> None:
        """Wait until the line under the seats says this."""
        message = self.page.locator("#message")
        expect(message).to_contain_text(text)
        expect(message).to_have_attribute("data-kind", kind)

    def expect_connected(self, transport: str = "websocket") -> None:
        """Wait until it is, in this way, and in a room: then free seats may be chosen."""
        status = self.page.locator("#status")
        expect(status).to_have_attribute("data-state", "connected")
        expect(status).to_have_attribute("data-transport", transport)
        expect(self.page.locator(".seat.unavailable")).to_have_count(0)

    def expect_disconnected(self) -> None:
        """Wait until no seat can be chosen."""
        expect(self.page.locator("#status")).not_to_have_attribute("data-state", "connected")
        expect(self.page.locator("#seat_H12")).to_have_attribute("aria-disabled", "true")

    def time_left(self, seat_id: str) -> int:
        """The seconds that the list of one's own seats gives this one."""
        ticket = self.page.locator(f"#mine [data-seat={seat_id}] .ticket-time")
        expect(ticket).to_have_text(re.compile(r"^\d+:\d\d$"))
        minutes, seconds = ticket.inner_text().split(":")
        return int(minutes) * 60 + int(seconds)

    def try_now(self) -> None:
        """Have it try again at once, as its button does: a test has no time for its patience."""
        self.page.evaluate("() => seats.client.connect()")

    def forgive(self, *patterns: str) -> None:
        """Let errors of the console pass that Chromium writes by itself, those to come, too."""
        self._forgiven += patterns
        self.problems[:] = [text for text in self.problems if not self._is_forgiven(text)]

    def _is_forgiven(self, text: str) -> bool:
        return any(re.fullmatch(pattern, text) for pattern in self._forgiven)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not self._is_forgiven(message.text):
            self.problems.append(message.text)

    def _raised(self, error: Error) -> None:
        self.problems.append(str(error))


LOST_SOCKET = r"WebSocket connection to 'ws://\S+' failed: .*"
LOST_REQUEST = r"Failed to load resource: .*"
Opener = Callable[..., Window]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium if there is one, else Playwright's own."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=OPTIONS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Opener]:
    """Opens windows that share nothing: `open_window(server, room, name="Ann", locale="en-US")`.

    `server` may be an address, such as a proxy's; `before` gets the page before it goes anywhere;
    `connected=False` does not wait; all else is for the browser context.
    """
    windows: list[Window] = []

    def open_one(
        server: Instance | str,
        room: str,
        name: str = "",
        *,
        before: Callable[[Page], object] = lambda _: None,
        connected: bool = True,
        **context: Any,
    ) -> Window:
        page = browser.new_context(**{"locale": "en-US"} | context).new_page()
        page.set_default_timeout(LIMIT_S * _MS)
        before(page)
        window = Window(page, server if isinstance(server, str) else server.http, room)
        windows.append(window)
        if connected:
            window.expect_connected()
        page.locator("#name").fill(name)
        return window

    yield open_one
    for window in windows:
        window.page.context.close()
    assert [window.problems for window in windows] == [[] for _ in windows]


@pytest.fixture
def instances(valkey: Valkey, start: Starter) -> tuple[Instance, Instance]:
    """Two processes on one Redis."""
    return start(valkey.url), start(valkey.url)


def put(server: Instance, room: str, seat_id: str, **user_info: object) -> None:
    """Hold a seat by HTTP, as eve."""
    body = json.dumps({"client_id": "eve", "user_info": user_info}).encode()
    url = f"{server.http}/room/{room}/selections/{seat_id}"
    urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=LIMIT_S).close()
