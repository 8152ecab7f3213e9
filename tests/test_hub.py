"""The hub: the way of a request into its room and back, and which rooms are followed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from seatws.config import Config, Holds, Limits, Redis
from seatws.counts import Counts
from seatws.errors import ClientError, LimitReached, NotHolder, SeatTaken, StoreError
from seatws.messages import JoinRoom, LeaveRoom, ReleaseSeat, SelectSeat, SelectSeats
from seatws.rooms import hub as hub_module
from seatws.rooms.hub import Hub
from tests.harness import Message, Valkey, holders_in_redis, unique, wait_until_async
from tests.recording import Elsewhere, RecordingPeer

Command = JoinRoom | LeaveRoom | SelectSeat | SelectSeats | ReleaseSeat


class Guest(RecordingPeer):
    """A peer that asks a hub."""

    def __init__(self, hub: Hub, client_id: str | None = None) -> None:
        super().__init__(client_id)
        self.hub = hub

    def say(self, command: Command) -> None:
        match command:
            case JoinRoom():
                self.hub.join(self, command)
            case LeaveRoom():
                self.hub.leave(self, command)
            case ReleaseSeat():
                self.hub.release(self, command)
            case _:
                self.hub.select(self, command)

    async def join(self, room_id: str) -> Message:
        """Join and wait for the answer; the map comes with it."""
        request_id = unique("q")
        self.say(JoinRoom(room_id=room_id, request_id=request_id))
        return await self.answered(request_id)

    async def leave(self, room_id: str) -> Message:
        request_id = unique("q")
        self.say(LeaveRoom(room_id=room_id, request_id=request_id))
        return await self.answered(request_id)

    async def select(self, room_id: str, *seat_ids: str) -> Message:
        """Select one or several; the first answer."""
        request_id = unique("q")
        if len(seat_ids) == 1:
            self.say(SelectSeat(room_id=room_id, seat_id=seat_ids[0], request_id=request_id))
        else:
            self.say(SelectSeats(room_id=room_id, seat_ids=[*seat_ids], request_id=request_id))
        return await self.answered(request_id)

    async def release(self, room_id: str, seat_id: str) -> Message:
        request_id = unique("q")
        self.say(ReleaseSeat(room_id=room_id, seat_id=seat_id, request_id=request_id))
        return await self.answered(request_id)


@contextlib.asynccontextmanager
async def hub_on(
    valkey: Valkey, config: Config | None = None, counts: Counts | None = None
) -> AsyncIterator[Hub]:
    hub = Hub(config or Config(), valkey.url, counts or Counts())
    await hub.open()
    try:
        yield hub
    finally:
        await hub.close()


@pytest.fixture
def room_id() -> str:
    return unique("room")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rooms are compared, and empty ones let go, in tenths of a second."""
    monkeypatch.setattr(hub_module, "COMPARE_S", 0.05)
    monkeypatch.setattr(hub_module, "LINGER_S", 0.2)


async def forgotten(hub: Hub, room_id: str) -> None:
    await wait_until_async(lambda: room_id not in hub.rooms)


# ---------------------------------------------------------------- requests


@pytest.mark.gen_test(timeout=60)
async def test_viewers_on_every_instance_see_the_same(valkey: Valkey, room_id: str) -> None:
    """The requester gets the answer, everybody else the news, here and elsewhere."""
    async with hub_on(valkey) as here, hub_on(valkey) as there:
        ann, bob, eve = Guest(here), Guest(here), Guest(there)
        for guest in (ann, bob, eve):
            assert (await guest.join(room_id))["type"] == "room_joined"
        assert (await ann.select(room_id, "A1", "A2"))["rev"] == 1
        assert (await eve.release(room_id, "A1"))["code"] == "not_holder"
        assert (await eve.select(room_id, "A1"))["code"] == "seat_taken"
        assert (await eve.select(room_id, "B1"))["rev"] == 3
        assert (await ann.release(room_id, "A1"))["rev"] == 4
        for guest in (ann, bob, eve):
            await guest.until(lambda guest=guest: guest.revs[room_id] == 4)  # type: ignore[misc]  # bound now
            assert guest.maps[room_id] == holders_in_redis(valkey, room_id)
        assert here.active_rooms == there.active_rooms == 1


