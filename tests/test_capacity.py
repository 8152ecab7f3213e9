"""The model of docs/scaling.md: formulas that hold, a fair draw, and servers that do as it says."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from bench.scaling import command, costs, formulas, page, sizes, town
from bench.scaling.figures import Figures, keep, last
from bench.scaling.load import Loads, Wanted, instances_for, placed, shards_for
from bench.scaling.redis_costs import RedisCosts
from bench.scaling.town import Town
from bench.servers import WithRedis
from seatws.store.keys import room_keys
from tests.conftest import Starter
from tests.fetch import fetch, json_of
from tests.harness import Client, Instance, Valkey, unique, wait_until_async

COSTS = costs.measured()
SMALL = Town(viewers=3000, rooms=40)

counts = st.integers(1, 10_000)
rates = st.floats(0, 1e5)
prices = st.floats(0.1, 1000)
shares = st.floats(0, 1)


@cache
def loads_of(asked: Town, instances: int, shards: int = 1, by_room: float = 0) -> Loads:
    drawn = town.draw(asked, seed=1)
    layout = placed(drawn, instances, Wanted(by_room=by_room))
    return Loads(asked, drawn, layout, shards, COSTS)


# ------------------------------------------------------------ formulas


@given(counts, counts)
def test_a_room_is_followed_by_no_more_instances_than_have_its_viewers(
    viewers: int, instances: int
) -> None:
    """One at least, and ever more as viewers or instances become more."""
    now = formulas.followers(viewers, instances)
    assert 1 - 1e-9 <= now <= min(viewers, instances) + 1e-6
    assert formulas.followers(viewers + 1, instances) >= now
    assert formulas.followers(viewers, instances + 1) >= now - 1e-9


def test_a_crowded_room_is_followed_by_every_instance() -> None:
    """And one of a single viewer by one, one without viewers by none."""
    assert formulas.followers(100_000, 50) == pytest.approx(50)
    assert formulas.followers(1, 50) == pytest.approx(1)
    assert formulas.followers(0, 50) == formulas.followers(0, 1) == 0


@given(rates, rates, counts, counts, prices, shares)
def test_work_that_gathers_never_gets_less_by_being_more(
    rate: float, more: float, low_rate: int, apart: int, low_us: float, discount: float
) -> None:
    """As long as the higher rate took more in all; and one in company costs no more than alone."""
    high_rate = low_rate + apart
    high_us = low_us * (low_rate / high_rate + discount * (1 - low_rate / high_rate))
    low, high = (float(low_rate), low_us), (float(high_rate), high_us)
    share = formulas.gathered(rate, low, high)
    assert formulas.gathered(rate + more, low, high) >= share * (1 - 1e-9)
    assert share <= rate * low_us * 1e-6 * (1 + 1e-9)
    for measured_rate, cost in (low, high):
        at = formulas.gathered(measured_rate, low, high)
        assert at == pytest.approx(measured_rate * cost * 1e-6)


@given(counts, rates, rates, prices)
def test_one_room_never_takes_a_whole_core_to_tell(
    viewers: int, changes: float, more: float, send_us: float
) -> None:
    """Its flushes are as many as its changes at most; more changes never make it cheaper."""
    flushes = formulas.flushes(viewers, changes, send_us)
    share = formulas.sending(viewers, changes, send_us)
    assert flushes <= changes
    assert share < 1
    assert formulas.sending(viewers, changes + more, send_us) >= share
    if viewers * send_us * 1e-6 * formulas.PAUSE_FACTOR <= formulas.LONGEST_PAUSE_S:
        assert share <= 1 / (1 + formulas.PAUSE_FACTOR) + 1e-9


@given(counts, st.floats(0, 10), counts, st.floats(1, 3600), shares)
def test_no_more_seats_are_held_than_the_room_has(
    viewers: int, clicks: float, seats: int, held_s: float, released: float
) -> None:
    """And every seat that is taken is free again one day."""
    room = formulas.room(viewers, clicks, seats, held_s, released)
    assert formulas.held_seats(room.granted, held_s) <= seats * (1 + 1e-9)
    assert room.granted <= room.clicks
    assert room.releases + room.expiries == pytest.approx(room.granted)
    assert room.changes == pytest.approx(2 * room.granted)


@given(counts, prices, shares, shares)
def test_redis_takes_longer_a_turn_the_fuller_it_is(
    subscribers: int, write_us: float, one: float, other: float
) -> None:
    """Without end as it fills up."""
    low, high = sorted((one, other))
    turn = formulas.redis_turn_s(subscribers, write_us, low)
    assert subscribers * write_us * 1e-6 <= turn * (1 + 1e-9)
    assert turn <= formulas.redis_turn_s(subscribers, write_us, high)
    assert formulas.redis_turn_s(subscribers, write_us, 1.0) == math.inf


@given(st.floats(0, 1e4), counts, prices, shares)
def test_looks_in_vain_are_no_more_than_there_are_others(
    expiries: float, followers: int, delay_s: float, part: float
) -> None:
    """None where one instance follows the room alone."""
    vain = formulas.idle_looks(followers, expiries, delay_s * part)
    assert 0 <= vain <= expiries * (followers - 1)
    assert formulas.idle_looks(1, expiries, delay_s) == 0


@given(st.floats(1, 1e5), st.integers(1, 200), prices, prices)
def test_a_comparison_costs_between_one_alone_and_one_of_a_hundred(
    rooms: float, shards: int, one: float, other: float
) -> None:
    """The more shards, the dearer; with a hundred rooms or more on one, as in company."""
    together, alone = sorted((one, other))
    price = formulas.look_us(rooms, shards, together, alone)
    assert together * (1 - 1e-9) <= price <= alone * (1 + 1e-9)
    assert formulas.look_us(rooms, shards + 1, together, alone) >= price * (1 - 1e-9)
    assert formulas.look_us(100, 1, together, alone) == pytest.approx(together)


@pytest.mark.parametrize("bins", [3, 30, 100])
def test_the_fullest_shard_is_as_full_as_the_formula_says(bins: int) -> None:
    """Rooms of drawn names on real slots: within 5 % of mean + sqrt(2 mean ln bins)."""
    names = town.draw(Town(viewers=1, rooms=60_000), seed=1).names
    fullest = max(len(each) for each in town.shards(names, bins))
    assert fullest == pytest.approx(formulas.fullest(len(names) / bins, bins), rel=0.05)


def test_joins_that_come_at_once_take_their_time() -> None:
    """A thousand joins of 200 µs on half a core: 0.4 s."""
    assert formulas.storm_s(1000, 200, 0.5) == pytest.approx(0.4)


def test_the_formulas_are_of_this_server() -> None:
    """Intervals and factors are the ones that its code has."""
    from seatws.rooms import fanout, hub, room

    assert formulas.COMPARE_S == hub.COMPARE_S
    assert formulas.COMPARE_AT_ONCE == hub.COMPARE_AT_ONCE
    assert formulas.PAUSE_FACTOR == fanout.PAUSE_FACTOR
    assert formulas.LONGEST_PAUSE_S == fanout.LONGEST_PAUSE_S
    assert formulas.EXPIRY_SPREAD_S == room.EXPIRY_SPREAD_S


# ------------------------------------------------------------ the draw


@given(st.integers(1, 300), st.integers(1, 30), st.floats(0, 2), st.integers(1, 20))
@settings(max_examples=50)
def test_every_viewer_is_in_one_room_on_one_instance(
    viewers: int, rooms: int, skew: float, instances: int
) -> None:
    """However they are placed; and with bounded loads no instance has too many."""
    drawn = town.draw(Town(viewers=viewers, rooms=rooms, skew=skew), seed=7)
    by_room = town.place_by_room(drawn, instances, 1.25)
    for layout in (town.place(drawn, instances), by_room):
        assert len(layout) == instances
        for number, room in enumerate(drawn.rooms):
            assert sum(instance.get(number, 0) for instance in layout) == room.viewers
        assert all(count > 0 for instance in layout for count in instance.values())
    assert max(sum(each.values()) for each in by_room) <= math.ceil(viewers / instances * 1.25)


def test_a_room_is_followed_where_the_formula_expects_it() -> None:
    """Drawn, all rooms together: within 2 %."""
    loads = loads_of(Town(viewers=50_000, rooms=2000), 40)
    expected = sum(formulas.followers(room.viewers, 40) for room in loads.drawn.rooms)
    assert sum(loads.followers) == pytest.approx(expected, rel=0.02)


def test_a_balancer_that_knows_the_room_keeps_it_together() -> None:
    """Nearly every room on one instance, where any balancer spreads it over all."""
    apart, together = loads_of(SMALL, 8), loads_of(SMALL, 8, by_room=1.25)
    assert sum(apart.followers) > 7 * SMALL.rooms
    assert sum(together.followers) < 2 * SMALL.rooms


def test_popularity_falls_as_asked() -> None:
    """Zipf: the first room has twice the viewers of the second one with skew 1, as many with 0."""
    skewed = town.draw(Town(viewers=60_000, rooms=30, skew=1), seed=3).rooms
    alike = town.draw(Town(viewers=60_000, rooms=30, skew=0), seed=3).rooms
    assert skewed[0].viewers == pytest.approx(2 * skewed[1].viewers, rel=0.1)
    assert alike[0].viewers == pytest.approx(2000, rel=0.1)


@given(st.text("ABCXYZabcxyz0123456789._:@-", min_size=1, max_size=64))
def test_a_room_is_in_the_slot_that_its_keys_hash_to(room_id: str) -> None:
    """As redis-py finds it for each of them."""
    for key in room_keys("seatws", room_id):
        assert town.slot(room_id) == key_slot(key.encode())


# ------------------------------------------------------------ loads


def test_no_load_is_lost_or_invented() -> None:
    """What instances do adds up to what rooms do, and so do the shards, however many."""
    loads = loads_of(SMALL, 5)
    rooms, instances = loads.drawn.rooms, loads.on_instances
    assert sum(each.connections for each in instances) == SMALL.viewers
    assert sum(each.operations for each in instances) == pytest.approx(
        sum(room.requests + room.expiries for room in rooms)
    )
    assert sum(each.deliveries for each in instances) == pytest.approx(
        sum(room.changes * room.viewers for room in rooms)
    )
    heard = sum(
        room.changes * (follow - 1) for room, follow in zip(rooms, loads.followers, strict=True)
    )
    assert sum(each.events for each in instances) == pytest.approx(heard)
    for shards in (1, 3, 7):
        on_shards = loads_of(SMALL, 5, shards).on_shards
        whole = loads.on_shards[0]
        for name in ("rooms", "calls", "events", "looks", "calls_cpu", "events_cpu", "mib"):
            total = sum(getattr(each, name) for each in on_shards)
            assert total == pytest.approx(getattr(whole, name))


def test_what_is_found_keeps_below_the_limits_and_little_less_would_not() -> None:
    """The instances asked for are enough; with a tenth less somebody is over 70 %."""
    asked = Town(viewers=60_000, rooms=600)
    drawn, wanted = town.draw(asked, seed=1), Wanted(connections=100_000)
    found = instances_for(asked, drawn, COSTS, wanted)
    assert found is not None
    assert found.fullest_instance.cpu <= wanted.most
    fewer = len(found.placed) - max(1, len(found.placed) // 10)
    assert loads_of(asked, fewer).fullest_instance.cpu > wanted.most
    sharded = shards_for(found, wanted)
    assert sharded is not None
    assert sharded.fullest_shard.floor <= wanted.most


def test_connections_alone_may_decide() -> None:
    """Viewers who do nothing need instances for their connections, at the limit of each."""
    asked = Town(viewers=1000, rooms=10, clicks_per_viewer=0)
    found = instances_for(asked, town.draw(asked, 1), COSTS, Wanted(connections=100))
    assert found is not None
    assert 10 <= len(found.placed) <= 15
    assert max(each.connections for each in found.on_instances) <= 100


def test_a_room_too_hot_for_one_redis_is_said_to_be() -> None:
    """It can't be split: no number of shards is found."""
    asked = Town(viewers=30_000, rooms=1, clicks_per_viewer=2)
    drawn = town.draw(asked, 1)
    loads = Loads(asked, drawn, town.place(drawn, 40), 1, COSTS)
    assert shards_for(loads, Wanted()) is None


