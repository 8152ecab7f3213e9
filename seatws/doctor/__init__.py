"""`run.py doctor`: looks at everything that a running instance needs, and changes nothing."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import redis.exceptions

from seatws.config import Config
from seatws.doctor import machine, topology
from seatws.doctor.finding import Finding, Level
from seatws.doctor.room import RoomReader, judge
from seatws.doctor.servers import Server
from seatws.errors import StoreError
from seatws.messages import wrong_id
from seatws.rules import one_line
from seatws.store.keys import room_keys
from seatws.store.servers import explain
from seatws.web.gate import Gate

WRONG: Final = 1
"""Exit code: there is a problem."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `doctor` takes."""
    parser.add_argument("--room", type=_room_id, help="look at this room's data in Redis, too")


def examine(directory: Path, settings: Config, room_id: str | None) -> Iterator[Finding]:
    """Look at everything, one after the other.

    Args:
        directory: Where the settings are from.
        settings: Checked.
        room_id: A room whose data are to be looked at; None: no room's.

    Raises:
        ConfigError: A plugin can't be loaded or is misconfigured.
    """
    yield from _of_settings(directory, settings)
    yield from machine.look_at(settings)
    try:
        servers = yield from topology.find(settings.redis)
    except StoreError as exc:
        yield Finding("problem", "Redis", str(exc), "mend redis.url")
        return
    with contextlib.ExitStack() as at_the_end:
        for server in servers:
            at_the_end.callback(server.client.close)
            yield from server.findings(settings.redis)
        if room_id is not None:
            yield from _of_room(servers, settings.redis.prefix, room_id)


def report(findings: Iterable[Finding], say: Callable[[str], None]) -> int:
    """Say a line for each, as it is found, and one for all of them. Returns the exit code."""
    counts: dict[Level, int] = {"ok": 0, "warning": 0, "problem": 0}
    for found in findings:
        counts[found.level] += 1
        say(f"{found.level:<8} {one_line(f'{found.about}: {found.text}')}")
    say(f"{counts['problem']} problems, {counts['warning']} warnings, {counts['ok']} fine")
    return WRONG if counts["problem"] else 0


def _of_settings(directory: Path, settings: Config) -> Iterator[Finding]:
    gate = Gate(settings, directory)
    plugins = ", ".join(gate.names) or "none"
    yield Finding("ok", "settings", f"{directory}: all good, plugins: {plugins}")
    if not gate.needs_identity:
        yield Finding(
            "warning",
            "settings",
            "open mode: no plugin signs clients in, so anyone can be anyone",
            "good for trying things out; else configure one in plugins.toml (docs/security.md)",
        )


def _of_room(servers: list[Server], prefix: str, room_id: str) -> Iterator[Finding]:
    about, keys = f"room {room_id}", room_keys(prefix, room_id)
    server = next((server for server in servers if server.has(room_id)), None)
    if server is None:
        yield Finding("warning", about, "no server of Redis has it now", "see above, look again")
        return
    try:
        contents = RoomReader(server, prefix).read(room_id)
        followers = server.followers(keys.channel)
    except (redis.exceptions.RedisError, OSError) as exc:
        yield Finding("problem", about, f"can't be read: {explain(exc)}", "see above")
        return
    for found in judge(contents, keys, followers):
        yield found._replace(about=about)


def _room_id(text: str) -> str:
    if problem := wrong_id("room_id", text):
        raise argparse.ArgumentTypeError(problem)
    return text
