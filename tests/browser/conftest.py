"""Chromium, driven by Playwright: windows that fail their test over whatever the console says.

Playwright's sync API keeps a loop running, so these tests are plain functions, and the browser ends
with the last of a module: no other test meets that loop.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright

from tests.harness import LIMIT_S, Instance

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
    """One visitor's browser window on the page of an instance, in a room."""

    def __init__(self, page: Page, server: Instance, room: str) -> None:
        self.page = page
        self.problems: list[str] = []
        """Errors in the console. A test that provokes some takes them out."""
        self.requests: list[str] = []
        """Every URL that it asked for."""
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", self._heard)
        page.on("pageerror", self._raised)
        answer = page.goto(f"{server.http}/?room={room}")
        assert answer is not None
        self.headers = answer.all_headers()
        self.expect_connected()

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

    def expect_message(self, text: str, kind: str = "info") -> None:
        """Wait until the line under the seats says this."""
        message = self.page.locator("#message")
        expect(message).to_contain_text(text)
        expect(message).to_have_attribute("data-kind", kind)

    def expect_connected(self) -> None:
        """Wait until it is, and in a room: then free seats may be chosen."""
        expect(self.page.locator("#status")).to_have_attribute("data-state", "open")
        expect(self.page.locator(".seat.unavailable")).to_have_count(0)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def _raised(self, error: Error) -> None:
        self.problems.append(str(error))


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
    """Opens windows that share nothing: `open_window(server, room, name="Ann", locale="en-US")`."""
    windows: list[Window] = []

    def open_one(server: Instance, room: str, name: str = "", locale: str = "en-US") -> Window:
        page = browser.new_context(locale=locale).new_page()
        page.set_default_timeout(LIMIT_S * _MS)
        window = Window(page, server, room)
        windows.append(window)
        page.locator("#name").fill(name)
        return window

    yield open_one
    for window in windows:
        window.page.context.close()
    assert [window.problems for window in windows] == [[] for _ in windows]
