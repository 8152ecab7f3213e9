"""Fails, in one hook or another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from seatws.errors import ConfigError
from seatws.plugins import Action, Identity, Plugin, Verdict

SECRET = "hunter2-do-not-tell"
"""In the text of every exception."""


class BrokenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's table."""

    hook: Literal["make", "start", "reload", "stop", "may", "none"]
    how: Literal["raises", "nonsense", "late", "unconfigured"] = "raises"


class Broken(Plugin):
    """Fails in the hook of its settings."""

    Settings = BrokenSettings
    settings: BrokenSettings

    def __init__(self, settings: BrokenSettings) -> None:
        super().__init__(settings)
        self._fail(settings, "make")

    def start(self) -> Any:
        return self._fail(self.settings, "start")

    def stop(self) -> Any:
        return self._fail(self.settings, "stop")

    def reload(self, settings: BrokenSettings) -> Any:
        return self._fail(settings, "reload")

    def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Any:
        return self._fail(self.settings, "may") or Verdict(True)

    def _fail(self, settings: BrokenSettings, hook: str) -> Any:
        if settings.hook != hook:
            return None
        match settings.how:
            case "raises":
                raise RuntimeError(SECRET)
            case "unconfigured":
                raise ConfigError("there is no such key; make one", "nor a second one")
            case "late":
                return asyncio.Event().wait()
        return SECRET
