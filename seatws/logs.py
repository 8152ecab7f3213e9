"""The log: one line an event, to standard output, as text or as JSON."""

from __future__ import annotations

import logging
import sys
import time

import msgspec
from tornado.web import RequestHandler

from seatws.config import Log

access = logging.getLogger("seatws.access")


def set_up(config: Log) -> None:
    """Send everything from `config.level` up to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Json() if config.format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    for noisy in ("tornado.access", "tornado.general", "asyncio"):
        logging.getLogger(noisy).setLevel(max(root.level, logging.WARNING))


def log_request(handler: RequestHandler) -> None:
    """Log an HTTP request (Tornado's `log_function`): never its query, where a token may stand."""
    status = handler.get_status()
    level = logging.ERROR if status >= 500 and status != 503 else logging.DEBUG
    access.log(
        level,
        "%s %s %d %.1f ms",
        handler.request.method,
        handler.request.path if level == logging.DEBUG else type(handler).__name__,
        status,
        1000 * handler.request.request_time(),
    )


def loggable(client_id: str) -> str:
    """A client id as it may stand in the log: one that is an e-mail address is cut."""
    name, at, _ = client_id.partition("@")
    return f"{name[:1]}...@..." if at else client_id


class _Text(logging.Formatter):
    """`2024-01-15T10:30:00.000Z WARNING seatws.rooms.hub: ...`, UTC."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _Json(_Text):
    """The same as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line (logging.Formatter)."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()
