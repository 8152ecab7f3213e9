"""How HTTP says no: what a bug is answered, and what is logged of it."""

from __future__ import annotations

import logging

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from seatws.web.origins import Origins
from seatws.web.problems import ApiHandler
from tests.fetch import fetch, problem_of

SECRET = "hunter2-do-not-tell"


class Buggy(ApiHandler):
    """Fails."""

    def get(self) -> None:
        raise ZeroDivisionError


@pytest.mark.gen_test(timeout=60)
async def test_a_bug_is_logged_without_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback; a token may stand in the query and the headers, so they are left out."""
    caplog.set_level(logging.DEBUG, "seatws")
    server = HTTPServer(Application([("/", Buggy)], origins=Origins(["*"])))
    socket, port = bind_unused_port()
    server.add_sockets([socket])
    try:
        url = f"http://127.0.0.1:{port}/?token={SECRET}"
        problem = problem_of(await fetch(url, Authorization=SECRET), 500, "internal_error")
        assert "ZeroDivisionError" not in str(problem)
    finally:
        server.stop()
        await server.close_all_connections()
    ours = [record for record in caplog.records if record.name.startswith("seatws")]
    assert [record.getMessage() for record in ours] == ["Buggy failed; this is a bug"]
    assert "ZeroDivisionError" in caplog.text
    for record in caplog.records:
        assert record.name == "tornado.access" or SECRET not in record.getMessage()
