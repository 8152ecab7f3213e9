"""The frame with a room's whole map: right at every moment, plain or deflated, and cheap."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatws.holds import Hold, Mirror, hold_of
from seatws.messages import rfc3339
from seatws.rooms import snapshots
from seatws.rooms.snapshots import DEFLATE_BYTES, FRAME_S, PART_BYTES, PAUSE_S, SnapshotFrames
from tests.recording import DEFLATED, PLAIN, Deflations, first_bytes, messages_in

ROOM = "r"
NAME = '{"name":"%s %s"}'
NAMES = ["Ana", "Luis", "Carlos", "María", "José", "Lucía", "García", "López", "Pérez", "Romero"]
OVERHEAD = 200
"""More than a map takes besides its selections."""


class Screen:
    """A room's mirror, its frames, and a clock that is moved by hand."""

    def __init__(self, holds: int = 0, min_bytes: int = 1024) -> None:
        self.now = 100.0
        self.mirror = Mirror()
        self.frames = SnapshotFrames(
            ROOM, self.mirror, min_bytes, lambda: self.now, lambda: round(self.now * 1000)
        )
        self.replace(holds)

    def hold(self, seat_id: str) -> Hold:
        """A hold like any other: what differs from hold to hold looks like chance."""
        chance = random.Random(seat_id)
        since_ms = 1_700_000_000_000 + chance.randrange(300_000)
        info = NAME % (chance.choice(NAMES), chance.choice(NAMES))
        client_id = f"user_{chance.randrange(10**8)}"
        return hold_of(ROOM, seat_id, client_id, since_ms, since_ms + 300_000, info.encode())

    def replace(self, holds: int) -> None:
        """The room was read anew."""
        self.mirror.holds = {f"S{number}": self.hold(f"S{number}") for number in range(holds)}
        self.frames.all_changed()

    def change(self, seat_id: str) -> None:
        """A seat is taken, or freed if it was."""
        self.mirror.rev += 1
        if self.mirror.holds.pop(seat_id, None) is None:
            self.mirror.holds[seat_id] = self.hold(seat_id)
        self.frames.seat_changed(seat_id)

    def check(self, deflates: bool) -> bytes:
        """The frame, which must say what the mirror does."""
        frame = self.frames.frame(deflates)
        (message,) = messages_in(frame)
        time = message.pop("server_time")
        assert rfc3339(round((self.now - FRAME_S) * 1000)) < time <= rfc3339(round(self.now * 1000))
        selections: list[dict[str, Any]] = message.pop("selections")
        assert message == {"type": "current_selections", "room_id": ROOM, "rev": self.mirror.rev}
        assert len(selections) == len(self.mirror.holds)
        for selection in selections:
            hold = self.mirror.holds[selection["seat_id"]].selection
            assert selection["client_id"] == hold.client_id
            assert len(selection) == 6
        return frame

    def settle(self) -> bytes:
        """Ask until all of it is deflated; the frame."""
        frame = self.check(True)
        while True:
            self.now += PAUSE_S
            before, frame = frame, self.check(True)
            if frame is before:
                return frame


@pytest.fixture
def deflations(monkeypatch: pytest.MonkeyPatch) -> Deflations:
    """Counts what is deflated."""
    return Deflations(monkeypatch)


def test_all_who_join_share_the_frame(deflations: Deflations) -> None:
    """A tenth of a second long, or until something changes; then the time in it is another."""
    screen = Screen(40)
    for deflates, first in ((False, PLAIN), (True, DEFLATED)):
        frame = screen.check(deflates)
        assert first_bytes(frame) == [first]
        screen.now += FRAME_S / 2
        assert screen.frames.frame(deflates) is frame
        screen.now += FRAME_S / 2
        assert screen.check(deflates) != frame
        screen.change("A1")
        screen.check(deflates)
    assert len(deflations) == 2  # of one part; the time that went by was not one


def test_nothing_is_deflated_before_somebody_takes_it(deflations: Deflations) -> None:
    """However many join who don't."""
    screen = Screen(500)
    for number in range(9):
        screen.change(f"A{number}")
        screen.check(False)
    assert not deflations
    assert len(screen.settle()) < len(screen.check(False)) / 4
    assert deflations


def test_a_small_map_is_the_same_for_all(deflations: Deflations) -> None:
    """Below the least size nothing is deflated; above it, as soon as it gets there."""
    screen = Screen(4, min_bytes=1_000)
    plain = screen.check(False)
    assert len(plain) < 1_000
    assert screen.check(True) is plain
    screen.now += FRAME_S
    assert screen.check(True) is screen.check(False) is not plain
    assert not deflations
    for number in range(9):
        screen.change(f"A{number}")
    assert first_bytes(screen.check(True)) == [DEFLATED]
    assert len(deflations) == 1


