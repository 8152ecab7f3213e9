"""The rules of `conf/room_permissions.toml`: how they are written, and when one fits.

Values are compared as JSON compares them: text, numbers and booleans are three types, so `true` is
not `1` and `"1"` is not `1`; but `1` is `1.0`, for JSON has one type of number and libraries write
it as they like. Case counts everywhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from seatws.errors import ConfigError, UnreadableFileError
from seatws.plugins import Action, Verdict
from seatws.rules import Rule as Check
from seatws.rules import advice, mismatch, one_line, one_of, shown, text
from seatws.settings import read_settings
from seatws.toml_file import read_toml

ACTIONS: tuple[Action, ...] = get_args(Action)


# ---------------------------------------------------------------- the rule file, as it is written

Value = str | int | float | bool
Effect = Literal["allow", "deny"]


def _is_value(value: object) -> bool:
    # TOML has nan and inf, JSON has neither: no claim would ever equal them.
    return isinstance(value, Value) and not (isinstance(value, float) and not math.isfinite(value))


def _is_list(value: object, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and value != [] and all(map(of, value))


def _is_pattern(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:@*-]+", value) is not None


_NAME = Check(
    "1 to 100 printable characters",
    'for example "buyers take seats"; the log names the rule by it',
    lambda value: isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable(),
)

_ACTIONS = Check(
    f"a list of one or more of {', '.join(ACTIONS)}",
    'for example ["join", "read"]',
    lambda value: _is_list(value, ACTIONS.__contains__),
)

# Stricter than it must be: a character that no room id has would be taken literally and then fit no
# room, ever; and who writes "sala_[0-9]" or "sala_?" means something that is not offered here.
_PATTERNS = Check(
    "a list of one or more patterns of A-Z a-z 0-9 . _ : @ - and *",
    'for example ["funcion_*", "sala-3"]; * is any run of characters, and nothing else is special',
    lambda value: _is_list(value, _is_pattern),
)

_CLAIM = text(
    r"(?s).+", "the name of a claim", '"roles", or "realm_access.roles" for one inside another'
)

_CLAIM_OR_EMPTY = text(
    r"(?s).*", "the name of a claim", 'for example "rooms"; leave it out to need no such claim'
)

_CONDITIONS = Check(
    "a list of conditions",
    'in [ ] even if it is one: [{ claim = "roles", contains = "staff" }]',
    lambda value: isinstance(value, list),
)

_VALUE = Check("text, a number, true or false", 'for example "staff"', _is_value)

_VALUES = Check(
    "a list of one or more of text, numbers, true or false",
    'for example ["buyer", "staff"]',
    lambda value: _is_list(value, _is_value),
)


class ConditionTable(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim has to be. One of `equals`, `contains` and `any_of` is given."""

    claim: Annotated[str, _CLAIM]
    """Its name; if there is no claim of that name, its dots lead into objects."""

    equals: Annotated[Value | None, _VALUE] = None
    """The claim is this."""

    contains: Annotated[Value | None, _VALUE] = None
    """The claim is a list with this in it, or text with this as a word of it."""

    any_of: Annotated[tuple[Value, ...] | None, _VALUES] = None
    """The claim, an element or a word of it is one of these."""

    def given(self) -> dict[str, Value | tuple[Value, ...]]:
        """What of the three is given."""
        three = {"equals": self.equals, "contains": self.contains, "any_of": self.any_of}
        return {name: value for name, value in three.items() if value is not None}

    def conflict(self) -> tuple[str, str] | None:
        """One of the three, no more and no less."""
        given = self.given()
        if len(given) == 1:
            return None
        return "claim", mismatch(
            "one of equals, contains and any_of beside it",
            " and ".join(given) or "none of them",
            'for example { claim = "roles", contains = "staff" }',
        )


