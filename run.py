"""Starts one instance of seatws: `python run.py`. See README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import seatws
from seatws import config, logs
from seatws.app import App, serve
from seatws.errors import ConfigError

CANNOT_START = 2


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="run.py", description="Seat holds for cinemas, live on every screen."
    )
    parser.add_argument(
        "--conf", type=Path, default=Path("conf"), metavar="DIR", help="settings (default: conf)"
    )
    parser.add_argument("--port", type=int, help="instead of server.port; 0: any free one")
    parser.add_argument("--address", help="instead of server.address")
    parser.add_argument("--check", action="store_true", help="check the settings and end")
    parser.add_argument("--version", action="version", version=f"seatws {seatws.__version__}")
    return parser.parse_args()


def announce(app: App) -> None:
    """Say where it listens, which Redis, which plugins."""
    print(*app.describe(), sep="\n", flush=True)


def main() -> int:
    """Run until told to stop. Returns the exit code."""
    given = arguments()
    try:
        settings = config.load(given.conf, os.environ)
        settings = config.override(settings, address=given.address, port=given.port)
        if given.check:
            print(f"{given.conf}: all good")
            return 0
        logs.set_up(settings.log)
        try:
            import uvloop
        except ImportError:  # where it can't be installed, asyncio's own loop does
            asyncio.run(serve(settings, announce))
        else:
            uvloop.run(serve(settings, announce))
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        return CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
