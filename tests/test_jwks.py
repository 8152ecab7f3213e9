"""plugins/jwt_jwks.py against a real server of keys: the first fetch, rotation, stop and reload.

Each test runs on both loops, the server on the same one: what blocked it would hang the test.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from plugins import jwt_auth as module
from seatws.plugins import NotAllowed
from tests.harness import wait_until_async
from tests.identity_provider import (
    BOTH_LOOPS,
    Hand,
    IdentityProvider,
    at,
    is_put_off,
    is_refused,
    jwt_auth,
    jwt_settings,
    loop_of,
    sign_in,
    signing_key,
    stall,
    started,
    wait_at_the_gate,
    waits_and_signs_in,
)

OLD, NEW = (signing_key("RS256", number).named(f"key {number}") for number in (1, 2))
STRANGER = signing_key("RS256", 3)


@pytest.fixture(params=BOTH_LOOPS, autouse=True)
def kind(request: pytest.FixtureRequest) -> str:
    """Of loop: each test here runs on both."""
    return str(request.param)


@pytest.fixture
def io_loop(kind: str) -> Iterator[IOLoop]:
    """For `gen_test`."""
    yield from loop_of(kind)


# ---------------------------------------------------------------- the first fetch


@pytest.mark.gen_test(timeout=60)
async def test_making_the_plugin_asks_nobody() -> None:
    """`run.py --check` and each reload make one more."""
    async with IdentityProvider(OLD) as provider:
        plugin = jwt_auth(at(provider))
        await is_put_off(plugin, OLD.token())
        assert provider.requests == 0


@pytest.mark.gen_test(timeout=60)
async def test_who_comes_before_the_first_keys_waits_for_them() -> None:
    """`start` waits for nothing; a hundred sign-ins wait for the one fetch under way."""
    async with IdentityProvider(OLD) as provider:
        provider.answer = wait_at_the_gate
        async with started(provider) as plugin, asyncio.TaskGroup() as group:
            await provider.asked(1)
            waiting = [
                group.create_task(waits_and_signs_in(plugin, OLD.token(sub=f"c{number}")))
                for number in range(100)
            ]
            await asyncio.sleep(0)
            waiting.pop().cancel()  # one who leaves does not take the fetch along
            provider.gate.set()
        assert [task.result().client_id for task in waiting] == [f"c{n}" for n in range(99)]
        assert provider.requests == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_server_starts_without_its_issuer_and_signs_in_when_it_is_there() -> None:
    """Until then sign-in is put off, not refused; nobody has to ask for the next try."""
    async with IdentityProvider(OLD) as provider:
        await provider.die()
        async with started(provider) as plugin:
            await is_put_off(plugin, OLD.token())
            await is_put_off(plugin, STRANGER.token())
            await provider.come_back()
            await provider.asked(1)
            assert (await waits_and_signs_in(plugin, OLD.token())).client_id == "ana"


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_for_a_stalled_issuer_is_put_off_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the core's deadline, which would make a refusal of it; the fetch may take longer."""
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.1)
    async with IdentityProvider(OLD) as provider:
        provider.answer = wait_at_the_gate
        async with started(provider, timeout_seconds=60) as plugin:
            await is_put_off(plugin, OLD.token())
            provider.gate.set()
            await provider.asked(1)
            monkeypatch.undo()
            assert (await waits_and_signs_in(plugin, OLD.token())).client_id == "ana"
        assert provider.requests == 1


# ---------------------------------------------------------------- rotation


@pytest.mark.gen_test(timeout=60)
async def test_a_rotation_is_noticed_by_the_first_token_of_the_new_key() -> None:
    """Its `kid` is unknown, so the set is fetched; the old key is gone with the old set."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        provider.keys = [NEW]
        assert (await waits_and_signs_in(plugin, NEW.token())).client_id == "ana"
        await is_refused(plugin, OLD.token())
        assert provider.requests == 2


@pytest.mark.gen_test(timeout=60)
async def test_nobody_waits_for_a_refresh() -> None:
    """While it is under way the keys at hand answer at once; then the new ones do."""
    async with IdentityProvider(OLD) as provider, started(provider, refresh_seconds=1) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        provider.answer = wait_at_the_gate
        provider.keys = [OLD, NEW]
        await provider.asked(2)
        assert sign_in(plugin, OLD.token()).client_id == "ana"
        provider.gate.set()
        await provider.asked(3)
        assert sign_in(plugin, NEW.token()).client_id == "ana"


@pytest.mark.gen_test(timeout=60)
async def test_a_storm_of_unknown_kids_makes_one_fetch_a_cooldown() -> None:
    """An attacker makes up as many as he likes; who signs in properly notices nothing."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        hand = Hand(plugin)
        for storm in (1, 2):
            asked = [
                is_refused(plugin, STRANGER.token({"kid": f"{storm} {number}"}))
                for number in range(100)
            ]
            await asyncio.gather(*asked)
            assert sign_in(plugin, OLD.token()).client_id == "ana"
            assert provider.requests == 1 + storm
            hand.turn(29)
            await is_refused(plugin, STRANGER.token({"kid": "too soon"}))
            assert provider.requests == 1 + storm
            hand.turn(1)