class RuleTable(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[rule]]`."""

    name: Annotated[str, _NAME]
    """For the log and `--explain`; no other rule has it."""

    effect: Annotated[Effect, one_of(Effect)] = "allow"
    """What the rule does where it fits."""

    actions: Annotated[tuple[Action, ...], _ACTIONS]
    """What it is about."""

    rooms: Annotated[tuple[str, ...] | None, _PATTERNS] = None
    """Where it fits, as patterns of the whole room id. None: everywhere."""

    rooms_claim: Annotated[str, _CLAIM_OR_EMPTY] = ""
    """A claim with such patterns, one of which has to fit, too. Empty: not needed."""

    when: Annotated[tuple[ConditionTable, ...], _CONDITIONS] = ()
    """Conditions that all have to hold."""

    unless: Annotated[tuple[ConditionTable, ...], _CONDITIONS] = ()
    """Conditions none of which may hold."""

    def conflict(self) -> tuple[str, str] | None:
        """The figures belong to no room."""
        key, found = ("rooms", self.rooms) if self.rooms else ("rooms_claim", self.rooms_claim)
        if "stats" not in self.actions or not found:
            return None
        return key, mismatch(
            'none in a rule with "stats", which belongs to no room',
            shown(found),
            'take it out, or give "stats" a rule of its own',
        )


# ---------------------------------------------------------------- the rules, ready to be asked


class Pattern:
    """A pattern of room ids: `*` is any run of characters, an empty one too, all else literal.

    No regular expression: `a*a*a*a*b` would go back and forth in one. Taking the first place where
    each part fits is enough, since whatever else would fit, fits after it.
    """

    __slots__ = ("_first", "_last", "_length", "_middle")

    def __init__(self, pattern: str) -> None:
        self._first, *rest = pattern.split("*")
        self._last = rest.pop() if rest else None
        self._middle = tuple(part for part in rest if part)
        self._length = len(pattern) - pattern.count("*")

    def fits(self, room_id: str) -> bool:
        """Whether it fits the whole id. Each part is looked for once, from left to right."""
        if self._last is None:
            return room_id == self._first
        if len(room_id) < self._length:
            return False
        if not (room_id.startswith(self._first) and room_id.endswith(self._last)):
            return False
        place, end = len(self._first), len(room_id) - len(self._last)
        for part in self._middle:
            found = room_id.find(part, place, end)
            if found < 0:
                return False
            place = found + len(part)
        return True


class Claim:
    """A claim by its name: taken literally first, then by its dots."""

    __slots__ = ("_path", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._path = name.split(".")

    def of(self, claims: Mapping[str, Any]) -> Any:
        """Its value; None if there is none."""
        if self.name in claims:
            return claims[self.name]
        value: Any = claims
        for part in self._path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value


def _itself(value: Any) -> Iterable[Any]:
    return (value,)


def _parts(value: Any) -> Iterable[Any]:
    """A list's elements or a text's words, which are parted by spaces alone (RFC 6749, 3.3)."""
    if isinstance(value, str):
        return [word for word in value.split(" ") if word]
    # Of a token it is always a list; a plugin of one's own may well make a set of its roles.
    return value if isinstance(value, list | tuple | set | frozenset) else ()


def _itself_or_parts(value: Any) -> Iterable[Any]:
    return (value, *_parts(value))


_LOOKS_AT = {"equals": _itself, "contains": _parts, "any_of": _itself_or_parts}


def _comparable(value: Value) -> object:
    """Something that is equal where values are. In Python 1 is 1.0, as it should, but also True."""
    return (value,) if isinstance(value, bool) else value


class Condition:
    """What a claim has to be."""

    __slots__ = ("_claim", "_looks_at", "_missing", "_text", "_wanted")

    def __init__(self, table: ConditionTable, role: str) -> None:
        ((how, wanted),) = table.given().items()
        values = wanted if isinstance(wanted, tuple) else (wanted,)
        self._claim = Claim(table.claim)
        self._looks_at = _LOOKS_AT[how]
        self._wanted = frozenset(map(_comparable, values))
        words = ", ".join(map(_in_words, values))
        self._text = one_line(f"{role}: {table.claim} {how} {words}")
        self._missing = f"{self._text}; there is no such claim"

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether it does. A missing claim never holds."""
        return any(
            _comparable(value) in self._wanted
            for value in self._looks_at(self._claim.of(claims))
            if isinstance(value, Value)  # what else there is in JSON has no hash
        )

    def why(self, claims: Mapping[str, Any]) -> str:
        """The condition in words, for `Rule.misfit`: nothing of what the claim says."""
        return self._missing if self._claim.of(claims) is None else self._text


def _in_words(value: Value) -> str:
    """A value as plain text; in quotes where it would read as a number or a boolean."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            return value
    return json.dumps(value)


class Rule:
    """A `[[rule]]`, ready to be asked."""

    __slots__ = (
        "_actions",
        "_not_in_claim",
        "_patterns",
        "_rooms_claim",
        "_unless",
        "_when",
        "allows",
        "asks_claims",
        "name",
        "verdict",
    )

    NOT_ITS_ACTION = "actions"

    def __init__(self, table: RuleTable) -> None:
        self.name = table.name
        self.allows = table.effect == "allow"
        self.verdict = Verdict(
            self.allows, f'rule "{table.name}" {"allows" if self.allows else "denies"} it'
        )
        """What it says where it fits."""
        self._actions = frozenset(table.actions)
        self._patterns = None if table.rooms is None else tuple(map(Pattern, table.rooms))
        self._rooms_claim = Claim(table.rooms_claim) if table.rooms_claim else None
        self._not_in_claim = one_line(f"rooms_claim: {table.rooms_claim}")
        self._when = tuple(Condition(condition, "when") for condition in table.when)
        self._unless = tuple(Condition(condition, "unless") for condition in table.unless)
        self.asks_claims = bool(self._rooms_claim or self._when or self._unless)
        """Whether it depends on who asks."""

    def elsewhere(self, action: Action, room_id: str | None) -> str:
        """Why the rule is not about an action in a room, whoever asks; as `misfit`."""
        if action not in self._actions:
            return self.NOT_ITS_ACTION
        if self._patterns is not None and not _any_fits(self._patterns, room_id):
            return "rooms"
        return ""

    def misfit(self, claims: Mapping[str, Any], room_id: str | None) -> str:
        """Why the rule, which is about it, doesn't fit someone: key and condition. Empty: it fits.

        For the log and people. No words are put together here, as this decides, too; it only hands
        out what lies ready.
        """
        if self._rooms_claim is not None:
            listed = _patterns_in(self._rooms_claim.of(claims))
            if not _any_fits(map(Pattern, listed), room_id):
                return self._not_in_claim
        for condition in self._when:
            if not condition.holds(claims):
                return condition.why(claims)
        for condition in self._unless:
            if condition.holds(claims):
                return condition.why(claims)
        return ""


def _any_fits(patterns: Iterable[Pattern], room_id: str | None) -> bool:
    return room_id is not None and any(pattern.fits(room_id) for pattern in patterns)


def _patterns_in(claim: Any) -> Iterable[str]:
    """The patterns of a `rooms_claim`: a list's texts, or the one text. Of another type: none."""
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, list | tuple | set | frozenset):
        return (item for item in claim if isinstance(item, str))
    return ()


# ---------------------------------------------------------------- reading


def read_rules(file: Path) -> tuple[Rule, ...]:
    """Read a rule file.

    Raises:
        ConfigError: With every problem: the file, the rule, the key, what is wrong, and the fix.
    """
    missing = (
        "take conf/room_permissions.toml of the source, or name another with file = in the"
        " plugin's table"
    )
    try:
        tables = read_toml(file, missing=missing, example='name = "buyers"')
    except UnreadableFileError as exc:
        raise ConfigError(one_line(f"{file}: {exc}")) from None
    problems = [
        one_line(f"{file}: {key}: no such table; {advice(key, {'rule': 0}, '[[{}]]', _ONLY_RULES)}")
        for key in tables
        if key != "rule"
    ]
    rows = tables.get("rule", [])
    if not isinstance(rows, list):
        problems.append(f"{file}: rule: expected [[rule]] tables; write the name in two brackets")
        rows = []
    rules: list[RuleTable] = []
    numbers: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("name") if isinstance(row, Mapping) else None
        named = isinstance(name, str) and _NAME.fits(name)
        place = f"{file}: rule {number}" + (f' "{name}"' if named else "")
        try:
            rules.append(read_settings(RuleTable, row, place))
        except ConfigError as exc:
            problems += exc.problems
        if isinstance(name, str) and named and numbers.setdefault(name, number) != number:
            problem = mismatch(
                "a name that no other rule has",
                f"that of rule {numbers[name]}",
                "give one of them another name",
            )
            problems.append(f"{place}: name: {problem}")
    if problems:
        raise ConfigError(*problems)
    return tuple(map(Rule, rules))


_ONLY_RULES = "there are only [[rule]] tables here"
