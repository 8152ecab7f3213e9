"""Plugins of which a test in the same process says what each hook does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from seatws.config import Config, Limits
from seatws.plugins import Action, ConnectRequest, Identity, Plugin
from seatws.web.gate import Gate

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
