"""React and Vue: the guide's components and the first guide's, on what `npm pack` makes.

Vite builds them in an application of its own, as the guide's first chapter has it. Those in English
are only built: they are the same. What they need from npm, `npm ci` has put into clients/.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.reader import CLIENTS, FIRST_GUIDE, GUIDES, Site, blocks, reading
from tests.conftest import Starter
from tests.harness import Valkey, unique

MAIN_JSX = """
import { SeatSelectionClient } from '@seatws/client';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
globalThis.SeatSelectionClient = SeatSelectionClient; // the first guide's component imports none
const { default: App } = await import('./NAME.jsx');
const root = createRoot(document.getElementById('app'));
root.render(<StrictMode><App funcionId="funcion_123" /></StrictMode>);
"""
MAIN_VUE = """
import { createApp } from 'vue';
import App from './NAME.vue';
createApp(App, PROPS).mount('#app');
"""
PAGE = """
<!DOCTYPE html><div id="app"></div><script type="module" src="/NAME-main.jsx"></script>
"""
CONFIG = """
import react from '@vitejs/plugin-react';
import vue from '@vitejs/plugin-vue';
export default {
  plugins: [react(), vue()],
  build: { target: 'esnext', rollupOptions: { input: PAGES } },
};
"""
COMPONENTS = {
    f"{name}-{language}-{number}": block
    for name, text in [*GUIDES.items(), ("first", FIRST_GUIDE)]
    for language in ("jsx", "vue")
    for number, block in enumerate(blocks(text, language))
}


def run(*command: str, where: Path) -> None:
    """Run a command; what it printed is shown if it fails."""
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of an application with a page for each component."""
    app = tmp_path_factory.mktemp("cinema")
    workspaces = [f"--workspace={name}" for name in ("js", "react", "vue")]
    run("npm", "pack", *workspaces, f"--pack-destination={app}", where=CLIENTS)
    modules = app / "node_modules"
    (modules / "@seatws").mkdir(parents=True)
    for package in app.glob("*.tgz"):
        with tarfile.open(package) as files:
            files.extractall(app, filter="data")
        (app / "package").rename(modules / "@seatws" / package.name.split("-")[1])
    for module in (CLIENTS / "node_modules").iterdir():
        if module.name != "@seatws":
            (modules / module.name).symlink_to(module)
    (app / "SeatSelectionClient.js").write_text("export * from '@seatws/client';\n")
    for name, block in COMPONENTS.items():
        kind = name.split("-")[1]
        props = '{ funcionId: "funcion_123" }' if "funcionId" in block else "{}"
        main = {"jsx": MAIN_JSX, "vue": MAIN_VUE}[kind].replace("NAME", name)
        (app / f"{name}.{kind}").write_text(block)
        (app / f"{name}-main.jsx").write_text(main.replace("PROPS", props))
        (app / f"{name}.html").write_text(PAGE.replace("NAME", name))
    pages = json.dumps([f"{name}.html" for name in COMPONENTS])
    (app / "vite.config.mjs").write_text(CONFIG.replace("PAGES", pages))
    run("node", "node_modules/vite/bin/vite.js", "build", where=app)
    made = [path for path in (app / "dist").rglob("*") if path.is_file()]
    return {f"/{path.relative_to(app / 'dist')}": path.read_text() for path in made}


@pytest.fixture
def site(built: dict[str, str], start: Starter, valkey: Valkey) -> Iterator[Site]:
    """The application on a server in whose Redis the guide's rooms are nobody else's."""
    with reading(start(valkey.url, SEATWS_REDIS__PREFIX=unique("guide"))) as site:
        site.files.update(built)
        yield site


def seat(page: Page, seat_id: str) -> Locator:
    """A seat of the map, by what is written on it."""
    return page.locator(".seat", has_text=re.compile(rf"^\s*{seat_id}\s*$"))


def joined(page: Page) -> Page:
    """Wait until seats can be chosen."""
    expect(page.locator(".status-connected")).to_be_visible()
    expect(seat(page, "A1")).not_to_have_class(re.compile("unavailable"))
    return page


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name.startswith("guia")])
def test_a_component_of_the_guide_is_a_whole_seat_map(name: str, site: Site) -> None:
    """One window takes a seat and gives it back, the other sees both; a reload keeps the seat."""
    ann, bob = joined(site.open(f"/{name}.html")), joined(site.open(f"/{name}.html"))
    seat(ann, "A2").click()
    expect(seat(ann, "A2")).to_have_class(re.compile(r"\bselected\b"))
    expect(seat(bob, "A2")).to_have_class(re.compile(r"\bother-selected\b"))
    expect(ann.locator(".selected-seats li")).to_contain_text("A2")
    ann.reload()
    expect(seat(ann, "A2")).to_have_class(re.compile(r"\bselected\b"))
    seat(joined(ann), "A2").click()
    for page in (ann, bob):
        expect(seat(page, "A2")).not_to_have_class(re.compile("selected"))


def test_what_the_page_is_told_is_shown(site: Site) -> None:
    """Vue's `@change` and React's `onSelectionChange`; and a hall that was drawn has its seats."""
    react, vue = joined(site.open("/guia-jsx-1.html")), joined(site.open("/guia-vue-0.html"))
    expect(react.locator(".seat")).to_have_count(10)
    expect(seat(react, "B3")).to_have_class(re.compile("unavailable"))
    seat(react, "C2").click()
    site.wait_for("C2")
    seat(vue, "A1").click()
    expect(vue.locator("p", has_text=re.compile(r"^1 "))).to_be_visible()


@pytest.mark.parametrize("name", [name for name in COMPONENTS if name.startswith("first")])
def test_a_component_of_the_first_guide_runs_on_our_library(name: str, site: Site) -> None:
    """Word for word, but for the class that it uses: it joins, and one's seat shows to the other.

    Its own mistakes stay: React's never shows one's own seats, Vue's can't give them back.
    """
    ann, bob = site.open(f"/{name}.html"), site.open(f"/{name}.html")
    site.wait_for("Unido a la sala: funcion_123", 2)
    seat(ann, "A2").click()
    expect(seat(bob, "A2")).to_have_class(re.compile(r"\bother-selected\b"))
    expect(seat(bob, "A2")).to_be_disabled()
