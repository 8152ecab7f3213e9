"""plugins/jwt_jwks.py against a real server of keys: stop, start again, reload.

Each test runs on both loops; a task or a connection left behind fails it.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from plugins import jwt_auth as module
from seatws.plugins import NotAllowed
from tests.harness import LIMIT_S, wait_until_async
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
    waits_and_signs_in,
)

OLD, NEW, THIRD = (signing_key("RS256", number).named(f"key {number}") for number in (1, 2, 4))
STRANGER = signing_key("RS256", 3)


@pytest.fixture(params=BOTH_LOOPS, autouse=True)
def kind(request: pytest.FixtureRequest) -> str:
    """Of loop: each test here runs on both."""
    return str(request.param)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine what is waited for takes longer."""
    monkeypatch.setattr(module, "LONGEST_WAIT_S", LIMIT_S)


@pytest.fixture
def io_loop(kind: str) -> Iterator[IOLoop]:
    """For `gen_test`."""
    yield from loop_of(kind)


@pytest.mark.gen_test(timeout=60)
async def test_a_stop_ends_a_fetch_under_way(caplog: pytest.LogCaptureFixture) -> None:
    """At once, however long it might take; the connection is closed, and nothing is left."""
    async with IdentityProvider(OLD) as provider:
        provider.answer = stall
        async with started(provider, timeout_seconds=3600):
            await provider.asked(1)
        await provider.hung_up(1)
    for _ in range(3):  # turns, in which Tornado's client tells that the connection is closed
        await asyncio.sleep(0)
    gc.collect()  # asyncio complains of an exception that nobody looked at when it goes
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
        await is_refused(plugin, STRANGER.named("unknown").token())
        await plugin.reload(jwt_settings(at(provider), leeway_seconds=1))
        assert sign_in(plugin, OLD.token()).grace_seconds == 1
        with pytest.raises(NotAllowed):  # at once: no fetch is under way
            sign_in(plugin, NEW.token())
        provider.answer = stall
        await plugin.reload(jwt_settings(at(provider, timeout_seconds=5)))
        assert sign_in(plugin, OLD.token()).client_id == "ana"
        await plugin.reload(jwt_settings(at(provider, algorithms=["PS256"])))
        with pytest.raises(NotAllowed):
            sign_in(plugin, OLD.token())


@pytest.mark.gen_test(timeout=60)
async def test_a_reload_makes_keys_no_younger() -> None:
    """They are used for `stale_seconds` from when they were fetched, however often it reloads."""
    async with IdentityProvider(OLD) as provider, started(provider, stale_seconds=100) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        hand = Hand(plugin)
        await provider.die()
        hand.turn(99)
        await plugin.reload(jwt_settings(at(provider, stale_seconds=100, timeout_seconds=5)))
        assert sign_in(plugin, OLD.token()).client_id == "ana"
        hand.turn(2)
        await is_put_off(plugin, OLD.token())


@pytest.mark.gen_test(timeout=60)
async def test_a_reload_to_another_url_asks_there_and_no_longer_here() -> None:
    """A fetch under way at the old one is ended."""
    async with IdentityProvider(OLD) as here, IdentityProvider(NEW) as there:
        here.answer = stall
        async with started(here) as plugin:
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
