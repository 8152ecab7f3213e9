"""A room: its mirror is kept true, whatever becomes of the events, and its viewers hear of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from seatws.config import Config, Privacy
from seatws.counts import Counts
from seatws.errors import StoreError
from seatws.holds import Event, Outcome
from seatws.messages import SelectSeat
from seatws.privacy import UserInfoFilter
from seatws.rooms import room as room_module
from seatws.rooms.answers import answers_to
from seatws.rooms.peer import Viewer
from seatws.rooms.room import Room
from seatws.store.feed import Feed
from seatws.store.holds import HoldStore, _decode_event
from seatws.store.servers import Server
from seatws.store.topology import topology_of
from tests.harness import Valkey, holders_in_redis, unique, wait_until_async
from tests.recording import Elsewhere, RecordingPeer
from tests.stores import answer_to


class Instance:
    """A room on a store and a feed of its own, as the hub would have it."""

    def __init__(self, valkey: Valkey, room_id: str, share: tuple[str, ...] = ("*",)) -> None:
        config = Config(privacy=Privacy(shared_user_info=share))
        topology = topology_of(config, valkey.url)
        self.store = HoldStore(config, topology, self)
        self.feed = Feed(config, topology, self.store.origin, self)
        self.counts = Counts()
        self.failures: list[StoreError] = []
        self.room = Room(
            room_id,
            self.store,
            self.feed,
            UserInfoFilter(share),
            self.counts,
            lambda _, error: self.failures.append(error),
            config.compression.min_bytes,
        )

    def join(self, request_id: str | None = None) -> RecordingPeer:
        peer = RecordingPeer()
        self.join_again(peer, request_id)
        return peer

    def join_again(self, peer: RecordingPeer, request_id: str | None) -> None:
        viewer = peer.viewers.setdefault(self.room.room_id, Viewer(peer))
        self.room.join(viewer, request_id)

    async def live(self) -> None:
        await wait_until_async(lambda: self.room.is_live)

    async def asked(self) -> None:
        """Wait until Redis has answered all that it was asked so far, and the answer is taken."""
        await answer_to(lambda done: self.store.revision(self.room.room_id, done))

    async def heard(self) -> None:
        """Wait until the feed has brought all that was published so far."""
        mark = unique("mark")
        heard = asyncio.Event()
        self.feed.subscribe(mark, lambda _: heard.set())
        await heard.wait()
        self.feed.unsubscribe(mark)

    def on_event(self, room_id: str, event: Event) -> None:
        if room_id == self.room.room_id:
            self.room.on_event(event)

    def on_commit(self, room_id: str, event: Event) -> None:
        self.on_event(room_id, event)

    def on_store_up(self, server: Server) -> None: ...
    def on_store_down(self, server: Server) -> None: ...
    def on_feed_up(self, server: Server) -> None: ...
    def on_feed_down(self, server: Server) -> None: ...
    def on_feed_moved(self, room_id: str) -> None: ...
    def on_round_trip(self, seconds: float) -> None: ...


@contextlib.asynccontextmanager
async def following(
    valkey: Valkey, room_id: str, *, opened: bool = True, share: tuple[str, ...] = ("*",)
) -> AsyncIterator[Instance]:
    """An instance that follows the room; live, unless it is to be `opened` later."""
    instance = Instance(valkey, room_id, share)
    await instance.store.open()
    await instance.feed.open()
    try:
        if opened:
            instance.room.open()
            await instance.live()
        yield instance
        assert not instance.failures
    finally:
        instance.room.close()
        await instance.feed.close()
        await instance.store.close()


@pytest.fixture
def room_id() -> str:
    return unique("room")


@pytest.fixture
def elsewhere(valkey: Valkey, room_id: str) -> Iterator[Elsewhere]:
    with Elsewhere(valkey, room_id) as other:
        yield other


# ---------------------------------------------------------------- opening


@pytest.mark.gen_test(timeout=60)
async def test_who_comes_first_waits_until_the_room_is_live(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """Then it gets the answer and the map, with what was held before; the next ones at once."""
    elsewhere.select("A1", "bob")
    async with following(valkey, room_id, opened=False) as here:
        ann = here.join("q1")
        assert not here.room.is_live
        assert here.room.is_used
        assert ann.received == []
        here.room.open()
        await ann.heard("current_selections")
        eve = here.join("q2")
        for peer, request_id in ((ann, "q1"), (eve, "q2")):
            assert peer.kinds() == ["room_joined", "current_selections"]
            assert peer.received[0]["request_id"] == request_id
            assert peer.received[1]["rev"] == 1
            assert peer.maps[room_id] == {"A1": "bob"}


@pytest.mark.gen_test(timeout=60)
async def test_all_who_wait_are_let_in_once(valkey: Valkey, room_id: str) -> None:
    """More than fit into one slice; whoever left meanwhile is not."""
    async with following(valkey, room_id, opened=False) as here:
        peers = [here.join() for _ in range(2 * room_module.ADMIT_PER_SLICE + 10)]
        gone = peers.pop()
        here.room.drop(gone.viewers[room_id])
        here.room.open()
        await peers[-1].heard("current_selections")
        assert {tuple(peer.kinds()) for peer in peers} == {("room_joined", "current_selections")}
        assert gone.received == []
        assert here.room.viewers == len(peers)
        assert here.counts.resyncs.total() == 1


@pytest.mark.gen_test(timeout=60)
async def test_every_join_is_answered_also_twice_before_the_room_is_live(
    valkey: Valkey, room_id: str
) -> None:
    """A page that joins twice waits for two answers."""
    async with following(valkey, room_id, opened=False) as here:
        ann = here.join("q1")
        here.join_again(ann, "q2")
        here.room.open()
        assert (await ann.answered("q1"))["type"] == "room_joined"
        assert (await ann.answered("q2"))["type"] == "room_joined"
        assert here.room.viewers == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_viewer_that_joins_again_while_the_room_is_read_is_answered_once_more(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """It stays a viewer, and ends with the right map."""
    async with following(valkey, room_id) as here:
        ann = here.join("q1")
        elsewhere.select("A1", told=False)
        here.room.read_anew("moved")
        here.join_again(ann, "q2")
        assert ann.answers_to("q2") == []
        await ann.answered("q2")
        assert len(ann.answers_to("q2")) == 1
        elsewhere.select("A2")
        await ann.until(lambda: ann.revs[room_id] == 2)
        assert ann.maps[room_id] == holders_in_redis(valkey, room_id)
        assert here.room.viewers == 1


@pytest.mark.gen_test(timeout=60)
async def test_without_redis_whoever_waits_is_handed_to_the_hub(
    valkey: Valkey, room_id: str
) -> None:
    """The room says why it can't be opened, and who waited for it."""
    here = Instance(valkey, room_id)  # nothing is connected
    ann = here.join("q1")
    here.room.open()
    assert len(here.failures) == 1
    assert here.room.joining.keys() == {ann.viewers[room_id]}


