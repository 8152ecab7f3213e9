"""Refuses what a list says."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from seatws.plugins import Action, Identity, Plugin, Verdict
from seatws.rules import texts

_LINES = texts(r"\S+ \S+( \S+)?", "a list of ACTION ROOM [CLIENT]", "with * for any characters")


class ListSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's table."""

    refuse: Annotated[tuple[str, ...], _LINES] = ()


class Lists(Plugin):
    """Refuses `ACTION ROOM [CLIENT]` where it is listed, and has no opinion else."""

    Settings = ListSettings
    settings: ListSettings

    def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Verdict | None:
        asked = (action, room_id or "-", identity.client_id)
        for line in self.settings.refuse:
            if all(map(fnmatchcase, asked, line.split(" "))):
                return Verdict(False, "the list says so")
        return None
