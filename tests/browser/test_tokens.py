"""Signing in from a real page: where it may put its token, and what it can read of a refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import Starter
from tests.harness import LIMIT_S, Instance, Valkey, conf_with, unique

SECRET = "a secret that no one outside of this test knows"

TALK = """([url, protocols, room]) => new Promise((resolve) => {
    const socket = new WebSocket(url, protocols), heard = [];
    socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        heard.push(message);
        if (message.type === "auth_ok") {
            socket.send(JSON.stringify({ type: "join_room", room_id: room }));
        } else if (message.type === "current_selections") {
            socket.send(JSON.stringify({ type: "select_seat", room_id: room, seat_id: "A1" }));
        } else if (message.type === "seat_selected") {
            socket.close(1000);
        }
    };
    socket.onclose = ({ code }) => resolve({ code, heard, protocol: socket.protocol });
})"""
"""Connects, takes a seat once it has signed in, and tells what it was told until the end."""


@pytest.fixture
def server(start: Starter, valkey: Valkey, tmp_path: Path) -> Instance:
    """An instance that wants a token with the connection, not in a message."""
    (tmp_path / "secret").write_text(SECRET)
    conf = conf_with(
        tmp_path / "conf",
        'use = "plugins.jwt_auth"\nissuer = "https://id.test/"\naudience = "seatws"\n'
        'sources = ["subprotocol", "query"]\n'
        f'[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_file = "{tmp_path / "secret"}"',
    )
    return start(valkey.url, conf=conf)


@pytest.fixture
def page(browser: Browser, server: Instance) -> Iterator[Page]:
    """A page from which anyone may connect."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(LIMIT_S * 1000)
    page.goto(f"{server.http}/health")
    yield page
    context.close()


def token(client_id: str, secret: str = SECRET) -> str:
    """A token of the issuer that the server trusts."""
    claims = {"iss": "https://id.test/", "aud": "seatws", "sub": client_id}
    return jwt.encode(claims | {"exp": time.time() + 600}, secret, "HS256")


def talk(page: Page, url: str, *protocols: str) -> Any:
    """What the page's socket went through."""
    return page.evaluate(TALK, [url, list(protocols), unique("room")])


@pytest.mark.parametrize("source", ["subprotocol", "query"])
def test_a_page_signs_in_and_takes_a_seat(source: str, page: Page, server: Instance) -> None:
    """With a token in either place; it is nowhere to be read again, and the browser is content."""
    ann = unique("ann")
    given = token(ann)
    url = f"{server.url}/ws/{ann}"
    if source == "query":
        end = talk(page, f"{url}?token={given}")
    else:
        end = talk(page, url, "seatws.v1", f"bearer.{given}")
    kinds = [message["type"] for message in end["heard"]]
    assert kinds == ["auth_ok", "room_joined", "current_selections", "seat_selected"]
    assert end["heard"][-1]["client_id"] == ann
    assert end["code"] == 1000
    assert end["protocol"] == ("" if source == "query" else "seatws.v1")
    assert given.rpartition(".")[2] not in server.log


@pytest.mark.parametrize(
    ("signed_for", "secret", "code"),
    [("ann", "x" * 48, 4401), (None, "", 4401), ("bob", SECRET, 4403)],
    ids=["another's signature", "no token", "another client's"],
)
def test_a_page_reads_why_it_was_refused(
    signed_for: str | None, secret: str, code: int, page: Page, server: Instance
) -> None:
    """Code and all in its `close` event, and in the `goodbye` before it: don't try that again."""
    protocols = ["seatws.v1"]
    if signed_for is not None:
        protocols.append(f"bearer.{token(signed_for, secret)}")
    end = talk(page, f"{server.url}/ws/ann", *protocols)
    assert end["code"] == code
    (goodbye,) = end["heard"]
    assert (goodbye["type"], goodbye["code"]) == ("goodbye", code)
    assert goodbye["reconnect"] is False
