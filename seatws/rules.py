"""Rules for settings: what a value must be, and the words for one that is not.

A setting's type is `Annotated` with its rule, so that range, wording and fix stand once, beside the
field. The core's sections and the plugins' settings are checked by the same rules.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args

LONGEST_SHOWN = 60  # characters of a wrong value that are repeated in an error


class Rule(NamedTuple):
    """What a value must be, and the words for a value that is not."""

    expected: str
    fix: str
    fits: Callable[[Any], bool]
    secret: bool = False
    """The value is not shown in errors."""

    def problem(self, value: object) -> str | None:
        """What is wrong with a value; None if nothing is."""
        if self.fits(value):
            return None
        found = "a value not shown here (it may hold a password)" if self.secret else shown(value)
        return mismatch(self.expected, found, self.fix)


def mismatch(expected: str, found: str, fix: str) -> str:
    """The form that every problem with a value has."""
    return f"expected {expected}, got {found}; {fix}"


def shown(value: object) -> str:
    """Write a wrong value about as TOML does: one line, not too long, a URL's password left out."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):  # 4,300 digits by way of hex; lists in lists in lists
        return "a value too large to show"
    text = re.sub("//.*@", "//***@", text)  # a Redis URL that was put under another key
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def whole(low: int, high: int, fix: str, *, zero: str = "") -> Rule:
    """A whole number, both ends included; `zero` says what 0 means where that is not a quantity."""
    return Rule(
        f"a whole number from {low}{f' ({zero})' if zero else ''} to {high}",
        fix,
        # Not isinstance: True is an int, and nobody means 1 by it.
        lambda value: type(value) is int and low <= value <= high,
    )


def limit(high: int, fix: str) -> Rule:
    """A whole number that limits something; 0 does not."""
    return whole(0, high, fix, zero="no limit")


def number(low: float, high: float, fix: str, *, zero: str = "") -> Rule:
    """A number, both ends included; with `zero`, 0 is allowed too and means that."""
    return Rule(
        f"{f'0 ({zero}) or ' if zero else ''}a number from {low} to {high}",
        fix,
        # nan is in no range: every comparison with it is false.
        lambda value: (
            type(value) in (int, float) and (low <= value <= high or (bool(zero) and value == 0))
        ),
    )


def text(pattern: str, expected: str, fix: str) -> Rule:
    """Text that a pattern fits as a whole."""
    return Rule(
        expected,
        fix,
        lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None,
    )


def texts(pattern: str, expected: str, fix: str) -> Rule:
    """A list of such texts."""
    item = text(pattern, expected, fix)
    return Rule(expected, fix, lambda value: isinstance(value, list) and all(map(item.fits, value)))


def one_of(words: object) -> Rule:
    """One of a `Literal`'s words."""
    known = get_args(words)
    listed = ", ".join(f'"{word}"' for word in known)
    return Rule(f"one of {listed}", "write it in lower case", known.__contains__)


FLAG = Rule(
    "true or false", "write it in lower case, without quotes", lambda value: isinstance(value, bool)
)


def one_line(text: str) -> str:
    """Escape what a quoted TOML key may hold and a terminal would obey."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def advice(name: str, known: Mapping[str, object], shape: str, otherwise: str) -> str:
    """What to write instead of a name that is not known: the nearest one, in its shape."""
    # Closer than difflib's 0.6, by which LOG__COLOUR would be a misspelt LOG__LEVEL.
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean {shape.format(nearest[0])}?" if nearest else otherwise