@pytest.mark.gen_test(timeout=60)
async def test_a_client_needs_no_room_to_hold_a_seat(valkey: Valkey, room_id: str) -> None:
    """It gets its answers; no room is opened for it."""
    async with hub_on(valkey) as hub:
        ann = Guest(hub)
        assert (await ann.select(room_id, "A1"))["rev"] == 1
        assert "rev" not in await ann.select(room_id, "A1")
        assert (await ann.release(room_id, "A1"))["rev"] == 2
        assert (await ann.release(room_id, "A1"))["code"] == "not_holder"
        assert not hub.rooms


@pytest.mark.gen_test(timeout=60)
async def test_leaving_is_answered_whether_one_was_there_or_not(
    valkey: Valkey, room_id: str
) -> None:
    """After it nothing is heard of the room, even if it had not been opened yet for a join."""
    async with hub_on(valkey) as hub:
        ann, bob = Guest(hub), Guest(hub)
        assert (await ann.leave(room_id))["type"] == "room_left"
        ann.say(JoinRoom(room_id=room_id, request_id="q1"))
        ann.say(LeaveRoom(room_id=room_id, request_id="q2"))
        await bob.join(room_id)
        await bob.select(room_id, "A1")
        assert [message.get("request_id") for message in ann.received[1:]] == ["q1", "q2"]
        assert ann.kinds()[-1] == "room_left"
        assert not ann.viewers
        await ann.join(room_id)
        assert ann.maps[room_id] == {"A1": bob.client_id}


@pytest.mark.gen_test(timeout=60)
async def test_an_answer_reaches_who_left_meanwhile(valkey: Valkey, room_id: str) -> None:
    """Asked is asked."""
    async with hub_on(valkey) as hub:
        ann = Guest(hub)
        await ann.join(room_id)
        ann.say(SelectSeat(room_id=room_id, seat_id="A1", request_id="q"))
        ann.say(LeaveRoom(room_id=room_id))
        assert (await ann.answered("q"))["rev"] == 1
        assert ann.kinds() == ["room_joined", "current_selections", "room_left", "seat_selected"]


@pytest.mark.gen_test(timeout=60)
async def test_a_connection_is_in_no_more_rooms_than_allowed(valkey: Valkey) -> None:
    """A room that is not open yet counts, one that was left does not, joining again is no more."""
    one, two, three = (unique("room") for _ in range(3))
    async with hub_on(valkey, Config(limits=Limits(rooms_per_connection=2))) as hub:
        ann = Guest(hub)
        ann.say(JoinRoom(room_id=one))
        ann.say(JoinRoom(room_id=two))
        refusal = await ann.join(three)
        assert (refusal["code"], refusal["request"]) == ("limit_reached", "join_room")
        assert (await ann.join(two))["type"] == "room_joined"
        await ann.leave(one)
        assert (await ann.join(three))["type"] == "room_joined"
        assert ann.viewers.keys() == {two, three}


@pytest.mark.gen_test(timeout=60)
async def test_holds_without_a_connection(valkey: Valkey, room_id: str) -> None:
    """What HTTP asks for goes by the same rules, and viewers hear of it."""
    async with hub_on(valkey, Config(holds=Holds(max_seats_per_client=2))) as hub:
        bob = Guest(hub)
        await bob.join(room_id)
        seat, rev, deadline = await hub.hold(room_id, "ann", "A1", b"{}")
        assert (seat, rev) == ("A1", 1)
        assert await hub.hold(room_id, "ann", "A1", b"{}") == ("A1", 0, deadline)
        await hub.hold(room_id, "ann", "A2", b"{}")
        refusals: list[tuple[str, str, type[ClientError]]] = [
            ("bob", "A1", SeatTaken),
            ("ann", "A3", LimitReached),
        ]
        for client_id, seat_id, kind in refusals:
            with pytest.raises(kind):
                await hub.hold(room_id, client_id, seat_id, b"{}")
        with pytest.raises(NotHolder):
            await hub.free(room_id, "bob", "A1")
        await hub.free(room_id, "ann", "A1")
        await bob.until(lambda: bob.revs[room_id] == 3)
        assert bob.maps[room_id] == {"A2": "ann"}


