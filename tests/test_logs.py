"""The log: one line an event, for people or for machines, and nothing secret in it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

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
        assert found[-1] == "  ValueError: the reason"


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


HOSTILE = {
    "a line of its own": ("a\n2024-01-15T10:30:00.000Z ERROR x: y", r"a\n2024-01-15"),
    "what a terminal obeys": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "the same in one byte": ("a\x9b2Jb", r"a\x9b2Jb"),
    "text that runs backwards": ("a\u202eb", r"a\u202eb"),
    "what is no UTF-8": ("a\udcffb", r"a\udcffb"),
    "a line in Unicode's eyes": ("a\u2028b", r"a\u2028b"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_line_stays_a_line(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever text is in it: it is written as an escape, in a traceback too."""
    logs.set_up(Log())
    logging.getLogger("seatws.x").info("found %s", text)
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("seatws.x").exception("failed")
    found = lines(capsys)
    assert shown in found[0]
    assert found[1].endswith("ERROR seatws.x: failed")
    assert all(line.startswith("  ") for line in found[2:])
    assert "".join(found).isprintable()


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_line_for_machines_can_be_read_again(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was, as far as there is a way to write it; always one line, always UTF-8."""
    logs.set_up(Log(format="json"))
    logging.getLogger("seatws.x").info("found %s", text)
    (line,) = capsys.readouterr().out.split("\n")[:-1]
    found = json.loads(line)["message"]
    assert found in (f"found {text}", f"found {shown}")


def test_what_has_a_name_in_the_message_has_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    """That alone: what else a line was given may be more than is to be logged."""
    logs.set_up(Log(format="json"))
    facts = {"who": "ann", "count": 3, "level": "high", "email": "ann@example.com"}
    logging.getLogger("seatws.x").warning("%(who)s: %(count)d, %(level)s", facts)
    found = json.loads(lines(capsys)[0])
    del found["time"]
    assert found == {
        "level": "warning",
        "logger": "seatws.x",
        "message": "ann: 3, high",
        "who": "ann",
        "count": 3,
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_names_its_request(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At its end, or under a key of its own; what does not look like an id is left out."""
    logs.set_up(Log(format=form))  # type: ignore[arg-type]  # one of its words
    log = logging.getLogger("seatws.x")
    log.info("one", extra=logs.about("q-1"))
    for no_id in (None, "", "a b", "a\n", "ann@example.com", "x" * 65, "é"):
        log.info("two", extra=logs.about(no_id))
    first, *others = lines(capsys)
    if form == "json":
        assert json.loads(first)["request_id"] == "q-1"
        assert all("request_id" not in json.loads(line) for line in others)
    else:
        assert first.endswith("one (request q-1)")
        assert all(line.endswith(": two") for line in others)


def test_times_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds are formatted once for all of their lines, and no longer."""
    logs.set_up(Log())
    log = logging.getLogger("seatws.x")
    for created in (1705314600.0, 1705314600.9994, 1705314601.25, 1705314600.5):
        record = log.makeRecord("seatws.x", logging.INFO, "f", 1, "m", (), None)
        record.created, record.msecs = created, created % 1 * 1000
        log.handle(record)
    assert [line.split(" ")[0] for line in lines(capsys)] == [
        "2024-01-15T10:30:00.000Z",
        "2024-01-15T10:30:00.999Z",
        "2024-01-15T10:30:01.250Z",
        "2024-01-15T10:30:00.500Z",
    ]


def test_the_level_is_switched_to_debug_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Each time it says so, where it can be heard; Tornado and asyncio stay as quiet as ever."""
    logs.set_up(Log(level="error"))
    switch = logs.LevelSwitch("error")
    names = ("seatws.x", "asyncio")

    def speak() -> None:
        for name in names:
            logging.getLogger(name).debug("d")
            logging.getLogger(name).warning("w")

    for _ in range(2):
        speak()
        switch.toggle()
        speak()
        switch.toggle()
    found = [" ".join(line.split(" ")[1:]) for line in lines(capsys)]
    once = [
        "INFO seatws.logs: the log level is debug; SIGUSR1 again, or a reload, ends that",
        "DEBUG seatws.x: d",
        "WARNING seatws.x: w",
        "WARNING asyncio: w",
        "INFO seatws.logs: the log level is error again",
    ]
    assert found == once * 2


def test_where_debug_is_the_level_there_is_nothing_to_switch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It says so, and stays."""
    logs.set_up(Log(level="debug"))
    switch = logs.LevelSwitch("debug")
    for _ in range(2):
        switch.toggle()
        logging.getLogger("seatws.x").debug("d")
    assert [line.split(" ", 1)[1] for line in lines(capsys)] == [
        "INFO seatws.logs: the log level is debug, as log.level says: nothing to switch",
        "DEBUG seatws.x: d",
    ] * 2


def test_a_reload_ends_a_switch_and_counts_for_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `log.level` says by now is where the next switch comes back to."""
    logs.set_up(Log())
    switch = logs.LevelSwitch("info")
    switch.toggle()
    (tmp_path / "seatws.toml").write_text('[log]\nlevel = "warning"\n')
    switch.reload(tmp_path)
    logging.getLogger("seatws.x").info("not heard")
    switch.toggle()
    logging.getLogger("seatws.x").debug("heard")
    switch.toggle()
    switch.reload(tmp_path)
    logging.getLogger("seatws.x").info("not heard")
    assert [line.split(": ", 1)[1].partition(";")[0] for line in lines(capsys)] == [
        "the log level is debug",
        "the log level is warning now",
        "the log level is debug",
        "heard",
        "the log level is warning again",
    ]


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
