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
WARNED_S = 2
"""The server looks at its connections once a second: of less, a look that comes late would find the
end without having warned."""


def token(client_id: str, *, ends_in: float = LONG_S) -> str:
    """A token of the issuer that the server trusts."""
    claims = {"iss": "https://id.test/", "aud": "seatws", "sub": client_id}
    return jwt.encode(claims | {"exp": time.time() + ends_in}, SECRET, "HS256")


def signed_in(client_id: str, **life: float) -> dict[str, Any]:
    """What a client of the test's connects with."""
    return {"additional_headers": {"Authorization": f"Bearer {token(client_id, **life)}"}}


def records(valkey: Valkey, room_id: str) -> tuple[Any, Any]:
    """All that Redis keeps of a room's holds: their records, and their deadlines."""
    base = f"seatws:{{{room_id}}}"
    with valkey.client() as client:
        return client.hgetall(f"{base}:holds"), client.zrange(
            f"{base}:deadlines", 0, -1, withscores=True
        )


def signing_conf(directory: Path, warn_seconds: float) -> Path:
    """A conf directory with which a token ends at its `exp` exactly, and is warned of before."""
    secret = directory / "secret"
    secret.write_text(SECRET)
    return conf_with(
        directory / "conf",
        'use = "plugins.jwt_auth"\nissuer = "https://id.test/"\naudience = "seatws"\n'
        f"leeway_seconds = 0\nwarn_seconds = {warn_seconds}\n"
        f'[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_file = "{secret}"',
    )


@pytest.fixture
def server(start: Starter, valkey: Valkey, tmp_path: Path) -> Instance:
    """An instance with a conf directory of those."""
    return start(valkey.url, conf=signing_conf(tmp_path, WARNED_S))


@pytest.mark.gen_test(timeout=60)
async def test_a_renewal_in_a_busy_room_loses_nothing(server: Instance, valkey: Valkey) -> None:
    """Every change reaches who renews, once and in order; holds stay; the map ends as Redis's."""
    room, ann = unique("room"), unique("ann")
    others = [unique("bob"), unique("eve")]
    turns, kept = 60, 5
    async with (
        Client.connect(server.url, ann, **signed_in(ann)) as renewing,
        Client.connect(server.url, others[0], **signed_in(others[0])) as bob,
        Client.connect(server.url, others[1], **signed_in(others[1])) as eve,
    ):
        await renewing.join(room)
        await renewing.select(room, "Z1")
        held = records(valkey, room)[0]["Z1"]

        async def traffic(busy: Client, row: str) -> None:
            for number in range(turns):
                assert (await busy.select(room, f"{row}{number}"))["type"] == "seat_selected"
                if number >= kept:
                    answer = await busy.release(room, f"{row}{number}")
                    assert answer["type"] == "seat_released"

        changing = asyncio.gather(traffic(bob, "B"), traffic(eve, "E"))
        while not changing.done():
            answer = await renewing.ask(type="auth", token=token(ann))
            assert (answer["type"], answer["client_id"]) == ("auth_ok", ann)
        await changing
        last = 1 + len(others) * (2 * turns - kept)
        await renewing.until(lambda: renewing.revs[room][-1:] == [last])
        assert renewing.revs[room] == list(range(1, last + 1))
        assert len(renewing.maps[room]) == 1 + len(others) * kept
        assert renewing.maps[room] == holders_in_redis(valkey, room)
        assert records(valkey, room)[0]["Z1"] == held
        told = [message["type"] for message in renewing.received]
        amid = told[told.index("seat_selected") : -told[::-1].index("seat_selected")]
        assert amid.count("auth_ok") >= 10


@pytest.mark.gen_test(timeout=60)
async def test_a_renewal_with_anothers_token_changes_nothing(
    server: Instance, valkey: Valkey
) -> None:
    """It is refused; the connection goes on as whom it was, where it was, holds and all."""
    room, ann, bob = unique("room"), unique("ann"), unique("bob")
    async with (
        Client.connect(server.url, ann, **signed_in(ann)) as client,
        Client.connect(server.url, bob, **signed_in(bob)) as other,
    ):
        await client.join(room)
        await client.select(room, "A1")
        held = records(valkey, room)
        answer = await client.ask(type="auth", token=token(bob))
        assert (answer["type"], answer["code"]) == ("error", "forbidden")
        assert records(valkey, room) == held
        await other.select(room, "B1")
        assert (await client.select(room, "A2"))["client_id"] == ann
        assert client.revs[room] == [1, 2, 3]
        assert client.maps[room] == {"A1": ann, "B1": bob, "A2": ann}
        assert holders_in_redis(valkey, room) == client.maps[room]


@pytest.mark.gen_test(timeout=60)
async def test_a_token_that_ends_takes_the_connection_and_leaves_the_holds(
    server: Instance, valkey: Valkey
) -> None:
    """After a warning 4401; who comes back with a new token finds its holds as they were."""
    room, ann, bob = unique("room"), unique("ann"), unique("bob")
    async with Client.connect(server.url, bob, **signed_in(bob)) as witness:
        await witness.join(room)
        ends = time.time() + 3
        async with Client.connect(server.url, ann, **signed_in(ann, ends_in=3)) as client:
            await client.join(room)
            held = await client.select(room, "A1")
            before = records(valkey, room)
            first = await client.heard(lambda message: message["type"] == "auth_ok")
            assert await client.closed() == 4401
            assert time.time() >= ends
            *_, warning, goodbye = client.received
            assert warning == {"type": "auth_expiring", "expires_at": first["expires_at"]}
            assert (goodbye["type"], goodbye["code"]) == ("goodbye", 4401)
        assert records(valkey, room) == before
        async with Client.connect(server.url, ann, **signed_in(ann)) as client:
            (hold,) = (await client.join(room))["selections"]
            assert (hold["seat_id"], hold["client_id"]) == ("A1", ann)
            assert hold["expires_at"] == held["expires_at"]
            assert (await client.release(room, "A1"))["type"] == "seat_released"
        await witness.until(lambda: len(witness.revs[room]) >= 2)
        told = [(message["type"], message.get("reason")) for message in witness.received[-2:]]
        assert told == [("seat_selected", None), ("seat_released", "released")]


@pytest.mark.gen_test(timeout=60)
async def test_a_renewed_token_outlives_the_first_one(server: Instance) -> None:
    """The end of the first is no longer the connection's; of the new one's it is warned, once."""
    ann = unique("ann")
    async with Client.connect(server.url, ann, **signed_in(ann, ends_in=3)) as client:
        ends = time.time() + 6
        renewed = await client.ask(type="auth", token=token(ann, ends_in=6))
        assert await client.closed() == 4401
        assert time.time() >= ends
        told = [message["expires_at"] for message in client.received[:-1]]
        assert told.count(renewed["expires_at"]) == 2, "its auth_ok, and one auth_expiring"
        assert client.received[-2]["type"] == "auth_expiring"


@pytest.mark.gen_test(timeout=60)
async def test_a_warning_comes_even_where_there_is_hardly_time_for_one(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """Between two looks at a connection its token may come near its end, and end: still once."""
    server = start(valkey.url, conf=signing_conf(tmp_path, warn_seconds=0.01))
    ann = unique("ann")
    async with Client.connect(server.url, ann, **signed_in(ann, ends_in=3)) as client:
        assert await client.closed() == 4401
        kinds = [message["type"] for message in client.received]
        assert kinds == ["auth_ok", "auth_expiring", "goodbye"]