# ---------------------------------------------------------------- Redis away, late, at its limit


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("emptied", [False, True], ids=["with its data", "empty"])
async def test_viewers_keep_their_map_while_redis_is_away(
    own_valkey: Valkey, room_id: str, emptied: bool
) -> None:
    """Requests are refused; when it is back every viewer gets the map as it now is."""
    async with hub_on(own_valkey) as hub:
        ann, bob = Guest(hub), Guest(hub)
        await ann.join(room_id)
        await ann.select(room_id, "A1")
        own_valkey.kill()
        await wait_until_async(lambda: not hub.is_up)
        for answer in (await ann.select(room_id, "A2"), await bob.join(room_id)):
            assert (answer["code"], answer["retryable"]) == ("store_unavailable", True)
        assert not bob.viewers
        for ask in (hub.live_room(room_id), hub.hold(room_id, "eve", "A3", b"{}")):
            with pytest.raises(StoreError):
                await ask
        assert ann.maps[room_id] == {"A1": ann.client_id}
        if emptied:
            for file in (own_valkey.directory / "appendonlydir").iterdir():
                file.unlink()
        own_valkey.start()
        await ann.heard("current_selections", 2)
        assert ann.maps[room_id] == ({} if emptied else {"A1": ann.client_id})
        assert (await ann.select(room_id, "A4"))["type"] == "seat_selected"


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_for_a_late_redis_is_refused_in_time(
    own_valkey: Valkey, room_id: str
) -> None:
    """It is not in the room, and tries again; nothing is left of the try."""
    async with hub_on(own_valkey, Config(redis=Redis(timeout_seconds=0.3))) as hub:
        ann = Guest(hub)
        own_valkey.pause()
        async with asyncio.timeout(3):
            refusals = await asyncio.gather(ann.join(room_id), ann.join(room_id))
        assert {refusal["code"] for refusal in refusals} == {"store_unavailable"}
        assert not ann.viewers
        assert not hub.rooms
        own_valkey.resume()
        await wait_until_async(lambda: hub.is_up)
        assert (await ann.join(room_id))["type"] == "room_joined"


