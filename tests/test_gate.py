"""The gate: what plugins say of who a client is and what it may do, and what comes of it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from seatws.errors import NoToken, RateLimited, Unauthenticated
from seatws.plugins import ConnectRequest, Identity, NotAllowed, NotReady, Verdict
from tests.harness import LIMIT_S, wait_until_async
from tests.sample_plugins import scripted
from tests.sample_plugins.broken import SECRET
from tests.sample_plugins.scripted import calls, gate_of, judge, signer, write

REQUEST = ConnectRequest("ann", HTTPHeaders({"Authorization": SECRET}), address="192.0.2.1")
ANN = Identity("ann", {"secret": SECRET})
YES, NO = Verdict(True), Verdict(False, "because")
LATE_S = 0.05


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever happens, nothing of tokens, claims and texts of exceptions is in the log."""
    scripted.forget()
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET not in caplog.text
    assert "Traceback" not in caplog.text
    assert "never retrieved" not in caplog.text


def gives(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


def raises(error: BaseException) -> Callable[..., Any]:
    def hook(*_: object) -> None:
        raise error

    return hook


def later(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but it has to be waited for."""

    async def hook_that_waits(*given: object) -> Any:
        await asyncio.sleep(0)
        return hook(*given)

    return hook_that_waits


async def never(*_: object) -> None:
    await asyncio.Event().wait()


class Awaited:
    """An awaitable that is neither a coroutine nor a future."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.sleep(0).__await__()
        return self.answer


def done(answer: Any) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(answer)
    return future


FORMS = pytest.mark.parametrize(
    "form",
    [
        gives,
        lambda answer: later(gives(answer)),
        lambda answer: lambda *_: Awaited(answer),
        lambda answer: lambda *_: done(answer),
    ],
    ids=["plain", "async", "plain that gives an awaitable", "plain that gives a future"],
)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the log that someone should look at."""
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


# ---------------------------------------------------------------- who a client is


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


FAILURES = {
    "raises": raises(RuntimeError(SECRET)),
    "raises later": later(raises(RuntimeError(SECRET))),
    "raises another refusal": raises(Unauthenticated(SECRET)),
    "gives a text": gives(SECRET),
    "gives a text later": later(gives(SECRET)),
    "gives False": gives(False),
    "is late": never,
    "is cancelled": later(raises(asyncio.CancelledError(SECRET))),
}
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


# ---------------------------------------------------------------- what it may do


@pytest.mark.gen_test(timeout=60)
@FORMS
@pytest.mark.parametrize(
    ("verdicts", "allowed"),
    [
        ([], True),
        ([None], True),
        ([None, None], True),
        ([YES], True),
        ([None, YES], True),
        ([NO], False),
        ([YES, NO], False),
        ([NO, YES], False),
        ([NO, None, NO], False),
    ],
    ids=lambda value: (
        "".join(str(verdict and verdict.allowed) for verdict in value)
        if isinstance(value, list)
        else ""
    ),
)
async def test_one_refusal_refuses(
    tmp_path: Path, form: Callable[..., Any], verdicts: list[Verdict | None], allowed: bool
) -> None:
    """Every plugin is asked, every time, in order; whoever abstains allows."""
    tables = [judge(str(number), may=form(one)) for number, one in enumerate(verdicts)]
    gate = gate_of(tmp_path, *tables, signer("not asked"))
    for _ in range(2):
        calls.clear()
        answer = gate.may(ANN, "join", "r")
        if form is gives:
            assert answer is allowed, "nobody has to wait"
        else:
            assert (answer if isinstance(answer, bool) else await answer) is allowed
        assert calls == [(str(number), "may") for number in range(len(verdicts))]


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "hook",
    [
        *FAILURES.values(),
        gives(Verdict("no")),  # type: ignore[arg-type]
        gives(Verdict(Awaited(False))),  # type: ignore[arg-type]
        gives(True),
        later(gives(Verdict(1))),  # type: ignore[arg-type]
        raises(NotAllowed(SECRET)),
    ],
    ids=[*FAILURES, "a text in it", "a forgotten await", "True", "a number in it", "NotAllowed"],
)
async def test_a_plugin_that_fails_allows_nothing(
    tmp_path: Path, hook: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its name; the others are asked all the same."""
    gate = gate_of(
        tmp_path,
        judge("one", may=hook, deadline_s=LATE_S),
        judge("two", may=gives(YES)),
        judge("three", may=later(gives(YES))),
    )
    answer = gate.may(ANN, "select", "r", ("A1",))
    assert not isinstance(answer, bool)
    assert await answer is False
    assert [name for name, _ in calls] == ["one", "two", "three"]
    (line,) = errors(caplog)
    assert "tests.sample_plugins.scripted:Judge" in line


@pytest.mark.gen_test(timeout=60)
async def test_plugins_are_told_what_it_is_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who, what, where, which seats; a refusal and its reason are a line of the log."""
    asked: list[Any] = []
    gate = gate_of(tmp_path, judge("one", may=lambda *given: asked.append(given)))
    assert gate.may(ANN, "select", "r", ("A1", "A2")) is True
    assert gate.may(ANN, "stats") is True
    assert asked == [(ANN, "select", "r", ("A1", "A2")), (ANN, "stats", None, ())]
    gate = gate_of(tmp_path, judge("one", may=gives(Verdict(False, "two\nlines"))))
    assert gate.may(Identity("ann@example.com"), "join", "r") is False
    line = caplog.messages[-1]
    assert line.endswith(r"scripted:Judge refused join in room r to a...@...: two\nlines")


@pytest.mark.gen_test(timeout=60)
async def test_plugins_think_at_the_same_time(tmp_path: Path) -> None:
    """Each of three waits for the others: one after the other would never end."""
    together = asyncio.Barrier(3)

    async def think(*_: object) -> Verdict:
        await together.wait()
        return YES

    gate = gate_of(tmp_path, *(judge(name, may=think) for name in "abc"))
    answer = gate.may(ANN, "join", "r")
    assert not isinstance(answer, bool)
    async with asyncio.timeout(LIMIT_S):
        assert await answer is True


# ---------------------------------------------------------------- hooks that wait


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("table", [signer, judge])
async def test_a_late_hook_is_cancelled(tmp_path: Path, table: Callable[..., str]) -> None:
    """And nobody waits until it has ended, or hears how it does."""
    cancelled, goes_on = asyncio.Event(), asyncio.Event()

    async def hook(*_: object) -> None:
        try:
            await never()
        except asyncio.CancelledError:
            cancelled.set()
            await goes_on.wait()
            raise RuntimeError(SECRET) from None

    gate = gate_of(tmp_path, table("one", authenticate=hook, may=hook, deadline_s=LATE_S))
    if table is signer:
        with pytest.raises(Unauthenticated):
            await gate.authenticate(REQUEST)
    else:
        answer = gate.may(ANN, "join", "r")
        assert not isinstance(answer, bool)
        assert await answer is False
    async with asyncio.timeout(LIMIT_S):
        await cancelled.wait()
    goes_on.set()


@pytest.mark.gen_test(timeout=60)
async def test_a_hook_whose_client_has_gone_is_cancelled(tmp_path: Path) -> None:
    """Nothing is left running for nobody."""
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def hook(*_: object) -> None:
        began.set()
        try:
            await never()
        finally:
            cancelled.set()

    gate = gate_of(tmp_path, signer("one", authenticate=hook))
    asking = asyncio.create_task(gate.authenticate(REQUEST))
    await began.wait()
    asking.cancel()
    async with asyncio.timeout(LIMIT_S):
        await cancelled.wait()


@pytest.mark.gen_test(timeout=60)
async def test_what_was_asked_before_a_reload_is_asked_again(tmp_path: Path) -> None:
    """An answer by rules that hold no more, from a plugin that may be gone, is not used."""
    answers: list[asyncio.Future[Any]] = []

    def think(*_: object) -> asyncio.Future[Any]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    gate = gate_of(tmp_path, signer("one", authenticate=think), judge("two", may=think))
    await gate.start()
    verdict = gate.may(ANN, "join", "r")
    assert not isinstance(verdict, bool)
    joining = asyncio.ensure_future(verdict)
    signing_in = asyncio.create_task(gate.authenticate(REQUEST))
    await wait_until_async(lambda: len(answers) == 2)
    write(tmp_path, signer("one", authenticate=gives(Identity("ann"))), judge("two", may=gives(NO)))
    assert await gate.reload()
    answers[0].set_result(YES)
    answers[1].set_result(ANN)
    assert await joining is False
    assert await signing_in is not ANN
    await gate.stop()
