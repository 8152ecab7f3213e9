"""Holds in a real Redis, by way of `HoldStore`: its rules, its keys, its group commit."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import pytest

from seatws.config import Config, Holds, Privacy, Redis
from seatws.errors import ConfigError, SeatwsError, StoreError
from seatws.holds import Outcome
from tests.harness import Valkey, unique, wait_until_async
from tests.stores import FakeRedis, Shape, bulk, ok, opened, short
from tests.stores import own_shape as own_shape
from tests.stores import shape as shape

# ---------------------------------------------------------------- the rules


@pytest.mark.gen_test(timeout=60)
async def test_first_holder_wins_until_the_deadline(shape: Shape) -> None:
    """A live hold refuses everyone else and tells until when; past its deadline it refuses nobody.

    Its end takes a rev of its own, before that of the new hold.
    """
    room = unique("room")
    async with opened(shape.url) as store:
        ((_, _, deadline_ms),) = (await store.select(room, "ann", "B12")).seats
        refusal = await store.select(room, "bob", "B12")
        assert refusal == Outcome("taken", [("B12", 0, deadline_ms)])
        shape.pass_deadline(room, "B12")
        assert short(await store.select(room, "bob", "B12")) == ok(("B12", 3))
        assert store.ear.steps(room) == [
            (1, "selected", "B12", "ann"),
            (2, "expired", "B12", "ann"),
            (3, "selected", "B12", "bob"),
        ]


@pytest.mark.gen_test(timeout=60)
async def test_selecting_ones_own_seat_again_changes_nothing(shape: Shape) -> None:
    """The answer has the old deadline and no rev; nobody hears of it, `user_info` stays, too."""
    room = unique("room")
    async with opened(shape.url) as store:
        first = await store.select(room, "ann", "A1", user_info=b'{"name":"Ann"}')
        before = await store.snapshot(room)
        again = await store.select(room, "ann", "A1", user_info=b'{"name":"Other"}')
        assert again == Outcome("ok", [("A1", 0, first.seats[0][2])])
        assert await store.snapshot(room) == before
        assert store.ear.revs(room) == [1]


@pytest.mark.gen_test(timeout=60)
async def test_repeat_of_a_held_seat_is_no_way_around_its_end(shape: Shape) -> None:
    """One's own hold that is past its deadline ends like any other, and a new one begins."""
    room = unique("room")
    async with opened(shape.url) as store:
        await store.select(room, "ann", "A1")
        shape.pass_deadline(room, "A1")
        assert short(await store.select(room, "ann", "A1")) == ok(("A1", 3))
        assert [kind for _, kind, *_ in store.ear.steps(room)] == [
            "selected",
            "expired",
            "selected",
        ]


@pytest.mark.gen_test(timeout=60)
async def test_group_is_all_or_none(shape: Shape) -> None:
    """One seat in the way refuses them all, and names just those in the way."""
    room = unique("room")
    async with opened(shape.url) as store:
        await store.select(room, "bob", "A2", "A4")
        refusal = await store.select(room, "ann", "A1", "A2", "A3", "A4")
        assert short(refusal) == ("taken", [("A2", 0), ("A4", 0)])
        assert set((await store.snapshot(room)).holds) == {"A2", "A4"}
        assert short(await store.select(room, "bob", "A1", "A2", "A3")) == ok(
            ("A1", 3), ("A2", 0), ("A3", 4)
        )


@pytest.mark.gen_test(timeout=60)
async def test_holds_that_are_due_end_in_the_order_of_their_deadlines(shape: Shape) -> None:
    """`expire` ends what is due and only that; it tells once, and the next one finds nothing."""
    room = unique("room")
    async with opened(shape.url) as store:
        await store.select(room, "ann", "A1", "A2", "A3", "A4")
        shape.pass_deadline(room, "A3", "A1", "A4")
        await store.expire(room)
        await store.expire(room)
        assert store.ear.steps(room)[4:] == [
            (5, "expired", "A3", "ann"),
            (6, "expired", "A1", "ann"),
            (7, "expired", "A4", "ann"),
        ]
        assert set((await store.snapshot(room)).holds) == {"A2"}


