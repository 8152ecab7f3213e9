"""How commands travel to Redis: together, in order, and answered whatever happens to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seatws.config import Config, Redis
from seatws.errors import StoreError
from seatws.holds import Outcome
from seatws.store import pipeline
from tests.harness import Valkey, unique, wait_until_async
from tests.stores import Asking, FakeRedis, Shape, array, ok, opened, short
from tests.stores import own_shape as own_shape
from tests.stores import shape as shape

SOON = Config(redis=Redis(timeout_seconds=0.5, connect_timeout_seconds=0.5))


async def sent() -> None:
    """What was asked goes out at the end of this turn of the loop."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def evalsha_calls(shape: Shape) -> int:
    stats = shape.redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


# ---------------------------------------------------------------- group commit


@pytest.mark.gen_test(timeout=60)
async def test_what_is_asked_in_one_turn_goes_out_together(own_shape: Shape) -> None:
    """One script call for all the operations on a room, and they are done in the order given."""
    room = unique("room")
    async with opened(own_shape.url) as store:
        before = evalsha_calls(own_shape)
        selects = [store.select(room, f"c{number}", f"S{number}") for number in range(200)]
        outcomes = await asyncio.gather(*selects)
        assert evalsha_calls(own_shape) == before + 1
        assert [short(outcome) for outcome in outcomes] == [
            ok((f"S{number}", number + 1)) for number in range(200)
        ]
        assert len(store.ear.events) == 1


@pytest.mark.gen_test(timeout=60)
async def test_what_is_asked_while_a_call_is_under_way_waits_for_it_and_goes_together(
    own_valkey: Valkey, own_shape: Shape
) -> None:
    """Rooms do not mix; a call that was sent takes no more."""
    rooms = [unique("room") for _ in range(3)]
    async with opened(own_shape.url) as store:
        before = evalsha_calls(own_shape)
        own_valkey.pause()
        answers = [store.select(rooms[0], "ann", "A0")]
        await sent()
        for number in range(1, 50):
            answers += [store.select(room, "ann", f"A{number % 10}") for room in rooms]
            await asyncio.sleep(0)
        own_valkey.resume()
        await asyncio.gather(*answers)
        assert evalsha_calls(own_shape) == before + 1 + len(rooms)


@pytest.mark.gen_test(timeout=60)
async def test_rooms_go_together_in_one_pipeline(own_shape: Shape) -> None:
    """A call for each room, but not a message on the wire for each."""
    async with opened(own_shape.url) as store:
        before = own_shape.redis.info("stats")["total_reads_processed"]
        await asyncio.gather(*(store.select(unique("room"), "ann", "A1") for _ in range(100)))
        assert own_shape.redis.info("stats")["total_reads_processed"] - before < 20


@pytest.mark.gen_test(timeout=60)
async def test_one_pipeline_is_under_way_at_a_time(own_valkey: Valkey, own_shape: Shape) -> None:
    """Also when an answer makes its asker ask again, and others ask in the same turn."""
    room = unique("room")
    asked: list[asyncio.Future[Outcome]] = []

    def go_on(outcome: Outcome | StoreError) -> None:
        own_valkey.pause()
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: asked.append(store.select(room, "bob", "A2")))
        asked.append(store.select(room, "ann", "A3"))

    async with opened(own_shape.url) as store:
        before = evalsha_calls(own_shape)
        store.store.select(room, "ann", ["A1"], b"{}", go_on)
        await wait_until_async(lambda: len(asked) == 2)
        asked.append(store.select(room, "bob", "A4"))
        own_valkey.resume()
        await asyncio.gather(*asked)
        assert evalsha_calls(own_shape) == before + 3


@pytest.mark.gen_test(timeout=60)
async def test_very_many_operations_are_cut_into_calls_that_stay_in_order(
    own_shape: Shape,
) -> None:
    """At most 500 in a script call, in which Redis serves nobody else."""
    room = unique("room")
    async with opened(own_shape.url) as store:
        before = evalsha_calls(own_shape)
        answers = []
        for number in range(600):
            answers.append(store.select(room, f"c{number}", "A1"))
            answers.append(store.release(room, f"c{number}", "A1"))
        outcomes = await asyncio.gather(*answers)
        assert [short(outcome) for outcome in outcomes] == [
            ok(("A1", rev)) for rev in range(1, 1201)
        ]
        assert evalsha_calls(own_shape) == before + 3
        assert store.ear.revs(room) == list(range(1, 1201))


