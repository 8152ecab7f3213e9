"""Thinks until a test lets it answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from seatws.plugins import Action, Identity, Plugin, Verdict
from tests.sample_plugins.tokens import until_there


class SlowSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's table."""

    actions: tuple[str, ...]
    rooms: tuple[str, ...] = ()
    """Where it has to think; everywhere if none is named."""
    file: str
    """When it is there, all thinking ends: with yes, if there is nothing in it."""
    log_file: str
    """Gets a line when it has to think, and one when it has thought."""


class Slow(Plugin):
    """Lets nobody do some things for a while."""

    Settings = SlowSettings
    settings: SlowSettings

    async def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Verdict:
        at_once = self.settings.rooms and room_id not in self.settings.rooms
        if at_once or action not in self.settings.actions:
            return Verdict(True)
        self._note(f"asked {action} {room_id}")
        await until_there(self.settings.file)
        self._note(f"answered {action} {room_id}")
        return Verdict(not Path(self.settings.file).read_text(), "it has thought")  # noqa: ASYNC240

    def _note(self, line: str) -> None:
        with Path(self.settings.log_file).open("a") as log:
            log.write(f"{line}\n")
