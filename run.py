"""Starts one instance of seatws: `python run.py`. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import sys
from pathlib import Path
from typing import Any

import seatws
from seatws import config, devtoken, doctor, logs
from seatws.app import App, serve
from seatws.errors import ConfigError
from seatws.explain import ACTIONS, explain
from seatws.loader import load_plugins
from seatws.web.gate import Gate

CANNOT = 2
"""Exit code: it can't start, or the token doesn't verify."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="run.py", description="Seat holds for cinemas, live on every screen."
    )
    conf: dict[str, Any] = {"type": Path, "metavar": "DIR", "help": "settings (default: conf)"}
    parser.add_argument("--conf", default=Path("conf"), **conf)
    parser.add_argument("--port", type=int, help="instead of server.port; 0: any free one")
    parser.add_argument("--address", help="instead of server.address")
    parser.add_argument("--check", action="store_true", help="check the settings and end")
    parser.add_argument("--version", action="version", version=f"seatws {seatws.__version__}")
    why = parser.add_argument_group("what may a token do?")
    why.add_argument("--explain", action="store_true", help="say what each rule says, and end")
    why.add_argument("--token", metavar="FILE", help="the token's file; - for standard input")
    why.add_argument("--room", help="where")
    why.add_argument("--action", choices=ACTIONS, help="only this one")
    commands = parser.add_subparsers(dest="command", title="other commands")
    token = commands.add_parser("token", help="sign a token for trying things out")
    token.add_argument("--conf", default=argparse.SUPPRESS, **conf)
    devtoken.add_arguments(token)
    look = commands.add_parser("doctor", help="look at settings, machine and Redis")
    look.add_argument("--conf", default=argparse.SUPPRESS, **conf)
    doctor.add_arguments(look)
    given = parser.parse_args()
    if given.explain and not (given.token and given.room):
        parser.error("--explain needs --token FILE and --room ROOM")
    return given


def announce(app: App) -> None:
    """Say where it listens, which Redis, which plugins."""
    print(*app.describe(), sep="\n", flush=True)


def run(given: argparse.Namespace) -> int:
    """Do what the command line says.

    Returns:
        The exit code.

    Raises:
        ConfigError: It can't be done; the text says what to do.
    """
    if given.command == "token":
        plugins = [loaded.plugin for loaded in load_plugins(given.conf)]
        print(devtoken.make_token(plugins, devtoken.claims_of(given), given.minutes))
        return 0
    if given.explain:
        plugins = [loaded.plugin for loaded in load_plugins(given.conf)]
        lines, verified = explain(plugins, read_token(given.token), given.room, given.action)
        print(*lines, sep="\n")
        return 0 if verified else CANNOT
    settings = config.load(given.conf, os.environ)
    settings = config.override(settings, address=given.address, port=given.port)
    if given.command == "doctor":
        return doctor.report(
            doctor.examine(given.conf, settings, given.room), functools.partial(print, flush=True)
        )
    if given.check:
        Gate(settings, given.conf)
        print(f"{given.conf}: all good")
        return 0
    logs.set_up(settings.log)
    try:
        import uvloop
    except ImportError:  # where it can't be installed, asyncio's own loop does
        asyncio.run(serve(settings, given.conf, announce))
    else:
        uvloop.run(serve(settings, given.conf, announce))
    return 0


def read_token(name: str) -> str:
    """The text of a file, or of standard input.

    Raises:
        ConfigError: It can't be read.
    """
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--token: can't read {name}: {exc.__class__.__name__}") from exc


def main() -> int:
    """Run; a problem with what was given is told in a line each. Returns the exit code."""
    try:
        return run(arguments())
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return CANNOT


if __name__ == "__main__":
    sys.exit(main())
