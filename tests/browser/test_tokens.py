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
from tests.harness import (
    LIMIT_S,
    Instance,
    Valkey,
    conf_with,
    holders_in_redis,
    unique,
    wait_until,
)

SECRET = "a secret that no one outside of this test knows"

TALK = """([url, protocols, room, limit]) => new Promise((resolve) => {
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
    const end = ({ code }) => resolve({ code, heard, protocol: socket.protocol });
    socket.onclose = end;
    setTimeout(end, limit, { code: "still open" });
})"""
"""Connects, takes a seat once it has signed in, and tells what it was told until the end."""


@pytest.fixture
def server(start: Starter, valkey: Valkey, tmp_path: Path) -> Instance:
    """An instance that wants a token with the connection, not in a message, and logs all it can."""
    (tmp_path / "secret").write_text(SECRET)
    conf = conf_with(
        tmp_path / "conf",
        'use = "plugins.jwt_auth"\nissuer = "https://id.test/"\naudience = "seatws"\n'
        'sources = ["subprotocol", "query"]\n'
        f'[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_file = "{tmp_path / "secret"}"',
    )
    return start(valkey.url, conf=conf, SEATWS_LOG__LEVEL="debug")


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


def talk(page: Page, url: str, *protocols: str, room: str = "") -> Any:
    """What the page's socket went through."""
    limit_ms = LIMIT_S * 1000
    return page.evaluate(TALK, [url, list(protocols), room or unique("room"), limit_ms])


def with_token(source: str, given: str) -> tuple[str, list[str]]:
    """The URL's end and the subprotocols with which a page shows its token."""
    if source == "query":
        return f"?token={given}", []
    return "", ["seatws.v1", f"bearer.{given}"]


def expect_refusal(end: Any, code: int) -> None:
    """Nothing was heard but why, and it was closed with that code."""
    assert end["code"] == code
    (goodbye,) = end["heard"]
    assert (goodbye["type"], goodbye["code"]) == ("goodbye", code)
    assert goodbye["reconnect"] is False


def expect_unlogged(server: Instance, client_id: str, given: str) -> None:
    """No part of the token is in the log, which is at its fullest, and has the connection's end."""
    wait_until(lambda: f"closed: client {client_id}, code" in server.log)
    assert " DEBUG " in server.log
    assert not [part for part in given.split(".") if part in server.log]


@pytest.mark.parametrize("source", ["subprotocol", "query"])
def test_a_page_signs_in_and_takes_a_seat(
    source: str, page: Page, server: Instance, valkey: Valkey
) -> None:
    """With a token in either place; it is nowhere to be read again, and the browser is content."""
    ann, room = unique("ann"), unique("room")
    given = token(ann)
    query, protocols = with_token(source, given)
    end = talk(page, f"{server.url}/ws/{ann}{query}", *protocols, room=room)
    kinds = [message["type"] for message in end["heard"]]
    assert kinds == ["auth_ok", "room_joined", "current_selections", "seat_selected"]
    assert end["heard"][0]["client_id"] == end["heard"][-1]["client_id"] == ann
    assert end["code"] == 1000
    assert end["protocol"] == ("" if source == "query" else "seatws.v1")
    assert holders_in_redis(valkey, room) == {"A1": ann}
    expect_unlogged(server, ann, given)


@pytest.mark.parametrize("source", ["subprotocol", "query"])
@pytest.mark.parametrize(
    ("signed_for", "secret", "code"),
    [("ann", "x" * 48, 4401), ("bob", SECRET, 4403)],
    ids=["another's signature", "another client's"],
)
def test_a_page_reads_why_its_token_was_refused(
    source: str, signed_for: str, secret: str, code: int, page: Page, server: Instance
) -> None:
    """Code and all in its `close` event, and in the `goodbye` before it: don't try that again."""
    given = token(signed_for, secret)
    query, protocols = with_token(source, given)
    end = talk(page, f"{server.url}/ws/ann{query}", *protocols)
    expect_refusal(end, code)
    assert end["protocol"] == ("" if source == "query" else "seatws.v1")
    expect_unlogged(server, "ann", given)


@pytest.mark.parametrize("protocols", [[], ["seatws.v1"]], ids=["no subprotocol", "seatws.v1"])
def test_a_page_without_a_token_reads_that_it_needs_one(
    protocols: list[str], page: Page, server: Instance
) -> None:
    """At once, where it could not send one in a message."""
    expect_refusal(talk(page, f"{server.url}/ws/ann", *protocols), 4401)
