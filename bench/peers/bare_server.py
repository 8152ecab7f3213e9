"""Baseline: Tornado with nothing behind it.

It upgrades, and answers each message with an empty `current_selections`: so a join costs the
handshake, one message in and one out. Use: bare_server.py PORT [REDIS_URL]
"""

from __future__ import annotations

import asyncio
import sys

from tornado.web import Application
from tornado.websocket import WebSocketHandler


class BareSocket(WebSocketHandler):
    """Answers whatever is said."""

    def open(self, *args: str, **kwargs: str) -> None:
        """Send at once what is sent."""
        self.set_nodelay(True)

    def on_message(self, message: str | bytes) -> None:
        """Answer."""
        self.write_message('{"type": "current_selections", "selections": []}')


async def main() -> None:
    """Serve until the end."""
    Application([(r"/ws/(.+)", BareSocket)]).listen(int(sys.argv[1]), "127.0.0.1", backlog=4096)
    await asyncio.Event().wait()


asyncio.run(main())