def test_an_empty_map_is_sent_too() -> None:
    """Also where everything is deflated that can be."""
    screen = Screen(0, min_bytes=0)
    assert screen.check(False)
    assert screen.check(True)
    screen.change("A1")
    screen.check(True)
    screen.change("A1")
    screen.check(True)


def test_a_change_costs_one_part_of_a_large_room(deflations: Deflations) -> None:
    """Not the room, in which five thousand are held."""
    screen = Screen(5_000)
    screen.settle()
    del deflations[:]
    for number in range(20):
        screen.change(f"A{number}")
        screen.now += PAUSE_S
        screen.settle()
        assert len(deflations) == number + 1
    assert max(deflations) < 3 * PART_BYTES


def test_a_large_room_is_deflated_a_little_at_a_time(deflations: Deflations) -> None:
    """What has not had its turn goes out as it is; the frame is whole at every moment."""
    screen = Screen(5_000)
    plain = len(screen.check(False))
    sizes: list[int] = []
    while len(sizes) < 2 or sizes[-2] != sizes[-1]:
        del deflations[:]
        for _ in range(250):  # who come in one turn of the loop
            frame = screen.frames.frame(True)
        assert sum(deflations) < DEFLATE_BYTES + 3 * PART_BYTES
        assert frame is screen.check(True)
        sizes.append(len(frame))
        screen.now += PAUSE_S
    assert sizes == sorted(sizes, reverse=True)
    assert plain < sizes[0] + DEFLATE_BYTES + 3 * PART_BYTES
    assert sizes[-1] < plain / 4
    assert len(sizes) * DEFLATE_BYTES < 2 * plain


def test_a_large_busy_room_is_deflated_all_the_same(deflations: Deflations) -> None:
    """With a change and a join every millisecond a part at a time is kept up with."""
    screen = Screen(2_000)
    screen.settle()
    small, began = len(screen.frames.frame(True)), screen.now
    for number in range(200):
        screen.now += 0.001
        screen.change(f"A{number}")
        frame = screen.frames.frame(True)
    assert len(frame) < small * 1.5
    assert sum(deflations) / (screen.now - began) < 1.2 * DEFLATE_BYTES / PAUSE_S


def test_a_room_may_grow_and_shrink() -> None:
    """The parts follow, and nothing is lost on the way."""
    screen = Screen()
    numbers = [f"S{number}" for number in range(600)]
    for turn in (numbers, numbers[::-1]):
        for number, seat_id in enumerate(turn):
            screen.change(seat_id)
            if not number % 50:
                screen.check(number % 100 > 0)
    assert screen.check(False) == screen.check(False)
    screen.replace(600)
    tight = len(screen.settle())
    screen.replace(5)
    assert len(screen.settle()) < tight / 10


def compressed_at_once(screen: Screen) -> int:
    """How small the map would be, deflated as one."""
    (plain,) = (screen.frames.frame(False),)
    deflater = zlib.compressobj(1, zlib.DEFLATED, -12, 5)
    return len(deflater.compress(plain) + deflater.flush())


@pytest.mark.parametrize("holds", [10, 200, 1_000, 5_000])
def test_parts_deflate_nearly_as_well_as_the_whole(holds: int) -> None:
    """A tiny map loses what stands around its selections."""
    screen = Screen(holds)
    assert len(screen.settle()) < 1.15 * compressed_at_once(screen) + OVERHEAD


steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(0, 60)),
        st.tuples(st.just("check"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.001, PAUSE_S, FRAME_S])),
        st.tuples(st.just("replace"), st.integers(0, 60)),
    ),
    max_size=80,
)


@settings(deadline=None, max_examples=150)
@given(steps=steps)
def test_the_frame_is_right_at_every_moment(steps: list[tuple[str, Any]]) -> None:
    """Whatever happened before: with tiny parts and little patience, so that all of it is met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "PART_BYTES", 400)
        patch.setattr(snapshots, "DEFLATE_BYTES", 900)
        screen = Screen(0, min_bytes=300)
        for kind, value in steps:
            match kind:
                case "change":
                    screen.change(f"S{value}")
                case "check":
                    screen.check(value)
                case "replace":
                    screen.replace(value)
                case _:
                    screen.now += value
        plain, tight = screen.check(False), screen.check(True)
        (one,), (other,) = messages_in(plain), messages_in(tight)
        assert one["selections"] == other["selections"]
