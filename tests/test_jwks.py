"""plugins/jwt_jwks.py against a real server of keys: the first fetch, rotation, unknown keys.

Each test runs on both loops, the server on the same one: what blocked it would hang the test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from plugins import jwt_auth as module
from plugins.jwt_auth import LONGEST_WAIT_S, JwtAuth
from plugins.jwt_jwks import MAX_UNKNOWN_KIDS
from seatws.loader import DEADLINE_S
from seatws.plugins import NotAllowed
from tests.harness import LIMIT_S
from tests.identity_provider import (
    BOTH_LOOPS,
    Hand,
    IdentityProvider,
    SigningKey,
    at,
    claims,
    forge,
    is_put_off,
    is_refused,
    jwt_auth,
    loop_of,
    sign_in,
    signing_key,
    started,
    wait_at_the_gate,
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
        async with started(provider) as plugin:
            await is_put_off(plugin, OLD.token())
            provider.gate.set()
            await provider.asked(1)
            monkeypatch.setattr(module, "LONGEST_WAIT_S", LIMIT_S)
            assert (await waits_and_signs_in(plugin, OLD.token())).client_id == "ana"
        assert provider.requests == 1


def test_the_longest_wait_is_below_the_deadline_of_hooks() -> None:
    """Or a slow issuer would look like a plugin that fails."""
    assert LONGEST_WAIT_S < DEADLINE_S


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


@pytest.mark.gen_test(timeout=60)
async def test_after_a_refresh_a_kid_is_looked_for_again() -> None:
    """The issuer may have taken it up since."""
    async with IdentityProvider(OLD) as provider, started(provider, refresh_seconds=1) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        hand = Hand(plugin)
        await is_refused(plugin, NEW.token())
        provider.keys = [OLD, THIRD]
        await a_refresh_brings(THIRD, plugin)
        provider.keys = [OLD, NEW]
        hand.turn(31)
        assert (await waits_and_signs_in(plugin, NEW.token())).client_id == "ana"


async def a_refresh_brings(key: SigningKey, plugin: JwtAuth) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(NotAllowed):
                await waits_and_signs_in(plugin, key.token())
                return
            await asyncio.sleep(0.005)


@pytest.mark.gen_test(timeout=60)
async def test_a_bounded_number_of_unknown_kids_is_remembered() -> None:
    """An attacker fills no memory; beyond it the oldest is looked for again, after a cooldown."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        hand = Hand(plugin)
        header = {"alg": "RS256"}
        tokens = [
            forge(header | {"kid": f"{number}"}, claims(), lambda _: bytes(256))
            for number in range(MAX_UNKNOWN_KIDS + 1)
        ]
        await asyncio.gather(*(is_refused(plugin, token) for token in tokens))
        hand.turn(31)
        await is_refused(plugin, tokens[-1])
        assert provider.requests == 2
        await is_refused(plugin, tokens[0])
        assert provider.requests == 3


@pytest.mark.gen_test(timeout=60)
async def test_only_a_url_for_the_algorithm_is_searched() -> None:
    """Of several issuers, the others hear nothing of it; nor does it matter that one is away."""
    es = signing_key("ES256").named("es")
    async with IdentityProvider(OLD) as one, IdentityProvider(es) as other:
        plugin = jwt_auth(at(one), at(other, algorithms=["ES256"]))
        plugin.start()
        for key in (OLD, es):
            await waits_and_signs_in(plugin, key.token())
        await is_refused(plugin, es.named("unknown").token())
        assert (one.requests, other.requests) == (1, 2)
        await plugin.stop()


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
