"""The gate: what plugins say of who a client is, and what comes of it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from seatws.errors import NoToken, RateLimited, Unauthenticated
from seatws.plugins import ConnectRequest, Identity, NotAllowed, NotReady, Verdict
from tests.sample_plugins import scripted
from tests.sample_plugins.broken import SECRET
from tests.sample_plugins.scripted import (
    FAILURES,
    FORMS,
    assert_quiet,
    calls,
    errors,
    gate_of,
    gives,
    judge,
    later,
    raises,
    signer,
)

REQUEST = ConnectRequest("ann", HTTPHeaders({"Authorization": SECRET}), address="192.0.2.1")
ANN = Identity("ann", {"secret": SECRET})
YES, NO = Verdict(True), Verdict(False, "because")
LATE_S = 0.05


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A new script, and a log in which nothing is that must not be."""
    scripted.forget()
    caplog.set_level(logging.DEBUG)
    yield
    assert_quiet(caplog)


@pytest.mark.gen_test(timeout=60)
@FORMS
async def test_the_first_identity_stands(tmp_path: Path, form: Callable[..., Any]) -> None:
    """Who abstains is passed over; once one knows the client, nobody else is asked."""
    gate = gate_of(
        tmp_path,
        judge("not asked"),
        signer("abstains", authenticate=form(None)),
        signer("knows", authenticate=form(ANN)),
        signer("too late", authenticate=form(Identity("bob"))),
    )
    assert gate.needs_identity
    assert await gate.authenticate(REQUEST) is ANN
    assert calls == [("abstains", "authenticate"), ("knows", "authenticate")]


@pytest.mark.gen_test(timeout=60)
async def test_who_is_known_to_none_is_refused(tmp_path: Path) -> None:
    """All abstain: as without a token; that is no failure that counts."""
    gate = gate_of(tmp_path, signer("one"), signer("two"), failed_sign_ins_per_minute=1)
    for _ in range(3):
        with pytest.raises(NoToken):
            await gate.authenticate(REQUEST)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "form", [raises, lambda error: later(raises(error))], ids=["plain", "async"]
)
async def test_a_bad_token_is_refused_at_once(
    tmp_path: Path, form: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """`NotAllowed`: nobody else is asked. The reason is for the log, on one line of it."""
    refused = form(NotAllowed("wrong\nissuer"))
    gate = gate_of(tmp_path, signer("one", authenticate=refused), signer("two"))
    with pytest.raises(Unauthenticated) as caught:
        await gate.authenticate(REQUEST)
    assert type(caught.value) is Unauthenticated
    assert "issuer" not in str(caught.value)
    assert calls == [("one", "authenticate")]
    assert r"scripted:Signer refused a sign-in: wrong\nissuer" in caplog.messages[-1]
    assert not errors(caplog)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "form", [raises, lambda error: later(raises(error))], ids=["plain", "async"]
)
async def test_who_can_not_be_told_yet_is_to_come_back(
    tmp_path: Path, form: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """`NotReady` is neither a refusal nor a failure, and nobody else is asked."""
    gate = gate_of(tmp_path, signer("one", authenticate=form(NotReady("no keys"))), signer("two"))
    with pytest.raises(NotReady):
        await gate.authenticate(REQUEST)
    assert calls == [("one", "authenticate")]
    assert "scripted:Signer can't tell yet who is who: no keys" in errors(caplog)[0]


BAD_IDENTITIES = {
    "no client id": Identity(None),  # type: ignore[arg-type]
    "an empty one": Identity(""),
    "one with a space": Identity("ann smith"),
    "one with a line": Identity("ann\n"),
    "one too long": Identity("a" * 65),
    "an end without an end": Identity("ann", expires_at=math.inf),
    "an end that is no number": Identity("ann", expires_at=math.nan),
    "an end in milliseconds": Identity("ann", expires_at=time.time() * 1000),
    "an end as text": Identity("ann", expires_at="2030-01-01"),  # type: ignore[arg-type]
}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "hook",
    [*FAILURES.values(), *map(gives, BAD_IDENTITIES.values())],
    ids=[*FAILURES, *BAD_IDENTITIES],
)
async def test_a_plugin_that_fails_signs_nobody_in(
    tmp_path: Path, hook: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It counts as a refusal, is logged with its name, and nobody else is asked."""
    gate = gate_of(
        tmp_path,
        signer("one", authenticate=hook, deadline_s=LATE_S),
        signer("two", authenticate=gives(ANN)),
    )
    with pytest.raises(Unauthenticated, match="sign-in failed"):
        await gate.authenticate(REQUEST)
    assert calls == [("one", "authenticate")]
    (line,) = errors(caplog)
    assert "tests.sample_plugins.scripted:Signer" in line


@pytest.mark.gen_test(timeout=60)
async def test_an_identity_that_has_ended_is_refused_as_a_bad_token(tmp_path: Path) -> None:
    """Its grace belongs to it; a plugin need not look at the clock for it."""
    now = time.time()
    answers = iter(
        [Identity("ann", expires_at=now - 9, grace_seconds=60)]
        + [Identity("ann", expires_at=now - 9, grace_seconds=8)] * 3
    )
    gate = gate_of(
        tmp_path,
        signer("one", authenticate=lambda _: next(answers)),
        failed_sign_ins_per_minute=2,
    )
    assert (await gate.authenticate(REQUEST)).expires_at == now - 9
    for refusal in (Unauthenticated, Unauthenticated, RateLimited):
        with pytest.raises(refusal):
            await gate.authenticate(REQUEST)


@pytest.mark.gen_test(timeout=60)
async def test_bad_tokens_are_counted_by_address(tmp_path: Path) -> None:
    """Over the limit they are told to slow down; a good token, and another address, are not."""
    tokens = {"good": gives(ANN), "bad": raises(NotAllowed()), "broken": raises(RuntimeError())}
    gate = gate_of(
        tmp_path,
        signer("one", authenticate=lambda request: tokens[request.token]()),
        failed_sign_ins_per_minute=2,
    )

    async def sign_in(token: str, address: str = "192.0.2.1") -> Identity:
        return await gate.authenticate(
            ConnectRequest("a", HTTPHeaders(), address=address, token=token)
        )

    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await sign_in("broken")
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await sign_in("bad")
    for _ in range(3):
        with pytest.raises(RateLimited) as caught:
            await sign_in("bad")
        assert caught.value.retry_after_ms > 0
    assert await sign_in("good") is ANN
    with pytest.raises(Unauthenticated):
        await sign_in("bad", "192.0.2.2")


@pytest.mark.gen_test(timeout=60)
async def test_bad_tokens_may_go_uncounted(tmp_path: Path) -> None:
    """`failed_sign_ins_per_minute = 0`: no limit."""
    table = signer("one", authenticate=raises(NotAllowed()))
    gate = gate_of(tmp_path, table, failed_sign_ins_per_minute=0)
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await gate.authenticate(REQUEST)
