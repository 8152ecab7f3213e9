"""The feed: events of other instances, in order, and no claim to hear what cannot be heard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seatws.config import Config, Redis
from seatws.errors import StoreError
from seatws.store import feed as feed_module
from seatws.store.feed import Feed
from seatws.store.topology import topology_of
from tests.harness import Valkey, unique, wait_until_async
from tests.stores import Ear, FakeRedis, Shape, answer_to, array, opened, shape_of
from tests.stores import own_shape as own_shape
from tests.stores import shape as shape

SOON = Config(redis=Redis(connect_timeout_seconds=0.5))


class Listening:
    """A `Feed` of an instance with an origin of its own, and what was heard of it."""

    def __init__(self, url: str, config: Config, origin: str) -> None:
        self.ear = Ear()
        self.topology = topology_of(config, url)
        self.feed = Feed(config, self.topology, origin, self.ear)

    def subscribe(self, room_id: str) -> asyncio.Future[None]:
        """Done when the subscription stands."""
        return answer_to(lambda done: self.feed.subscribe(room_id, done))

    async def hears(self, room_id: str, revs: list[int]) -> None:
        """Wait until these revs have been heard of a room, each once and in this order."""
        await self.ear.until(lambda: len(self.ear.revs(room_id)) >= len(revs))
        assert self.ear.revs(room_id) == revs


@contextlib.asynccontextmanager
async def listening(
    url: str, config: Config | None = None, origin: str = "origin-1"
) -> AsyncIterator[Listening]:
    """An open feed, closed at the end."""
    listener = Listening(url, config or Config(), origin)
    await listener.feed.open()
    try:
        yield listener
    finally:
        await listener.feed.close()


def subscribers(shape: Shape, room_id: str) -> int:
    [(_, number)] = shape.redis.pubsub_numsub(shape.keys(room_id).channel)
    return int(number)


# ---------------------------------------------------------------- what is heard


@pytest.mark.gen_test(timeout=60)
async def test_changes_of_other_instances_are_heard_in_order(shape: Shape) -> None:
    """Each event as its own instance heard it, rooms apart, none twice, none missing."""
    rooms = [unique("room"), unique("room")]
    async with opened(shape.url) as store, listening(shape.url) as listener:
        for room in rooms:
            await listener.subscribe(room)
        for turn in range(50):
            store.select(rooms[turn % 2], "ann", "A1", user_info=b'{"name":"\xc3\x85sa"}')
            await store.release(rooms[turn % 2], "ann", "A1")
        for room in rooms:
            await listener.hears(room, list(range(1, 51)))
        assert listener.ear.events == store.ear.events


@pytest.mark.gen_test(timeout=60)
async def test_own_changes_are_not_heard(shape: Shape) -> None:
    """The script's reply brought them already; those of others are heard all the same."""
    room = unique("room")
    async with (
        opened(shape.url) as ours,
        opened(shape.url) as theirs,
        listening(shape.url, origin=ours.store.origin) as listener,
    ):
        await listener.subscribe(room)
        await ours.select(room, "ann", "A1")
        await theirs.select(room, "bob", "A2")
        await ours.select(room, "ann", "A3")
        await theirs.select(room, "bob", "A4")
        await listener.hears(room, [2, 4])


@pytest.mark.gen_test(timeout=60)
async def test_other_prefix_is_not_heard(shape: Shape) -> None:
    """Two installations may share a Redis and have rooms of the same name."""
    room, config = unique("room"), Config(redis=Redis(prefix=unique("cinema")))
    async with (
        opened(shape.url) as others,
        opened(shape.url, config) as ours,
        listening(shape.url, config) as listener,
    ):
        await listener.subscribe(room)
        await others.select(room, "ann", "A1", "A2")
        await ours.select(room, "ann", "A3")
        await listener.hears(room, [1])
        assert listener.ear.events == ours.ear.events


@pytest.mark.gen_test(timeout=60)
async def test_room_is_heard_of_no_more_once_unsubscribed(shape: Shape) -> None:
    """And its channel is free; other rooms go on, and it can be subscribed again."""
    room, other = unique("room"), unique("room")
    async with opened(shape.url) as store, listening(shape.url) as listener:
        await listener.subscribe(room)
        await listener.subscribe(other)
        await store.select(room, "ann", "A1")
        await listener.hears(room, [1])
        listener.feed.unsubscribe(room)
        await wait_until_async(lambda: subscribers(shape, room) == 0)
        await store.select(room, "ann", "A2")
        await store.select(other, "ann", "A1")
        await listener.hears(other, [1])
        await listener.subscribe(room)
        await store.select(room, "ann", "A3")
        await listener.hears(room, [1, 3])


