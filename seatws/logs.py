"""The log: one line an event, to standard output, as text or as JSON.

A line holds ids, addresses, numbers and our own words; never a token, a query, a claim or a name.
Whatever it holds, it stays one line: what a terminal would obey is written as an escape.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from tornado.web import RequestHandler

from seatws.config import Level, Log, load
from seatws.errors import ConfigError
from seatws.messages import Error
from seatws.rules import one_line

access = logging.getLogger("seatws.access")
refusals = logging.getLogger("seatws.refusals")
log = logging.getLogger(__name__)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_WORD: Final = re.compile(r"[a-z_]{1,32}")
_START: Final = secrets.token_hex(4)
_numbers = itertools.count(1)
AGAIN_S: Final = 10.0
_NOISY: Final = ("tornado.access", "tornado.general", "asyncio")


def set_up(config: Log) -> None:
    """Send everything from `config.level` up to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Json() if config.format == "json" else _Text())
    logging.getLogger().handlers[:] = [handler]
    # Nothing here prints them, and a record is made without looking them up (logging's HOWTO,
    # "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    set_level(config.level)


def set_level(level: Level) -> None:
    """Log everything from this level up, from now on."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(root.level, logging.WARNING))


class LevelSwitch:
    """Debug and back, while the server runs.

    Args:
        level: What `log.level` says.
    """

    def __init__(self, level: Level) -> None:
        self._level: Level = level
        self._is_debug = False

    def toggle(self) -> None:
        """Log all there is, or again what `log.level` says."""
        if self._level == "debug":
            log.info("the log level is debug, as log.level says: nothing to switch")
        elif self._is_debug:
            log.info("the log level is %s again", self._level)
            self._is_debug = False
            set_level(self._level)
        else:
            self._is_debug = True
            set_level("debug")
            log.info("the log level is debug; SIGUSR1 again, or a reload, ends that")

    def reload(self, directory: Path) -> None:
        """Take what `log.level` says now, in the file or the environment. It ends a `toggle`, too.

        Nothing else of the file is taken, but where anything in it is wrong, all is as before.
        """
        try:
            level = load(directory, os.environ).log.level
        except ConfigError as exc:
            for line in exc.problems:
                log.error("not reloaded, the log level stays: %s", line)
            return
        if self._is_debug or level != self._level:
            # Said while it can be heard.
            logging.getLogger().setLevel(min(logging.INFO, logging.getLogger().level))
            log.info("the log level is %s now", level)
        self._level, self._is_debug = level, False
        set_level(level)


class Repeats:
    """Errors that would be logged again and again: once in `AGAIN_S` is enough."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def is_due(self, kind: str = "") -> bool:
        """Whether to log one of this kind now; then the next one is not for a while."""
        now = time.monotonic()
        if now - self._logged_at.get(kind, -AGAIN_S) < AGAIN_S:
            return False
        self._logged_at[kind] = now
        return True


def log_request(handler: RequestHandler) -> None:
    """Log an HTTP request (Tornado's `log_function`): never its query, where a token may stand."""
    status = handler.get_status()
    level = logging.ERROR if status >= 500 and status != 503 else logging.DEBUG
    if not access.isEnabledFor(level):
        return
    access.log(
        level,
        "%(method)s %(path)s %(status)d %(ms).1f ms",
        {
            "method": handler.request.method,
            "path": handler.request.path if level == logging.DEBUG else type(handler).__name__,
            "status": status,
            "ms": 1000 * handler.request.request_time(),
        },
        extra=about(getattr(handler, "request_id", None)),
    )


def log_refusal(client_id: str, answer: Error) -> None:
    """Log, at debug, an error that a client is answered with."""
    if refusals.isEnabledFor(logging.DEBUG):
        asked = answer.request or ""
        refusals.debug(
            "refused: client %(client)s, %(asked)s, room %(room)s: %(error)s",
            {
                "client": loggable(client_id),
                "asked": asked if _WORD.fullmatch(asked) else "a frame that is no request",
                "room": loggable(answer.room_id) if isinstance(answer.room_id, str) else "-",
                "error": answer.code,
            },
            extra=about(answer.request_id),
        )


def loggable(client_id: str) -> str:
    """A client id as it may stand in the log: one that is an e-mail address is cut."""
    name, at, _ = client_id.partition("@")
    return f"{name[:1]}...@..." if at else client_id


def about(request_id: object) -> dict[str, str] | None:
    """What to give a line as `extra`, so that it names the request that it is about.

    Clients may send any text, a name or a token too: what does not look like an id is left out.
    """
    if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id):
        return {"request_id": request_id}
    return None


def request_id_of(given: str | None) -> str:
    """The id of an HTTP request: the one that it brings, if it looks like one, or a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"{_START}-{next(_numbers):x}"


class _Text(logging.Formatter):
    """`2024-01-15T10:30:00.000Z WARNING seatws.rooms.hub: ...`, UTC."""

    def __init__(self) -> None:
        super().__init__()
        self._second = -1
        self._time = ""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line (logging.Formatter)."""
        message = record.getMessage()
        if not message.isprintable():
            message = one_line(message)
        if request_id := getattr(record, "request_id", None):
            message += f" (request {request_id})"
        text = f"{self.time_of(record)} {record.levelname} {record.name}: {message}"
        if record.exc_info:
            # Indented: an error's own text may look like a line of ours.
            for line in self.formatException(record.exc_info).split("\n"):
                text += f"\n  {one_line(line)}"
        return text

    def time_of(self, record: logging.LogRecord) -> str:
        """When it was logged: RFC 3339, to the millisecond."""
        second = int(record.created)
        if second != self._second:  # formatting it costs as much as the rest of the line
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._time}.{int(record.msecs):03d}Z"


class _Json(_Text):
    """The same as one JSON object a line; what has a name in the message has a key of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line (logging.Formatter)."""
        line: dict[str, Any] = {
            "time": self.time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _encodable(record.getMessage()),
        }
        if request_id := getattr(record, "request_id", None):
            line["request_id"] = request_id
        if isinstance(record.args, Mapping):
            for name in _names_in(str(record.msg)):
                line.setdefault(name, record.args[name])
        if record.exc_info:
            line["traceback"] = _encodable(self.formatException(record.exc_info))
        return _encode(line).decode()


_encode = msgspec.json.Encoder(enc_hook=str).encode


@functools.lru_cache(256)
def _names_in(message: str) -> list[str]:
    """What a message names: not all that it was given, which may be more than is to be logged."""
    return re.findall(r"%\((\w+)\)", message)


def _encodable(text: str) -> str:
    """The text as UTF-8 can have it: a file's name, say, need not be such (os.fsdecode)."""
    return text if text.isprintable() else text.encode(errors="backslashreplace").decode()
