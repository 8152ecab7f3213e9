"""What somebody who looks at a part of the system finds: how bad, of what, and what to do."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing found. No secret stands in it."""

    level: Level
    about: str
    """The part that was looked at."""
    what: str
    fix: str = ""
    """What to do about it; empty where nothing need be done."""

    @property
    def text(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.what}; {self.fix}" if self.fix else self.what
