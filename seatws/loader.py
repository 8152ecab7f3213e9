"""`conf/plugins.toml` → plugins that are made and checked, but not started."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from seatws.errors import ConfigError, UnreadableFileError
from seatws.plugins import Plugin
from seatws.rules import advice, one_line
from seatws.settings import read_settings
from seatws.toml_file import read_toml

FILE_NAME: Final = "plugins.toml"
DEADLINE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """One plugin of the file."""

    use: str
    plugin: Plugin
    settings: msgspec.Struct
    deadline_s: float
    """For each call of a hook that waits."""


def load_plugins(directory: Path) -> list[Loaded]:
    """Read the file, import what it names, and make the plugins, in the file's order.

    Nothing is started and the network is not used. Relative paths in the plugins' settings (keys
    named `file` or ending in `_file`) are meant from the conf directory.

    Raises:
        ConfigError: With every problem: file, plugin, key and what to do.
    """
    file = directory / FILE_NAME
    loaded: list[Loaded] = []
    problems: list[str] = []
    for number, table in enumerate(_tables(file), 1):
        if table.get("enabled") is False:
            continue
        try:
            loaded.append(_load(file, number, table))
        except ConfigError as exc:
            problems += exc.problems
    if problems:
        raise ConfigError(*problems)
    return loaded


def _tables(file: Path) -> list[dict[str, Any]]:
    missing = "an empty one means no plugins: every client id is then taken at its word"
    try:
        whole = read_toml(file, missing=missing, example='use = "plugins.jwt_auth"')
    except UnreadableFileError as exc:
        raise ConfigError(one_line(f"{file}: {exc}")) from None
    unknown = [key for key in whole if key != "plugin"]
    tables = whole.get("plugin", [])
    if unknown or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        what = unknown[0] if unknown else "plugin"
        raise ConfigError(
            one_line(
                f"{file}: {what}: expected [[plugin]] tables and nothing else; write "
                "[[plugin]] on a line, and its settings below"
            )
        )
    return tables


def _load(file: Path, number: int, table: dict[str, Any]) -> Loaded:
    use = table.get("use")
    if not isinstance(use, str) or not re.fullmatch(r"\w+(\.\w+)*(:\w+)?", use):
        raise ConfigError(
            f'{file}: plugin {number}: use: expected a module, as in "plugins.jwt_auth", or '
            'one with a class, "module:Class"'
        )
    place = one_line(f"{file}: plugin {number} ({use})")
    if not isinstance(table.get("enabled", True), bool):
        raise ConfigError(f"{place}: enabled: expected true or false, without quotes")
    deadline_s = table.get("deadline_seconds", DEADLINE_S)
    if type(deadline_s) not in (int, float) or not 0.05 <= deadline_s <= 30:
        raise ConfigError(
            f"{place}: deadline_seconds: expected a number from 0.05 to 30; 2 is usual"
        )
    kind = _find(place, use)
    own = {
        key: value
        for key, value in table.items()
        if key not in ("use", "enabled", "deadline_seconds")
    }
    try:
        own = _with_whole_paths(file.parent, _default_paths(kind) | own)
        settings = read_settings(kind.Settings, own, place)
        plugin = _made(kind, settings, place)
    except ConfigError:
        raise
    except Exception as exc:
        raise ConfigError(f"{place}: can't be made: {where(exc)}; it is the plugin's bug") from exc
    return Loaded(use, plugin, settings, float(deadline_s))


def _made(kind: type[Plugin], settings: msgspec.Struct, place: str) -> Plugin:
    try:
        return kind(settings)
    except ConfigError as exc:
        raise ConfigError(*(f"{place}: {problem}" for problem in exc.problems)) from exc


def _find(place: str, use: str) -> type[Plugin]:
    name, _, class_name = use.partition(":")
    importlib.invalidate_caches()  # it may be a file that came after the start
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing = f"there is no module {exc.name}"
        raise ConfigError(
            f"{place}: can't be loaded: {missing}; plugins.x is the file plugins/x.py beside "
            "run.py, anything else must be installed"
        ) from exc
    except (Exception, SystemExit) as exc:  # a script that ends must not end a reload
        raise ConfigError(f"{place}: can't be loaded: {where(exc)}; mend the plugin") from exc
    kinds = _plugins_of(module)
    if class_name:
        found = getattr(module, class_name, None)
        if not inspect.isclass(found) or not issubclass(found, Plugin):
            fix = advice(class_name, kinds, name + ":{}", f"it has {', '.join(kinds) or 'none'}")
            raise ConfigError(f"{place}: {name} has no plugin class {class_name}; {fix}")
        return found
    if not kinds:
        raise ConfigError(
            f"{place}: there is no plugin in {name}; write a class that derives from "
            "seatws.plugins.Plugin"
        )
    if len(kinds) > 1:
        raise ConfigError(
            f"{place}: expected one Plugin subclass in {name}, found {', '.join(kinds)}; say which "
            f'one is meant: use = "{name}:{next(iter(kinds))}"'
        )
    return next(iter(kinds.values()))


def _plugins_of(module: ModuleType) -> dict[str, type[Plugin]]:
    """The plugin classes that a module defines, not those that it imports."""
    return {
        kind.__name__: kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Plugin) and kind.__module__ == module.__name__
    }


def _default_paths(kind: type[Plugin]) -> dict[str, Any]:
    """The settings that name a file by default: they are meant from the conf directory, too."""
    return {
        field.encode_name: field.default
        for field in msgspec.structs.fields(kind.Settings)
        if isinstance(field.default, str) and _is_path(field.encode_name)
    }


def _is_path(key: str) -> bool:
    return key == "file" or key.endswith("_file")


def _with_whole_paths(directory: Path, value: Any, key: str = "") -> Any:
    """Settings whose relative paths start at the conf directory."""
    if isinstance(value, Mapping):
        return {name: _with_whole_paths(directory, inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_whole_paths(directory, inner) for inner in value]
    if isinstance(value, str) and value and _is_path(key):
        return str(directory.absolute() / value)
    return value


def where(exc: BaseException) -> str:
    """What kind of error and in which line of which file: its text may hold a secret."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{type(exc).__name__} at {exc.filename}:{exc.lineno}"
    last = exc.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return type(exc).__name__
    return f"{type(exc).__name__} at {last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
