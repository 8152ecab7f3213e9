"""plugins/jwt_jwks.py against a server of keys that lies, stalls and dies.

Each test runs on both loops, the server on the same one: what blocked it would hang the test.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from plugins import jwt_auth as module
from plugins.jwt_auth import JwtAuth
from plugins.jwt_keys import parse_jwks
from tests.harness import LIMIT_S
from tests.identity_provider import (
    BOTH_LOOPS,
    CANARY,
    Answer,
    Hand,
    IdentityProvider,
    at,
    break_off,
    drip,
    is_put_off,
    is_refused,
    jwt_settings,
    loop_of,
    says,
    says_raw,
    serve,
    sign_in,
    signing_key,
    stall,
    started,
    wait_at_the_gate,
    waits_and_signs_in,
)

OLD, NEW = (signing_key("RS256", number).named(f"key {number}") for number in (1, 2))


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


# ---------------------------------------------------------------- lies, stalls, death


def set_of(*jwks: Any) -> Answer:
    return says({"keys": list(jwks)})


HUGE = b'{"keys": [' + b" " * 262_144 + b"]}"
REDIRECT = ("302 Found", "Location: /other.json")
LIES: dict[str, tuple[Answer, str]] = {
    "HTML": (says(f"<html>{CANARY}".encode()), "not a JWK Set"),
    "nothing": (says(b""), "not a JWK Set"),
    "no content": (says(b"", "204 No Content"), "HTTP 204|not a JWK Set"),
    "a list": (says([OLD.jwk()]), "not a JWK Set"),
    "keys no list": (says({"keys": {"a": OLD.jwk()}}), "not a JWK Set"),
    "a name twice": (says(b'{"keys": [], "keys": []}'), "not a JWK Set"),
    "nested without end": (says(b"[" * 200_000), "not a JWK Set"),
    "an empty set": (set_of(), "it is empty"),
    "101 keys": (set_of(*[OLD.jwk()] * 101), "more than 100 keys"),
    "a secret": (set_of({"kty": "oct", "k": CANARY, "kid": "x"}), "key 1 is a secret"),
    "a key for encryption": (set_of(OLD.jwk(use="enc")), "key 1 is not for signatures"),
    "a key for another algorithm": (set_of(OLD.jwk(alg="RS512")), "none of the algorithms"),
    "a private key": (set_of(OLD.jwk(d=CANARY)), "key 1 is a private one"),
    "a damaged key": (set_of(OLD.jwk(n=f"{CANARY}=")), "key 1 is damaged|does not suit"),
    "404": (says(CANARY.encode(), "404 Not Found"), "HTTP 404"),
    "500": (says(CANARY.encode(), f"500 {CANARY}"), "HTTP 500"),
    "a redirect": (says(b"", *REDIRECT), "HTTP 302; redirects are not followed"),
    "too large, and says so": (says(HUGE), "broke off"),
    "too large, to the end": (says(HUGE, length=False), "broke off|longer than"),
    "compressed": (
        says(gzip.compress(b" " * 50_000_000), "200 OK", "Content-Encoding: gzip"),
        "not a JWK Set",
    ),
    "not HTTP": (says_raw(b"SSH-2.0-lies\r\n\r\n"), "broke off"),
    "headers without end": (says_raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000), "too long"),
    "death in the middle": (break_off, "broke off"),
}


@asynccontextmanager
async def lied_to() -> AsyncIterator[tuple[IdentityProvider, JwtAuth]]:
    """The plugin with a URL whose query is a secret."""
    async with IdentityProvider(OLD) as provider:
        url = f"{provider.url}?key={CANARY}"
        async with started(provider, jwks_url=url) as plugin:
            yield provider, plugin


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES)
@pytest.mark.gen_test(timeout=60)
async def test_the_last_good_keys_are_used_while_the_issuer_lies(
    caplog: pytest.LogCaptureFixture, lie: Answer, reason: str
) -> None:
    """The log says once what was wrong, without a word of the answer; then it is good again."""
    caplog.set_level(logging.INFO)
    async with lied_to() as (provider, plugin):
        await waits_and_signs_in(plugin, OLD.token())
        hand = Hand(plugin)
        provider.answer = lie
        await is_refused(plugin, NEW.token())
        assert sign_in(plugin, OLD.token()).client_id == "ana"
        assert provider.requests == 2
        hand.turn(30)
        provider.answer = serve
        provider.keys = [NEW]
        assert (await waits_and_signs_in(plugin, NEW.token())).client_id == "ana"
    ours = [r.getMessage() for r in caplog.records if r.name == "plugins.jwt_jwks"]
    assert len(ours) == 2
    assert any(each in ours[0] for each in reason.split("|")), ours[0]
    assert "the last good ones stay in use" in ours[0]
    assert ours[1].endswith("keys are there again")
    assert CANARY not in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("silence", [stall, drip], ids=["all silent", "a byte at a time"])
@pytest.mark.gen_test(timeout=60)
async def test_the_last_good_keys_are_used_while_the_issuer_is_silent(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, silence: Answer
) -> None:
    """`timeout_seconds` is for the whole answer, however it comes in."""
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 10)  # so that it must be over long before
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        provider.answer = silence
        await plugin.reload(jwt_settings(at(provider, timeout_seconds=1)))
        await is_refused(plugin, NEW.token())
        assert sign_in(plugin, OLD.token()).client_id == "ana"
    assert "no whole answer within 1 s; the last good ones stay in use" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("name", ["HTML", "a secret", "too large, to the end"])
@pytest.mark.gen_test(timeout=60)
async def test_a_lie_at_first_puts_everybody_off(name: str) -> None:
    """No keys are no reason to refuse anybody for good, nor to let anybody in."""
    async with IdentityProvider(OLD) as provider:
        provider.answer = LIES[name][0]
        async with started(provider) as plugin:
            await is_put_off(plugin, OLD.token())
            await is_put_off(plugin, NEW.token())


@pytest.mark.gen_test(timeout=60)
async def test_an_issuer_that_fails_is_not_asked_again_at_once() -> None:
    """A second later, then less and less often: it may be failing for want of rest."""
    async with IdentityProvider(OLD) as provider:
        provider.answer = LIES["500"][0]
        async with started(provider):
            await provider.asked(1)
            begin = time.monotonic()
            await provider.asked(2)
            assert time.monotonic() - begin > 0.9


@pytest.mark.gen_test(timeout=60)
async def test_good_keys_beside_bad_ones_are_used() -> None:
    """One key that doesn't do is no reason to do without the others."""
    bad = [{"kty": "oct", "k": "AA"}, OLD.jwk(use="enc"), 7, OLD.jwk(n="A"), {"kty": "new"}]
    async with IdentityProvider() as provider:
        provider.answer = set_of(*bad, NEW.jwk())
        async with started(provider) as plugin:
            assert (await waits_and_signs_in(plugin, NEW.token())).client_id == "ana"
            await is_refused(plugin, OLD.token())


