"""Patterns of rooms: what they fit, and that none takes long."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.permission_rules import Pattern


@pytest.mark.parametrize(
    ("pattern", "fits", "misses"),
    [
        ("*", ["", "a", "a*b"], []),
        ("a", ["a"], ["", "A", "aa", "ba", "a\n"]),
        ("a*", ["a", "ab", "a" * 64], ["", "ba", "A"]),
        ("*a", ["a", "ba"], ["ab", ""]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("*ab*", ["ab", "xabx"], ["a-b", "ba"]),
        ("a*b*c", ["abc", "a1b2c", "abbcc", "abcbc"], ["acb", "ac", "abcd"]),
        ("a**b", ["ab", "axb"], ["a", "b"]),
        ("ab*ba", ["abba", "abxba"], ["aba", "ab"]),
        ("*ab*ba*", ["abba"], ["abax"]),
        ("*ab*b", ["abb"], ["aab"]),
        ("a.c", ["a.c"], ["abc"]),
        ("[ab]?", ["[ab]?"], ["a", "ab"]),
        ("", [""], ["a"]),
    ],
    ids=lambda value: repr(value) if isinstance(value, str) else "",
)
def test_a_star_is_any_run_and_all_else_is_literal(
    pattern: str, fits: list[str], misses: list[str]
) -> None:
    """The whole id has to fit, and case counts."""
    assert [room_id for room_id in fits if not Pattern(pattern).fits(room_id)] == []
    assert [room_id for room_id in misses if Pattern(pattern).fits(room_id)] == []


def naive(pattern: str, room_id: str) -> bool:
    if pattern[:1] == "*":
        return any(naive(pattern[1:], room_id[taken:]) for taken in range(len(room_id) + 1))
    if not pattern or not room_id:
        return pattern == room_id
    return pattern[0] == room_id[0] and naive(pattern[1:], room_id[1:])


@settings(max_examples=1000, deadline=None)
@given(st.text("ab*", max_size=9), st.text("ab", max_size=9))
def test_patterns_fit_what_trying_everything_says(pattern: str, room_id: str) -> None:
    """Taking each part at the first place where it fits loses nothing."""
    assert Pattern(pattern).fits(room_id) is naive(pattern, room_id)


@pytest.mark.parametrize(
    ("pattern", "room_id"),
    [
        pytest.param("*a" * 32 + "*b", "a" * 64, id="a part for every second letter"),
        pytest.param("*" + "a*" * 63 + "b*", "a" * 64, id="a part for every letter"),
        pytest.param("*aaaaaaab" * 7 + "*", "a" * 64, id="parts that nearly fit"),
        pytest.param("*" * 8000, "a" * 64, id="stars alone"),
        pytest.param("a*" * 4000, "a" * 64, id="as long as a token"),
    ],
)
def test_no_pattern_takes_more_than_a_step_a_part(pattern: str, room_id: str) -> None:
    """Tokens bring patterns with them: none may keep the server busy."""
    ready = Pattern(pattern)
    calls: list[str] = []

    def count(frame: object, event: str, called: Any) -> None:
        if event == "c_call":
            calls.append(called.__name__)

    sys.setprofile(count)
    try:
        ready.fits(room_id)
    finally:
        sys.setprofile(None)
    calls = [name for name in calls if name not in ("len", "setprofile")]
    assert set(calls) <= {"startswith", "endswith", "find"}, "what else is there has steps inside"
    assert len(calls) <= 2 + len(room_id)