@pytest.mark.gen_test(timeout=60)
async def test_cap_counts_live_holds_in_this_room_alone(shape: Shape) -> None:
    """Seats of other rooms, given back and past their deadline do not count."""
    room, other = unique("room"), unique("room")
    async with opened(shape.url, Config(holds=Holds(max_seats_per_client=2))) as store:
        await store.select(other, "ann", "A1", "A2")
        assert (await store.select(room, "ann", "A1", "A2")).code == "ok"
        assert await store.select(room, "ann", "A3") == Outcome("limit")
        await store.release(room, "ann", "A1")
        assert (await store.select(room, "ann", "A3")).code == "ok"
        shape.pass_deadline(room, "A2")
        assert (await store.select(room, "ann", "A4")).code == "ok"
        assert await store.select(room, "ann", "A5") == Outcome("limit")


@pytest.mark.gen_test(timeout=60)
async def test_snapshot_is_the_events_replayed(shape: Shape) -> None:
    """Whoever heard every change knows what a snapshot says, of holds past their deadline, too."""
    room, chance = unique("room"), random.Random(7)
    async with opened(shape.url) as store:
        for _ in range(40):
            held = (await store.snapshot(room)).holds
            if held and chance.random() < 0.3:
                shape.pass_deadline(room, chance.choice(sorted(held)))
            for _ in range(chance.randrange(5)):
                ask = store.release if chance.random() < 0.4 else store.select
                ask(room, f"c{chance.randrange(3)}", f"S{chance.randrange(12)}")
        replayed: dict[str, str] = {}
        for _, kind, seat, client in store.ear.steps(room):
            if kind == "selected":
                assert seat not in replayed
                replayed[seat] = client
            else:
                assert replayed.pop(seat) == client
        snapshot = await store.snapshot(room)
        assert {s: hold.selection.client_id for s, hold in snapshot.holds.items()} == replayed
        assert store.ear.revs(room) == list(range(1, snapshot.rev + 1))
        assert await store.revision(room) == (snapshot.epoch, snapshot.rev)
        shape.pass_deadline(room, *replayed)
        assert set((await store.snapshot(room)).holds) == set(replayed)


@pytest.mark.gen_test(timeout=60)
async def test_room_that_never_was_is_empty(shape: Shape) -> None:
    """No epoch, rev 0, no holds; looking at it and ending what is due leave nothing behind."""
    room = unique("room")
    async with opened(shape.url) as store:
        snapshot = await store.snapshot(room)
        assert (snapshot.epoch, snapshot.rev, snapshot.holds) == ("", 0, {})
        assert await store.revision(room) == ("", 0)
        await store.expire(room)
        assert await store.release(room, "ann", "A1") == Outcome("not_holder")
        assert store.ear.events == []
        assert shape.keys_of(room) == set()


@pytest.mark.gen_test(timeout=60)
async def test_shared_user_info_is_all_that_a_snapshot_shows(shape: Shape) -> None:
    """Redis keeps it whole; each reader filters by its own setting, and an order of keys stays."""
    room = unique("room")
    told = b'{"z":1,"name":"Ann","mail":{"a":[1]},"phone":"5"}'
    shown = {("*",): told, ("name", "z"): b'{"z":1,"name":"Ann"}', ("other",): b"{}", (): b"{}"}
    async with opened(shape.url) as store:
        await store.select(room, "ann", "A1", user_info=told)
    for keys, expected in shown.items():
        async with opened(shape.url, Config(privacy=Privacy(shared_user_info=keys))) as store:
            hold = (await store.snapshot(room)).holds["A1"]
            assert bytes(hold.selection.user_info) == expected


# ---------------------------------------------------------------- keys


@pytest.mark.gen_test(timeout=60)
async def test_two_prefixes_in_one_redis_never_meet(shape: Shape) -> None:
    """Every key begins with `redis.prefix`, and a seat is free again under another one."""
    room, prefix = unique("room"), unique("cinema")
    async with opened(shape.url, Config(redis=Redis(prefix=prefix))) as ours:
        assert (await ours.select(room, "ann", "A1")).code == "ok"
        assert set(shape.redis.scan_iter(f"*{room}*")) == set(shape.keys(room, prefix)[:4])
        async with opened(shape.url) as others:
            assert (await others.select(room, "bob", "A1")).code == "ok"
            assert (await ours.snapshot(room)).holds["A1"].selection.client_id == "ann"