@pytest.mark.gen_test(timeout=60)
async def test_a_kid_that_is_not_there_is_not_looked_for_twice() -> None:
    """Whoever keeps coming with a token of a key that is gone costs the issuer one request."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        hand = Hand(plugin)
        for _ in range(10):
            await is_refused(plugin, NEW.token())
            hand.turn(31)
        assert provider.requests == 2


NOT_SEARCHED = {
    "a known kid and a bad signature": STRANGER.token({"kid": OLD.kid}),
    "no kid": STRANGER.token(),
    "an algorithm that is not configured": signing_key("RS512").token({"kid": "unknown"}),
    "a way to other keys": STRANGER.token({"kid": OLD.kid, "jku": "URL", "x5u": "URL"}),
}


@pytest.mark.parametrize("token", NOT_SEARCHED.values(), ids=NOT_SEARCHED)
@pytest.mark.gen_test(timeout=60)
async def test_nothing_but_an_unknown_kid_makes_a_fetch(token: str) -> None:
    """For no other reason could the next set have the key."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        with pytest.raises(NotAllowed):
            sign_in(plugin, token)
        assert provider.requests == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_key_set_named_in_a_token_is_never_fetched() -> None:
    """`jku` and `x5u` are an attacker's to fill in (RFC 8725, 3.10)."""
    evil_key = STRANGER.named("evil")
    async with (
        IdentityProvider(OLD) as provider,
        IdentityProvider(evil_key) as evil,
        started(provider) as plugin,
    ):
        await waits_and_signs_in(plugin, OLD.token())
        for name in ("jku", "x5u", "kid", "iss"):
            await is_refused(plugin, evil_key.token({name: evil.url}))
        assert evil.requests == 0


# ---------------------------------------------------------------- stop and reload


@pytest.mark.gen_test(timeout=60)
async def test_a_stop_ends_a_fetch_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """At once, however long it might take; the connection is closed, and nothing is left."""
    async with IdentityProvider(OLD) as provider:
        provider.answer = stall
        async with started(provider, timeout_seconds=3600):
            await provider.asked(1)
        await provider.hung_up(1)
    assert caplog.text == ""


@pytest.mark.gen_test(timeout=60)
async def test_a_stop_ends_an_attempt_to_connect(caplog: pytest.LogCaptureFixture) -> None:
    """A host that doesn't answer at all would keep it for minutes."""
    with full_listener() as port:
        plugin = jwt_auth(
            {
                "algorithms": ["RS256"],
                "jwks_url": f"http://127.0.0.1:{port}/",
                "timeout_seconds": 3600,
            }
        )
        others = attempts_to_connect(port)
        plugin.start()
        await wait_until_async(lambda: attempts_to_connect(port) > others)
        await plugin.stop()
        assert attempts_to_connect(port) == others
    assert caplog.text == ""


@pytest.mark.gen_test(timeout=60)
async def test_a_stopped_plugin_can_be_started_again() -> None:
    """With the keys it had."""
    async with IdentityProvider(OLD) as provider:
        async with started(provider) as plugin:
            await waits_and_signs_in(plugin, OLD.token())
        assert sign_in(plugin, OLD.token()).client_id == "ana"
        await is_refused(plugin, NEW.token())
        assert provider.requests == 1  # nothing is fetched while it is stopped
        plugin.start()
        await provider.asked(2)
        await plugin.stop()


@pytest.mark.gen_test(timeout=60)
async def test_a_reload_keeps_the_keys_of_a_url_that_stays() -> None:
    """Nobody is put off because something else was changed, or because its timing was."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        await plugin.reload(jwt_settings(at(provider), leeway_seconds=1))
        assert sign_in(plugin, OLD.token()).grace_seconds == 1
        assert provider.requests == 1
        provider.answer = stall
        await plugin.reload(jwt_settings(at(provider, timeout_seconds=5)))
        assert sign_in(plugin, OLD.token()).client_id == "ana"
        await plugin.reload(jwt_settings(at(provider, algorithms=["PS256"])))
        with pytest.raises(NotAllowed):
            sign_in(plugin, OLD.token())


@pytest.mark.gen_test(timeout=60)
async def test_a_reload_to_another_url_asks_there_and_no_longer_here() -> None:
    """A fetch under way at the old one is ended."""
    async with IdentityProvider(OLD) as here, IdentityProvider(NEW) as there:
        here.answer = stall
        async with started(here, timeout_seconds=60) as plugin:
            await here.asked(1)
            await plugin.reload(jwt_settings(at(there)))
            await here.hung_up(1)
            assert (await waits_and_signs_in(plugin, NEW.token())).client_id == "ana"
            await is_refused(plugin, OLD.token())
        assert here.requests == 1


@pytest.mark.gen_test(timeout=60)
async def test_an_identity_stands_while_the_url_of_its_key_is_configured() -> None:
    """Whatever that serves by now; not when the URL or the algorithm is gone."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        identity = await waits_and_signs_in(plugin, OLD.token())
        provider.keys = [NEW]
        await waits_and_signs_in(plugin, NEW.token())
        assert plugin.still_stands(identity)
        await plugin.reload(jwt_settings(at(provider, algorithms=["ES256", "RS256"])))
        assert plugin.still_stands(identity)
        await plugin.reload(jwt_settings(at(provider, algorithms=["ES256"])))
        assert not plugin.still_stands(identity)
        await plugin.reload(jwt_settings(at(provider, jwks_url=f"{provider.url}?other")))
        assert not plugin.still_stands(identity)


def attempts_to_connect(port: int) -> int:
    """How many sockets of this machine ask to be connected to a port, by the kernel's list."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


@contextmanager
def full_listener() -> Iterator[int]:
    """The port of a socket whose queue is full: the kernel drops what asks to connect."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port
