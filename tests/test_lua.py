"""The Lua scripts as files: each header is true, and they do nothing that a function may not do."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import seatws.store
from seatws.config import Config, Redis
from seatws.errors import StoreError
from tests.harness import ROOT, unique
from tests.stores import FakeRedis, Shape, ok, opened, short
from tests.stores import own_shape as own_shape
from tests.stores import shape as shape

LUA = Path(seatws.store.__file__).parent / "lua"
SCRIPTS = {path.stem: path.read_text() for path in sorted(LUA.glob("*.lua"))}

Call = Callable[..., Any]
"""Runs a script: its name, keys, arguments."""


def header_and_body(source: str) -> tuple[str, str]:
    """The comment on top, without its dashes, and the rest, without comments."""
    lines = source.splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    body = "\n".join(line.partition("--")[0].rstrip() for line in lines[end:])
    return "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:end]), body


def described(header: str) -> dict[str, dict[int, str]]:
    """The slots of the header: KEYS or ARGV, number, name."""
    slots: dict[str, dict[int, str]] = {"KEYS": {}, "ARGV": {}}
    for table, number, name in re.findall(
        r"^(KEYS|ARGV)\[(\d+)\] +(\S+) +\S", header, re.MULTILINE
    ):
        assert int(number) not in slots[table], f"{table}[{number}] is described twice"
        slots[table][int(number)] = name
    return slots


def used(body: str) -> dict[str, dict[int, str]]:
    """The slots that the body takes, and the local names that it gives them.

    `ARGV[at]`, which begins at a number of its own and goes on to the end, is called `...`.
    """
    slots: dict[str, dict[int, str]] = {"KEYS": {}, "ARGV": {}}
    for names, values in re.findall(r"^local ([\w, ]+) = (.*)$", body, re.MULTILINE):
        for name, value in zip(names.split(", "), re.split(r", (?=\w)", values), strict=False):
            if found := re.fullmatch(r"(?:tonumber\()?(KEYS|ARGV)\[(\d+)\]\)?", value):
                slots[found[1]][int(found[2])] = name
    if "ARGV[at" in body:
        (first,) = re.findall(r"^local FIRST_OPERATION = (\d+)$", body, re.MULTILINE)
        slots["ARGV"][int(first)] = "..."
    return slots


def test_there_are_scripts_to_look_at() -> None:
    """The rest of this file would say nothing without them."""
    assert {"apply", "snapshot"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_describes_the_slots_that_the_body_uses(name: str) -> None:
    """By the names that they have in the body, from 1 on without a gap; none more, none less."""
    header, body = header_and_body(SCRIPTS[name])
    assert used(body) == described(header)
    for slots in described(header).values():
        assert sorted(slots) == list(range(1, len(slots) + 1))
    taken = re.findall(r"(?:KEYS|ARGV)\[\d+\]", body)
    assert len(taken) == len(set(taken)), "a slot is taken apart from where it gets its name"


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_says_what_for_what_comes_back_and_who_calls(name: str) -> None:
    """The first line begins with the script's name; the caller exists."""
    header, _ = header_and_body(SCRIPTS[name])
    assert re.match(rf"{name}: \S", header)
    assert re.search(r"^Returns \{", header, re.MULTILINE)
    caller = re.search(r"^Called from (\S+\.py): (\w+)(?:\.(\w+))?$", header, re.MULTILINE)
    assert caller is not None
    source = (ROOT / caller[1]).read_text()
    assert f"class {caller[2]}" in source
    assert caller[3] is None or f"def {caller[3]}(" in source


# ---------------------------------------------------------------- as Redis sees them


def every_branch(call: Call, keys: list[str], end: Callable[[str], None]) -> list[Any]:
    """Run the scripts through all that they can do.

    Args:
        keys: The room's names, the channel last.
        end: Lets a seat's deadline pass.

    Returns:
        What came back, without what is another at each run: times.
    """

    def apply(*operations: str | int) -> list[Any]:
        rules = ["PUBLISH", keys[4], "origin-1", 60_000, 3, 60_000, "epoch-1"]
        event, outcomes, _ = call("apply", keys[:4], [*rules, *operations])
        changes = msgspec.msgpack.decode(event)[1] if event else []
        return [
            [change[:4] + change[6:] for change in changes],
            [
                [code, [seat[:2] for seat in rest[0]]] if rest else [code]
                for code, *rest in msgspec.msgpack.decode(outcomes)
            ],
        ]

    results = [
        apply(),
        apply("select", "ann", "{}", 2, "A1", "A2", "release", "ann", "A2"),
        apply("select", "ann", '{"a":1}', 2, "A1", "A3", "select", "ann", "{}", 1, "A1"),
        apply("select", "bob", "{}", 2, "A1", "B1", "release", "bob", "A1", "release", "bob", "Z"),
        apply("select", "ann", "{}", 2, "A5", "A6"),
    ]
    end("A3")
    results.append(apply())
    results.append(
        apply("release", "ann", "A1", "select", "bob", "{}", 1, "A1", "release", "bob", "A1")
    )
    epoch, rev, _, holds = call("snapshot", [keys[0], keys[3]], [])
    results.append([epoch, rev, holds])
    return results


