"""Fan-out: every viewer gets every change once, in order, its own answers in their places."""

from __future__ import annotations

import asyncio
import time

import pytest

from seatws.rooms import fanout
from seatws.rooms.peer import Viewer
from tests.recording import RecordingPeer
from tests.stage import ROOM, Stage, request_ids


async def turn() -> None:
    """Let the loop do what is due."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every viewer is a slice of its own."""
    monkeypatch.setattr(fanout, "VIEWERS_PER_SLICE", 1)


@pytest.mark.gen_test(timeout=60)
async def test_all_viewers_are_given_the_same_bytes() -> None:
    """A change is encoded once, and what gathered in a turn of the loop is one write."""
    stage = Stage()
    peers = [stage.join()[0] for _ in range(3)]
    for seat in ("A1", "A2", "A1"):
        stage.change(seat)
    await turn()
    last = [peer.sent[-1] for peer in peers]
    assert last[0] is last[1] is last[2]
    for peer in peers:
        assert peer.kinds()[2:] == ["seat_selected", "seat_selected", "seat_released"]
        assert peer.maps[ROOM] == {"A2": "somebody"}
        assert len(peer.sent) == 2


@pytest.mark.gen_test(timeout=60)
async def test_an_answer_takes_the_place_of_the_news() -> None:
    """The requester gets its answer where the others get the broadcast, and gets that alone."""
    stage = Stage()
    (ann, viewer), (bob, _) = stage.join(), stage.join()
    stage.change("A1")
    request_id = stage.change("A2", viewer)
    stage.change("A3")
    await turn()
    revs = [[message["rev"] for message in peer.received[1:]] for peer in (ann, bob)]
    assert revs == [[0, 1, 2, 3]] * 2
    assert ann.received[3]["request_id"] == request_id
    assert "user_info" not in ann.received[3]
    assert "user_info" in bob.received[3]


@pytest.mark.gen_test(timeout=60)
async def test_a_refusal_does_not_overtake_an_earlier_answer() -> None:
    """Nor does an answer that changed nothing; with none before it, it goes at once."""
    stage = Stage()
    ann, viewer = stage.join()
    asked = [stage.refuse(viewer)]
    assert request_ids(ann) == asked
    asked += [stage.change("A1", viewer), stage.refuse(viewer), stage.change("A2", viewer)]
    asked += [stage.refuse(viewer), stage.refuse(viewer)]
    await turn()
    assert request_ids(ann) == asked
    assert not ann.problems


@pytest.mark.gen_test(timeout=60)
async def test_an_answer_waits_for_the_changes_before_its_own() -> None:
    """A script's reply can overtake another instance's event; the order of the room stands."""
    stage = Stage()
    ann, viewer = stage.join()
    missing, own = stage.news(("A1", "somebody"), ("A2", ann.client_id))
    request_id = stage.answer(viewer, own)
    await turn()
    assert request_ids(ann) == []
    stage.push(missing)
    await ann.until(lambda: ann.revs[ROOM] == 1)
    assert request_ids(ann) == []
    stage.push(own)
    await ann.until(lambda: ann.revs[ROOM] == 2)
    assert request_ids(ann) == [request_id]


@pytest.mark.gen_test(timeout=60)
async def test_answers_that_wait_can_be_let_go() -> None:
    """Without a rev, since the map that follows holds their changes."""
    stage = Stage()
    ann, viewer = stage.join()
    _, own = stage.news(("A1", "somebody"), ("A2", ann.client_id))
    request_id = stage.answer(viewer, own)
    stage.fanout.release_answers()
    assert "rev" not in ann.answers_to(request_id)[0]
    stage.fanout.release_answers()
    assert request_ids(ann) == [request_id]


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("small_slices")
async def test_who_joins_in_the_middle_of_a_flush_misses_and_repeats_nothing() -> None:
    """The map holds what is on its way to the others; it gets what comes after."""
    stage = Stage()
    (ann, _), (bob, _) = stage.join(), stage.join()
    stage.change("A1")
    await ann.until(lambda: ann.revs[ROOM] == 1)
    assert bob.revs[ROOM] == 0
    stage.change("A2")
    eve, _ = stage.join()
    assert eve.maps[ROOM] == {"A1": "somebody", "A2": "somebody"}
    stage.change("A3")
    for peer in (ann, bob, eve):
        await peer.until(lambda peer=peer: peer.revs[ROOM] == 3)  # type: ignore[misc]  # bound now
    assert eve.kinds() == ["room_joined", "current_selections", "seat_selected"]


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("small_slices")
async def test_who_leaves_gets_what_it_is_owed_and_no_more() -> None:
    """Also in the middle of a flush that has not come to it: its answers above all."""
    stage = Stage()
    (ann, _), (bob, viewer) = stage.join(), stage.join()
    stage.change("A1")
    await ann.until(lambda: ann.revs[ROOM] == 1)
    asked = [stage.change("A2", viewer), stage.refuse(viewer)]
    stage.leave(viewer)
    assert bob.kinds()[2:] == ["seat_selected", "seat_selected", "error", "room_left"]
    assert request_ids(bob) == asked
    stage.change("A3")
    await ann.until(lambda: ann.revs[ROOM] == 3)
    await turn()
    assert bob.kinds()[-1] == "room_left"
    assert not stage.fanout.viewers.keys() & {viewer}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("what", ["a change", "an answer", "the map"])
