"""The page at `/` and its files, and the client library that it shares with everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tornado.web import HTTPError, StaticFileHandler

from seatws.web.problems import ProblemHandler

STATIC: Final = Path(__file__).parent / "static"
CLIENT: Final = Path(__file__).parents[2] / "clients/js/src"
"""The page loads the very file that is published, so there is no copy to fall behind."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageHandler(ProblemHandler, StaticFileHandler):
    """Files of `static/`; no script but our own runs on the page (Content-Security-Policy)."""

    route = "/static"

    async def get(self, path: str, include_body: bool = True) -> None:
        """Answer with the file."""
        if "\0" in path:  # the file system would raise
            raise HTTPError(404)
        await super().get(path, include_body)

    def set_extra_headers(self, path: str) -> None:
        """What browsers must not do with the page; `path` is of no matter."""
        del path
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-cache")  # ask each time; ETag makes it cheap