@pytest.mark.gen_test(timeout=60)
async def test_thousands_of_rooms_at_once_are_all_served(shape: Shape) -> None:
    """More commands than fit into one pipeline: each room has its answers and its own revs."""
    base = unique("room")
    rooms = [f"{base}_{number}" for number in range(2500)]
    async with opened(shape.url) as store:
        both = [
            answer
            for room in rooms
            for answer in (store.select(room, "ann", "A1"), store.select(room, "bob", "A1"))
        ]
        outcomes = await asyncio.gather(*both)
        assert {short(outcome)[0] for outcome in outcomes[::2]} == {"ok"}
        assert {short(outcome)[0] for outcome in outcomes[1::2]} == {"taken"}
        assert all(store.ear.revs(room) == [1] for room in rooms[::100])
    shape.redis.delete(*(key for room in rooms for key in shape.keys(room)[:4]))


# ---------------------------------------------------------------- answers


@pytest.mark.gen_test(timeout=60)
async def test_change_is_told_before_its_outcome(shape: Shape) -> None:
    """Whoever answers a request finds the change in the room already."""
    room, told = unique("room"), []
    async with opened(shape.url) as store:
        for seat in ("A1", "A2"):
            store.store.select(
                room, "ann", [seat], b"{}", lambda _: told.append(len(store.ear.revs(room)))
            )
        await store.revision(room)
        assert told == [2, 2]


@pytest.mark.gen_test(timeout=60)
async def test_answers_come_in_the_order_of_the_questions(shape: Shape) -> None:
    """A read that was asked for after a change sees it, and one before does not."""
    room = unique("room")
    async with opened(shape.url) as store:
        before, answer, after = (
            store.revision(room),
            store.select(room, "ann", "A1"),
            store.snapshot(room),
        )
        assert await before == ("", 0)
        assert short(await answer) == ok(("A1", 1))
        assert set((await after).holds) == {"A1"}