def test_a_faster_core_carries_as_much_more() -> None:
    """Twice as fast: half the share. Memory stays."""
    usual, fast = loads_of(SMALL, 2), loads_of(SMALL, 2)
    fast = dataclasses.replace(fast, costs=COSTS.on_cores(2))
    assert fast.fullest_shard.floor == pytest.approx(usual.fullest_shard.floor / 2)
    assert fast.fullest_instance.cpu == pytest.approx(usual.fullest_instance.cpu / 2)
    assert fast.fullest_instance.mib == usual.fullest_instance.mib


def test_compressed_maps_are_a_fraction() -> None:
    """As docs/scaling.md has it; and a frame of any size needs a packet."""
    assert sizes.whole_map(200) == pytest.approx(37_127, rel=0.01)
    assert 0.08 < sizes.whole_map(200, is_deflated=True) / sizes.whole_map(200) < 0.2
    assert sizes.on_the_wire(100) == 100 + sizes.HEADERS
    assert sizes.on_the_wire(10 * sizes.SEGMENT) == 10 * (sizes.SEGMENT + sizes.HEADERS)


# ------------------------------------------------------------ costs


def test_every_cost_was_measured() -> None:
    """None is nothing, and an operation in company is cheaper than one alone."""
    assert all(value > 0 for value in dataclasses.asdict(COSTS).values())
    assert COSTS.operation_high_us < COSTS.operation_low_us
    assert COSTS.event_high_us < COSTS.event_low_us
    assert COSTS.redis_operation_us < COSTS.redis_call_us


