"""Lets nobody with a short token into long showings."""

from __future__ import annotations

import time
from collections.abc import Sequence

from seatws.plugins import Action, Identity, Plugin, Verdict


class Shrinking(Plugin):
    """Looks at what the token says, as `room_permissions` does at its claims."""

    def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Verdict | None:
        if room_id is None or not room_id.startswith("long"):
            return None
        expires = str(identity.claims["token"]).split(":")[2]
        return Verdict(float(expires) - time.time() > 3600, "it ends before the film does")
