"""The log: one line an event, for people or for machines, and nothing secret in it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from seatws import logs
from seatws.config import Log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """What `set_up` changes is the whole process's."""
    names = ("", "tornado.access", "tornado.general", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed; nothing of it to where errors go."""
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """When (UTC, to the millisecond), how bad, who, what."""
    logs.set_up(Log())
    logging.getLogger("seatws.rooms.hub").warning("Redis is back after %.1f s", 1.25)
    (line,) = lines(capsys)
    when, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
    assert rest == "WARNING seatws.rooms.hub: Redis is back after 1.2 s"


def test_a_line_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """The same as one JSON object, whatever is in the text."""
    logs.set_up(Log(format="json"))
    logging.getLogger("seatws.app").info('two\nlines, "quotes" and ñ')
    (line,) = lines(capsys)
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "seatws.app",
        "message": 'two\nlines, "quotes" and ñ',
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_bug_is_logged_with_its_traceback(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON still on one line."""
    logs.set_up(Log(format=form))  # type: ignore[arg-type]  # one of its words
    try:
        raise ValueError("the reason")
    except ValueError:
        logging.getLogger("seatws.app").exception("failed")
    found = lines(capsys)
    if form == "json":
        (line,) = found
        assert json.loads(line)["traceback"].endswith("ValueError: the reason")
    else:
        assert found[-1] == "ValueError: the reason"


LEVELS = ["debug", "info", "warning", "error"]


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_below_the_level_is_logged(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And of Tornado and asyncio nothing below a warning, whatever the level."""
    logs.set_up(Log(level=level))  # type: ignore[arg-type]  # one of its words
    for name in ("seatws.x", "tornado.access", "asyncio"):
        for each in LEVELS:
            getattr(logging.getLogger(name), each)(each)
    found = [tuple(line.split(" ")[1:3]) for line in lines(capsys)]
    at_least = LEVELS[LEVELS.index(level) :]
    assert found == [
        (each.upper(), f"{name}:")
        for name in ("seatws.x", "tornado.access", "asyncio")
        for each in at_least
        if name == "seatws.x" or each in ("warning", "error")
    ]


def test_setting_up_twice_logs_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is never printed by two handlers."""
    logs.set_up(Log())
    logs.set_up(Log())
    logging.getLogger("seatws.x").error("once")
    assert len(lines(capsys)) == 1


class Answer(RequestHandler):
    """Answers with the status in the path."""

    def get(self, status: str) -> None:
        self.set_status(int(status))


REQUESTS = {
    "a good one": ("/200", logging.DEBUG, "GET /200 200"),
    "a client's mistake": ("/404", logging.DEBUG, "GET /404 404"),
    "Redis away": ("/503", logging.DEBUG, "GET /503 503"),
    "a bug": ("/500", logging.ERROR, "GET Answer 500"),
}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(("path", "level", "text"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_a_request_is_logged_without_its_query(
    path: str, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A token may stand there. Only a bug is worth a line at all, and then not the path either."""
    caplog.set_level(logging.DEBUG, "seatws.access")
    server = HTTPServer(Application([(r"/(\d+)", Answer)], log_function=logs.log_request))
    sock, port = bind_unused_port()
    server.add_sockets([sock])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path}?token=secret HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(30):
        assert path[1:] in (await reader.read()).decode().splitlines()[0]
    writer.close()
    await writer.wait_closed()
    server.stop()
    await server.close_all_connections()
    (record,) = [record for record in caplog.records if record.name == "seatws.access"]
    assert record.levelno == level
    assert re.fullmatch(re.escape(text) + r" \d+\.\d ms", record.getMessage())
    assert "secret" not in caplog.text