async def test_who_is_gone_is_sent_nothing(what: str) -> None:
    """A connection that ended in the middle of a flush, whatever was on its way to it."""
    stage = Stage()
    (ann, _), (bob, viewer) = stage.join(), stage.join()
    stage.change("A1", viewer if what == "an answer" else None)
    if what == "the map":
        stage.fanout.restart(stage.rev)
    await ann.until(lambda: ann.revs[ROOM] == 1)
    stage.fanout.drop(viewer)
    stage.change("A2")
    await ann.until(lambda: ann.revs[ROOM] == 2)
    await turn()
    assert len(bob.sent) == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_slow_viewer_gets_no_changes_and_then_one_map() -> None:
    """Nothing is queued for it but its answers; once all is out it is right again."""
    stage = Stage()
    (ann, viewer), (bob, _) = stage.join(), stage.join()
    ann.is_behind, ann.unsent = True, 300_000
    for number in range(3):
        stage.change(f"A{number}")
        await bob.until(lambda: bob.revs[ROOM] == stage.rev)
    request_id = stage.change("B1", viewer)
    await bob.until(lambda: bob.revs[ROOM] == 4)
    assert ann.kinds()[2:] == ["seat_selected"]
    assert "rev" not in ann.answers_to(request_id)[0]
    ann.is_behind, ann.unsent = False, 1
    stage.fanout.recover(viewer)
    assert len(ann.received) == 3
    ann.unsent = 0
    stage.fanout.recover(viewer)
    stage.fanout.recover(viewer)
    assert ann.kinds()[3:] == ["current_selections"]
    assert ann.maps[ROOM] == stage.holds
    stage.change("B2")
    await ann.until(lambda: ann.revs[ROOM] == 5)
    assert stage.counts.slow_viewers == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_slow_viewers_own_change_brings_it_no_others() -> None:
    """Its answer comes at once and alone, without a rev: the map that follows holds the change."""
    stage = Stage()
    ann, viewer = stage.join()
    ann.is_behind, ann.unsent = True, 300_000
    stage.change("A1")
    request_id = stage.change("A2", viewer)
    await turn()
    assert ann.kinds()[2:] == ["seat_selected"]
    assert "rev" not in ann.answers_to(request_id)[0]
    assert stage.counts.slow_viewers == 1


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("is_in", [False, True], ids=["not yet in", "in, with the change"])
async def test_an_answer_does_not_wait_for_what_the_map_holds(is_in: bool) -> None:
    """It comes at once, without a rev, to who waits for the map or has got it already."""
    stage = Stage()
    (own,) = stage.news(("A1", "ann"))
    peer, viewer = RecordingPeer("ann"), None
    if is_in:
        stage.learn(own)
        stage.fanout.restart(stage.rev)
        _, viewer = stage.join(peer)
    request_id = stage.answer(viewer or Viewer(peer), own)
    assert "rev" not in peer.answers_to(request_id)[0]


@pytest.mark.gen_test(timeout=60)
async def test_who_joins_while_it_is_slow_gets_the_map_when_all_is_out() -> None:
    """The answer at once, the map later, changes only after the map."""
    stage = Stage()
    peer = RecordingPeer()
    peer.is_behind, peer.unsent = True, 300_000
    _, viewer = stage.join(peer)
    stage.change("A1")
    await turn()
    assert peer.kinds() == ["room_joined"]
    peer.is_behind, peer.unsent = False, 0
    stage.fanout.recover(viewer)
    assert peer.maps[ROOM] == {"A1": "somebody"}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("rev", [0, 2, 5], ids=["forgotten", "gone back", "gone on"])
async def test_a_new_start_sends_everybody_the_map(rev: int) -> None:
    """Also back to an earlier rev. What was on its way is not sent; answers come before the map."""
    stage = Stage()
    (ann, viewer), (bob, _) = stage.join(), stage.join()
    for number in range(2):
        stage.change(f"A{number}")
    await ann.until(lambda: ann.revs[ROOM] == 2)
    request_id = stage.change("B1", viewer)
    stage.holds, stage.rev = {"C1": "eve"}, rev
    stage.fanout.restart(rev)
    await bob.until(lambda: bob.maps[ROOM] == {"C1": "eve"})
    assert ann.kinds()[4:] == ["seat_selected", "current_selections"]
    assert "rev" not in ann.answers_to(request_id)[0]
    assert bob.kinds()[4:] == ["current_selections"]
    stage.change("C2")
    for peer in (ann, bob):
        await peer.until(lambda peer=peer: peer.revs[ROOM] == rev + 1)  # type: ignore[misc]  # bound now


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("small_slices")
async def test_a_new_start_in_the_middle_of_a_flush_ends_it() -> None:
    """Who has not got the changes yet gets the map alone; nobody gets changes twice."""
    stage = Stage()
    peers = [stage.join()[0] for _ in range(3)]
    stage.change("A1")
    await peers[0].until(lambda: peers[0].revs[ROOM] == 1)
    stage.learn(*stage.news(("A2", "somebody")))
    stage.fanout.restart(stage.rev)
    for peer in peers:
        await peer.until(lambda peer=peer: peer.maps[ROOM] == stage.holds)  # type: ignore[misc]  # bound now
    await turn()
    assert [peer.kinds().count("current_selections") for peer in peers] == [2, 2, 2]
    assert [peer.kinds().count("seat_selected") for peer in peers] == [1, 0, 0]


