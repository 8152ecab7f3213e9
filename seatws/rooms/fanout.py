"""Fan-out: one frame, encoded once, to every viewer of a room, in the order of `rev`.

A flush sends all changes that have gathered as the same shared bytes. An idle room is served at
once. In a busy one a flush waits after the last one for as long as that one took, and half of it:
so changes gather, and a viewer costs one system call for many of them.

A large frame is deflated, likewise once, as soon as a viewer takes it so.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from seatws.counts import Counts
from seatws.frames import deflated, text_frame
from seatws.messages import Message, SeatReleased, SeatSelected, encode
from seatws.rooms.peer import AWAY, BEHIND, Viewer

_NOBODY = -1
"""The start of a flush without frames: no viewer stands there."""
LONGEST_PAUSE_S = 0.1
"""Between flushes of a busy room: what a viewer can be made to wait so that others are served."""
PAUSE_FACTOR = 1.5
"""The pause after a flush, as a multiple of the time that it took. With 1,050 viewers and 100
changes a second a delivery then costs 0.7 to 0.8 of uWebSockets' and p99 is 30 to 35 ms; with 1 it
costs 0.8, at 28 ms; with 3, 0.4, at 54 ms (docs/performance.md)."""
DEFLATE_BYTES = 131_072
"""Of the frames of a flush so much is deflated, about 1 ms; the rest goes out as it is."""
VIEWERS_PER_SLICE = 250
"""A flush lets the loop do other things after so many: some 1.5 ms of sending."""


@dataclass(slots=True)
class _Flush:
    """Changes `start` up to, not including, `head`, on their way to the viewers in `queue`."""

    start: int
    head: int
    shared: bytes
    has_large: bool
    queue: Iterator[Viewer]
    deflated: bytes | None = None
    """As `shared`, but large frames deflated; None until a viewer needs it."""
    took_s: float = 0.0
    viewers: int = 0
    """So many have been served."""
    since: float = 0.0
    """Since when its first change is known, loop time."""


class Fanout:
    """The viewers of one room and the changes that are on their way to them.

    Args:
        loop: Where flushes run.
        snapshot: Makes the frame with the room's whole map, as of the last change that was pushed;
            deflated if it is called with True.
        counts: What is counted on the way.
        deflate_from: The shortest frame that is deflated, bytes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        snapshot: Callable[[bool], bytes],
        counts: Counts,
        deflate_from: int,
    ) -> None:
        self.viewers: dict[Viewer, None] = {}
        """In the order in which they came."""
        self._loop = loop
        self._snapshot = snapshot
        self._counts = counts
        self._deflate_from = deflate_from
        self._first = 1
        self._frames: list[bytes] = []
        """The frames of revs `_first`, `_first` + 1, ..., which some viewer may still need."""
        self._deflated: list[bytes] = []
        """The same for viewers that take deflated frames, as far as one needed them."""
        self._last_large = 0
        """The rev of the last frame that is large enough."""
        self._waiting_since = 0.0
        """Since when the first change that is in no flush is known, loop time; 0: there is none."""
        self._due: asyncio.Handle | None = None
        self._flush: _Flush | None = None
        self._not_before = 0.0

    @property
    def _head(self) -> int:
        """The next rev that the room will have."""
        return self._first + len(self._frames)

    def push(self, frame: bytes) -> None:
        """Take the next change. It goes out with the next flush."""
        if len(frame) >= self._deflate_from:
            self._last_large = self._head
        if not self._waiting_since:
            self._waiting_since = self._loop.time()
        self._frames.append(frame)
        self._schedule()

    def restart(self, rev: int) -> None:
        """Start anew from a snapshot as of `rev`, which every viewer is sent."""
        self._first = rev + 1
        self._frames = []
        self._deflated = []
        self._last_large = 0
        self._waiting_since = 0.0
        self._flush = None
        for viewer in self.viewers:
            viewer.next_rev = BEHIND
        if self.viewers:
            self._schedule()

    def join(self, viewer: Viewer, greeting: bytes) -> None:
        """Send the greeting and the map; from now on the viewer gets what follows.

        A viewer that is in the room already first gets what is on its way to it. While anything is
        unsent the map waits: who joins again and again without reading would pile maps up.
        """
        if viewer in self.viewers:
            self._catch_up(viewer, self._head)
        self.viewers[viewer] = None
        if viewer.peer.unsent:
            viewer.peer.send(greeting)
            viewer.next_rev = BEHIND
        else:
            viewer.peer.send_snapshot(greeting + self._snapshot(viewer.peer.deflates))
            viewer.next_rev = self._head

    def leave(self, viewer: Viewer) -> None:
        """Send what is still on its way to the viewer, and no more after that."""
        if viewer in self.viewers:
            self._catch_up(viewer, self._head)
            self._send_answers(viewer)
            self.drop(viewer)

    def drop(self, viewer: Viewer) -> None:
        """Forget a viewer whose connection is gone."""
        self.viewers.pop(viewer, None)
        viewer.next_rev = AWAY

    def answer(self, viewer: Viewer, rev: int, message: Message, asked_at: float = 0.0) -> None:
        """Send the answer to a request of the viewer's own.

        Args:
            viewer: One of the room's.
            rev: The change whose place in the order the answer takes; the viewer gets it instead
                of that change. 0: it has no place, but does not overtake an earlier answer.
            message: The answer, with its rev if it has one.
            asked_at: When the request was read, `time.monotonic()`; 0: that is not counted.
        """
        if viewer.answers is not None:
            viewer.answers.append((rev or viewer.answers[-1][0], message, asked_at))
        elif rev and viewer.next_rev != BEHIND and viewer.next_rev <= rev:
            viewer.answers = [(rev, message, asked_at)]
        else:
            self._answer_now(viewer, message, asked_at)  # the map that it has or gets tells all

    def answer_apart(self, viewer: Viewer, message: Message, asked_at: float = 0.0) -> None:
        """Send an answer now, outside the order: a snapshot that holds its change is to come."""
        self._send_answers(viewer)
        self._answer_now(viewer, message, asked_at)

    def release_answers(self) -> None:
        """Send the answers that wait for a change which may not come for long."""
        for viewer in self.viewers:
            self._send_answers(viewer)

    def recover(self, viewer: Viewer) -> None:
        """Give a viewer that fell behind the map, if all that it was sent is out."""
        if viewer.next_rev == BEHIND and not viewer.peer.unsent:
            self._send_answers(viewer)
            viewer.peer.send_snapshot(self._snapshot(viewer.peer.deflates))
            viewer.next_rev = self._head

    def _schedule(self) -> None:
        if self._due is not None or self._flush is not None:
            return
        pause = self._not_before - self._loop.time()
        if pause <= 0:
            # At the end of this turn of the loop: one script call's changes go together.
            self._due = self._loop.call_soon(self._start_flush)
        else:
            self._due = self._loop.call_later(pause, self._start_flush)

    def _start_flush(self) -> None:
        self._due = None
        self._flush = _Flush(
            start=self._first if self._frames else _NOBODY,
            head=self._head,
            shared=b"".join(self._frames),
            has_large=self._last_large >= self._first,
            queue=iter(tuple(self.viewers)),
            since=self._waiting_since,
        )
        self._waiting_since = 0.0
        self._send_slice(self._flush)

    def _send_slice(self, flush: _Flush) -> None:
        if flush is not self._flush:
            return  # a snapshot came in between
        began = time.perf_counter()
        start, head, shared, has_large = flush.start, flush.head, flush.shared, flush.has_large
        sent = 0
        for viewer in itertools.islice(flush.queue, VIEWERS_PER_SLICE):
            sent += 1
            if viewer.next_rev != start or viewer.answers is not None:
                self._catch_up(viewer, head)
            elif viewer.peer.is_behind:
                self._fall_behind(viewer)
            elif has_large and viewer.peer.deflates:
                viewer.peer.send(self._shared_deflated(flush))
                viewer.next_rev = head
            else:
                viewer.peer.send(shared)
                viewer.next_rev = head
        flush.took_s += time.perf_counter() - began
        flush.viewers += sent
        if sent == VIEWERS_PER_SLICE:
            self._loop.call_soon(self._send_slice, flush)
        else:
            self._end_flush(flush)

    def _end_flush(self, flush: _Flush) -> None:
        self._flush = None
        changes, now = flush.head - self._first, self._loop.time()
        del self._frames[:changes]
        del self._deflated[:changes]
        self._first = flush.head
        self._not_before = now + min(flush.took_s * PAUSE_FACTOR, LONGEST_PAUSE_S)
        if changes:
            self._counts.flushed(flush.viewers, changes, now - flush.since)
        if self._frames:
            self._schedule()

    def _shared_deflated(self, flush: _Flush) -> bytes:
        if flush.deflated is None:
            flush.deflated = b"".join(self._deflated_frames()[: flush.head - self._first])
        return flush.deflated

    def _deflated_frames(self) -> list[bytes]:
        """All frames that are due, the large ones deflated."""
        if self._last_large < self._first:
            return self._frames
        left = DEFLATE_BYTES
        for frame in self._frames[len(self._deflated) :]:
            if len(frame) >= self._deflate_from and left > 0:
                left -= len(frame)
                frame = deflated(frame)
            self._deflated.append(frame)
        return self._deflated

    def _catch_up(self, viewer: Viewer, head: int) -> None:
        """Bring one viewer up to `head`, its own answers in their places."""
        if viewer.next_rev == BEHIND:
            self.recover(viewer)
        elif viewer.next_rev < head:
            if viewer.peer.is_behind:
                self._fall_behind(viewer)
            else:
                viewer.peer.send(b"".join(self._own_frames(viewer, head)))
                viewer.next_rev = head

    def _own_frames(self, viewer: Viewer, head: int) -> Iterator[bytes]:
        """The frames from `viewer.next_rev` to `head`, as this viewer gets them."""
        at, answers = viewer.next_rev, viewer.answers or []
        frames = self._deflated_frames() if viewer.peer.deflates else self._frames
        taken = 0
        for rev, message, asked_at in answers:
            if rev >= head:
                break
            if rev >= at:
                yield from frames[at - self._first : rev - self._first]
                at = rev + 1
            else:
                message = _without_rev(message)
            yield text_frame(encode(message))
            self._counts.answered(asked_at)
            taken += 1
        yield from frames[at - self._first : head - self._first]
        viewer.answers = answers[taken:] or None

    def _fall_behind(self, viewer: Viewer) -> None:
        self._send_answers(viewer)
        viewer.next_rev = BEHIND
        self._counts.slow_viewers += 1

    def _send_answers(self, viewer: Viewer) -> None:
        answers, viewer.answers = viewer.answers, None
        for _, message, asked_at in answers or ():
            self._answer_now(viewer, message, asked_at)

    def _answer_now(self, viewer: Viewer, message: Message, asked_at: float) -> None:
        viewer.peer.tell(_without_rev(message))
        self._counts.answered(asked_at)


def _without_rev(message: Message) -> Message:
    """An answer whose change the viewer learns of through the map: it has no place in the order."""
    if isinstance(message, SeatSelected | SeatReleased):
        return msgspec.structs.replace(message, rev=msgspec.UNSET)
    return message
