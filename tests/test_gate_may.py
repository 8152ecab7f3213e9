"""The gate: what plugins say of what a client may do; and hooks that have to wait."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from seatws.errors import Unauthenticated
from seatws.plugins import ConnectRequest, Identity, NotAllowed, Verdict
from tests.harness import LIMIT_S, wait_until_async
from tests.sample_plugins import scripted
from tests.sample_plugins.broken import SECRET
from tests.sample_plugins.scripted import (
    FAILURES,
    FORMS,
    Awaited,
    assert_quiet,
    calls,
    errors,
    gate_of,
    gives,
    judge,
    later,
    never,
    raises,
    signer,
    write,
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
    tasks: list[asyncio.Task[Any] | None] = []

    async def hook(*_: object) -> None:
        tasks.append(asyncio.current_task())
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
    await asyncio.wait([task for task in tasks if task])
    tasks.clear()
    gc.collect()  # asyncio complains now of an exception that nobody has looked at


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