@pytest.mark.gen_test(timeout=60)
async def test_joining_again_brings_what_was_on_its_way_first() -> None:
    """Then the answer and the map, as at the first time."""
    stage = Stage()
    ann, viewer = stage.join()
    request_id = stage.change("A1", viewer)
    stage.join(ann)
    assert ann.kinds()[2:] == ["seat_selected", "room_joined", "current_selections"]
    assert request_ids(ann) == [request_id]
    stage.change("A2")
    await ann.until(lambda: ann.revs[ROOM] == 2)
    assert len(stage.fanout.viewers) == 1


@pytest.mark.gen_test(timeout=60)
async def test_joining_again_while_the_map_is_due_withholds_no_answer() -> None:
    """A room that was read anew, a client with something unread: no answer waits for a change."""
    stage = Stage()
    ann, viewer = stage.join()
    (own,) = stage.news(("A1", ann.client_id))
    request_id = stage.answer(viewer, own)
    stage.learn(own)
    stage.fanout.restart(stage.rev)
    ann.unsent = 1
    stage.join(ann)
    await turn()
    ann.unsent = 0
    stage.fanout.recover(viewer)
    await turn()
    assert request_ids(ann) == [request_id]


@pytest.mark.gen_test(timeout=60)
async def test_who_joins_again_and_again_without_reading_is_sent_no_further_map() -> None:
    """Maps don't count against the limit on what is unsent: without this, memory has none."""
    stage = Stage()
    ann, viewer = stage.join()
    ann.unsent = 1
    for _ in range(10):
        stage.join(ann)
    assert ann.kinds().count("room_joined") == 11
    assert ann.kinds().count("current_selections") == 1
    ann.unsent = 0
    stage.fanout.recover(viewer)
    assert ann.kinds()[-1] == "current_selections"


@pytest.mark.gen_test(timeout=60)
async def test_who_lacks_nothing_is_sent_nothing() -> None:
    """A new start concerns those who were there before it; a write costs a system call."""
    stage = Stage()
    ann, _ = stage.join()
    stage.fanout.restart(5)
    stage.rev = 5
    bob, _ = stage.join()
    await ann.until(lambda: ann.revs[ROOM] == 5)
    await turn()
    assert [len(frames) > 0 for frames in bob.sent] == [True]


@pytest.mark.gen_test(timeout=60)
async def test_many_viewers_do_not_stop_the_loop() -> None:
    """With a thousand of them other things get their turns in between."""
    stage = Stage()
    peers = [stage.join()[0] for _ in range(1000)]
    turns: list[int] = []

    async def others() -> None:
        while peers[-1].revs[ROOM] == 0:
            turns.append(sum(peer.revs[ROOM] for peer in peers))
            await asyncio.sleep(0)

    stage.change("A1")
    await others()
    assert len({reached for reached in turns if 0 < reached < 1000}) >= 3


class SlowToServe(RecordingPeer):
    """Takes the loop's time, as a thousand viewers do."""

    TAKES_S = 0.03

    def __init__(self) -> None:
        super().__init__()
        self.served: list[tuple[float, float]] = []

    def send(self, frames: bytes) -> None:
        began = time.monotonic()
        super().send(frames)
        time.sleep(self.TAKES_S)
        self.served.append((began, time.monotonic()))


@pytest.mark.gen_test(timeout=60)
async def test_a_busy_room_gathers_changes() -> None:
    """An idle one is served at once; the next flush waits as long as the last one took."""
    stage = Stage()
    peer = SlowToServe()
    stage.join(peer)
    stage.change("A1")
    await turn()
    assert peer.revs[ROOM] == 1
    for number in range(5):
        stage.change(f"B{number}")
        await turn()
    await peer.until(lambda: peer.revs[ROOM] == 6)
    assert len(peer.sent) == 3
    assert peer.served[2][0] - peer.served[1][1] >= peer.TAKES_S * 0.9


@pytest.mark.gen_test(timeout=60)
async def test_nobody_waits_longer_than_the_longest_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a flush took."""
    monkeypatch.setattr(fanout, "PAUSE_FACTOR", 1e6)
    stage = Stage()
    peer = SlowToServe()
    stage.join(peer)
    for rev in (1, 2):
        stage.change("A1")
        await peer.until(lambda: peer.revs[ROOM] == rev)  # noqa: B023  awaited here
    assert peer.served[2][0] - peer.served[1][1] >= fanout.LONGEST_PAUSE_S * 0.9