def test_a_figure_that_is_missing_is_named(tmp_path: Path) -> None:
    """And a file that is missing, with the command that makes it."""
    with pytest.raises(FileNotFoundError, match="bench/run"):
        costs.measured(tmp_path)
    with pytest.raises(FileNotFoundError, match="capacity --measure"):
        last(tmp_path)
    own = last(costs.RESULTS)
    occasion = max(costs.RESULTS.glob("[0-9]*.json"))
    (tmp_path / occasion.name).write_bytes(occasion.read_bytes())
    keep(msgspec.structs.replace(own, values={}), tmp_path)
    with pytest.raises(KeyError, match="instance_look_us"):
        costs.measured(tmp_path)


def test_redis_is_measured() -> None:
    """A first look: every figure of Redis that the model takes, and more than nothing each."""
    figures = Figures(date="", machine="", versions="", command="")
    with WithRedis("Redis") as server:
        measuring = RedisCosts(server, calls=200)
        measuring.measure(figures)
        measuring.close()
    wanted = {field.name for field in dataclasses.fields(costs.Costs)}
    wanted = {name for name in wanted if name.startswith("redis_")} - {"redis_write_us"}
    assert wanted <= set(figures.values)
    assert figures.values["redis_call_us"][0] > figures.values["redis_look_us"][0] > 0
    assert figures.values["redis_hold_bytes"][0] > 50


