"""The frame with a room's whole map: made once for all who join, plain and deflated.

The map is kept in parts of a few dozen seats, each encoded and deflated by itself. So a change
costs one part anew and not the room, however large; and a large room is deflated a little at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from seatws.deflate import deflated_part, message_of, stored_part
from seatws.frames import deflated_text_frame, text_frame
from seatws.holds import Mirror
from seatws.messages import CurrentSelections, Selection, encode, rfc3339

FRAME_S: Final = 0.1
"""How long a frame is used again while nothing changes: `server_time` is in it and may be late by
so much. All who join in that time share the same bytes."""
PART_BYTES: Final = 8_192
"""A part has so much to twice as much: some 37 to 75 seats with names, or 7 to 14 with all
that `user_info` may hold."""
DEFLATE_BYTES: Final = 131_072
"""So much is deflated at a time, some 0.5 to 1.2 ms; the rest goes out as it is and has its turn
`PAUSE_S` later. So a map of 5,000 seats is deflated within 50 ms of its first join."""
PAUSE_S: Final = 0.005

_COMMA: Final = stored_part(b",")


class SnapshotFrames:
    """A room's snapshot as frames. Nothing is made before a viewer needs it.

    Args:
        room_id: Which room.
        mirror: What is shown; each change of it must be told here.
        min_bytes: Less than that is not deflated.
        time: The loop's clock, seconds.
        now_ms: Redis's clock, Unix ms.
    """

    def __init__(
        self,
        room_id: str,
        mirror: Mirror,
        min_bytes: int,
        time: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self._room_id = room_id
        self._mirror = mirror
        self._min_bytes = min_bytes
        self._time = time
        self._now_ms = now_ms
        self._encoded = [b""]
        """Each part's selections, as JSON with commas between. A seat's hash says in which it is;
        their number is a power of two."""
        self._deflated: list[bytes | None] = [None]
        """The same parts deflated; None: not yet."""
        self._stale = {0}
        """The parts in which something has changed since."""
        self._frames = [b"", b""]
        """For viewers that do not take deflated messages, and for those that do."""
        self._frames_until = [0.0, 0.0]
        self._budget = 0
        self._budget_until = 0.0

    def seat_changed(self, seat_id: str) -> None:
        """One seat of the mirror is another."""
        self._frames_until = [0.0, 0.0]
        self._stale.add(hash(seat_id) & (len(self._encoded) - 1))

    def all_changed(self) -> None:
        """The mirror was replaced."""
        self._frames_until = [0.0, 0.0]
        self._stale.update(range(len(self._encoded)))

    def frame(self, deflates: bool) -> bytes:
        """The frame as of now.

        Args:
            deflates: Whether the viewer takes deflated messages.
        """
        now = self._time()
        if now >= self._frames_until[deflates]:
            size = self._encode()
            until = now + FRAME_S
            if not deflates:
                frame = text_frame(self._plain())
            elif size < self._min_bytes:
                frame, until = self.frame(False), self._frames_until[False]
            else:
                if not self._deflate(now):
                    until = self._budget_until
                frame = deflated_text_frame(self._deflated_or_stored())
            self._frames[deflates], self._frames_until[deflates] = frame, until
        return self._frames[deflates]

    def _plain(self) -> bytes:
        head, tail = self._around()
        return b"".join((head, b",".join(filter(None, self._encoded)), tail))

    def _deflated_or_stored(self) -> bytes:
        head, tail = self._around()
        holds = _COMMA.join(
            deflated or stored_part(encoded)
            for encoded, deflated in zip(self._encoded, self._deflated, strict=True)
            if encoded
        )
        return message_of((stored_part(head), holds, stored_part(tail)))

    def _around(self) -> tuple[bytes, bytes]:
        """What stands in the message before the first selection and after the last."""
        empty = CurrentSelections(
            room_id=self._room_id,
            selections=[],
            rev=self._mirror.rev,
            server_time=rfc3339(self._now_ms()),
        )
        head, _, tail = encode(empty).partition(b"[]")  # no brackets are in an id
        return head + b"[", b"]" + tail

    # ------------------------------------------------------------ parts

    def _encode(self) -> int:
        """Bring the parts up to date, and their number to the size of the map; that size."""
        self._encode_parts(self._stale)
        size, parts = sum(map(len, self._encoded)), len(self._encoded)
        if not PART_BYTES * parts // 2 <= size <= PART_BYTES * parts * 2:
            wanted = 1 << max(0, (size // PART_BYTES).bit_length() - 1)
            if wanted != parts:
                self._encoded = [b""] * wanted
                self._deflated = [None] * wanted
                self._encode_parts(range(wanted))
        self._stale = set()
        return size

    def _encode_parts(self, parts: Iterable[int]) -> None:
        groups: dict[int, list[Selection]] = {part: [] for part in parts}
        if not groups:
            return
        mask = len(self._encoded) - 1
        for seat_id, hold in self._mirror.holds.items():
            group = groups.get(hash(seat_id) & mask)
            if group is not None:
                group.append(hold.selection)
        for part, group in groups.items():
            self._encoded[part] = encode(group)[1:-1]
            self._deflated[part] = None

    def _deflate(self, now: float) -> bool:
        """Deflate what is not yet; whether all is now."""
        if now >= self._budget_until:
            self._budget, self._budget_until = DEFLATE_BYTES, now + PAUSE_S
        for part, encoded in enumerate(self._encoded):
            if encoded and self._deflated[part] is None:
                if self._budget <= 0:
                    return False
                self._budget -= len(encoded)
                self._deflated[part] = deflated_part(encoded)
        return True
