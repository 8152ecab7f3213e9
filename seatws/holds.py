"""What a room is made of: holds, changes, and the mirror that an instance keeps of them.

Free of I/O and of clocks. The rules by which a hold comes and goes are not here: they are in
`store/lua/apply.lua`, where they are atomic. This is what becomes of its decisions.
"""

from __future__ import annotations

import heapq
from typing import Literal

import msgspec

from seatws.messages import Selection, rfc3339


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One step of a room, as `apply.lua` writes it."""

    rev: int
    """The room's revision after this change: one more than before it."""
    kind: Literal["selected", "released", "expired"]
    seat_id: str
    client_id: str
    """Who holds the seat, or held it."""
    since_ms: int = 0
    """When it was selected, Unix ms, Redis's clock; only with `selected`, as the next two."""
    deadline_ms: int = 0
    user_info: str = "{}"
    """A JSON object."""


class Event(msgspec.Struct, frozen=True, array_like=True):
    """The changes of one script call, as every instance hears of them, in order and gapless."""

    epoch: str
    """Which life of the room's data this is; another epoch means that `rev` began anew."""
    changes: list[Change]


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of one operation."""

    code: Literal["ok", "taken", "limit", "not_holder"]
    seats: list[tuple[str, int, int]] = []
    """`ok`: each seat, its change's `rev` (0: it was one's own already, nothing changed) and its
    deadline in Unix ms (0 for a release). `taken`: the seats in the way, 0, and their deadlines."""


class Hold(msgspec.Struct, frozen=True):
    """One seat, held by one client until its deadline."""

    selection: Selection
    """As clients see it, with what of `user_info` is shared."""
    deadline_ms: int
    """Unix ms, Redis's clock. The hold ends at this moment, not after it."""


class Snapshot(msgspec.Struct, frozen=True):
    """A room's holds, all as of one moment in Redis."""

    epoch: str
    """Empty for a room that never had a hold, or of which nothing is left."""
    rev: int
    holds: dict[str, Hold]


def hold_of(
    room_id: str,
    seat_id: str,
    client_id: str,
    since_ms: int,
    deadline_ms: int,
    user_info: bytes,
) -> Hold:
    """Make a hold of what the store knows of it; `user_info` is the shared part, as JSON."""
    selection = Selection(
        client_id=client_id,
        seat_id=seat_id,
        room_id=room_id,
        user_info=msgspec.Raw(user_info),
        timestamp=rfc3339(since_ms),
        expires_at=rfc3339(deadline_ms),
    )
    return Hold(selection, deadline_ms)


class Mirror:
    """What one room's viewers should see: its holds as of `rev`.

    Fed with changes in whatever order they come, it hands on those that are next; one from the
    future waits for those before it. It arms no timer: whoever feeds it gives the early ones some
    time (`is_waiting`), then brings a snapshot; and comes back at `next_deadline`.
    """

    __slots__ = ("_deadlines", "_early", "epoch", "holds", "rev")

    def __init__(self) -> None:
        self.epoch = ""
        self.rev = 0
        self.holds: dict[str, Hold] = {}
        self._early: dict[int, Change] = {}
        self._deadlines: list[tuple[int, str]] = []

    def take(self, event: Event) -> list[Change] | None:
        """Find what is next, what of it comes early, and what is old.

        Returns:
            The changes that are due now, in order; give each to `apply`. None if the event is of
            another epoch: only a snapshot helps.
        """
        if event.epoch != self.epoch:
            if self.epoch or self.rev:
                return None
            # The room had no data, so this epoch begins at rev 1, after what we know: a later rev
            # is just early, as where our own script's reply overtakes another instance's event.
            self.epoch = event.epoch
        due: list[Change] = []
        following = self.rev + 1
        early = self._early
        for change in event.changes:
            if change.rev == following:
                due.append(change)
                following += 1
            elif change.rev > following:
                early[change.rev] = change
        while early and (waited := early.pop(following, None)):
            due.append(waited)
            following += 1
        return due

    def apply(self, change: Change, hold: Hold | None) -> None:
        """Take the next step.

        Args:
            change: One that `take` returned, in its order.
            hold: The new hold of a `selected` change; None ends the seat's hold.
        """
        self.rev = change.rev
        if hold is None:
            self.holds.pop(change.seat_id, None)
        else:
            self.holds[change.seat_id] = hold
            heapq.heappush(self._deadlines, (hold.deadline_ms, change.seat_id))

    def replace(self, snapshot: Snapshot) -> None:
        """Forget everything and start from here. Events that came early are forgotten, too."""
        self.epoch = snapshot.epoch
        self.rev = snapshot.rev
        self.holds = snapshot.holds
        self._early.clear()
        self._deadlines = [(hold.deadline_ms, seat) for seat, hold in snapshot.holds.items()]
        heapq.heapify(self._deadlines)

    @property
    def is_waiting(self) -> bool:
        """Whether a change came early and those before it have not come yet."""
        return bool(self._early)

    def next_deadline(self) -> int | None:
        """When the first of the holds ends, Unix ms on Redis's clock; None without holds."""
        deadlines, holds = self._deadlines, self.holds
        # Releases leave their deadlines behind; without this, a busy room's would pile up.
        if len(deadlines) > 2 * len(holds) + 64:
            deadlines[:] = [(hold.deadline_ms, seat) for seat, hold in holds.items()]
            heapq.heapify(deadlines)
        while deadlines:
            deadline_ms, seat = deadlines[0]
            hold = holds.get(seat)
            if hold is not None and hold.deadline_ms == deadline_ms:
                return deadline_ms
            heapq.heappop(deadlines)
        return None
