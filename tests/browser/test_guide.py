"""The JavaScript of docs/guide.md and docs/guia.md, as it stands there, in a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.reader import CLIENTS, GUIDES, Site, blocks, reading
from tests.harness import Instance, Valkey, conf_with, unique

SECRET = "a secret that no one outside of this test knows"
IMPORT = "import { SeatSelectionClient } from './seat-selection-client.js';\n"


@pytest.fixture
def own_server(valkey: Valkey, tmp_path: Path) -> Iterator[Instance]:
    """A server in whose Redis the guide's rooms are nobody else's, and that knows tokens."""
    (tmp_path / "secret").write_text(SECRET)
    conf = conf_with(
        tmp_path / "conf",
        'enabled = false\nuse = "plugins.jwt_auth"\nissuer = "*"\naudience = "*"\n'
        f'[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_file = "{tmp_path / "secret"}"',
    )
    server = Instance(tmp_path, valkey.url, conf=conf, SEATWS_REDIS__PREFIX=unique("guide"))
    yield server.start()
    server.stop()


@pytest.fixture
def site(own_server: Instance) -> Iterator[Site]:
    """A site with the files that the guide says to put there."""
    with reading(own_server) as site:
        library = CLIENTS / "js/src/seat-selection-client.js"
        site.files["/seat-selection-client.js"] = library.read_text()
        site.files["/seatmap.css"] = (CLIENTS / "css/seatmap.css").read_text()
        yield site


@pytest.mark.parametrize("name", GUIDES)
def test_a_plain_socket_gets_the_room(name: str, site: Site) -> None:
    """The first example: connect, join, print what comes."""
    (block,) = blocks(GUIDES[name], "js", "new WebSocket")
    site.run(block)
    site.wait_for("current_selections")
    assert [line for line in site.printed if "at the end" not in line] == [
        "room_joined",
        "current_selections",
    ]


@pytest.mark.parametrize("name", GUIDES)
def test_the_chapter_on_the_library_runs_from_top_to_bottom(name: str, site: Site) -> None:
    """All its examples as one program: each prints what it says."""
    program = [block for block in blocks(GUIDES[name], "js") if not apart(block)]
    assert len(program) == 6
    site.run("\n".join(program))
    printed = "\n".join(site.printed)
    for words in (
        r"funcion_123 \S+ 0 ",
        r"^\S+ A1 mine \S+$",
        r"^\S+ A1$",
        r"^\S+ C1 C2 C3$",
        r"^C3 .* [45]:\d\d$",
        r"^\S+ A1 free ",
        r"^\S+ disconnected null",
    ):
        assert re.search(words, printed, re.MULTILINE), (words, printed)


def apart(block: str) -> bool:
    """Whether a JavaScript example is a program of its own."""
    return "new WebSocket" in block or "token:" in block


@pytest.mark.parametrize("name", GUIDES)
def test_a_refusal_is_told_as_the_chapter_says(name: str, site: Site) -> None:
    """Somebody else has the seats that the examples ask for."""
    begin, one, several = (
        block for block in blocks(GUIDES[name], "js") if re.search("import |selectSeats?\\(", block)
    )
    rival = (
        IMPORT + "const client = new SeatSelectionClient('ws://localhost:8001');\n"
        "client.connect();\nawait client.joinRoom('funcion_123');\n"
        "await client.selectSeats(['A1', 'C2']);"
    )
    site.run(rival)
    site.printed.clear()
    site.run("\n".join([begin, one, several]))
    texts = [line for line in site.printed if not re.search(r"A1|free|mine", line)]
    assert any(line.endswith("[C2]") for line in texts), site.printed
    assert re.search(r"faster|rápid", "\n".join(texts)), site.printed


@pytest.mark.parametrize("name", GUIDES)
def test_the_token_of_a_backend_signs_in(name: str, site: Site, own_server: Instance) -> None:
    """The example with a token, on a server that wants one."""
    conf = own_server.output.parent / "conf/plugins.toml"
    conf.write_text(conf.read_text().replace("enabled = false\n", ""))
    own_server.terminate()
    own_server.start()
    (block,) = (block for block in blocks(GUIDES[name], "js") if "token:" in block)
    claims = {"sub": "ana", "exp": int(time.time()) + 600}
    site.files["/seat-token"] = jwt.encode(claims, SECRET, "HS256")
    site.run(IMPORT + block + "\nawait signedIn.joinRoom('funcion_123');")
    site.wait_for(" connected")


@pytest.mark.parametrize("name", GUIDES)
def test_the_plain_page_is_a_whole_seat_map(name: str, site: Site) -> None:
    """One window takes a seat, counts down and gives it back; the other sees it, and a limit."""
    (site.files["/index.html"],) = blocks(GUIDES[name], "html")
    ann, bob = site.open("/index.html"), site.open("/index.html")
    for page in (ann, bob):
        expect(page.locator(".status-connected")).to_be_visible()
        expect(page.locator(".seat")).to_have_count(50)
        expect(page.locator(".seat.unavailable")).to_have_count(0)

    def seat(page: Page, seat_id: str) -> Locator:
        return page.get_by_role("button", name=seat_id, exact=True)

    seat(ann, "C7").click()
    expect(seat(ann, "C7")).to_have_class("seat selected")
    expect(seat(bob, "C7")).to_have_class("seat other-selected")
    expect(seat(bob, "C7")).to_have_attribute("title", "Ana")
    expect(ann.locator("#mine")).to_have_text(re.compile(r"^C7 [45]:\d\d$"))
    ann.reload()
    expect(seat(ann, "C7")).to_have_class("seat selected")
    for number in range(1, 11):
        seat(bob, f"A{number}").click()
    expect(bob.locator(".selected")).to_have_count(10)
    seat(bob, "B1").click()
    expect(bob.locator("#note")).not_to_be_empty()
    expect(seat(bob, "B1")).to_have_class("seat")
    seat(ann, "C7").click()
    for page in (ann, bob):
        expect(seat(page, "C7")).to_have_class("seat")