@pytest.mark.gen_test(timeout=60)
async def test_a_room_closed_while_it_is_read_stays_closed(valkey: Valkey, room_id: str) -> None:
    """The late snapshot does not bring it back: nobody would hear its events, or end its holds."""
    async with following(valkey, room_id) as here:
        here.room.read_anew("moved")
        here.room.close()
        await here.asked()
        assert not here.room.is_live


# ---------------------------------------------------------------- events, and what becomes of them


@pytest.mark.gen_test(timeout=60)
async def test_events_that_come_before_the_snapshot_are_not_lost(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """They wait for it; those that are in it already are not told again."""
    async with following(valkey, room_id) as here:
        ann = here.join()
        events = [elsewhere.select("A1", told=False)]
        here.room.read_anew("moved")
        await asyncio.sleep(0)  # the question is on its way, and so older than what follows
        events.append(elsewhere.select("A2", told=False))
        for event in events:
            here.room.on_event(_decode_event(event))
        await ann.until(lambda: ann.revs[room_id] == 2)
        assert ann.maps[room_id] == holders_in_redis(valkey, room_id)
        assert ann.kinds().count("current_selections") == 2
        assert here.counts.resyncs["gap"] == 0


@pytest.mark.gen_test(timeout=60)
async def test_a_doubt_while_the_room_is_read_is_not_dispelled_by_that_snapshot(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """It may be older than what the doubt is about: the room is read once more."""
    async with following(valkey, room_id) as here:
        ann = here.join()
        here.room.read_anew("moved")
        await asyncio.sleep(0)  # the question is on its way, and so older than what follows
        elsewhere.select("A1", told=False)
        here.room.read_anew("moved")
        await ann.until(lambda: ann.maps[room_id] == {"A1": "somebody"})


@pytest.mark.gen_test(timeout=60)
async def test_changes_that_nobody_sees_are_counted(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """Who comes after them gets its own answers in their places, like anybody else."""
    async with following(valkey, room_id) as here:
        elsewhere.select("A1")
        elsewhere.select("A2")
        await wait_until_async(lambda: here.room.mirror.rev == 2)
        ann = here.join()
        event = _decode_event(elsewhere.select("A3", ann.client_id, told=False))
        here.room.on_event(event)
        command = SelectSeat(room_id=room_id, seat_id="A3", request_id="q1")
        outcome = Outcome("ok", [("A3", 3, 0)])
        ((rev, answer),) = answers_to(command, ann.client_id, outcome)
        here.room.answer(ann.viewers[room_id], rev, answer)
        elsewhere.select("A4")
        await ann.until(lambda: ann.revs[room_id] == 4)
        assert ann.kinds()[1:] == ["current_selections", "seat_selected", "seat_selected"]
        assert ann.received[2]["request_id"] == "q1"


@pytest.mark.gen_test(timeout=60)
async def test_an_early_event_waits_for_those_before_it(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """Nobody hears of it before; once they have come all follow in order, and nothing is read."""
    elsewhere.select("A0")
    async with following(valkey, room_id) as here:
        ann = here.join()
        events = [elsewhere.select(f"A{number}", told=False) for number in (1, 2, 3)]
        for late in (2, 1):
            elsewhere.publish(events[late])
        await here.heard()
        assert here.room.mirror.is_waiting
        assert ann.revs[room_id] == 1
        elsewhere.publish(events[0])
        await ann.until(lambda: ann.revs[room_id] == 4)
        assert ann.kinds()[1:] == ["current_selections"] + ["seat_selected"] * 3
        assert here.counts.resyncs.total() == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_gap_that_stays_is_read_over(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """After 250 ms, not before; the viewers get the map."""
    elsewhere.select("A0")
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.select("A1", told=False)
        began = asyncio.get_running_loop().time()
        elsewhere.select("A2")
        await ann.until(lambda: ann.maps[room_id].keys() == {"A0", "A1", "A2"})
        assert asyncio.get_running_loop().time() - began >= room_module.EARLY_S
        assert ann.kinds()[2:] == ["current_selections"]
        assert here.counts.resyncs["gap"] == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_lost_event_is_noticed_by_comparing(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """Pub/sub loses messages without a word; the next comparison brings the map."""
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.select("A1", told=False)
        here.room.compare()
        await ann.until(lambda: ann.maps[room_id] == {"A1": "somebody"})
        assert ann.kinds()[2:] == ["current_selections"]
        assert elsewhere.listeners() == 1


@pytest.mark.gen_test(timeout=60)
async def test_comparing_gives_an_event_on_its_way_some_time(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """It is no reason to read a busy room again and again; nor is a room where nothing is new."""
    async with following(valkey, room_id) as here:
        ann = here.join()
        here.room.compare()
        event = elsewhere.select("A1", told=False)
        here.room.compare()
        await here.asked()
        elsewhere.publish(event)
        await ann.until(lambda: ann.revs[room_id] == 1)
        late = asyncio.Event()  # armed after the room's own look, so done after it
        asyncio.get_running_loop().call_later(room_module.EARLY_S, late.set)
        await late.wait()
        assert ann.kinds()[2:] == ["seat_selected"]
        assert here.room.is_live
        assert here.counts.resyncs.total() == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_failure_that_was_made_good_is_forgotten(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """A room that could not be read, and then was, is not read once more by the next comparison."""
    elsewhere.select("A1")
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.redis.rename(elsewhere.keys.holds, elsewhere.keys.holds + ":away")
        elsewhere.redis.set(elsewhere.keys.holds, "no hash")
        here.room.read_anew("moved")
        await wait_until_async(lambda: bool(here.failures))
        elsewhere.redis.rename(elsewhere.keys.holds + ":away", elsewhere.keys.holds)
        here.room.read_anew("moved")
        await ann.heard("current_selections", 2)
        here.room.compare()
        await here.heard()
        await here.asked()
        assert here.counts.resyncs.total() == 3
        here.failures.clear()


@pytest.mark.gen_test(timeout=60)
async def test_a_new_epoch_is_read_anew(valkey: Valkey, room_id: str, elsewhere: Elsewhere) -> None:
    """Redis lost the room and somebody began it again: rev 1 is not an old one."""
    elsewhere.select("A1")
    elsewhere.select("A2")
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.forget()
        elsewhere.select("B1")
        await ann.until(lambda: ann.maps[room_id] == {"B1": "somebody"})
        assert ann.revs[room_id] == 1
        elsewhere.select("B2")
        await ann.until(lambda: ann.revs[room_id] == 2)
        assert ann.kinds()[2:] == ["current_selections", "seat_selected"]


@pytest.mark.gen_test(timeout=60)
async def test_a_late_event_of_an_earlier_epoch_is_read_over_once(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """It costs one snapshot, not one after the other for ever."""
    event = elsewhere.select("A1", told=False)
    elsewhere.forget()
    elsewhere.select("B1")
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.publish(event)
        await here.heard()
        for _ in range(20):
            await here.asked()
        assert here.counts.resyncs.total() <= 3
        elsewhere.select("B2")
        await ann.until(lambda: ann.revs[room_id] == 2)
        assert ann.maps[room_id] == holders_in_redis(valkey, room_id)


@pytest.mark.gen_test(timeout=60)
async def test_a_room_that_redis_forgot_becomes_empty(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """Its keys ended, or were lost; its next change is then its first."""
    elsewhere.select("A1")
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.forget()
        here.room.compare()
        await ann.until(lambda: ann.maps[room_id] == {})
        elsewhere.select("A2")
        await ann.until(lambda: ann.revs[room_id] == 1)
        assert ann.kinds()[2:] == ["current_selections", "seat_selected"]


@pytest.mark.gen_test(timeout=60)
async def test_a_rev_that_went_back_is_noticed_by_comparing(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """A Redis that lost its last second has older data under the same epoch."""
    elsewhere.select("A1")
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.select("A2")
        await ann.until(lambda: ann.revs[room_id] == 2)
        elsewhere.redis.hdel(elsewhere.keys.holds, "A2")
        elsewhere.redis.hset(elsewhere.keys.meta, "rev", 1)
        here.room.compare()
        await ann.until(lambda: ann.revs[room_id] == 1)
        assert ann.maps[room_id] == {"A1": "somebody"}
        elsewhere.select("A3")
        await ann.until(lambda: ann.revs[room_id] == 2)


@pytest.mark.gen_test(timeout=60)
async def test_news_and_maps_hold_only_what_is_shared(valkey: Valkey, room_id: str) -> None:
    """`privacy.shared_user_info` goes for events and snapshots alike."""
    info = b'{"name":"Ann","mail":"ann@example.com"}'
    async with following(valkey, room_id, share=("name",)) as here:
        ann = here.join()
        select = here.store.select
        await answer_to(lambda done: select(room_id, "ann", ["A1"], info, done))
        news = await ann.heard("seat_selected")
        eve = here.join()
        here.room.read_anew("moved")
        read = await eve.heard("current_selections", 2)
        assert news["user_info"] == {"name": "Ann"}
        for shown in (eve.received[1], read):
            assert [hold["user_info"] for hold in shown["selections"]] == [{"name": "Ann"}]


# ---------------------------------------------------------------- deadlines


@pytest.mark.gen_test(timeout=60)
async def test_a_holds_end_is_told_once_by_whichever_instance(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """Within a second of the deadline, on every instance; it takes one rev."""
    async with following(valkey, room_id) as one, following(valkey, room_id) as two:
        peers = [one.join(), two.join()]
        deadline = elsewhere.now_ms() + 300
        elsewhere.select("A1", hold_ms=300)
        ended = [await peer.heard("seat_released") for peer in peers]
        assert 0 <= elsewhere.now_ms() - deadline <= 1000
        assert [(news["reason"], news["rev"]) for news in ended] == [("expired", 2)] * 2
        for here in (one, two):
            here.store.expire(room_id)
            await here.asked()
        assert elsewhere.rev() == 2
        assert [peer.kinds().count("seat_released") for peer in peers] == [1, 1]


@pytest.mark.gen_test(timeout=60)
async def test_each_hold_ends_at_its_own_deadline(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """A shorter one that comes later goes first; what is left is not forgotten."""
    elsewhere.select("A1", hold_ms=1500)  # before the room is opened: known by its snapshot
    async with following(valkey, room_id) as here:
        ann = here.join()
        elsewhere.select("A2", hold_ms=60_000)
        elsewhere.select("A3", hold_ms=200)
        elsewhere.select("A4", hold_ms=500)
        elsewhere.release("A4")
        await ann.heard("seat_released", 2)
        assert ann.maps[room_id].keys() == {"A1", "A2"}
        await ann.until(lambda: ann.maps[room_id] == {"A2": "somebody"})
        released = [message for message in ann.received if message["type"] == "seat_released"]
        ends = [(message["seat_id"], message["reason"]) for message in released]
        assert ends == [("A4", "released"), ("A3", "expired"), ("A1", "expired")]


@pytest.mark.gen_test(timeout=60)
async def test_a_hold_that_nobody_could_end_in_time_is_ended_later(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """Its deadline passed while nobody followed the room: it goes as soon as somebody does."""
    elsewhere.select("A1", hold_ms=1)
    deadline = elsewhere.now_ms() + 1
    await wait_until_async(lambda: elsewhere.now_ms() > deadline)
    async with following(valkey, room_id) as here:
        ann = here.join()
        await ann.until(lambda: ann.maps[room_id] == {})
        assert elsewhere.rev() == 2


# ---------------------------------------------------------------- those who wait for a change


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_for_a_change_is_woken_by_it(
    valkey: Valkey, room_id: str, elsewhere: Elsewhere
) -> None:
    """By the next one, once; and by a snapshot."""
    async with following(valkey, room_id) as here:
        waiter = here.room.changed()
        assert here.room.is_used
        elsewhere.select("A1")
        async with asyncio.timeout(30):
            await waiter
        assert not here.room.is_used
        waiter = here.room.changed()
        here.room.read_anew("moved")
        async with asyncio.timeout(30):
            await waiter


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_no_longer_is_forgotten(valkey: Valkey, room_id: str) -> None:
    """And who still waits when the room is closed is woken."""
    async with following(valkey, room_id) as here:
        here.room.changed().cancel()
        await asyncio.sleep(0)
        assert not here.room.is_used
        waiter = here.room.changed()
        here.room.close()
        assert waiter.done()
