"""Fan-out to viewers of which some take deflated frames: the same changes, each deflated once."""

from __future__ import annotations

import asyncio

import pytest

from seatws.frames import text_frame
from seatws.messages import encode
from seatws.rooms import fanout
from tests.recording import DEFLATED, PLAIN, Deflations, RecordingPeer, first_bytes
from tests.stage import DEFLATE_FROM, ROOM, Stage, request_ids


async def turn() -> None:
    """Let the loop do what is due."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.fixture
def deflations(monkeypatch: pytest.MonkeyPatch) -> Deflations:
    """Counts what is deflated."""
    return Deflations(monkeypatch)


def mixed(stage: Stage, plain: int, deflating: int) -> tuple[list[RecordingPeer], ...]:
    """Viewers of both kinds, who come in turn."""
    peers: tuple[list[RecordingPeer], ...] = ([], [])
    for each in range(max(plain, deflating)):
        for kind, many in enumerate((plain, deflating)):
            if each < many:
                peers[kind].append(stage.join(RecordingPeer(deflates=bool(kind)))[0])
    return peers


@pytest.mark.gen_test(timeout=60)
async def test_a_large_change_is_deflated_once_for_all_who_take_it(deflations: Deflations) -> None:
    """Each kind of viewer shares its bytes; a small change in the batch stays as it is."""
    stage = Stage()
    plain, deflating = mixed(stage, 300, 300)
    deflations.clear()
    stage.change("A1")
    stage.change("A2")
    stage.change("A1")
    await plain[-1].until(lambda: len(plain[-1].received) == 5)
    await turn()
    for peers, first in ((plain, PLAIN), (deflating, DEFLATED)):
        shared = peers[0].sent[-1]
        assert all(peer.sent[-1] is shared for peer in peers)
        assert first_bytes(shared) == [first, first, PLAIN]
    assert plain[0].received == [
        message | {"client_id": plain[0].client_id} if message["type"] == "room_joined" else message
        for message in deflating[0].received
    ]
    assert len(deflations) == 2


@pytest.mark.gen_test(timeout=60)
async def test_nothing_is_deflated_that_nobody_takes(deflations: Deflations) -> None:
    """Nor kept for later."""
    stage = Stage()
    plain, _ = mixed(stage, 3, 0)
    stage.change("A1")
    await turn()
    assert plain[0].revs[ROOM] == 1
    late, _ = stage.join(RecordingPeer(deflates=True))
    deflations.clear()
    stage.change("A1")  # freed: a small change
    await turn()
    assert late.revs[ROOM] == 2
    assert late.sent[-1] is plain[0].sent[-1]
    assert not deflations


@pytest.mark.gen_test(timeout=60)
async def test_a_requesters_answer_stands_among_deflated_changes(deflations: Deflations) -> None:
    """The answer is for one viewer alone and not deflated; the others' changes are shared."""
    stage = Stage()
    ann, viewer = stage.join(RecordingPeer(deflates=True))
    bob, _ = stage.join(RecordingPeer(deflates=True))
    deflations.clear()
    stage.change("A1")
    asked = stage.change("A2", viewer)
    stage.change("A3")
    await turn()
    assert request_ids(ann) == [asked]
    assert first_bytes(ann.sent[-1]) == [DEFLATED, PLAIN, DEFLATED]
    assert first_bytes(bob.sent[-1]) == [DEFLATED, DEFLATED, DEFLATED]
    assert len(deflations) == 3
    assert not ann.problems + bob.problems


@pytest.mark.gen_test(timeout=60)
async def test_a_flush_deflates_only_so_much(
    monkeypatch: pytest.MonkeyPatch, deflations: Deflations
) -> None:
    """What is over it goes out as it is, so the loop is not held up."""
    monkeypatch.setattr(fanout, "DEFLATE_BYTES", 300)
    stage = Stage()
    peers = [stage.join(RecordingPeer(deflates=True))[0] for _ in range(2)]
    deflations.clear()
    for number in range(9):
        stage.change(f"A{number}")
    await turn()
    last = peers[0].sent[-1]
    assert peers[1].sent[-1] is last
    assert first_bytes(last) == [DEFLATED] * 3 + [PLAIN] * 6
    assert len(deflations) == 3
    stage.change("A9")
    await peers[0].until(lambda: peers[0].revs[ROOM] == 10)
    assert first_bytes(peers[0].sent[-1]) == [DEFLATED]


@pytest.mark.gen_test(timeout=60)
async def test_changes_that_came_during_a_flush_are_deflated_once(
    monkeypatch: pytest.MonkeyPatch, deflations: Deflations
) -> None:
    """Each has its place in what is deflated, whoever needs it first and however much of it."""
    monkeypatch.setattr(fanout, "VIEWERS_PER_SLICE", 1)
    stage = Stage()
    peers = [stage.join(RecordingPeer(deflates=True))[0] for _ in range(3)]
    deflations.clear()
    stage.change("A1")
    await peers[0].until(lambda: peers[0].revs[ROOM] == 1)
    assert peers[2].revs[ROOM] == 0
    stage.change("A2")
    (viewer,) = peers[2].viewers.values()
    stage.leave(viewer)  # gets both, before the flush would bring the first
    assert [m["rev"] for m in peers[2].received if m["type"] == "seat_selected"] == [1, 2]
    stage.change("A1")
    await peers[1].until(lambda: peers[1].revs[ROOM] == 3)
    assert peers[1].maps[ROOM] == {"A2": "somebody"}
    assert len(deflations) == 2


@pytest.mark.gen_test(timeout=60)
async def test_what_was_deflated_before_a_snapshot_is_not_sent_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The room is read anew in the middle of a flush: what follows is what changed since."""
    monkeypatch.setattr(fanout, "VIEWERS_PER_SLICE", 1)
    stage = Stage()
    peers = [stage.join(RecordingPeer(deflates=True))[0] for _ in range(3)]
    stage.change("A1")
    await peers[0].until(lambda: peers[0].revs[ROOM] == 1)
    assert peers[2].revs[ROOM] == 0
    stage.fanout.restart(stage.rev)
    await peers[2].until(lambda: peers[2].revs[ROOM] == 1)
    stage.change("A2")
    for peer in peers:
        await peer.until(lambda: peer.revs[ROOM] == 2)  # noqa: B023
        assert peer.maps[ROOM] == {"A1": "somebody", "A2": "somebody"}


def test_frames_of_the_stage_are_large_and_small() -> None:
    """As the tests above take for granted."""
    loop = asyncio.new_event_loop()
    stage = Stage(loop)
    (taken,) = stage.news(("A1", "somebody"))
    stage.learn(taken)
    (freed,) = stage.news(("A1", "somebody"))
    assert len(text_frame(encode(freed))) < DEFLATE_FROM <= len(text_frame(encode(taken)))
    loop.close()
