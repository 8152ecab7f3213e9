"""Signing in over a WebSocket, and what a token's life is: PROTOCOL's answers with any plugin."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.harness import Client, Instance, Valkey, conf_with, unique
from tests.raw import RawSocket, frame
from tests.sample_plugins.running import (
    TOKENS,
    bearer,
    good,
    handshake,
    moment,
    subprotocol,
    turned_away,
    types,
    with_token,
    without_id,
)
from tests.sample_plugins.running import by_handshake as by_handshake
from tests.sample_plugins.running import signed as signed

COMMANDS: dict[str, dict[str, Any]] = {
    "join_room": {"room_id": "r"},
    "leave_room": {"room_id": "r"},
    "select_seat": {"room_id": "r", "seat_id": "A1"},
    "select_seats": {"room_id": "r", "seat_ids": ["A1", "A2"]},
    "release_seat": {"room_id": "r", "seat_id": "A1"},
}

# ---------------------------------------------------------------- a good token


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("source", ["header", "query", "subprotocol", "message"])
@pytest.mark.parametrize("seconds", [3600, None], ids=["ends", "does not end"])
async def test_a_good_token_signs_in(signed: Instance, source: str, seconds: float | None) -> None:
    """By whatever source, the first frame says who one is and until when; then all is as ever."""
    name, room = unique("ann"), unique("room")
    token = good(name, seconds)
    path, options = name, {}
    if source == "header":
        options = with_token(token)
    elif source == "query":
        path = f"{name}?token={token}"
    elif source == "subprotocol":
        options = {"subprotocols": ["seatws.v1", subprotocol(token)]}
    async with Client.connect(signed.url, path, **options) as ann:
        if source == "message":
            await ann.send(type="auth", token=token)
        await ann.join(room)
        assert (await ann.select(room, "A1"))["client_id"] == name
        assert ann.received[0] == {
            "type": "auth_ok",
            "client_id": name,
            "expires_at": moment(token) if seconds else None,
        }
        assert types(ann) == ["auth_ok", "room_joined", "current_selections", "seat_selected"]


@pytest.mark.gen_test(timeout=60)
async def test_only_our_own_subprotocol_is_selected(signed: Instance) -> None:
    """Where it is offered, also on a connection that is then closed; the token is not repeated."""
    for kind, at in (("good", 0), ("bad", 1), ("unready", 0)):
        name = unique("ann")
        token = subprotocol(good(name, kind=kind))
        offered = ", ".join([token, "seatws.v1"] if at else ["seatws.v1", token])
        async with RawSocket.open(signed) as raw:
            await raw.shake_hands(f"/ws/{name}", Sec_WebSocket_Protocol=offered)
            assert raw.status == 101
            assert raw.headers["sec-websocket-protocol"] == "seatws.v1"
            assert name not in str(raw.headers)
    async with RawSocket.open(signed) as raw:
        await raw.shake_hands("/ws/ann", Sec_WebSocket_Protocol=token)
        assert "sec-websocket-protocol" not in raw.headers


# ---------------------------------------------------------------- no token, a bad token


@pytest.mark.gen_test(timeout=60)
async def test_without_a_token_one_is_turned_away(by_handshake: Instance) -> None:
    """4401 where it must come with the handshake: none, one in a place that is not looked at."""
    name = unique("ann")
    for headers in ({}, {"Cookie": f"token={good(name)}"}, bearer(good(name, kind="unknown"))):
        end = await turned_away(by_handshake, name, **headers)
        assert end.code == 4401
        assert [message["type"] for message in end.messages] == ["goodbye"]
        assert end.goodbye["reconnect"] is False
        assert end.goodbye["retry_after_ms"] == 0


@pytest.mark.gen_test(timeout=60)
async def test_who_has_not_signed_in_may_ping(signed: Instance) -> None:
    """And send `auth`; all else is answered `unauthenticated`, and does nothing."""
    name = unique("ann")
    async with Client.connect(signed.url, name) as ann:
        assert (await ann.ask(type="ping"))["type"] == "pong"
        for kind, fields in COMMANDS.items():
            given = {key: fields[key] for key in ("room_id", "seat_id") if key in fields}
            assert without_id(await ann.ask(type=kind, **fields)) == given | {
                "type": "error",
                "code": "unauthenticated",
                "message": "sign in first",
                "request": kind,
                "retryable": False,
            }
        await ann.ask(type="auth", token=good(name))
        assert (await ann.ask(type="leave_room", room_id="r"))["type"] == "room_left"


KINDS = pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("bad", 4401),
        ("unknown", 4401),
        ("fails", 4401),
        ("odd", 4401),
        ("late", 4401),
        ("ended", 4401),
        ("another's", 4403),
        ("unready", 1013),
    ],
)


def token_of(kind: str, name: str) -> str:
    if kind == "ended":
        return good(name, -2)  # its second of grace has passed, too
    if kind == "another's":
        return good(f"{name}x")
    return good(name, kind=kind)


@pytest.mark.gen_test(timeout=60)
@KINDS
async def test_a_bad_token_is_turned_away(by_handshake: Instance, kind: str, code: int) -> None:
    """The handshake succeeds, so that a browser can read the code; it is told when to come back."""
    name = unique("ann")
    end = await turned_away(by_handshake, name, **bearer(token_of(kind, name)))
    assert end.code == code
    assert [message["type"] for message in end.messages] == ["goodbye"]
    assert end.goodbye["reconnect"] is (code == 1013)


@pytest.mark.gen_test(timeout=60)
@KINDS
async def test_a_bad_first_message_is_turned_away(signed: Instance, kind: str, code: int) -> None:
    """As a bad token in the handshake; what was sent behind it is not looked at."""
    name = unique("ann")
    async with Client.connect(signed.url, name) as ann:
        await ann.send(type="auth", token=token_of(kind, name))
        await ann.send(type="ping")
        assert await ann.closed() == code
        assert types(ann) == ["goodbye"]


@pytest.mark.gen_test(timeout=60)
async def test_who_does_not_sign_in_is_let_go(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """4408 at the deadline, with pings or without; who did sign in stays."""
    conf = conf_with(tmp_path / "conf", f"{TOKENS}\nsign_in_seconds = 0.1")
    server = start(valkey.url, conf=conf)
    async with (
        Client.connect(server.url, "ann", **with_token(good("ann"))) as ann,
        Client.connect(server.url, "bob") as bob,
    ):
        await bob.send(type="ping")
        assert await bob.closed() == 4408
        assert bob.received[-1]["reconnect"] is True
        assert (await ann.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_too_many_bad_tokens_are_told_to_wait(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """4429 above `limits.failed_sign_ins_per_minute`; who has a good token still gets in."""
    conf = conf_with(tmp_path / "conf", TOKENS)
    server = start(valkey.url, conf=conf, SEATWS_LIMITS__FAILED_SIGN_INS_PER_MINUTE="2")
    bad = bearer(good("ann", kind="bad"))
    async with Client.connect(server.url, "bob", **with_token(good("bob"))) as bob:
        for code in (4401, 4401, 4429, 4429):
            assert (await turned_away(server, "ann", **bad)).code == code
        async with Client.connect(server.url, "ann") as ann:
            await ann.send(type="auth", token=good("ann", kind="bad"))
            assert await ann.closed() == 4429
        for kind, code in (("unready", 1013), ("fails", 4401)):
            assert (await turned_away(server, "ann", **bearer(good("ann", kind=kind)))).code == code
        async with Client.connect(server.url, "ann", **with_token(good("ann"))) as ann:
            assert (await ann.ask(type="ping"))["type"] == "pong"
        refusal = await bob.ask(type="auth", token=good("bob", kind="bad"))
        assert refusal["code"] == "rate_limited"
        assert refusal["retry_after_ms"] > 0
        assert (await bob.ask(type="auth", token=good("bob")))["type"] == "auth_ok"


# ---------------------------------------------------------------- a token's life


@pytest.mark.gen_test(timeout=60)
async def test_a_token_is_renewed_in_band(signed: Instance) -> None:
    """The answer says until when; nothing of the room is lost, and holds stay."""
    name, room = unique("ann"), unique("room")
    async with (
        Client.connect(signed.url, name, **with_token(good(name, None))) as ann,
        Client.connect(signed.url, f"b{name}", **with_token(good(f"b{name}"))) as bob,
    ):
        await ann.join(room)
        await ann.select(room, "A1")
        token = good(name, 7200)
        await bob.select(room, "B1")
        assert without_id(await ann.ask(type="auth", token=token)) == {
            "type": "auth_ok",
            "client_id": name,
            "expires_at": moment(token),
        }
        await bob.select(room, "B2")
        await ann.until(lambda: ann.revs[room] == [1, 2, 3])
        assert (await ann.release(room, "A1"))["type"] == "seat_released"


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("bad", "unauthenticated"),
        ("unknown", "unauthenticated"),
        ("fails", "unauthenticated"),
        ("odd", "unauthenticated"),
        ("late", "unauthenticated"),
        ("ended", "unauthenticated"),
        ("unready", "unauthenticated"),
        ("another's", "forbidden"),
    ],
)
async def test_a_bad_renewal_changes_nothing(signed: Instance, kind: str, code: str) -> None:
    """It is refused, with nothing of why; one stays who one is, and where."""
    name, room = unique("ann"), unique("room")
    async with Client.connect(signed.url, name, **with_token(good(name))) as ann:
        await ann.join(room)
        refusal = await ann.ask(type="auth", token=token_of(kind, name))
        assert refusal.keys() == {"type", "code", "message", "request", "retryable", "request_id"}
        assert (refusal["type"], refusal["code"]) == ("error", code)
        assert refusal["request"] == "auth"
        assert name not in refusal["message"]
        assert (await ann.select(room, "A1"))["rev"] == 1


@pytest.mark.gen_test(timeout=60)
async def test_the_last_good_token_counts(signed: Instance) -> None:
    """At its end, its grace over, one is closed with 4401, whatever was tried to renew it."""
    ann, bob, room = unique("ann"), unique("bob"), unique("room")
    ends = time.time() + 2
    tokens = {name: f"good:{name}:{ends}" for name in (ann, bob)}
    async with (
        Client.connect(signed.url, ann, **with_token(tokens[ann])) as renewed,
        Client.connect(signed.url, bob, **with_token(tokens[bob])) as refused,
    ):
        for client in (renewed, refused):
            await client.join(room)
            await client.select(room, f"S{client.client_id[-1]}x{client.client_id[0]}")
        assert (await renewed.ask(type="auth", token=good(ann)))["type"] == "auth_ok"
        assert (await refused.ask(type="auth", token=good(bob, kind="bad")))["type"] == "error"
        assert await refused.closed() == 4401
        assert time.time() >= ends + 1
        assert types(refused)[-1] == "goodbye"
        assert refused.received[-1]["reconnect"] is False
        # In the same look at all connections she would have been closed before him.
        assert (await renewed.ask(type="ping"))["type"] == "pong"
        async with Client.connect(signed.url, bob, **with_token(good(bob))) as again:
            await again.join(room)
            assert set(again.maps[room].values()) == {ann, bob}, "the holds stayed"
            (seat,) = [seat for seat, holder in again.maps[room].items() if holder == bob]
            assert (await again.release(room, seat))["type"] == "seat_released"


@pytest.mark.gen_test(timeout=60)
async def test_a_token_s_end_is_announced_once(signed: Instance) -> None:
    """A minute before, or at once where less is left; after a renewal, for the new one again."""
    ann, bob, eve = unique("ann"), unique("bob"), unique("eve")
    soon, sooner, short = good(ann, 30), good(ann, 20), good(eve, 0.1)
    almost = good(bob, 62)
    async with (
        Client.connect(signed.url, ann, **with_token(soon)) as client,
        Client.connect(signed.url, bob, **with_token(almost)) as later,
        Client.connect(signed.url, eve, **with_token(short)) as ending,
    ):
        await later.ask(type="ping")
        await client.ask(type="auth", token=sooner)
        assert await later.heard(lambda message: message["type"] == "auth_expiring") == {
            "type": "auth_expiring",
            "expires_at": moment(almost),
        }
        assert types(later) == ["auth_ok", "pong", "auth_expiring"]
        await ending.closed()  # all were looked at again meanwhile
        await client.ask(type="ping")
        told = [message["expires_at"] for message in client.received[:-1]]
        assert types(client) == ["auth_ok", "auth_expiring"] * 2 + ["pong"]
        assert told == [moment(soon)] * 2 + [moment(sooner)] * 2


@pytest.mark.gen_test(timeout=60)
async def test_in_open_mode_there_is_nothing_to_sign_in_to(server: Instance) -> None:
    """`auth` is an unknown message there, and no `auth_ok` is sent, whatever one shows."""
    async with Client.connect(server.url, "ann", **with_token(good("bob"))) as ann:
        refusal = await ann.ask(type="auth", token=good("ann"))
        assert (refusal["type"], refusal["code"]) == ("error", "invalid_message")
        assert types(ann) == ["error"]


@pytest.mark.gen_test(timeout=60)
async def test_what_comes_with_the_handshake_is_not_lost(signed: Instance) -> None:
    """A client that doesn't wait for the answer: its requests are taken when it has signed in."""
    name, room = unique("ann"), unique("room")
    async with RawSocket.open(signed) as raw:
        await raw.send(
            handshake(name, good(name, None)),
            frame(f'{{"type": "select_seat", "room_id": "{room}", "seat_id": "A1"}}'),
        )
        await raw.reader.readuntil(b"\r\n\r\n")
        assert [(await raw.message())["type"] for _ in range(2)] == ["auth_ok", "seat_selected"]


@pytest.mark.gen_test(timeout=60)
async def test_the_log_says_what_failed_and_no_token(signed: Instance) -> None:
    """Clients by their ids, plugins by their names; neither tokens nor texts of exceptions."""
    name, before = unique("ann"), len(signed.log)
    kinds = ("bad", "fails", "odd", "late", "unready", "ended")
    for kind in kinds:
        await turned_away(signed, name, **bearer(token_of(kind, name)))
    log = signed.log[before:]
    plugin = "tests.sample_plugins.tokens"
    for line in (
        f"{plugin} refused a sign-in: bad, or revoked",
        f"plugin {plugin} failed in authenticate: RuntimeError at ",
        f"plugin {plugin}: authenticate gave no sound Identity",
        f"plugin {plugin} failed in authenticate: it took longer than 0.5 s",
        f"{plugin} can't tell yet who is who: no keys yet",
        f"{plugin} refused a sign-in: its identity has ended",
    ):
        assert line in log
    assert f"closed: client {name}, code 4401" in log
    assert not any(f"{kind}:" in log for kind in ("good", *kinds))