@pytest.mark.gen_test(timeout=60)
async def test_keys_are_used_until_they_are_stale(caplog: pytest.LogCaptureFixture) -> None:
    """A dead issuer's keys serve for `stale_seconds`; then sign-in is put off until it is back."""
    async with IdentityProvider(OLD) as provider, started(provider, stale_seconds=100) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        hand = Hand(plugin)
        await provider.die()
        for wait in (0, 40, 59):
            hand.turn(wait)
            await is_refused(plugin, signing_key("RS256", 3).named(f"{wait}").token())
        assert sign_in(plugin, OLD.token()).client_id == "ana"
        hand.turn(2)
        await is_put_off(plugin, OLD.token())
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1  # of three that failed
    assert "the last good ones stay in use" in warnings[0]


@pytest.mark.gen_test(timeout=60)
async def test_who_may_have_a_new_key_is_put_off_while_the_issuer_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It can't be told yet, so it isn't refused for good; when it can be, it is."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        provider.answer = wait_at_the_gate
        provider.keys = [NEW]
        monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.1)
        await is_put_off(plugin, NEW.token())
        monkeypatch.setattr(module, "LONGEST_WAIT_S", LIMIT_S)
        provider.gate.set()
        assert (await waits_and_signs_in(plugin, NEW.token())).client_id == "ana"
        assert provider.requests == 2


@pytest.mark.gen_test(timeout=60)
async def test_others_sign_in_while_the_issuer_is_silent() -> None:
    """Whoever has a known key is answered at once, also while somebody waits for an unknown one."""
    async with IdentityProvider(OLD) as provider, started(provider) as plugin:
        await waits_and_signs_in(plugin, OLD.token())
        provider.answer = stall
        waiting = asyncio.create_task(waits_and_signs_in(plugin, NEW.token()))
        await provider.asked(2)
        for number in range(10):
            assert sign_in(plugin, OLD.token(sub=f"c{number}")).client_id == f"c{number}"
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.gen_test(timeout=60)
async def test_the_largest_set_that_is_read_holds_the_loop_up_for_a_moment_only() -> None:
    """A hundred keys are parsed on the loop: that has to be short (about 10 ms)."""
    jwks = [OLD.jwk(kid=f"key {number}") for number in range(100)]
    document = json.dumps({"keys": jwks}).encode()
    durations = []
    for _ in range(5):
        begin = time.process_time()
        parse_jwks(document, ["RS256"])
        durations.append(time.process_time() - begin)
    assert min(durations) < 0.05
