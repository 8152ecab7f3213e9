"""A room: its mirror, kept true, and what its viewers are told."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from seatws.counts import Cause, Counts
from seatws.errors import StoreError
from seatws.frames import text_frame
from seatws.holds import Change, Event, Hold, Mirror, Snapshot, hold_of
from seatws.messages import Message, RoomJoined, SeatReleased, SeatSelected, encode
from seatws.privacy import UserInfoFilter
from seatws.rooms.fanout import Fanout
from seatws.rooms.peer import BEHIND, Viewer
from seatws.rooms.snapshots import SnapshotFrames
from seatws.store.feed import Feed
from seatws.store.holds import HoldStore

log = logging.getLogger(__name__)

EARLY_S = 0.25
"""How long a change that came early waits for those before it: a script's reply can overtake
another instance's event, which comes on another connection."""
EXPIRY_SLACK_S = 0.02
"""The loop may call a hair early; Redis would find nothing due yet."""
EXPIRY_SPREAD_S = 0.15
"""Instances look at slightly different moments: the first ends the hold, the others hear of it."""
EXPIRY_AGAIN_S = 0.25
"""Before a hold that should have ended is looked at again."""
ADMIT_PER_SLICE = 250
"""So many of those who waited for the room join before the loop does other things."""


class Room:
    """One room on this instance, from its first viewer to some time after its last.

    It is opened by subscribing, then reading a snapshot, then applying what came meanwhile; and
    read anew whenever there is doubt.
    """

    def __init__(
        self,
        room_id: str,
        store: HoldStore,
        feed: Feed,
        share: UserInfoFilter,
        counts: Counts,
        on_failed: Callable[[Room, StoreError], None],
        deflate_from: int,
    ) -> None:
        self.room_id = room_id
        self.mirror = Mirror()
        self.is_live = False
        """Whether the mirror can be vouched for."""
        self.joining: dict[Viewer, list[str | None]] = {}
        """Who waits for the room to be live, and the `request_id` of each join."""
        self._store = store
        self._feed = feed
        self._share = share
        self._counts = counts
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._snapshots = SnapshotFrames(
            room_id, self.mirror, deflate_from, self._loop.time, self._now_ms
        )
        self._fanout = Fanout(self._loop, self._snapshots.frame, counts, deflate_from)
        self._meanwhile: list[Event] = []
        self._cause: Cause = "subscribed"
        self._is_closed = False
        self.waiting_since = 0.0
        """Since when somebody in `joining` waits, loop time."""
        self._reading = False
        self._has_failed = False
        self._read_again = False
        self._patience: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # ------------------------------------------------------------ life

    def open(self, cause: Cause = "subscribed") -> None:
        """Begin to follow the room, or begin anew."""
        self._cause = cause
        self._feed.subscribe(self.room_id, self._subscribed)

    def close(self) -> None:
        """Follow it no more. Nobody may be in it."""
        self._feed.unsubscribe(self.room_id)
        self._is_closed = True
        self.is_live = False
        for timer in (self._patience, self._expiry):
            if timer is not None:
                timer.cancel()
        self._wake_waiters()

    @property
    def is_used(self) -> bool:
        """Whether somebody is in it or waits for it."""
        return bool(self._fanout.viewers or self.joining or self._waiters)

    def has(self, viewer: Viewer) -> bool:
        """Whether the viewer is in it; who waits to join is not."""
        return viewer in self._fanout.viewers

    @property
    def viewers(self) -> int:
        """How many viewers it has."""
        return len(self._fanout.viewers)

    @property
    def viewers_behind(self) -> int:
        """How many of them get no changes until they have read what they were sent."""
        return sum(1 for viewer in self._fanout.viewers if viewer.next_rev == BEHIND)

    def _subscribed(self, error: StoreError | None) -> None:
        if self._is_closed:
            return
        if error is not None:
            self._fail(error)
        else:
            self.read_anew(self._cause)

    # ------------------------------------------------------------ viewers

    def join(self, viewer: Viewer, request_id: str | None) -> None:
        """Take a viewer in, now or as soon as the room is live."""
        if not self.is_live:
            if not self.joining:
                self.waiting_since = self._loop.time()
            self.joining.setdefault(viewer, []).append(request_id)
            return
        joined = RoomJoined(
            room_id=self.room_id, client_id=viewer.peer.client_id, request_id=request_id
        )
        self._counts.joins += 1
        self._fanout.join(viewer, text_frame(encode(joined)))

    def leave(self, viewer: Viewer) -> None:
        """Let a viewer go that stays connected; what it is still owed it gets now."""
        self.joining.pop(viewer, None)
        self._fanout.leave(viewer)

    def drop(self, viewer: Viewer) -> None:
        """Forget a viewer whose connection is gone."""
        self.joining.pop(viewer, None)
        self._fanout.drop(viewer)

    def recover(self, viewer: Viewer) -> None:
        """All that the viewer was sent is out: if it fell behind, it gets the map."""
        self._fanout.recover(viewer)

    def answer(self, viewer: Viewer, rev: int, message: Message, asked_at: float = 0.0) -> None:
        """Answer a viewer's request in its place; see `Fanout.answer`."""
        if not self.has(viewer):
            viewer.peer.tell(message)  # it waits to join, and has seen nothing yet
            self._counts.answered(asked_at)
        elif self.is_live:
            self._fanout.answer(viewer, rev, message, asked_at)
        else:
            self._fanout.answer_apart(viewer, message, asked_at)

    def changed(self) -> asyncio.Future[None]:
        """Done at the next change, or when nothing can be vouched for any more."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        waiter.add_done_callback(self._waiters.remove)
        return waiter

    # ------------------------------------------------------------ keeping true

    def read_anew(self, cause: Cause) -> None:
        """Read a snapshot, since what one knows can't be vouched for; viewers are sent it."""
        self.is_live = False
        if self._reading:
            self._read_again = True
            return
        self._reading = True
        self._meanwhile.clear()  # the snapshot is asked for after them, so it has them
        self._counts.resyncs[cause] += 1
        self._store.snapshot(self.room_id, self._loaded)

    def on_event(self, event: Event) -> None:
        """Take what a script call changed, on this instance or on another."""
        if not self.is_live:
            self._meanwhile.append(event)
            return
        due = self.mirror.take(event)
        if due is None:
            self.read_anew("epoch")
            return
        for change in due:
            self._apply(change)
        self._be_patient()
        if due:
            self._plan_expiry()
            self._wake_waiters()

    def compare(self) -> None:
        """Ask Redis whether the mirror is where it should be; try again if it could not be read."""
        if self._has_failed and not self._reading:
            self._has_failed = False
            self.open(self._cause)
        elif self.is_live:
            asked = self.mirror.epoch, self.mirror.rev
            self._store.revision(self.room_id, lambda answer: self._compared(*asked, answer))

    def _loaded(self, snapshot: Snapshot | StoreError) -> None:
        self._reading = False
        if self._is_closed:
            return
        if isinstance(snapshot, StoreError):
            self._read_again = False
            self._fail(snapshot)
            return
        if self._read_again:
            self._read_again = False
            self.read_anew("again")
            return
        self._has_failed = False
        self.mirror.replace(snapshot)
        self.is_live = True
        self._snapshots.all_changed()
        self._fanout.restart(self.mirror.rev)
        meanwhile, self._meanwhile = self._meanwhile, []
        for event in meanwhile:
            self.on_event(event)
        self._be_patient()
        self._plan_expiry()
        self._wake_waiters()
        self._admit()

    def _fail(self, error: StoreError) -> None:
        self._has_failed = True
        self._fanout.release_answers()
        self._wake_waiters()
        self._on_failed(self, error)

    def _admit(self) -> None:
        for _ in range(ADMIT_PER_SLICE):
            if not self.is_live or not self.joining:
                return
            viewer = next(iter(self.joining))
            for request_id in self.joining.pop(viewer):
                self.join(viewer, request_id)
        self._loop.call_soon(self._admit)

    def _apply(self, change: Change) -> None:
        hold = self._hold_of(change) if change.kind == "selected" else None
        if change.kind == "expired" and (ended := self.mirror.holds.get(change.seat_id)):
            lag_ms = self._now_ms() - ended.deadline_ms
            self._counts.expiry_lag_s.observe(max(0, lag_ms) / 1000)
        self.mirror.apply(change, hold)
        self._snapshots.seat_changed(change.seat_id)
        if self._fanout.viewers:
            self._fanout.push(text_frame(encode(self._news_of(change, hold))))
        else:
            self._fanout.restart(change.rev)  # nobody is here to see it

    def _hold_of(self, change: Change) -> Hold:
        return hold_of(
            self.room_id,
            change.seat_id,
            change.client_id,
            change.since_ms,
            change.deadline_ms,
            self._share(change.user_info),
        )

    def _news_of(self, change: Change, hold: Hold | None) -> SeatSelected | SeatReleased:
        if hold is None:
            return SeatReleased(
                seat_id=change.seat_id,
                room_id=self.room_id,
                client_id=change.client_id,
                rev=change.rev,
                reason=change.kind,
            )
        return SeatSelected(
            seat_id=change.seat_id,
            room_id=self.room_id,
            client_id=change.client_id,
            user_info=hold.selection.user_info,
            rev=change.rev,
            expires_at=hold.selection.expires_at,
        )

    def _be_patient(self) -> None:
        """Give changes that came early some time."""
        if not self.mirror.is_waiting:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
        elif self._patience is None:
            self._patience = self._loop.call_later(EARLY_S, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        if self.is_live and self.mirror.is_waiting:
            self.read_anew("gap")

    def _compared(self, epoch: str, rev: int, answer: tuple[str, int] | StoreError) -> None:
        """Judge what Redis said, who asked when the mirror was at `epoch`, `rev`."""
        if isinstance(answer, StoreError) or not self.is_live:
            return
        if answer[0] == epoch and answer[1] < rev:
            self.read_anew("rolled back")  # Redis came back with older data than it had
        elif answer[0] != self.mirror.epoch or answer[1] > self.mirror.rev:
            self._loop.call_later(EARLY_S, self._expect, *answer)  # it may be on its way

    def _expect(self, epoch: str, rev: int) -> None:
        if self.is_live and (self.mirror.epoch != epoch or self.mirror.rev < rev):
            # Whatever kept the events from coming: ask for them again, then read.
            self.is_live = False
            self.open("gap")

    # ------------------------------------------------------------ deadlines

    def _plan_expiry(self) -> None:
        """Come back when the next hold ends."""
        deadline = self.mirror.next_deadline()
        if deadline is None:
            return
        late_by = self._now_ms() - deadline
        spread = random.uniform(0, EXPIRY_SPREAD_S)  # noqa: S311
        self._plan_look(self._loop.time() - late_by / 1000 + EXPIRY_SLACK_S + spread)

    def _plan_look(self, at: float) -> None:
        if self._expiry is not None:
            if self._expiry.when() <= at:
                return
            self._expiry.cancel()
        self._expiry = self._loop.call_at(at, self._look_for_ended)

    def _look_for_ended(self) -> None:
        self._expiry = None
        deadline = self.mirror.next_deadline()
        if not self.is_live or deadline is None or not self._store.is_up(self.room_id):
            return  # the next snapshot or the next hold plans again
        if deadline <= self._now_ms():
            self._store.expire(self.room_id)
            self._plan_look(self._loop.time() + EXPIRY_AGAIN_S)
        else:
            self._plan_expiry()

    def _now_ms(self) -> int:
        return self._store.clock(self.room_id).now_ms()

    def _wake_waiters(self) -> None:
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_result(None)