EXPECTED = [
    [[], []],
    [
        [
            [1, "selected", "A1", "ann", "{}"],
            [2, "selected", "A2", "ann", "{}"],
            [3, "released", "A2", "ann"],
        ],
        [["ok", [["A1", 1], ["A2", 2]]], ["ok", [["A2", 3]]]],
    ],
    [
        [[4, "selected", "A3", "ann", '{"a":1}']],
        [["ok", [["A1", 0], ["A3", 4]]], ["ok", [["A1", 0]]]],
    ],
    [[], [["taken", [["A1", 0]]], ["not_holder"], ["not_holder"]]],
    [[], [["limit"]]],
    [[[5, "expired", "A3", "ann"]], []],
    [
        [
            [6, "released", "A1", "ann"],
            [7, "selected", "A1", "bob", "{}"],
            [8, "released", "A1", "bob"],
        ],
        [["ok", [["A1", 6]]], ["ok", [["A1", 7]]], ["ok", [["A1", 8]]]],
    ],
    [b"epoch-1", 8, []],
]


def test_scripts_touch_the_keys_that_they_are_given_and_no_other(own_shape: Shape) -> None:
    """Redis itself sees to it: a user who may use just these names can run them to the end.

    The names are of another kind than ours, so none can be made inside.
    """
    keys = [unique(word) for word in ("one", "two", "three", "four", "five")]
    user = ["other", "on", "nopass", *(f"~{key}" for key in keys), f"&{keys[4]}", "+@all"]
    own_shape.redis.execute_command("ACL", "SETUSER", *user)
    with own_shape.another() as client:
        client.auth("any", "other")

        def call(name: str, keys: list[str], arguments: list[Any]) -> Any:
            return client.eval(SCRIPTS[name], len(keys), *keys, *arguments)

        def end(seat: str) -> None:
            record = own_shape.redis.hget(keys[0], seat)
            own_shape.redis.hset(keys[0], seat, re.sub(r"^\d+", "1", record))
            own_shape.redis.zadd(keys[1], {seat: 1})

        assert every_branch(call, keys, end) == EXPECTED
        assert set(own_shape.redis.scan_iter()) == {keys[3]}


def test_hold_ends_at_its_deadline_and_not_after_it(shape: Shape) -> None:
    """To the millisecond: Redis's clock stands still while a script runs, so one can meet it."""
    keys = shape.keys(unique("room"))
    rules = ["PUBLISH", keys.channel, "origin-1", 60_000, 3, 60_000, "epoch-1"]
    now = """
        local time = redis.call('TIME')
        local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
        redis.call('HSET', KEYS[1], 'A1', now .. ' 1 ann {}')
        redis.call('ZADD', KEYS[2], now, 'A1')
        redis.call('HSET', KEYS[3], 'ann', 1)
    """
    with shape.another() as client:
        event, _, _ = client.eval(now + SCRIPTS["apply"], 4, *keys[:4], *rules)
    assert msgspec.msgpack.decode(event)[1] == [[1, "expired", "A1", "ann"]]
    shape.redis.delete(*keys)


def test_scripts_would_do_the_same_as_redis_functions(shape: Shape) -> None:
    """Word for word: no global is set or read, KEYS and ARGV may be a function's parameters."""
    library, room = unique("library"), unique("room")
    functions = "\n".join(
        f"redis.register_function('{library}_{name}', function(KEYS, ARGV)\n{source}\nend)"
        for name, source in SCRIPTS.items()
    )
    with shape.another() as client:
        client.function_load(f"#!lua name={library}\n{functions}")
        try:

            def call(name: str, keys: list[str], arguments: list[Any]) -> Any:
                return client.fcall(f"{library}_{name}", len(keys), *keys, *arguments)

            keys = list(shape.keys(room))
            found = every_branch(call, keys, lambda seat: shape.pass_deadline(room, seat))
            assert found == EXPECTED
        finally:
            client.function_delete(library)


# ---------------------------------------------------------------- a Redis that forgot them


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_forgot_the_scripts_is_told_them_again(shape: Shape) -> None:
    """Nobody notices: the same answers in the same order, whatever else goes along."""
    rooms = [unique("room") for _ in range(3)]
    async with opened(shape.url) as store:
        for turn in (1, 2, 3):
            shape.redis.script_flush()
            asked = [
                (
                    store.revision(room),
                    store.select(room, "ann", f"A{turn}"),
                    store.select(room, "bob", f"A{turn}"),
                    store.snapshot(room),
                )
                for room in rooms
            ]
            for before, first, second, after in asked:
                assert (await before)[1] == turn - 1
                assert short(await first) == ok((f"A{turn}", turn))
                assert (await second).code == "taken"
                assert (await after).rev == turn
        assert all(store.ear.revs(room) == [1, 2, 3] for room in rooms)
        assert store.ear.states == []


@pytest.mark.gen_test(timeout=60)
async def test_redis_that_forgets_the_scripts_again_and_again_is_an_error(short_path: Path) -> None:
    """As behind a proxy that sends each command elsewhere: told in time, and no busy loop."""
    config = Config(redis=Redis(timeout_seconds=0.5))
    fake = FakeRedis(short_path / "s", EVALSHA=b"-NOSCRIPT No matching script.\r\n")
    async with fake.running(), opened(fake.url, config) as store, asyncio.timeout(5):
        asked_at = time.monotonic()
        with pytest.raises(StoreError):
            await store.select("r", "ann", "A1")
        assert time.monotonic() - asked_at < 0.5 + 0.5