@pytest.mark.gen_test(timeout=60)
async def test_keys_outlive_the_last_deadline_by_keep_seconds(shape: Shape) -> None:
    """All of them to the same millisecond, also when the last hold began in the same call."""
    room = unique("room")
    config = Config(holds=Holds(seconds=100, keep_seconds=50))
    async with opened(shape.url, config) as store, opened(shape.url) as longer:
        deadline_ms = (await store.select(room, "ann", "A1")).seats[0][2]
        assert shape.keys_of(room) == set(shape.keys(room)[:4])
        assert shape.ends_at(room) == {deadline_ms + 50_000}
        last_ms = (await longer.select(room, "ann", "A2")).seats[0][2]
        assert shape.ends_at(room) == {last_ms + 3_600_000}
        await store.select(room, "ann", "A3")
        assert shape.ends_at(room) == {last_ms + 50_000}
        for seat in ("A1", "A2", "A3"):
            await store.release(room, "ann", seat)
        assert shape.ends_at(room) == {last_ms + 50_000}
        assert shape.keys_of(room) == {shape.keys(room).meta}


@pytest.mark.gen_test(timeout=60)
async def test_a_seat_that_is_held_anew_in_one_call_counts_by_its_new_deadline(
    shape: Shape,
) -> None:
    """Found by Hypothesis: the deadline that it had before is in nobody's way."""
    room, shorter = unique("room"), Config(holds=Holds(seconds=100, keep_seconds=50))
    async with opened(shape.url) as longer, opened(shape.url, shorter) as store:
        await longer.select(room, "ann", "A1")
        asks = store.release(room, "ann", "A1"), store.select(room, "bob", "A1")
        released, selected = await asyncio.gather(*asks)
        assert (released.code, selected.code) == ("ok", "ok")
        (event,) = [
            event for of, event in store.ear.events if of == room and event.changes[0].rev > 1
        ]
        assert [change.kind for change in event.changes] == ["released", "selected"]
        assert shape.ends_at(room) == {selected.seats[0][2] + 50_000}


@pytest.mark.gen_test(timeout=60)
async def test_room_that_nobody_visits_leaves_nothing(shape: Shape) -> None:
    """Its keys go by themselves; whoever comes then begins a new epoch at rev 1."""
    room = unique("room")
    config = Config(holds=Holds(seconds=0, keep_seconds=1))  # less than `load` would allow
    async with opened(shape.url, config) as store:
        await store.select(room, "ann", "A1")
        before = await store.snapshot(room)
        await wait_until_async(lambda: not shape.keys_of(room))
        assert await store.revision(room) == ("", 0)
        await store.select(room, "ann", "A1")
        after = await store.snapshot(room)
        assert after.rev == before.rev == 1
        assert after.epoch != before.epoch


# ---------------------------------------------------------------- more than one


@pytest.mark.gen_test(timeout=60)
async def test_two_stores_that_fight_for_seats_have_one_winner_each(shape: Shape) -> None:
    """Their changes are one gapless sequence, in which nobody selects what is held."""
    room, seats = unique("room"), [f"S{number}" for number in range(10)]
    async with opened(shape.url) as one, opened(shape.url) as two:
        for turn in range(20):
            asks = [
                (store.release if turn % 4 == 3 else store.select)(room, f"c{client}", seat)
                for seat in seats
                for client, store in enumerate((one, two, one, two))
            ]
            outcomes = await asyncio.gather(*asks)
            if turn == 0:
                assert [outcome.code for outcome in outcomes].count("ok") == len(seats)
        steps = sorted(one.ear.steps(room) + two.ear.steps(room))
        assert [rev for rev, *_ in steps] == list(range(1, len(steps) + 1))
        holders: dict[str, str] = {}
        for _, kind, seat, client in steps:
            assert holders.get(seat) == (None if kind == "selected" else client)
            if kind == "selected":
                holders[seat] = client
            else:
                del holders[seat]


@pytest.mark.gen_test(timeout=60)
async def test_redis_without_memory_takes_no_hold_but_gives_seats_back(own_shape: Shape) -> None:
    """What it refuses is a StoreError and changes nothing; it is used again when it has memory."""
    room = unique("room")
    async with opened(own_shape.url) as store:
        await store.select(room, "ann", "A1", "A2")
        before = await store.snapshot(room)
        own_shape.redis.config_set("maxmemory", "1")
        with pytest.raises(StoreError):
            await store.select(room, "bob", "B1")
        assert await store.snapshot(room) == before
        assert short(await store.release(room, "ann", "A1")) == ok(("A1", 3))
        own_shape.redis.config_set("maxmemory", "0")
        assert short(await store.select(room, "bob", "B1")) == ok(("B1", 4))
        assert store.ear.states == []


