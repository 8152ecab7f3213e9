"""The gate's life: plugins are started, given new settings, stopped; all of it or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders

from seatws.config import Config, Server
from seatws.errors import ConfigError
from seatws.plugins import ConnectRequest, Identity
from seatws.web.gate import Gate
from tests.harness import LIMIT_S
from tests.sample_plugins import scripted
from tests.sample_plugins.broken import SECRET
from tests.sample_plugins.scripted import (
    assert_quiet,
    calls,
    errors,
    gate_of,
    judge,
    never,
    raises,
    signer,
    write,
)

REQUEST = ConnectRequest("ann", HTTPHeaders())
NAME = "tests.sample_plugins.scripted"
LATE_S = 0.05


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A new script, and a log in which nothing is that must not be."""
    scripted.forget()
    caplog.set_level(logging.DEBUG)
    yield
    assert_quiet(caplog)


async def at_once(*_: object) -> None:
    """An async hook that has nothing to do."""


FAILURES = pytest.mark.parametrize(
    ("hook", "words"),
    [
        (raises(RuntimeError(SECRET)), "RuntimeError at "),
        (raises(ConfigError("key: it has gone; fetch it")), "key: it has gone; fetch it"),
        (never, f"it took longer than {LATE_S} s"),
    ],
    ids=["raises", "says why", "is late"],
)


@contextlib.asynccontextmanager
async def running(gate: Gate) -> AsyncIterator[Gate]:
    """Started, with no calls noted so far, and stopped at the end."""
    await gate.start()
    calls.clear()
    yield gate
    await gate.stop()


# ---------------------------------------------------------------- start and stop


@pytest.mark.gen_test(timeout=60)
async def test_plugins_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    """Plain hooks and those that wait."""
    tables = [signer("a", start=at_once), judge("b", stop=at_once), judge("c")]
    gate = gate_of(tmp_path, *tables)
    assert calls == []
    assert gate.names == [f"{NAME}:Signer", f"{NAME}:Judge", f"{NAME}:Judge"]
    await gate.start()
    await gate.stop()
    assert calls == [(name, "start") for name in "abc"] + [(name, "stop") for name in "cba"]


@pytest.mark.gen_test(timeout=60)
@FAILURES
async def test_a_plugin_that_does_not_start_stops_those_before_it(
    tmp_path: Path, hook: Callable[..., Any], words: str
) -> None:
    """The start fails, with its name and the reason; those behind it were never started."""
    broken = signer("c", start=hook, deadline_s=LATE_S)
    gate = gate_of(tmp_path, judge("a"), judge("b"), broken, judge("d"))
    with pytest.raises(ConfigError) as caught:
        await gate.start()
    assert str(caught.value).startswith(f"plugin {NAME}:Signer did not start: {words}")
    assert SECRET not in str(caught.value)
    assert calls == [("a", "start"), ("b", "start"), ("c", "start"), ("b", "stop"), ("a", "stop")]


