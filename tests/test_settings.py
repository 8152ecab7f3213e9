"""A plugin's settings: what a table may hold, and what the refusal of everything else says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from seatws.errors import ConfigError
from seatws.rules import Rule, number, text, texts, whole
from seatws.settings import read_settings

PLACE = "conf/plugins.toml: plugin 2 (plugins.x)"
SECRET = "hunter2-do-not-tell"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a list. It does not forbid unknown fields: the check does."""

    name: Annotated[str, text(r"[a-z]+", "a word of a to z", 'for example "main"')]
    size: Annotated[int, whole(1, 64, "32 is usual")] = 32
    weight: int = 1

    def conflict(self) -> tuple[str, str] | None:
        return ("size", "expected less than the weight, got more") if self.weight > 9 else None


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """A table in the table."""

    seconds: Annotated[float, number(0, 60, "10 is usual")] = 10.0

    def conflict(self) -> tuple[str, str] | None:
        return ("seconds", "expected no 13") if self.seconds == 13 else None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One field of each kind."""

    url: Annotated[str, text(r"https://\S+", "an https:// URL", "https://example.com/")]
    names: Annotated[tuple[str, ...], texts(r".+", "a list of names", '["ann"]')] = ()
    password: Annotated[
        str,
        Rule("a password", "make a longer one", lambda value: len(str(value)) > 30, secret=True),
    ] = ""
    keys: tuple[Key, ...] = ()
    ruled_keys: Annotated[
        list[Key], Rule("one key or more", "write [[plugin.ruled_keys]]", lambda value: bool(value))
    ] = []
    cache: Cache = Cache()
    mode: Literal["fast", "sure"] = "fast"
    plain: int = 0
    level: int = msgspec.field(default=0, name="log_level")
    either: int | str | None = None

    def conflict(self) -> tuple[str, str] | None:
        return ("plain", "expected 0 in mode sure") if self.plain and self.mode == "sure" else None


def read(**table: Any) -> Settings:
    return read_settings(Settings, {"url": "https://example.com/"} | table, PLACE)


def problems(table: dict[str, Any], kind: type[msgspec.Struct] = Settings) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_settings(kind, table, PLACE)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{PLACE}: ") for line in lines)
    return [line.removeprefix(f"{PLACE}: ") for line in lines]


def test_a_sound_table_becomes_settings() -> None:
    """Typed, with tables in it and lists of tables; what is left out has its default."""
    settings = read(
        names=["ann", "bob"],
        keys=[{"name": "a"}, {"name": "b", "size": 1}],
        cache={"seconds": 5},
        mode="sure",
        log_level=3,
        either="text",
    )
    assert settings == Settings(
        url="https://example.com/",
        names=("ann", "bob"),
        keys=(Key(name="a"), Key(name="b", size=1)),
        cache=Cache(seconds=5.0),
        mode="sure",
        level=3,
        either="text",
    )
    assert read() == Settings(url="https://example.com/")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param(
            {"url": "ftp://x"}, "url: expected an https:// URL, got", id="against its rule"
        ),
        pytest.param(
            {"url": 5}, "url: expected an https:// URL, got 5; https://", id="another type"
        ),
        pytest.param({"nmaes": []}, "nmaes: no such setting; did you mean names?", id="misspelt"),
        pytest.param(
            {"zebra": 1}, "zebra: no such setting; the settings here are url, names", id="unknown"
        ),
        pytest.param(
            {"level": 1}, "level: no such setting; the settings here are url", id="renamed"
        ),
        pytest.param(
            {"a\nb\x1b[2J": 1},
            "a\\nb\\x1b[2J: no such setting",
            id="a name with control characters",
        ),
        pytest.param({"plain": "5"}, "plain: Expected `int`, got `str`", id="a plain type"),
        pytest.param({"plain": True}, "plain: Expected `int`, got `bool`", id="true is no number"),
        pytest.param({"mode": "slow"}, "mode: Invalid enum value 'slow'", id="none of the words"),
        pytest.param({"either": []}, "either: Expected `int | str | null`", id="none of the types"),
        pytest.param({"log_level": []}, "log_level: Expected `int`", id="renamed, another type"),
        pytest.param({"keys": {"name": "a"}}, "Expected `array`, got `object`", id="no list"),
        pytest.param(
            {"keys": [{}]}, "keys 1: name: missing; it has no default", id="missing in a row"
        ),
        pytest.param(
            {"keys": [{"name": "a"}, {"name": "b", "sise": 1}]},
            "keys 2: sise: no such setting; did you mean size?",
            id="misspelt in a row",
        ),
        pytest.param(
            {"keys": [{"name": "a", "size": 65}]},
            "keys 1: size: expected a whole number from 1 to 64, got 65; 32 is usual",
            id="against its rule in a row",
        ),
        pytest.param(
            {"keys": [{"name": "a", "weight": "5"}]},
            "keys 1: weight: Expected `int`, got `str`",
            id="a plain type in a row",
        ),
        pytest.param(
            {"keys": ["a"]}, "keys 1: expected a table of settings", id="a row is no table"
        ),
        pytest.param(
            {"ruled_keys": []}, "ruled_keys: expected one key or more, got []", id="empty"
        ),
        pytest.param(
            {"ruled_keys": [{"name": "A"}]},
            "ruled_keys 1: name: expected a word of a to z",
            id="in a row of a list that has a rule",
        ),
        pytest.param({"cache": 5}, "cache: Expected `object`, got `int`", id="no table"),
        pytest.param(
            {"cache": {"secs": 5}}, "cache: secs: no such setting", id="unknown in a table"
        ),
        pytest.param(
            {"cache": {"seconds": 61}},
            "cache: seconds: expected a number from 0 to 60, got 61; 10 is usual",
            id="against its rule in a table",
        ),
        pytest.param(
            {"mode": "sure", "plain": 1}, "plain: expected 0 in mode sure", id="a conflict"
        ),
        pytest.param(
            {"cache": {"seconds": 13}}, "cache: seconds: expected no 13", id="in a table, too"
        ),
        pytest.param(
            {"keys": [{"name": "a"}, {"name": "b", "weight": 10}]},
            "keys 2: size: expected less than the weight, got more",
            id="in a row, too",
        ),
    ],
)
def test_a_wrong_table_is_told_what_to_mend(table: dict[str, Any], expected: str) -> None:
    """One line: where, which key, what is wrong with it."""
    (problem,) = problems({"url": "https://x"} | table)
    assert expected in problem


def test_what_has_no_default_must_be_there() -> None:
    """And is named when it isn't."""
    assert problems({}) == ["url: missing; it has no default"]


def test_every_problem_is_told_at_once() -> None:
    """Nobody mends a file one start at a time; what disagrees is told when every value is sound."""
    table = {"plain": "x", "names": [""], "keys": [{"size": 0}], "mode": "sure", "other": 1}
    starts = [problem.partition(": ")[0] for problem in problems(table)]
    assert sorted(starts) == ["keys 1", "keys 1", "names", "other", "plain", "url"]


def test_a_secret_is_not_repeated() -> None:
    """Neither under its own key, nor a whole value under a key that does not exist."""
    told = problems({"url": "https://x", "password": SECRET, "pasword": SECRET})
    assert len(told) == 2
    assert SECRET not in str(told)


def test_who_has_no_settings_takes_none() -> None:
    """And the error doesn't list any."""
    assert problems({"a": 1}, msgspec.defstruct("None_", [])) == [
        "a: no such setting; the settings here are none"
    ]