@pytest.mark.gen_test(timeout=60)
async def test_caller_that_fails_on_its_answer_costs_nobody_else_theirs(
    shape: Shape, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged as the bug that it is; the others of the same script call have their answers."""
    room = unique("room")

    def fail(outcome: Outcome | StoreError) -> None:
        raise ValueError("a bug")

    async with opened(shape.url) as store, asyncio.timeout(5):
        store.store.select(room, "ann", ["A1"], b"{}", fail)
        assert short(await store.select(room, "bob", "A2")) == ok(("A2", 2))
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1


@pytest.mark.gen_test(timeout=60)
async def test_store_that_closes_answers_what_waits(own_valkey: Valkey, own_shape: Shape) -> None:
    """Nobody is left without an answer; what is asked afterwards is refused at once."""
    room = unique("room")
    async with opened(own_shape.url) as store:
        own_valkey.pause()
        first = store.select(room, "ann", "A1")
        await sent()
        waiting: list[asyncio.Future[Any]] = [store.select(room, "bob", "A2")]
        waiting += [store.snapshot(room), store.revision(room)]
        await store.store.close()
        waiting.append(store.select(room, "ann", "A3"))
        assert all(isinstance(answer.exception(), StoreError) for answer in (first, *waiting))
        assert store.ear.states == []


# ---------------------------------------------------------------- a Redis in trouble


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_stops_is_noticed_in_time_and_used_again_when_it_goes_on(
    own_valkey: Valkey, own_shape: Shape
) -> None:
    """Who waits is told within the timeout, who comes meanwhile at once; it comes back by itself.

    What was lost may have been done or not: asking again is safe either way.
    """
    room = unique("room")
    async with opened(own_shape.url, SOON) as store:
        own_valkey.pause()
        asked_at = time.monotonic()
        with pytest.raises(StoreError):
            await store.select(room, "ann", "A1")
        assert time.monotonic() - asked_at < 0.5 + 0.5
        assert store.ear.states == ["store down"]
        assert not store.store.is_up("")
        asked: list[asyncio.Future[Any]] = [store.select(room, "ann", "A2")]
        asked += [store.snapshot(room), store.revision(room)]
        assert all(isinstance(answer.exception(), StoreError) for answer in asked)
        own_valkey.resume()
        await store.ear.until_state("store up")
        code, [(seat, rev)] = short(await store.select(room, "ann", "A1"))
        assert (code, seat) == ("ok", "A1")
        assert rev in (0, 1)
        assert store.ear.states == ["store down", "store up"]


@pytest.mark.gen_test(timeout=60)
async def test_idle_store_notices_that_redis_stopped(
    own_valkey: Valkey, own_shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks now and then, though nobody asks for anything."""
    monkeypatch.setattr(pipeline, "PROBE_S", 0.1)
    async with opened(own_shape.url, SOON) as store:
        own_valkey.pause()
        await store.ear.until_state("store down")
        own_valkey.resume()
        await store.ear.until_state("store up")


@pytest.mark.gen_test(timeout=60)
async def test_nobody_waits_longer_because_others_were_asked_before(short_path: Path) -> None:
    """Redis has the timeout for each request from when it was made, not from when it was sent."""
    answers = iter([0.9, 1000.0])

    async def late(command: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        await asyncio.sleep(next(answers))
        return array("", "0")

    config = Config(redis=Redis(timeout_seconds=1.0))
    fake = FakeRedis(short_path / "s", HMGET=late)
    async with fake.running(), opened(fake.url, config) as store:
        first = store.revision("r")
        await sent()
        asked_at = time.monotonic()
        second = store.revision("r")
        await first
        with pytest.raises(StoreError):
            await second
        assert time.monotonic() - asked_at < 1.0 + 0.5


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_dies_answers_everybody_at_once_and_none_twice(
    own_valkey: Valkey, own_shape: Shape
) -> None:
    """Sent or waiting; and who asks again on being told so is refused, not forgotten."""
    room, other = unique("room"), unique("room")
    async with opened(own_shape.url) as store:
        own_valkey.pause()
        asked = [store.select(room, "ann", f"A{number}") for number in range(600)]
        await sent()
        asked += [store.select(room, "bob", "B1"), store.release(other, "bob", "B2")]
        again: list[asyncio.Future[Outcome]] = []
        for answer in asked:
            answer.add_done_callback(lambda _: again.append(store.select(other, "ann", "A1")))
        own_valkey.kill()
        await store.ear.until_state("store down")
        own_valkey.start()
        await store.ear.until_state("store up")
        assert all(isinstance(answer.exception(), StoreError) for answer in [*asked, *again])
        assert len(again) == len(asked)
        assert short(await store.select(other, "ann", "A1")) == ok(("A1", 1))


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_came_back_empty_begins_anew(own_valkey: Valkey, own_shape: Shape) -> None:
    """A room that lost its data has another epoch, so that nobody takes its revs for the old."""
    room = unique("room")
    async with opened(own_shape.url) as store:
        await store.select(room, "ann", "A1")
        epoch, _ = await store.revision(room)
        own_valkey.restart_empty()
        await store.ear.until_state("store up")
        assert await store.revision(room) == ("", 0)
        assert short(await store.select(room, "bob", "A1")) == ok(("A1", 1))
        assert (await store.revision(room))[0] not in ("", epoch)


@pytest.mark.gen_test(timeout=60)
async def test_error_that_stays_is_not_logged_for_every_command(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis without disk refuses thousands a second: each asker is told, the log once."""
    fake = FakeRedis(short_path / "s", EVALSHA=b"-MISCONF Errors writing to the AOF file\r\n")
    async with fake.running(), opened(fake.url) as store:
        for _ in range(50):
            answers = [store.select(f"r{number}", "ann", "A1") for number in range(20)]
            for error in await asyncio.gather(*answers, return_exceptions=True):
                assert isinstance(error, StoreError)
        assert store.ear.states == []
    assert 1 <= len(caplog.records) < 10


@pytest.mark.gen_test(timeout=60)
async def test_peer_that_does_not_speak_as_redis_does_is_left(short_path: Path) -> None:
    """Who asked is told, and another connection is tried."""
    fake = FakeRedis(short_path / "s", HMGET=b"HTTP/1.1 400 Bad Request\r\n\r\n")
    async with fake.running(), opened(fake.url) as store:
        with pytest.raises(StoreError):
            await store.revision("r")
        await store.ear.until_state("store up")


ASKED: dict[str, Callable[[Asking], asyncio.Future[Any]]] = {
    "select": lambda store: store.select("r", "ann", "A1"),
    "snapshot": lambda store: store.snapshot("r"),
    "revision": lambda store: store.revision("r"),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
@pytest.mark.gen_test(timeout=60)
async def test_reply_of_another_shape_is_an_error_for_who_asked(
    short_path: Path, ask: Callable[[Asking], asyncio.Future[Any]]
) -> None:
    """Nobody is left without an answer."""
    fake = FakeRedis(short_path / "s", EVALSHA=b"+OK\r\n", HMGET=b"+OK\r\n")
    async with fake.running(), opened(fake.url) as store, asyncio.timeout(5):
        with pytest.raises(StoreError):
            await ask(store)


# ---------------------------------------------------------------- Redis's clock


@pytest.mark.gen_test(timeout=60)
async def test_clock_is_that_of_redis(shape: Shape, short_path: Path) -> None:
    """To some milliseconds, and however wrong this machine's own may be."""
    async with opened(shape.url) as store:
        before = shape.now_ms()
        assert before - 250 <= store.store.clock("").now_ms() <= shape.now_ms() + 250
    fake = FakeRedis(short_path / "s", TIME=array("4102444800", "500000"))
    async with fake.running(), opened(fake.url) as store:
        assert 4102444800_500 <= store.store.clock("").now_ms() < 4102444860_000
