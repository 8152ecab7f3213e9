"""What docs/security.md tells an operator to write works as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from seatws import config
from seatws.web.gate import Gate
from tests.harness import ROOT

GUIDE = (ROOT / "docs/security.md").read_text()
SNIPPETS = re.findall(r"```toml\n# conf/(\w+\.toml)\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize(
    ("name", "text"), SNIPPETS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(SNIPPETS, 1)]
)
def test_a_snippet_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """In place of the shipped file of its name, with the secret that the page has one export."""
    monkeypatch.setenv("SEATWS_JWT_SECRET", "s" * 64)
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    (conf / name).write_text(text)
    if name == "room_permissions.toml":
        (conf / "plugins.toml").write_text('[[plugin]]\nuse = "plugins.room_permissions"\n')
    gate = Gate(config.load(conf, {}), conf)
    assert gate.needs_identity == (name == "plugins.toml")


def test_the_page_has_snippets_for_every_file() -> None:
    """Settings, plugins and rules."""
    assert {name for name, _ in SNIPPETS} == {
        "seatws.toml",
        "plugins.toml",
        "room_permissions.toml",
    }
