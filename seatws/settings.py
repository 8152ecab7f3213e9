"""A plugin's settings: a TOML table, checked field by field against a `msgspec.Struct`.

A field is checked by the rule in its annotation (`seatws.rules`), where it has one; else by its
type, in msgspec's words. A field that is a struct, or a list of structs, is a table, or a list of
tables, checked likewise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from seatws.errors import ConfigError
from seatws.rules import Rule, advice, one_line

_S = TypeVar("_S", bound=msgspec.Struct)


def read_settings(kind: type[_S], table: Mapping[str, Any], place: str) -> _S:
    """Make settings of a table.

    A struct may have a method `conflict() -> tuple[str, str] | None`: which key disagrees with the
    others, and how. It is asked once every field is sound.

    Args:
        kind: What they are.
        table: As TOML gives it.
        place: File and table, for the errors.

    Raises:
        ConfigError: With every problem: unknown keys, missing ones, values outside their rule.
    """
    problems = _problems(kind, table, place)
    if problems:
        raise ConfigError(*map(one_line, problems))
    try:
        settings = msgspec.convert(table, kind)
    except msgspec.ValidationError as exc:
        raise ConfigError(one_line(f"{place}: {exc}")) from None
    if conflicts := _conflicts(settings, place):
        raise ConfigError(*map(one_line, conflicts))
    return settings


def _problems(kind: type[msgspec.Struct], table: object, place: str) -> list[str]:
    if not isinstance(table, Mapping):
        return [f"{place}: expected a table of settings"]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    hints = get_type_hints(kind, include_extras=True)
    problems = [
        f"{place}: {name}: missing; it has no default"
        for name, field in fields.items()
        if field.required and name not in table
    ]
    for name, value in table.items():
        if name not in fields:
            known = ", ".join(fields) or "none"
            fix = advice(name, fields, "{}", f"the settings here are {known}")
            problems.append(f"{place}: {name}: no such setting; {fix}")
            continue
        hint = hints[fields[name].name]
        rules = [rule for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Rule)]
        inner = _struct_in(hint) if isinstance(value, Mapping | list) else None
        if inner is not None:
            for row, row_place in _rows(value, f"{place}: {name}"):
                problems += _problems(inner, row, row_place)
        found = next((text for text in (rule.problem(value) for rule in rules) if text), None)
        if found is None and not rules and inner is None:
            found = _type_problem(hint, value)
        if found is not None:
            problems.append(f"{place}: {name}: {found}")
    return problems


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """What struct a table becomes, or each of a list of tables; None if it is no struct."""
    bare = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
    if get_origin(bare) in (list, tuple) and get_args(bare):
        bare = get_args(bare)[0]
    return bare if isinstance(bare, type) and issubclass(bare, msgspec.Struct) else None


def _rows(value: Any, place: str) -> Iterator[tuple[Any, str]]:
    """A list's items, or the value itself, each with its place."""
    if isinstance(value, list | tuple):
        yield from ((row, f"{place} {number}") for number, row in enumerate(value, 1))
    else:
        yield value, place


def _type_problem(hint: Any, value: object) -> str | None:
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as exc:
        return str(exc)
    return None


def _conflicts(settings: msgspec.Struct, place: str) -> list[str]:
    problems = []
    conflict = getattr(settings, "conflict", lambda: None)()
    if conflict is not None:
        problems.append(f"{place}: {conflict[0]}: {conflict[1]}")
    for name in settings.__struct_fields__:
        for row, row_place in _rows(getattr(settings, name), f"{place}: {name}"):
            if isinstance(row, msgspec.Struct):
                problems += _conflicts(row, row_place)
    return problems
