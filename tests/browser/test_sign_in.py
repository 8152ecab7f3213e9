"""Tokens on the page: asked for, pasted, ending, renewed, over the socket and by polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import LOST_REQUEST, LOST_SOCKET, Opener, Window
from tests.browser.proxy import Proxy
from tests.conftest import Starter
from tests.harness import Instance, Valkey, conf_with, unique, wait_until

SECRET = "a secret that no one outside of this test knows"


Serving = Callable[..., Instance]


@pytest.fixture
def serve(start: Starter, valkey: Valkey, tmp_path: Path) -> Serving:
    """Starts an instance that wants a token, is exact about its end, and warns 3 s before."""
    (tmp_path / "secret").write_text(SECRET)

    def serve_with(*sources: str) -> Instance:
        conf = conf_with(
            tmp_path / "conf",
            'use = "plugins.jwt_auth"\nissuer = "https://id.test/"\naudience = "seatws"\n'
            f"leeway_seconds = 0\nwarn_seconds = 3\nsources = {list(sources)}\n"
            f'[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_file = "{tmp_path / "secret"}"',
        )
        return start(valkey.url, conf=conf)

    return serve_with


@pytest.fixture
def server(serve: Serving) -> Instance:
    """One that takes tokens where it does as shipped, but for the query."""
    return serve("header", "subprotocol", "message")


def token(client_id: str, seconds: float = 600) -> str:
    """A token of the issuer that the server trusts, good for so long."""
    claims = {"iss": "https://id.test/", "aud": "seatws", "sub": client_id}
    return jwt.encode(claims | {"exp": time.time() + seconds}, SECRET, "HS256")


def sign_in(window: Window, given: str) -> None:
    """Paste a token and apply it."""
    window.page.locator("#token").fill(given)
    window.page.locator("#apply").click()


def count(window: Window, text: str) -> int:
    """How many lines of the log have this in them."""
    return window.page.locator("#log li", has_text=text).count()


@pytest.mark.parametrize(
    "sources",
    [("header", "subprotocol"), ("header", "subprotocol", "message")],
    ids=["at once", "or in a message"],
)
def test_a_visitor_without_a_token_is_asked_for_one(
    sources: tuple[str, ...], serve: Serving, open_window: Opener
) -> None:
    """Whether the connection is refused or only the join: the page says so and leads to the field.

    The client id comes out of what is pasted there.
    """
    server = serve(*sources)
    window = open_window(server, unique("room"), connected=False)
    page = window.page
    window.expect_disconnected()
    window.expect_message("The server asks for a sign-in", "error")
    ann = unique("ann")
    sign_in(window, token(ann))
    window.expect_connected()
    expect(page.locator("#client-id")).to_have_value(ann)
    window.click("A1")
    window.expect_seat("A1", "mine")
    assert token(ann).split(".")[0] not in page.locator("#log").inner_text()


def test_another_clients_token_is_refused_in_words(server: Instance, open_window: Opener) -> None:
    """4403: and it does not try that again."""
    window = open_window(server, unique("room"), connected=False)
    window.expect_message("The server asks for a sign-in", "error")
    window.page.locator("#token").fill(token(unique("ann")))
    window.page.locator("#client-id").fill(unique("bob"))
    window.page.locator("#apply").click()
    window.expect_message("The server does not allow this", "error")
    window.expect_disconnected()


def test_a_token_about_to_end_is_renewed_on_the_connection_that_stands(
    server: Instance, open_window: Opener
) -> None:
    """The page warns; another token in the field, and nothing is lost."""
    window = open_window(server, unique("room"), connected=False)
    window.expect_message("The server asks for a sign-in", "error")
    ann = unique("ann")
    sign_in(window, token(ann, seconds=8))
    window.expect_connected()
    window.expect_message("Your sign-in is about to end.", "error")
    connects = count(window, "connecting")
    sign_in(window, token(ann))
    window.expect_message(f"Signed in as {ann}.", "good")
    expect(window.page.locator("#log li", has_text='"type":"auth_ok"')).to_have_count(2)
    assert count(window, "connecting") == connects
    window.click("A1")
    window.expect_seat("A1", "mine")


def test_a_token_that_has_ended_is_replaced_and_the_seats_are_still_there(
    server: Instance, open_window: Opener
) -> None:
    """The server sends the visitor away, the page says why, and a new token brings all back."""
    window = open_window(server, unique("room"), connected=False)
    window.expect_message("The server asks for a sign-in", "error")
    ann = unique("ann")
    sign_in(window, token(ann, seconds=4))
    window.expect_connected()
    window.click("A1")
    window.expect_seat("A1", "mine")
    window.expect_message("The server asks for a sign-in", "error")
    window.expect_disconnected()
    sign_in(window, token(ann))
    window.expect_connected()
    window.expect_seat("A1", "mine")


class Mint:
    """The `mint` function of a page: short-lived tokens, as an application's backend gives them."""

    def __init__(self, window: Window, seconds: float) -> None:
        self.given = 0
        self._seconds = seconds
        window.page.expose_function("mint", self._mint)
        window.page.evaluate(
            """() => {
                seats.client.setToken(() => mint(seats.client.clientId));
                seats.client.connect();
            }"""
        )

    def _mint(self, client_id: str) -> str:
        self.given += 1
        return token(client_id, self._seconds)


def wait_for_renewals(window: Window, mint: Mint, times: int) -> None:
    """Wait until so many more tokens were asked for."""
    enough = mint.given + times

    def is_enough() -> bool:
        window.page.evaluate("1")  # calls of `mint` come in while the page is asked something
        return mint.given >= enough

    wait_until(is_enough)


def test_a_token_function_is_asked_again_before_each_end(
    server: Instance, open_window: Opener
) -> None:
    """Token after token on one connection, which never breaks."""
    window = open_window(server, unique("room"), connected=False)
    window.expect_message("The server asks for a sign-in", "error")
    mint = Mint(window, seconds=4)
    window.expect_connected()
    window.click("A1")
    window.expect_seat("A1", "mine")
    connects = count(window, "connecting")
    wait_for_renewals(window, mint, 4)
    window.expect_connected()
    window.click("A2")
    window.expect_seat("A2", "mine")
    assert count(window, "connecting") == connects
    assert count(window, '"goodbye"') <= 1  # the one before there was a token


def test_a_token_is_renewed_while_polling(server: Instance, open_window: Opener) -> None:
    """Where WebSockets are blocked, a waiting request ends with its token; another goes on."""
    with Proxy(server.port) as proxy:
        window = open_window(proxy.http, unique("room"), connected=False)
        window.expect_message("The server asks for a sign-in", "error")
        proxy.block_websockets()
        mint = Mint(window, seconds=4)
        window.expect_connected("polling")
        wait_for_renewals(window, mint, 2)
        window.expect_connected("polling")
        window.click("A1")
        window.expect_seat("A1", "mine")
        proxy.unblock()
        window.try_now()
        window.expect_connected()
        window.expect_seat("A1", "mine")
        window.forgive(LOST_SOCKET, LOST_REQUEST)
