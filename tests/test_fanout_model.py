"""Fan-out, whatever happens in whatever order: in the end each viewer knows the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from seatws.rooms import fanout
from seatws.rooms.peer import Viewer
from tests.recording import RecordingPeer
from tests.stage import ROOM, News, Stage, request_ids

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
seats = st.sampled_from(["A1", "A2", "A3"])


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, in the end each viewer's map is the truth and each request is answered."""

    viewers = Bundle("viewers")

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(fanout, "VIEWERS_PER_SLICE", 1)
        self.patch.setattr(fanout, "PAUSE_FACTOR", 0.0)
        self.loop = asyncio.new_event_loop()
        self.stage = Stage(self.loop)
        self.asked: dict[Viewer, list[str]] = {}
        self.gone: list[tuple[RecordingPeer, int]] = []
        """Who left, and how much it had been sent until then."""
        self.on_its_way: list[News] = []
        """Changes whose answer is given already, while the room has not heard of them yet."""

    @initialize(target=viewers)
    def begin(self) -> Any:
        return multiple(*(self._join(RecordingPeer(deflates=each > 0)) for each in range(3)))

    @rule(target=viewers, is_behind=st.booleans(), deflates=st.booleans())
    def join(self, is_behind: bool, deflates: bool) -> Viewer:
        peer = RecordingPeer(deflates=deflates)
        peer.is_behind, peer.unsent = is_behind, int(is_behind)
        return self._join(peer)

    @rule(viewer=viewers)
    def join_again(self, viewer: Viewer) -> None:
        self.stage.join(recorded(viewer))

    @rule(viewer=consumes(viewers))
    def leave(self, viewer: Viewer) -> None:
        self.stage.leave(viewer)
        assert request_ids(recorded(viewer)) == self.asked.pop(viewer)
        self.gone.append((recorded(viewer), len(recorded(viewer).sent)))

    @rule(viewer=consumes(viewers))
    def drop(self, viewer: Viewer) -> None:
        self.stage.fanout.drop(viewer)
        del self.asked[viewer]
        self.gone.append((recorded(viewer), len(recorded(viewer).sent)))

    @rule(seat=seats)
    def change(self, seat: str) -> None:
        self.arrive()
        self.stage.change(seat)

    @rule(seat=seats, viewer=viewers)
    def ask(self, seat: str, viewer: Viewer) -> None:
        self.arrive()
        self.asked[viewer].append(self.stage.change(seat, viewer))

    @rule(viewer=viewers)
    def ask_in_vain(self, viewer: Viewer) -> None:
        self.asked[viewer].append(self.stage.refuse(viewer))

    @rule(others=st.lists(seats, min_size=1, max_size=3), seat=seats, viewer=viewers)
    def ask_and_overtake(self, others: list[str], seat: str, viewer: Viewer) -> None:
        self.arrive()
        steps = [(other, "somebody") for other in others]
        self.on_its_way = self.stage.news(*steps, (seat, viewer.peer.client_id))
        self.asked[viewer].append(self.stage.answer(viewer, self.on_its_way[-1]))

    @rule()
    def arrive(self) -> None:
        for news in self.on_its_way:
            self.stage.push(news)
        self.on_its_way = []

    @rule(viewer=viewers, is_behind=st.booleans())
    def stop_reading(self, viewer: Viewer, is_behind: bool) -> None:
        peer = recorded(viewer)
        peer.is_behind, peer.unsent = is_behind, 1

    @rule(viewer=viewers)
    def read_on(self, viewer: Viewer) -> None:
        peer = recorded(viewer)
        peer.is_behind, peer.unsent = False, 0
        self.stage.fanout.recover(viewer)

    @rule(missed=st.lists(seats, max_size=3))
    def read_anew(self, missed: list[str]) -> None:
        for news in self.on_its_way:
            self.stage.learn(news)
        self.on_its_way = []
        for news in self.stage.news(*((seat, "somebody") for seat in missed)):
            self.stage.learn(news)
        self.stage.fanout.restart(self.stage.rev)

    @rule(rev=st.integers(0, 3))
    def lose_data(self, rev: int) -> None:
        self.on_its_way = []
        self.stage.rev, self.stage.holds = rev, {}
        self.stage.fanout.restart(rev)

    @rule()
    def let_answers_go(self) -> None:
        self.stage.fanout.release_answers()

    @rule(turns=st.integers(1, 3))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    @invariant()
    def nobody_missed_or_repeated_a_change(self) -> None:
        assert not [problem for one in self.asked for problem in recorded(one).problems]

    @invariant()
    def who_left_is_sent_nothing(self) -> None:
        assert all(len(peer.sent) == sent for peer, sent in self.gone)

    def teardown(self) -> None:
        try:
            self.arrive()
            for viewer in self.asked:
                self.read_on(viewer)
            self.turn(4 * len(self.asked) + 10)
            self.nobody_missed_or_repeated_a_change()
            self.who_left_is_sent_nothing()
            for viewer, asked in self.asked.items():
                peer = recorded(viewer)
                assert (peer.maps[ROOM], peer.revs[ROOM]) == (self.stage.holds, self.stage.rev)
                assert request_ids(peer) == asked
        finally:
            self.patch.undo()
            self.loop.close()

    def _join(self, peer: RecordingPeer) -> Viewer:
        _, viewer = self.stage.join(peer)
        self.asked[viewer] = []
        return viewer


def recorded(viewer: Viewer) -> RecordingPeer:
    assert isinstance(viewer.peer, RecordingPeer)
    return viewer.peer


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(unhurried, max_examples=200, stateful_step_count=40)
