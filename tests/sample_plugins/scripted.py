"""Plugins of which a test in the same process says what each hook does."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seatws.config import Config, Limits
from seatws.errors import Unauthenticated
from seatws.plugins import Action, ConnectRequest, Identity, Plugin
from seatws.web.gate import Gate
from tests.sample_plugins.broken import SECRET

Hook = Callable[..., Any]

calls: list[tuple[str, str]] = []
"""Name and hook of every call, in order."""
_hooks: dict[str, dict[str, Hook]] = {}


def forget() -> None:
    """Begin anew."""
    calls.clear()
    _hooks.clear()


def signer(name: str, *, deadline_s: float = 30, mark: str = "", **hooks: Hook) -> str:
    """A table of plugins.toml: one that says who clients are, by its `authenticate`.

    Args:
        name: Of this one.
        deadline_s: For each of its hooks.
        mark: A setting, told to `reload`.
        hooks: What they do, called with the hook's arguments; the others do nothing.
    """
    return _table("Signer", name, deadline_s, mark, hooks)


def judge(name: str, *, deadline_s: float = 30, mark: str = "", **hooks: Hook) -> str:
    """As `signer`: one that says what clients may do, by its `may`."""
    return _table("Judge", name, deadline_s, mark, hooks)


def _table(kind: str, name: str, deadline_s: float, mark: str, hooks: dict[str, Hook]) -> str:
    if hooks or name not in _hooks:
        _hooks[name] = hooks
    return (
        f'[[plugin]]\nuse = "{__name__}:{kind}"\ndeadline_seconds = {deadline_s}\n'
        f"name = {json.dumps(name)}\nmark = {json.dumps(mark)}\n"
    )


class ScriptedSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plugins' table."""

    name: str
    mark: str = ""


class _Scripted(Plugin):
    Settings = ScriptedSettings
    settings: ScriptedSettings

    def start(self) -> Any:
        return self._say("start")

    def stop(self) -> Any:
        return self._say("stop")

    def reload(self, settings: ScriptedSettings) -> Any:
        calls.append((self.settings.name, f"reload {settings.mark}"))
        self.settings = settings
        return _hook(settings.name, "reload")(settings)

    def still_stands(self, identity: Identity) -> Any:
        calls.append((self.settings.name, "still_stands"))
        return _hook(self.settings.name, "still_stands", True)(identity)

    def _say(self, hook: str, *given: Any) -> Any:
        calls.append((self.settings.name, hook))
        return _hook(self.settings.name, hook)(*given)


class Signer(_Scripted):
    """Has `authenticate`."""

    def authenticate(self, request: ConnectRequest) -> Any:
        return self._say("authenticate", request)


class Judge(_Scripted):
    """Has `may`."""

    def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Any:
        return self._say("may", identity, action, room_id, seat_ids)


def _hook(name: str, hook: str, gives: object = None) -> Hook:
    return _hooks[name].get(hook, lambda *_: gives)


def gate_of(directory: Path, *tables: str, **limits: int) -> Gate:
    """A gate with these plugins, not started."""
    write(directory, *tables)
    return Gate(Config(limits=Limits(**limits)), directory)


def write(directory: Path, *tables: str) -> None:
    """The plugins.toml of a gate."""
    (directory / "plugins.toml").write_text("".join(tables), encoding="utf-8")


# ---------------------------------------------------------------- what hooks may do


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


FAILURES: dict[str, Hook] = {
    "raises": raises(RuntimeError(SECRET)),
    "raises later": later(raises(RuntimeError(SECRET))),
    "raises another refusal": raises(Unauthenticated(SECRET)),
    "gives a text": gives(SECRET),
    "gives a text later": later(gives(SECRET)),
    "gives False": gives(False),
    "is late": never,
    "is cancelled": later(raises(asyncio.CancelledError(SECRET))),
}
"""Every way in which a hook can fail."""


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


def assert_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happened, nothing of tokens, claims and texts of exceptions is in the log."""
    # Of the test itself: `caplog.text` has begun anew when a fixture ends.
    text = "\n".join(map(logging.Formatter().format, caplog.get_records("call")))
    assert SECRET not in text
    assert "Traceback" not in text
    assert "never retrieved" not in text
