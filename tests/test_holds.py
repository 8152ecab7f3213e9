"""The mirror of a room: whatever order its events come in, it ends up right or says it waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from seatws.holds import Change, Event, Hold, Mirror, Snapshot, hold_of

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEATS = ["A1", "A2", "A3", "B1"]


def hold(seat_id: str, deadline_ms: int = 10_000, client_id: str = "ann") -> Hold:
    return hold_of("r", seat_id, client_id, deadline_ms - 5000, deadline_ms, b"{}")


def hold_after(change: Change) -> Hold | None:
    """What `Mirror.apply` is given with a change."""
    if change.kind != "selected":
        return None
    return hold(change.seat_id, change.deadline_ms, change.client_id)


def feed(mirror: Mirror, event: Event) -> list[int] | None:
    """Give a mirror an event as a room does; the revs that it then applied."""
    due = mirror.take(event)
    if due is None:
        return None
    for change in due:
        mirror.apply(change, hold_after(change))
    return [change.rev for change in due]


def event_of(*revs: int, epoch: str = "e", kind: str = "selected") -> Event:
    """An event that selects, each rev a seat of its own."""
    changes = [Change(rev, kind, f"S{rev}", "ann", 0, 1000 * rev) for rev in revs]  # type: ignore[arg-type]  # a word of the table
    return Event(epoch, changes)


def mirror_at(rev: int, *seats: Hold, epoch: str = "e") -> Mirror:
    mirror = Mirror()
    holds = {one.selection.seat_id: one for one in seats}
    mirror.replace(Snapshot(epoch, rev, holds))
    return mirror


# A history of a room: script calls of some changes each, and its holds after each call.


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event], list[dict[str, Hold]]]:
    rev, holds = 0, dict[str, Hold]()
    events: list[Event] = []
    states = [dict(holds)]
    for size in draw(st.lists(st.integers(1, 4), min_size=1, max_size=8)):
        changes = []
        for _ in range(size):
            rev += 1
            seat = draw(st.sampled_from(SEATS))
            kind = draw(st.sampled_from(["released", "expired"])) if seat in holds else "selected"
            deadline = draw(st.integers(1, 50)) * 1000
            change = Change(rev, kind, seat, "ann", deadline - 5000, deadline)  # type: ignore[arg-type]  # one of its words
            changes.append(change)
            if (held := hold_after(change)) is None:
                del holds[seat]
            else:
                holds[seat] = held
        events.append(Event("e", changes))
        states.append(dict(holds))
    return events, states


def rev_after(events: list[Event], count: int) -> int:
    return events[count - 1].changes[-1].rev if count else 0


@unhurried
@given(histories(), st.data())
def test_any_order_with_repeats_ends_in_the_same_state(
    history: tuple[list[Event], list[dict[str, Hold]]], data: st.DataObject
) -> None:
    """From any snapshot on, once every event has come: all of it, in order, each change once."""
    events, states = history
    start = data.draw(st.integers(0, len(events)))
    mirror = mirror_at(
        rev_after(events, start), *states[start].values(), epoch="e" if start else ""
    )
    again = data.draw(st.lists(st.sampled_from(events), max_size=5))
    order = data.draw(st.permutations([*events, *again]))
    if not start:
        order = [events[0], *order]  # an empty room's first event says which epoch it is
    applied = [rev for event in order for rev in feed(mirror, event) or ()]
    last = rev_after(events, len(events))
    assert applied == list(range(rev_after(events, start) + 1, last + 1))
    assert (mirror.rev, mirror.holds) == (last, states[-1])
    assert not mirror.is_waiting


@unhurried
@given(histories(), st.data())
def test_with_an_event_missing_it_says_that_it_waits(
    history: tuple[list[Event], list[dict[str, Hold]]], data: st.DataObject
) -> None:
    """It stands where the gap begins, and waits if anything from behind the gap has come."""
    events, states = history
    missing = data.draw(st.integers(0, len(events) - 1))
    mirror = mirror_at(0, epoch="e")
    others = [event for event in events if event is not events[missing]]
    for event in data.draw(st.permutations([*others, *others])):
        feed(mirror, event)
    assert (mirror.rev, mirror.holds) == (rev_after(events, missing), states[missing])
    assert mirror.is_waiting == (missing < len(events) - 1)
    mirror.replace(Snapshot("e", rev_after(events, len(events)), dict(states[-1])))
    assert not mirror.is_waiting
    assert mirror.holds == states[-1]


@unhurried
@given(histories(), st.data())
def test_a_snapshot_at_any_moment_loses_and_repeats_nothing(
    history: tuple[list[Event], list[dict[str, Hold]]], data: st.DataObject
) -> None:
    """What came before it is not applied again, what comes after it is."""
    events, states = history
    mirror = mirror_at(0, epoch="e")
    position = data.draw(st.integers(0, len(events)))
    order = data.draw(st.permutations(events))
    cut = data.draw(st.integers(0, len(events)))
    for event in order[:cut]:
        feed(mirror, event)
    if mirror.rev <= rev_after(events, position):
        mirror.replace(Snapshot("e", rev_after(events, position), dict(states[position])))
    for event in [*order, *order]:
        feed(mirror, event)
    assert (mirror.rev, mirror.holds) == (rev_after(events, len(events)), states[-1])
    assert not mirror.is_waiting


TAKEN: dict[str, tuple[Mirror, Event, list[int] | None, bool]] = {
    "the next one": (mirror_at(4), event_of(5), [5], False),
    "the next ones": (mirror_at(4), event_of(5, 6, 7), [5, 6, 7], False),
    "an old one": (mirror_at(4), event_of(3, 4), [], False),
    "one half old": (mirror_at(4), event_of(4, 5), [5], False),
    "an early one": (mirror_at(4), event_of(6), [], True),
    "the first of a room": (mirror_at(0, epoch=""), event_of(1, 2), [1, 2], False),
    "the second of a room": (mirror_at(0, epoch=""), event_of(2), [], True),
    "the first of another epoch": (mirror_at(4), event_of(1, epoch="f"), None, False),
    "the next one of another epoch": (mirror_at(4), event_of(5, epoch="f"), None, False),
    "the first of an epoch in a room with data": (mirror_at(4, epoch=""), event_of(1), None, False),
}


@pytest.mark.parametrize(("mirror", "event", "due", "waits"), TAKEN.values(), ids=TAKEN.keys())
def test_an_event_is_due_early_old_or_foreign(
    mirror: Mirror, event: Event, due: list[int] | None, waits: bool
) -> None:
    """Only a snapshot helps against another epoch; nothing is changed by it.

    A room without data takes the epoch of its first event, be it early.
    """
    mirror = copy_of(mirror)
    epoch = mirror.epoch if mirror.epoch or due is None else event.epoch
    before = (epoch, mirror.rev, dict(mirror.holds))
    assert feed(mirror, event) == due
    assert mirror.is_waiting is waits
    if not due:
        assert (mirror.epoch, mirror.rev, mirror.holds) == before


def copy_of(mirror: Mirror) -> Mirror:
    """A mirror of its own for each test of a table."""
    return mirror_at(mirror.rev, *mirror.holds.values(), epoch=mirror.epoch)


def test_early_ones_follow_once_the_gap_is_closed() -> None:
    """In their order, behind what closed it."""
    mirror = mirror_at(0)
    for early in (event_of(5), event_of(3), event_of(6, 7)):
        assert feed(mirror, early) == []
    assert feed(mirror, event_of(1, 2)) == [1, 2, 3]
    assert mirror.is_waiting
    assert feed(mirror, event_of(4)) == [4, 5, 6, 7]
    assert not mirror.is_waiting


def test_a_snapshot_of_another_epoch_starts_the_count_anew() -> None:
    """Rev 1 is next again, and what had come early for the old epoch is gone."""
    mirror = mirror_at(8, hold("A1"))
    feed(mirror, event_of(10))
    mirror.replace(Snapshot("f", 0, {}))
    assert (mirror.rev, mirror.holds, mirror.is_waiting) == (0, {}, False)
    assert feed(mirror, event_of(1, epoch="f")) == [1]


# ---------------------------------------------------------------- deadlines


class Deadlines(RuleBasedStateMachine):
    """`next_deadline` beside the plain minimum, through any changes and snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror()

    @rule(seat=st.sampled_from(SEATS), deadline=st.integers(1, 20))
    def select(self, seat: str, deadline: int) -> None:
        change = Change(self.mirror.rev + 1, "selected", seat, "ann", 0, deadline)
        self.mirror.apply(change, hold(seat, deadline))

    @rule(seat=st.sampled_from(SEATS))
    def release(self, seat: str) -> None:
        self.mirror.apply(Change(self.mirror.rev + 1, "released", seat, "ann"), None)

    @rule(held=st.dictionaries(st.sampled_from(SEATS), st.integers(1, 20)))
    def read_anew(self, held: dict[str, int]) -> None:
        holds = {seat: hold(seat, deadline) for seat, deadline in held.items()}
        self.mirror.replace(Snapshot("e", self.mirror.rev + 3, holds))

    @rule(times=st.integers(1, 3))
    def ask(self, times: int) -> None:
        deadlines = [one.deadline_ms for one in self.mirror.holds.values()]
        for _ in range(times):
            assert self.mirror.next_deadline() == min(deadlines, default=None)