@pytest.mark.gen_test(timeout=60)
async def test_each_may_wait_as_long_as_the_first(
    own_valkey: Valkey, room_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The patience with one join does not end another's, which came later."""
    monkeypatch.setattr(hub_module, "OPEN_S", 0.5)
    async with hub_on(own_valkey) as hub:
        loop, ann, bob = asyncio.get_running_loop(), Guest(hub), Guest(hub)
        began = loop.time()
        await ann.join(room_id)
        await wait_until_async(lambda: loop.time() > began + 0.3)
        own_valkey.pause()
        hub.rooms[room_id].read_anew("moved")
        began = loop.time()
        assert (await bob.join(room_id))["code"] == "store_unavailable"
        assert loop.time() - began >= 0.45
        own_valkey.resume()
        await ann.heard("current_selections", 2)


@pytest.mark.gen_test(timeout=60)
async def test_events_that_were_lost_with_their_connection_are_made_up_for(
    own_valkey: Valkey, room_id: str
) -> None:
    """Only the subscriptions are cut: commands go on, and the map comes with the reconnect."""
    with Elsewhere(own_valkey, room_id) as elsewhere:
        async with hub_on(own_valkey) as hub:
            ann = Guest(hub)
            await ann.join(room_id)
            elsewhere.redis.client_kill_filter(_type="pubsub")
            elsewhere.select("A1")
            await ann.until(lambda: ann.maps[room_id] == {"A1": "somebody"})
            elsewhere.select("A2")
            await ann.until(lambda: ann.revs[room_id] == 2)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("hurried")
async def test_requests_are_answered_while_no_events_can_be_had(
    own_valkey: Valkey, room_id: str
) -> None:
    """A Redis at its limit of connections, an event that was lost: an answer within 3 s, always."""
    with Elsewhere(own_valkey, room_id) as elsewhere:
        async with hub_on(own_valkey) as hub:
            ann = Guest(hub)
            await ann.join(room_id)
            elsewhere.redis.config_set("maxclients", 1)
            elsewhere.redis.client_kill_filter(_type="pubsub")
            elsewhere.select("A1")
            await wait_until_async(lambda: not hub.rooms[room_id].is_live)
            async with asyncio.timeout(3):
                assert (await ann.select(room_id, "A2"))["type"] == "seat_selected"
            elsewhere.redis.config_set("maxclients", 1000)
            await ann.until(lambda: ann.revs[room_id] == 2)
            assert ann.maps[room_id] == holders_in_redis(own_valkey, room_id)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("hurried")
async def test_a_room_that_could_not_be_read_is_read_again(valkey: Valkey, room_id: str) -> None:
    """Redis answered with an error and the connection stands: its viewers are not forgotten."""
    counts = Counts()
    with Elsewhere(valkey, room_id) as elsewhere:
        async with hub_on(valkey, counts=counts) as hub:
            ann = Guest(hub)
            await ann.join(room_id)
            elsewhere.select("A1", told=False)
            elsewhere.redis.rename(elsewhere.keys.holds, elsewhere.keys.holds + ":away")
            elsewhere.redis.set(elsewhere.keys.holds, "no hash")
            await wait_until_async(lambda: counts.resyncs.total() >= 2)
            with pytest.raises(StoreError):  # answered after the snapshot
                await hub.free(room_id, "eve", "A1")
            elsewhere.redis.rename(elsewhere.keys.holds + ":away", elsewhere.keys.holds)
            await ann.until(lambda: ann.maps[room_id] == {"A1": "somebody"})


# ---------------------------------------------------------------- which rooms are followed


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("hurried")
async def test_an_empty_room_is_followed_for_some_time(valkey: Valkey, room_id: str) -> None:
    """A reload of the page finds it there; then it is let go, its subscription too."""
    with Elsewhere(valkey, room_id) as elsewhere:
        async with hub_on(valkey) as hub:
            ann = Guest(hub)
            await ann.join(room_id)
            room = hub.rooms[room_id]
            began = asyncio.get_running_loop().time()
            await ann.leave(room_id)
            await ann.join(room_id)
            assert hub.rooms[room_id] is room
            assert hub.active_rooms == 1
            other = unique("room")
            await ann.join(other)
            await ann.leave(other)
            await forgotten(hub, other)
            assert asyncio.get_running_loop().time() - began >= hub_module.LINGER_S
            assert hub.rooms == {room_id: room}
            await ann.leave(room_id)
            assert hub.active_rooms == 0
            await forgotten(hub, room_id)
            await wait_until_async(lambda: elsewhere.listeners() == 0)


@pytest.mark.gen_test(timeout=60)
async def test_of_too_many_empty_rooms_the_longest_empty_goes_first(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short it has been empty; rooms in use do not count."""
    monkeypatch.setattr(hub_module, "COMPARE_S", 0.05)
    monkeypatch.setattr(hub_module, "MAX_LINGERING", 2)
    rooms = [unique("room") for _ in range(5)]
    async with hub_on(valkey) as hub:
        ann = Guest(hub)
        for room_id in rooms:
            await ann.join(room_id)
        for room_id in rooms[1:4]:
            await ann.leave(room_id)
        await forgotten(hub, rooms[1])
        assert hub.rooms.keys() == {*rooms} - {rooms[1]}


@pytest.mark.gen_test(timeout=60)
async def test_any_number_of_rooms_can_be_asked_for_at_once(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than may linger: all are opened and answered."""
    monkeypatch.setattr(hub_module, "COMPARE_S", 0.05)
    monkeypatch.setattr(hub_module, "MAX_LINGERING", 2)
    async with hub_on(valkey) as hub:
        rooms = await asyncio.gather(*(hub.live_room(unique("room")) for _ in range(20)))
        assert all(room.is_live for room in rooms)
        await wait_until_async(lambda: len(hub.rooms) == 2)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.usefixtures("hurried")
async def test_a_room_is_followed_while_a_poll_waits_for_it_and_not_for_ever_after(
    valkey: Valkey, room_id: str
) -> None:
    """However the poll ends."""
    async with hub_on(valkey) as hub:
        room = await hub.live_room(room_id)
        waiter = room.changed()
        other = unique("room")
        await hub.live_room(other)
        await forgotten(hub, other)
        assert await hub.live_room(room_id) is room
        waiter.cancel()
        await hub.live_room(room_id)
        await forgotten(hub, room_id)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("state", ["in rooms", "waiting", "behind", "asking"])
async def test_a_closed_connection_leaves_nothing_behind(
    valkey: Valkey, room_id: str, state: str
) -> None:
    """Not in a room, not in one that is being opened, not in an answer that comes later."""
    async with hub_on(valkey) as hub:
        ann, bob = Guest(hub), Guest(hub)
        await bob.join(room_id)
        if state != "waiting":
            await ann.join(room_id)
        ann.say(JoinRoom(room_id=unique("room")))
        if state == "behind":
            ann.is_behind, ann.unsent = True, 1
        if state == "asking":
            ann.say(SelectSeat(room_id=room_id, seat_id="A1"))
        hub.peer_closed(ann)
        assert not ann.viewers
        gone, told = weakref.ref(ann), len(ann.sent)
        sent = ann.sent
        del ann
        await bob.select(room_id, "B1")
        await bob.select(room_id, "B2")
        assert all(not room.joining for room in hub.rooms.values())
        assert hub.active_rooms == 1
        gc.collect()
        assert gone() is None
        assert len(sent) == told + (state == "asking")  # its socket is closed and drops it