@pytest.mark.gen_test(timeout=60)
async def test_user_who_may_not_publish_is_refused_before_a_hold_is_stored(
    own_shape: Shape,
) -> None:
    """Or else the script would store a hold and fail at telling it: held, and nobody knows."""
    user = ["shop", "on", "nopass", "~seatws:*", "+@all", "resetchannels"]
    own_shape.redis.execute_command("ACL", "SETUSER", *user)
    room = unique("room")
    with pytest.raises(SeatwsError):
        async with opened(own_shape.url.replace("unix://", "unix://shop:any@")) as store:
            await store.select(room, "ann", "A1")
    assert own_shape.keys_of(room) == set()


# ---------------------------------------------------------------- which Redis


VERSIONS = {"5.0.14": False, "6.0.20": False, "6.2.0": True, "7.2.4": True, "10.0.1": True}


@pytest.mark.parametrize(("version", "is_fit"), VERSIONS.items(), ids=VERSIONS)
@pytest.mark.gen_test(timeout=60)
async def test_redis_older_than_6_2_is_refused(
    short_path: Path, version: str, is_fit: bool
) -> None:
    """The error names the version and what to use."""
    info = bulk(f"# Server\r\nredis_version:{version}\r\n")
    async with FakeRedis(short_path / "s", INFO=info).running() as fake:
        if is_fit:
            async with opened(fake.url):
                return
        with pytest.raises(ConfigError, match=rf"{version} .*6\.2"):
            async with opened(fake.url):
                pass


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_may_drop_holds_is_refused(own_shape: Shape) -> None:
    """Any policy but `noeviction`; the error says what to set, and no connection is left."""
    for policy in ("allkeys-lru", "volatile-ttl"):
        own_shape.redis.config_set("maxmemory-policy", policy)
        with pytest.raises(ConfigError, match=rf"{policy} .*`maxmemory-policy noeviction`"):
            async with opened(own_shape.url):
                pass
    await wait_until_async(lambda: len(own_shape.redis.client_list()) == 1)


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_comes_back_less_fit_is_used_and_said_once(
    own_valkey: Valkey, own_shape: Shape, caplog: pytest.LogCaptureFixture
) -> None:
    """While the server runs, a seat map that works is worth more than a setting that is right."""
    async with opened(own_shape.url) as store:
        own_shape.redis.config_set("maxmemory-policy", "allkeys-lru")
        own_valkey.cut()
        await store.ear.until_state("store up")
        assert (await store.select(unique("room"), "ann", "A1")).code == "ok"
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "allkeys-lru" in errors[0]


GO_ELSEWHERE = {
    "replica": b"-READONLY You can't write against a read only replica. script: 1, on @user:9.",
    "replica, Redis 6.2": b"-ERR Error running script (call to f_1): @user_script:58: "
    b"@user_script: 58: -READONLY You can't write against a read only replica.",
    "loading": b"-LOADING Redis is loading the dataset in memory",
    "replica without its primary": b"-MASTERDOWN Link with MASTER is down",
}


@pytest.mark.parametrize("error", GO_ELSEWHERE.values(), ids=GO_ELSEWHERE)
@pytest.mark.gen_test(timeout=60)
async def test_server_that_is_no_primary_is_left(short_path: Path, error: bytes) -> None:
    """The same address may lead to another server by now, so the connection is opened anew."""
    fake = FakeRedis(short_path / "s", EVALSHA=error + b"\r\n")
    async with fake.running(), opened(fake.url) as store, asyncio.timeout(5):
        with pytest.raises(StoreError):
            await store.select("r", "ann", "A1")
        await store.ear.until_state("store up")
        assert store.ear.states == ["store down", "store up"]


@pytest.mark.gen_test(timeout=60)
async def test_primary_that_becomes_a_replica_is_used_again_when_it_is_one(
    own_shape: Shape,
) -> None:
    """No hold is written where it would not last; meanwhile each is refused, none is lost."""
    room = unique("room")
    async with opened(own_shape.url) as store:
        own_shape.redis.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreError):
            await store.select(room, "ann", "A1")
        await store.ear.until(lambda: "store down" in store.ear.states)
        own_shape.redis.replicaof("NO", "ONE")
        await store.ear.until_state("store up")
        assert short(await store.select(room, "ann", "A1")) == ok(("A1", 1))