def confirmations(command: list[bytes]) -> bytes:
    """What Redis answers to SUBSCRIBE and UNSUBSCRIBE."""
    kind = command[0].decode().lower()
    return b"".join(array(kind, channel.decode(), "1") for channel in command[1:])


@pytest.mark.gen_test(timeout=60)
async def test_each_subscription_is_confirmed_by_its_own_answer(short_path: Path) -> None:
    """Not by that to an earlier one, which an `unsubscribe` between the two has ended."""
    late = asyncio.Event()

    async def confirm(command: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        if b"UNSUBSCRIBE" in [said[0] for said in fake.said[:-1]]:
            await late.wait()
        return confirmations(command)

    fake = FakeRedis(short_path / "s", SUBSCRIBE=confirm, UNSUBSCRIBE=confirm)
    async with fake.running(), listening(fake.url) as listener:
        first = listener.subscribe("r")
        listener.feed.unsubscribe("r")
        second = listener.subscribe("r")
        await first
        assert not second.done()
        late.set()
        await second


GARBAGE = {
    "empty": b"",
    "shorter than an origin": b"abc",
    "an origin alone": b"origin-2",
    "text": b"origin-2hello there",
    "another type": b"origin-2\xa5hello",
    "too few fields": b"origin-2\x91\xa1e",
    "cut short": b"origin-2\x92\xa1e\x91\x97\x01\xa8sele",
    "a kind that is none": b"origin-2\x92\xa1e\x91\x94\x01\xa4eats\xa2A1\xa3ann",
    "not UTF-8": b"origin-2\x92\xa1e\x91\x94\x01\xa8released\xa2\xff\xfe\xa3ann",
    "no change": b"origin-2\x92\xa1e\x90",
    "nested without end": b"origin-2\x93\xa1e\x90" + b"\x91" * 100_000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.gen_test(timeout=60)
async def test_garbage_on_a_channel_is_logged_and_ignored(
    shape: Shape, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    """The connection stays, what comes next is heard, and the log shows nothing of the garbage."""
    room = unique("room")
    async with opened(shape.url) as store, listening(shape.url) as listener:
        await listener.subscribe(room)
        shape.redis.publish(shape.keys(room).channel, garbage)
        await store.select(room, "ann", "A1")
        await listener.hears(room, [1])
        assert listener.ear.events == store.ear.events
        assert listener.ear.states == []
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "Traceback" not in caplog.text


# ---------------------------------------------------------------- a feed that was cut


@pytest.mark.gen_test(timeout=60)
async def test_feed_that_was_cut_says_so_and_comes_back_with_every_room(
    own_shape: Shape,
) -> None:
    """`on_feed_up` comes when all subscriptions stand: an event right after it is heard."""
    rooms = [unique("room") for _ in range(500)]
    async with opened(own_shape.url) as store, listening(own_shape.url) as listener:
        await asyncio.gather(*map(listener.subscribe, rooms))
        for turn in range(1, 4):
            own_shape.redis.client_kill_filter(_type="pubsub")
            await listener.ear.until_state("feed down")
            await listener.ear.until_state("feed up")
            store.select(rooms[0], "ann", f"A{turn}")
            await store.select(rooms[-1], "ann", f"A{turn}")
            await listener.hears(rooms[0], list(range(1, turn + 1)))
            await listener.hears(rooms[-1], list(range(1, turn + 1)))
        assert listener.ear.states == ["feed down", "feed up"] * 3
        assert store.ear.states == []


@pytest.mark.gen_test(timeout=60)
async def test_feed_is_not_up_before_its_subscriptions_stand(short_path: Path) -> None:
    """Or else a change would come between the snapshot, read then, and the first event heard."""
    late = asyncio.Event()

    async def confirm(command: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        if listener.ear.states:
            asked_again.set()
            await late.wait()
        return confirmations(command)

    async def pong(command: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        return array("pong", command[1].decode())

    asked_again = asyncio.Event()
    fake = FakeRedis(short_path / "s", SUBSCRIBE=confirm, PING=pong)
    async with fake.running(), listening(fake.url) as listener:
        await listener.subscribe("r1")
        await listener.subscribe("r2")
        fake.cut()
        await asked_again.wait()
        assert listener.ear.states == ["feed down"]
        late.set()
        await listener.ear.until_state("feed up")


@pytest.mark.gen_test(timeout=60)
async def test_room_that_was_left_is_not_subscribed_again(own_shape: Shape) -> None:
    """Whether it was left before the cut or while there was no connection."""
    stays, left, leaves = unique("room"), unique("room"), unique("room")
    async with listening(own_shape.url) as listener:
        for room in (stays, left, leaves):
            await listener.subscribe(room)
        listener.feed.unsubscribe(left)
        own_shape.redis.client_kill_filter(_type="pubsub")
        await listener.ear.until_state("feed down")
        listener.feed.unsubscribe(leaves)
        await listener.ear.until_state("feed up")
        assert [subscribers(own_shape, room) for room in (stays, left, leaves)] == [1, 0, 0]


@pytest.mark.gen_test(timeout=60)
async def test_feed_without_rooms_comes_back_too(own_shape: Shape) -> None:
    """The sign that all subscriptions stand comes in another shape where there are none."""
    async with listening(own_shape.url) as listener:
        own_shape.redis.client_kill_filter(_type="normal", skipme=True)
        await listener.ear.until_state("feed up")
        assert listener.ear.states == ["feed down", "feed up"]


@pytest.mark.gen_test(timeout=60)
async def test_subscription_that_cannot_be_had_is_told_at_once(
    own_valkey: Valkey, own_shape: Shape
) -> None:
    """Lost on the way or asked for without a connection: StoreError, and none waits for ever."""
    room = unique("room")
    async with listening(own_shape.url) as listener:
        own_valkey.pause()
        lost = [listener.subscribe(room) for _ in range(3)]
        own_valkey.kill()
        await listener.ear.until_state("feed down")
        lost.append(listener.subscribe(room))
        assert all(isinstance(answer.exception(), StoreError) for answer in lost)
        own_valkey.start()
        await listener.ear.until_state("feed up")


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_stops_is_noticed(
    own_valkey: Valkey, own_shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection can die without a word, so it is asked for a sign of life now and then."""
    monkeypatch.setattr(feed_module, "PROBE_S", 0.3)
    room = unique("room")
    async with opened(own_shape.url) as store, listening(own_shape.url, SOON) as listener:
        await listener.subscribe(room)
        await store.select(room, "ann", "A1")
        await listener.hears(room, [1])
        own_valkey.pause()
        await listener.ear.until_state("feed down")
        assert not listener.feed.is_up_at(listener.topology.servers[0])
        own_valkey.resume()
        await listener.ear.until_state("feed up")
        await wait_until_async(lambda: store.store.is_up(room))
        await store.select(room, "ann", "A2")
        await listener.hears(room, [1, 2])


@pytest.mark.gen_test(timeout=60)
async def test_silent_feed_is_not_taken_for_a_dead_one(
    own_shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing happens in any room, the connection stays."""
    monkeypatch.setattr(feed_module, "PROBE_S", 0.02)
    async with listening(own_shape.url) as listener:
        await listener.subscribe(unique("room"))

        def pings() -> int:
            return int(own_shape.redis.info("commandstats")["cmdstat_ping"]["calls"])

        before = pings()
        await wait_until_async(lambda: pings() > before + 20)
        assert listener.ear.states == []


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_cannot_write_to_its_disk_is_heard_still(
    short_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses PING as it refuses changes (MISCONF): that is no reason to lose the connection."""
    monkeypatch.setattr(feed_module, "PROBE_S", 0.1)
    room = unique("room")
    (short_path / "taken.rdb").mkdir()
    server = Valkey(short_path, save="3600 1", dbfilename="taken.rdb")
    server.start()
    try:
        async with listening(server.url) as listener:
            await listener.subscribe(room)
            with server.client() as client:
                client.bgsave()
                await wait_until_async(
                    lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err"
                )
            await wait_until_async(lambda: "can't write to its disk" in caplog.text)
            # A new connection is told so, too, instead of that all subscriptions stand.
            server.cut("pubsub")
            await listener.ear.until_state("feed up")
            assert listener.ear.states == ["feed down", "feed up"]
            assert subscribers(shape_of(server), room) == 1
    finally:
        server.stop()
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