# ------------------------------------------------------------ the command


def test_the_command_says_what_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """The same words, the same table; another seed, another town."""
    words = ["--viewers", "20000", "--rooms", "200"]
    outputs = []
    for more in ([], [], ["--seed", "2"]):
        assert command.main([*words, *more]) == 0
        outputs.append(capsys.readouterr().out)
    assert re.search(r"^\d+ instances, \d+ Redis \w+, each core at most 70%$", outputs[0], re.M)
    assert "Gives out first: " in outputs[0]
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--instances", "1", "--connections", "50000"], "an instance's CPU"),
        (["--instances", "500", "--shards", "1", "--connections", "50"], "limits.connections"),
        (["--rooms", "1", "--clicks-per-viewer", "4", "--instances", "200"], "shards don't help"),
    ],
    ids=["too few instances", "too few connections", "too hot a room"],
)
def test_the_command_fails_where_it_is_not_carried(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says what gives out."""
    assert command.main(["--viewers", "30000", "--rooms", "300", *words]) == 1
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["--viewers", "0"], ["--released", "1.5"], ["--skew", "-1"], ["--by-room", "0.5"]],
    ids=" ".join,
)
def test_the_command_refuses_what_means_nothing(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the option's name."""
    with pytest.raises(SystemExit):
        command.main(words)
    assert words[0] in capsys.readouterr().err


# ------------------------------------------------------------ beside real servers

REAL = Town(viewers=24, rooms=8, seats=50)
INSTANCES = 3


class Real(NamedTuple):
    """The drawn town on real instances: every viewer connected, and in its room."""

    model: Loads
    instances: list[Instance]
    viewers: dict[int, list[Client]]
    """By the room's number."""
    valkey: Valkey

    def calls(self) -> dict[str, int]:
        """Commands that Redis has run since `CONFIG RESETSTAT`."""
        with self.valkey.client() as client:
            stats = client.info("commandstats")
        assert isinstance(stats, dict)
        return {name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}

    def forget_calls(self) -> None:
        with self.valkey.client() as client:
            client.config_resetstat()


@asynccontextmanager
async def real_town(valkey: Valkey, start: Starter) -> AsyncIterator[Real]:
    """Three instances, and the viewers that the model puts there, joining at once."""
    model = loads_of(REAL, INSTANCES)
    instances = [start(valkey.url) for _ in range(INSTANCES)]
    viewers: dict[int, list[Client]] = {number: [] for number in range(REAL.rooms)}
    real = Real(model, instances, viewers, valkey)
    real.forget_calls()
    async with AsyncExitStack() as stack:
        for instance, rooms in zip(instances, model.placed, strict=True):
            for number, count in rooms.items():
                for _ in range(count):
                    name = model.drawn.names[number]
                    # The room is there for a balancer that goes by it; the server does not mind.
                    address = f"{unique('viewer')}?room={name}"
                    client = await stack.enter_async_context(Client.connect(instance.url, address))
                    await client.send(type="join_room", room_id=name)
                    viewers[number].append(client)
        for number, clients in viewers.items():
            for client in clients:
                await client.until(lambda: model.drawn.names[number] in client.maps)  # noqa: B023
        yield real


@pytest.mark.gen_test(timeout=60)
async def test_real_instances_follow_what_the_model_says(
    own_valkey: Valkey, start: Starter
) -> None:
    """Connections and rooms on each, subscribers of each room, and one snapshot for each pair."""
    async with real_town(own_valkey, start) as real:
        for instance, load in zip(real.instances, real.model.on_instances, strict=True):
            stats = json_of(await fetch(f"{instance.http}/stats"))
            assert stats["active_connections"] == load.connections
            assert stats["active_rooms"] == load.rooms
        channels = [room_keys("seatws", name).channel for name in real.model.drawn.names]
        with own_valkey.client() as client:
            found = [count for _, count in client.pubsub_numsub(*channels)]
        assert found == real.model.followers
        assert real.calls()["evalsha"] == sum(real.model.followers)


@pytest.mark.gen_test(timeout=60)
async def test_a_change_costs_redis_and_viewers_what_the_model_says(
    own_valkey: Valkey, start: Starter
) -> None:
    """One call and one event a change, a delivery for each viewer; a refusal is a call alone."""
    async with real_town(own_valkey, start) as real:
        real.forget_calls()
        names, rooms = real.model.drawn.names, real.model.drawn.rooms
        for number, clients in real.viewers.items():
            if clients:
                await clients[0].select(names[number], "A1")
                await clients[0].release(names[number], "A1")
                await clients[0].select(names[number], "A1")
        refused = 0
        for number, clients in real.viewers.items():
            for client in clients:
                await client.until(lambda: len(client.revs[names[number]]) == 3)  # noqa: B023
            if len(clients) > 1:
                assert (await clients[1].select(names[number], "A1"))["code"] == "seat_taken"
                refused += 1
        used = sum(1 for room in rooms if room.viewers)
        assert refused
        assert real.calls()["evalsha"] == 3 * used + refused
        assert real.calls()["publish"] == 3 * used
        delivered = sum(len(c.revs[names[n]]) for n, each in real.viewers.items() for c in each)
        assert delivered == sum(3 * room.viewers for room in rooms)


@pytest.mark.gen_test(timeout=60)
async def test_idle_instances_compare_as_often_as_the_model_says(
    own_valkey: Valkey, start: Starter
) -> None:
    """Each room that each follows, once in two seconds: never oftener, and again and again."""
    async with real_town(own_valkey, start) as real:
        loop_time = asyncio.get_running_loop().time
        pairs = sum(real.model.followers)
        assert real.model.on_shards[0].looks == pairs / formulas.COMPARE_S
        real.forget_calls()
        began = loop_time()
        await wait_until_async(lambda: real.calls().get("hmget", 0) >= 3 * pairs)
        compared = real.calls()["hmget"]
        rounds = (loop_time() - began) / formulas.COMPARE_S
        # One more for those that came just at the beginning; timers may be a hair early.
        assert compared <= pairs * (rounds + 1.1)


def test_the_page_has_the_costs_that_were_measured_last() -> None:
    """`bench/capacity --page` would write the same table."""
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text, "costs", page.costs_table()) == text


def test_the_page_has_the_towns_that_the_model_makes() -> None:
    """The smaller ones of them, drawn again: the same line, word for word."""
    text = page.PAGE.read_text(encoding="utf-8")
    small = tuple(each for each in page.EVENINGS if each.town.viewers <= 10_000)
    lines = list(page.towns_table(COSTS, small))[2:]
    assert len(lines) == 2
    assert [line for line in lines if line not in text] == []
