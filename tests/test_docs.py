"""What is written about the server is true and whole."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import seatws
from seatws import errors, messages
from seatws.config import Config
from seatws.errors import ClientError, CloseCode, StoreError
from seatws.messages import Message
from tests.harness import ROOT

README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def documents() -> list[Path]:
    """The project's own: not what a tool has put into a hidden directory, nor what tests read."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(
        path
        for path in found
        if not any(part.startswith(".") or part == "node_modules" for part in path.parts)
        and path.parts[0] not in {"data", "venv", "build"}
        and path.parts[:2] != ("tests", "data")
    )


def below(kind: type[Any]) -> Iterator[type[Any]]:
    for one in kind.__subclasses__():
        yield one
        yield from below(one)


def settings() -> list[str]:
    return [
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    ]


def message_types() -> list[str]:
    kinds = [kind for kind in below(Message) if kind.__module__ == messages.__name__]
    return [str(kind.__struct_config__.tag) for kind in kinds if not kind.__subclasses__()]


def error_codes() -> list[str]:
    kinds = [kind for kind in below(ClientError) if kind.__module__ == errors.__name__]
    return [StoreError.code, *(str(kind.code) for kind in kinds)]


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors_of(text: str) -> set[str]:
    """A document's headings as links name them."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("setting", settings())
def test_every_setting_is_in_the_readme(setting: str) -> None:
    """By its name in the file, in code."""
    assert f"`{setting}`" in README


@pytest.mark.parametrize("kind", message_types())
def test_every_message_is_in_the_readme(kind: str) -> None:
    """By its `type`, in code."""
    assert f"`{kind}`" in README


@pytest.mark.parametrize("code", error_codes())
def test_every_error_code_is_in_the_readme(code: str) -> None:
    """As a line of the table of errors."""
    assert re.search(rf"^\| `{code}` \|", README, re.MULTILINE)


@pytest.mark.parametrize("code", [code for code in CloseCode if code != CloseCode.NORMAL])
def test_every_close_code_is_in_the_readme(code: CloseCode) -> None:
    """In the table of close codes; 1000 needs no explanation."""
    assert re.search(rf"^\| (\d{{4}}, )*{code.value}(, \d{{4}})* \|", README, re.MULTILINE)


def test_the_readme_knows_no_setting_that_is_gone() -> None:
    """In its table of settings."""
    rows = re.findall(r"^\| ((?:`\w+\.\w+`(?:, )?)+) \|", README, re.MULTILINE)
    assert rows
    assert set(re.findall(r"\w+\.\w+", " ".join(rows))) <= {*settings()}


@pytest.mark.parametrize("document", documents(), ids=str)
def test_every_link_leads_somewhere(document: Path) -> None:
    """To a file that is there, and to a heading of it."""
    text = (ROOT / document).read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), f"{document}: {link}"
        if anchor:
            assert anchor in anchors_of(target.read_text()), f"{document}: {link}"


@pytest.mark.parametrize("document", documents(), ids=str)
def test_every_piece_of_code_can_be_read(document: Path) -> None:
    """Python and shell, as far as that can be told without running it; sessions are not tried."""
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)
    for language, code in fences:
        if code.startswith("$"):
            continue
        if language == "python":
            compile(code, str(document), "exec")
        elif language in {"sh", "bash", "shell"}:
            subprocess.run(["bash", "-n", "-c", code], check=True)


def test_the_changelog_knows_this_version() -> None:
    """There is a heading for what is not released yet, or for the version that this is."""
    headings = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)
    assert "Unreleased" in headings or headings[0] == seatws.__version__