@pytest.mark.gen_test(timeout=60)
@FAILURES
async def test_a_plugin_that_does_not_stop_keeps_no_other_from_it(
    tmp_path: Path, hook: Callable[..., Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its name."""
    gate = gate_of(tmp_path, judge("a"), signer("b", stop=hook, deadline_s=LATE_S), judge("c"))
    async with running(gate):
        pass
    assert calls == [("c", "stop"), ("b", "stop"), ("a", "stop")]
    (line,) = errors(caplog)
    assert line.startswith(f"plugin {NAME}:Signer failed in stop: {words}")


# ---------------------------------------------------------------- reload


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("hook", [lambda *_: None, at_once], ids=["plain", "async"])
async def test_a_reload_keeps_who_stays(tmp_path: Path, hook: Callable[..., Any]) -> None:
    """The same plugins, with new settings; new ones are started, those gone are stopped."""
    kept = signer("kept", reload=hook, authenticate=lambda _: Identity("ann"))
    async with running(gate_of(tmp_path, kept, judge("goes"))) as gate:
        reloaded = gate.reloaded
        write(tmp_path, signer("kept", mark="2"))
        assert await gate.reload()
        assert reloaded.is_set()
        assert not gate.reloaded.is_set()
        assert gate.names == [f"{NAME}:Signer"]
        assert (await gate.authenticate(REQUEST)).client_id == "ann"
        write(tmp_path, judge("new"), signer("kept", mark="3"))
        assert await gate.reload()
        assert gate.names == [f"{NAME}:Judge", f"{NAME}:Signer"]
        write(tmp_path)
        assert await gate.reload()
        assert not gate.needs_identity
        assert gate.may(Identity("ann"), "join", "r") is True
    assert [call for call in calls if call[1] != "authenticate"] == [
        ("kept", "reload 2"),
        ("goes", "stop"),
        ("new", "start"),
        ("kept", "reload 3"),
        ("kept", "stop"),
        ("new", "stop"),
    ]


@pytest.mark.gen_test(timeout=60)
async def test_two_tables_of_one_plugin_keep_their_order(tmp_path: Path) -> None:
    """The first stays the first; one that is left over is stopped."""
    async with running(gate_of(tmp_path, judge("a"), judge("b"))) as gate:
        write(tmp_path, judge("a", mark="x"), judge("b", mark="y"))
        assert await gate.reload()
        write(tmp_path, judge("a", mark="z"))
        assert await gate.reload()
    assert calls == [
        *[("a", "reload x"), ("b", "reload y")],
        *[("a", "reload z"), ("b", "stop"), ("a", "stop")],
    ]


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("broken_hook", ["start", "reload"])
@FAILURES
async def test_a_reload_is_all_or_nothing(
    tmp_path: Path,
    broken_hook: str,
    hook: Callable[..., Any],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where one plugin fails, those that took new settings get the old, new ones are stopped."""
    present = [judge("a", mark="1"), signer("b", mark="1", authenticate=lambda _: Identity("ann"))]

    def fails(*settings: Any) -> Any:
        return None if settings and settings[0].mark == "1" else hook()

    async with running(gate_of(tmp_path, *present)) as gate:
        reloaded = gate.reloaded
        broken = {
            "start": judge("new") + judge("broken", start=fails, deadline_s=LATE_S),
            "reload": signer("b", mark="2", reload=fails, deadline_s=LATE_S) + judge("new"),
        }
        write(tmp_path, judge("a", mark="2"), broken[broken_hook])
        assert not await gate.reload()
        assert gate.reloaded is reloaded
        assert not reloaded.is_set()
        assert gate.names == [f"{NAME}:Judge", f"{NAME}:Signer"]
        assert gate.needs_identity
        expected = {
            # "new" takes the place of no plugin that is there: "a" is the one Judge.
            "start": [("a", "reload 2"), ("new", "start"), ("broken", "start"), ("new", "stop")],
            "reload": [("a", "reload 2"), ("b", "reload 2"), ("b", "reload 1")],
        }
        assert calls == [*expected[broken_hook], ("a", "reload 1")]
    (line,) = errors(caplog)
    assert line.startswith("not reloaded, the plugins go on as before: plugin ")
    assert words in line


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[plugin]", "not valid TOML"),
        ('[[plugin]]\nuse = "no.such"', "there is no module no"),
        (f'[[plugin]]\nuse = "{NAME}:Judge"\nname = "a"\nmrak = "2"', "did you mean mark?"),
        (None, "no such file"),
    ],
    ids=["broken", "unknown plugin", "misspelt", "lost"],
)
async def test_a_bad_file_changes_nothing(
    tmp_path: Path, text: str | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No plugin hears of it; the log says why, in the words that stop a start."""
    async with running(gate_of(tmp_path, judge("a"))) as gate:
        if text is None:
            (tmp_path / "plugins.toml").unlink()
        else:
            write(tmp_path, text)
        assert not await gate.reload()
        assert calls == []
        assert gate.names == [f"{NAME}:Judge"]
    (line,) = errors(caplog)
    assert line.startswith("not reloaded, the plugins go on as before: ")
    assert str(tmp_path / "plugins.toml") in line
    assert words in line


@pytest.mark.gen_test(timeout=60)
async def test_reloads_go_one_after_the_other(tmp_path: Path) -> None:
    """The last one's settings stand at the end; a stop waits for what is under way."""
    let_go = asyncio.Event()

    async def reload(*_: object) -> None:
        await let_go.wait()

    gate = gate_of(tmp_path, judge("a", reload=reload))
    await gate.start()
    calls.clear()
    write(tmp_path, judge("a", mark="1"))
    one = asyncio.create_task(gate.reload())
    await asyncio.sleep(0)
    write(tmp_path, judge("a", mark="2"))
    two, stop = asyncio.create_task(gate.reload()), asyncio.create_task(gate.stop())
    await asyncio.sleep(0)
    assert calls == [("a", "reload 1")]
    let_go.set()
    assert await one
    assert await two
    await stop
    assert calls == [("a", "reload 1"), ("a", "reload 2"), ("a", "stop")]


@pytest.mark.gen_test(timeout=60)
async def test_who_is_slow_to_leave_delays_no_reload(tmp_path: Path) -> None:
    """What it said is void at once; the server's end waits for it, as for the others."""
    let_go = asyncio.Event()
    gate = gate_of(tmp_path, judge("slow", stop=lambda: let_go.wait()))
    await gate.start()
    write(tmp_path)
    async with asyncio.timeout(LIMIT_S / 2):
        assert await gate.reload()
        stopping = asyncio.create_task(gate.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        let_go.set()
        await stopping


# ---------------------------------------------------------------- who was signed in before


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("hook", "stands", "fails"),
    [
        (lambda identity: identity.client_id == "ann", True, False),
        (lambda identity: identity.client_id == "bob", False, False),
        (lambda _: "yes", False, True),
        (raises(RuntimeError(SECRET)), False, True),
    ],
    ids=["yes", "no", "nonsense", "raises"],
)
async def test_the_plugin_that_gave_an_identity_says_whether_it_stands(
    tmp_path: Path,
    hook: Callable[..., Any],
    stands: bool,
    fails: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its failing counts as no; nobody without an identity, or with one of one's own, stands."""
    gives = signer("gives", authenticate=lambda _: Identity("ann"), still_stands=hook)
    gate = gate_of(tmp_path, gives, judge("not asked", still_stands=lambda _: False))
    identity = await gate.authenticate(REQUEST)
    assert gate.still_stands(identity) is stands
    assert gate.still_stands(None) is False
    assert gate.still_stands(Identity("ann")) is False
    assert ("not asked", "still_stands") not in calls
    assert bool(errors(caplog)) is fails


@pytest.mark.gen_test(timeout=60)
async def test_an_identity_goes_with_the_plugin_that_gave_it(tmp_path: Path) -> None:
    """Another one, that knows nothing of it, does not answer for it; in open mode all stand."""
    gives = signer("gives", authenticate=lambda _: Identity("ann"))
    async with running(gate_of(tmp_path, gives)) as gate:
        identity = await gate.authenticate(REQUEST)
        tokens = '[[plugin]]\nuse = "tests.sample_plugins.tokens"\n'
        write(tmp_path, gives, tokens)
        assert await gate.reload()
        assert gate.still_stands(identity)
        write(tmp_path, tokens)
        assert await gate.reload()
        assert not gate.still_stands(identity)
        write(tmp_path)
        assert await gate.reload()
        assert gate.still_stands(identity)
        assert gate.still_stands(None)


@pytest.mark.gen_test(timeout=60)
async def test_one_of_two_tables_answers_for_an_identity(tmp_path: Path) -> None:
    """Two issuers, a table each: what one gave stands, though the other knows nothing of it."""
    ann = Identity("ann")
    one = signer("one", still_stands=lambda _: False)
    two = signer("two", authenticate=lambda _: ann, still_stands=lambda who: who is ann)
    gate = gate_of(tmp_path, one, two)
    assert gate.still_stands(await gate.authenticate(REQUEST))


@pytest.mark.gen_test(timeout=60)
async def test_the_longest_time_to_sign_in_is_given(tmp_path: Path) -> None:
    """Of those that sign clients in; a plugin that does not has no say."""
    tokens = '[[plugin]]\nuse = "tests.sample_plugins.tokens"\nsign_in_seconds = {}\n'
    gate = gate_of(tmp_path, judge("a"), tokens.format(3), tokens.format(7), tokens.format(5))
    assert gate.sign_in_seconds == 7
    write(tmp_path, judge("a"))
    assert await gate.reload()
    assert gate.sign_in_seconds == 0


def test_a_cookie_signs_in_for_named_pages_only(tmp_path: Path) -> None:
    """A plugin that says so wants exact origins, or any page could use its visitors' cookies."""
    (tmp_path / "plugins.toml").write_text(
        f'[[plugin]]\nuse = "{__name__}:ByCookie"\nname = "a"\n', encoding="utf-8"
    )
    for allowed in (("*",), ("https://a.example", "https://*.b.example")):
        with pytest.raises(ConfigError, match="list the exact origins of your pages there"):
            Gate(Config(server=Server(allowed_origins=allowed)), tmp_path)
    Gate(Config(server=Server(allowed_origins=("https://a.example",))), tmp_path)


class ByCookie(scripted.Signer):
    """As plugins.jwt_auth with `cookie` among its sources."""

    needs_exact_origins = True