TestDeadlines = Deadlines.TestCase
TestDeadlines.settings = settings(unhurried, max_examples=100, stateful_step_count=30)


def churn(seats: int, turns: int) -> Iterator[Change]:
    """Seats selected and released for a long time, as in a busy room."""
    for rev in range(1, 2 * turns, 2):
        seat = f"S{rev % seats}"
        yield Change(rev, "selected", seat, "ann", 0, 1000 + rev)
        yield Change(rev + 1, "released", seat, "ann")


def run(mirror: Mirror, changes: Iterable[Change]) -> int:
    """Apply all; the most deadlines that were kept on the way."""
    most = 0
    for change in changes:
        mirror.apply(change, hold_after(change))
        mirror.next_deadline()
        most = max(most, len(mirror._deadlines))
    return most


def test_released_holds_leave_no_deadlines_behind() -> None:
    """Nor do they pile up behind a hold that ends before them all would have."""
    mirror = mirror_at(0, *(hold(f"H{number}", 100 + number) for number in range(10)))
    assert run(mirror, churn(50, 5000)) <= 2 * 11 + 64
    assert mirror.next_deadline() == 100


def test_without_holds_nothing_ends() -> None:
    """There is no deadline to come back at."""
    mirror = Mirror()
    assert mirror.next_deadline() is None
    run(mirror, churn(2, 3))
    assert mirror.next_deadline() is None


def test_a_hold_knows_its_deadline_and_shows_it() -> None:
    """To machines as Unix ms, to clients as the guide's six fields."""
    made = hold_of("r", "A1", "ann", 1_705_314_600_000, 1_705_314_900_000, b'{"name":"Ann"}')
    assert made.deadline_ms == 1_705_314_900_000
    assert msgspec.json.decode(msgspec.json.encode(made.selection)) == {
        "client_id": "ann",
        "seat_id": "A1",
        "room_id": "r",
        "user_info": {"name": "Ann"},
        "timestamp": "2024-01-15T10:30:00.000Z",
        "expires_at": "2024-01-15T10:35:00.000Z",
    }
