"""Who reads the guide: a site with its code, in a browser that takes our server for theirs."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.browser.conftest import OPTIONS
from tests.harness import LIMIT_S, ROOT, Instance

GUIDES = {name: (ROOT / f"docs/{name}.md").read_text() for name in ("guide", "guia")}
FIRST_GUIDE = (ROOT / "tests/data/guia-websocket.md").read_text()
"""The one that the project began with, word for word."""
CLIENTS = ROOT / "clients"


def blocks(guide: str, language: str, has: str = "") -> list[str]:
    """The blocks of a language that have this in them."""
    found = re.findall(rf"^```{language}\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    return [block for block in found if has in block]


class Files(BaseHTTPRequestHandler):
    """Answers with a dict's texts, by path."""

    def __init__(self, files: dict[str, str], *of_the_base: Any) -> None:
        self._files = files
        super().__init__(*of_the_base)

    def do_GET(self) -> None:
        text = self._files.get(self.path.partition("?")[0])
        self.send_response(200 if text else 204)  # 204: a page wants an icon, too
        kinds = {"js": "text/javascript", "html": "text/html", "css": "text/css"}
        kind = kinds.get(self.path.rpartition(".")[2], "text/plain")
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write((text or "").encode())

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Site:
    """Pages on a server of their own, and what they printed."""

    def __init__(self, context: BrowserContext) -> None:
        self.files: dict[str, str] = {}
        """What is on it, by path."""
        self.printed: list[str] = []
        self.problems: list[str] = []
        """What pages raised."""
        self._context = context
        context.on("console", lambda message: self.printed.append(message.text))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, self.files))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """No more answers."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def open(self, path: str) -> Page:
        """A new window on a page."""
        page = self._context.new_page()
        page.set_default_timeout(LIMIT_S * 1000)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.goto(f"http://127.0.0.1:{self._server.server_port}{path}")
        return page

    def run(self, module: str) -> Page:
        """A page with this script alone; it says `at the end` when it has run."""
        self.files["/run.js"] = module + "\nconsole.log('at the end');"
        self.files["/run.html"] = "<!DOCTYPE html><script type=module src=run.js></script>"
        page = self.open("/run.html")
        self.wait_for("at the end")
        return page

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until pages have printed so many lines that have this in them."""
        while sum(text in line for line in self.printed) < times:
            assert not self.problems, self.problems
            self._context.wait_for_event("console", timeout=LIMIT_S * 1000)  # of any of them


@contextlib.contextmanager
def reading(server: Instance) -> Iterator[Site]:
    """A site, and a browser to which `localhost:8001` is the server: no code has to be changed."""
    rule = f"--host-resolver-rules=MAP localhost:8001 127.0.0.1:{server.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*OPTIONS, rule]
        )
        site = Site(browser.new_context())
        try:
            yield site
        finally:
            browser.close()
            site.close()
    assert site.problems == []
