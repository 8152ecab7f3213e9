"""The life of a token on a connection, with `plugins.jwt_auth` itself: renewed, warned, ended."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.conftest import Starter
from tests.harness import Client, Instance, Valkey, conf_with, holders_in_redis, unique

SECRET = "a secret that no one outside of this test knows"
LONG_S = 600


def token(client_id: str, *, ends_in: float = LONG_S) -> str:
    """A token of the issuer that the server trusts."""
    claims = {"iss": "https://id.test/", "aud": "seatws", "sub": client_id}
    return jwt.encode(claims | {"exp": time.time() + ends_in}, SECRET, "HS256")


def signed_in(client_id: str, **life: float) -> dict[str, Any]:
    """What a client of the test's connects with."""
    return {"additional_headers": {"Authorization": f"Bearer {token(client_id, **life)}"}}


@pytest.fixture
def server(start: Starter, valkey: Valkey, tmp_path: Path) -> Instance:
    """An instance on which a token ends at its `exp` exactly, and is warned of a second before."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    conf = conf_with(
        tmp_path / "conf",
        'use = "plugins.jwt_auth"\nissuer = "https://id.test/"\naudience = "seatws"\n'
        "leeway_seconds = 0\nwarn_seconds = 1\n"
        f'[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_file = "{secret}"',
    )
    return start(valkey.url, conf=conf)


@pytest.mark.gen_test(timeout=60)
async def test_a_renewal_in_a_busy_room_loses_nothing(server: Instance, valkey: Valkey) -> None:
    """Every change reaches who renews, once and in order; holds stay; the map ends as Redis's."""
    room = unique("room")
    ann, bob = unique("ann"), unique("bob")
    seats = [f"A{number}" for number in range(100)]
    async with (
        Client.connect(server.url, ann, **signed_in(ann)) as renewing,
        Client.connect(server.url, bob, **signed_in(bob)) as busy,
    ):
        await renewing.join(room)
        await busy.join(room)
        await renewing.select(room, "Z1")

        async def traffic() -> None:
            for seat in seats:
                assert (await busy.select(room, seat))["type"] == "seat_selected"
                assert (await busy.release(room, seat))["type"] == "seat_released"

        changing = asyncio.create_task(traffic())
        renewals = 0
        while not changing.done():
            answer = await renewing.ask(type="auth", token=token(ann))
            assert (answer["type"], answer["client_id"]) == ("auth_ok", ann)
            renewals += 1
        await changing
        last = 1 + 2 * len(seats)
        await renewing.until(lambda: renewing.revs[room][-1:] == [last])
        assert renewals >= 2
        assert renewing.revs[room] == list(range(1, last + 1))
        assert renewing.maps[room] == {"Z1": ann} == holders_in_redis(valkey, room)


@pytest.mark.gen_test(timeout=60)
async def test_a_renewal_with_anothers_token_changes_nothing(
    server: Instance, valkey: Valkey
) -> None:
    """It is refused; the connection goes on as whom it was, holds and all."""
    room, ann = unique("room"), unique("ann")
    async with Client.connect(server.url, ann, **signed_in(ann)) as client:
        await client.join(room)
        await client.select(room, "A1")
        answer = await client.ask(type="auth", token=token(unique("bob")))
        assert (answer["type"], answer["code"]) == ("error", "forbidden")
        assert (await client.select(room, "A2"))["client_id"] == ann
        assert holders_in_redis(valkey, room) == {"A1": ann, "A2": ann}


@pytest.mark.gen_test(timeout=60)
async def test_a_token_that_ends_takes_the_connection_and_leaves_the_holds(
    server: Instance, valkey: Valkey
) -> None:
    """After a warning 4401; who comes back with a new token finds its holds as they were."""
    room, ann = unique("room"), unique("ann")
    async with Client.connect(server.url, ann, **signed_in(ann, ends_in=4)) as client:
        await client.join(room)
        held = await client.select(room, "A1")
        first = await client.heard(lambda message: message["type"] == "auth_ok")
        warning = await client.heard(lambda message: message["type"] == "auth_expiring")
        assert warning["expires_at"] == first["expires_at"]
        assert await client.closed() == 4401
        goodbye = client.received[-1]
        assert (goodbye["type"], goodbye["code"]) == ("goodbye", 4401)
    assert holders_in_redis(valkey, room) == {"A1": ann}
    async with Client.connect(server.url, ann, **signed_in(ann)) as client:
        (hold,) = (await client.join(room))["selections"]
        assert (hold["seat_id"], hold["client_id"]) == ("A1", ann)
        assert hold["expires_at"] == held["expires_at"]
        assert (await client.release(room, "A1"))["type"] == "seat_released"


@pytest.mark.gen_test(timeout=60)
async def test_a_renewed_token_outlives_the_first_one(server: Instance) -> None:
    """The end of the first is no longer the connection's, and nobody is warned of it."""
    ann = unique("ann")
    async with Client.connect(server.url, ann, **signed_in(ann, ends_in=4)) as client:
        renewed = await client.ask(type="auth", token=token(ann, ends_in=7))
        warning = await client.heard(lambda message: message["type"] == "auth_expiring")
        assert warning["expires_at"] == renewed["expires_at"]
        assert await client.closed() == 4401
        assert [each["type"] for each in client.received].count("auth_expiring") == 1
