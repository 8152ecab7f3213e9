"""docs/guide.md and docs/guia.md: all examples are true, nothing is missing, both say the same."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from seatws import messages
from seatws.errors import CloseCode
from seatws.messages import Message
from tests.harness import ROOT
from tests.test_docs import below, error_codes, message_types

GUIDES = {name: (ROOT / f"docs/{name}.md").read_text() for name in ("guide", "guia")}

KINDS: dict[str, type[Message]] = {
    str(kind.__struct_config__.tag): kind
    for kind in below(Message)
    if kind.__module__ == messages.__name__ and not kind.__subclasses__()
}


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and code of each fenced block, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code(name: str, *languages: str) -> list[str]:
    """The blocks of these languages."""
    return [block for language, block in blocks(GUIDES[name]) if language in languages]


def frames(name: str) -> list[Any]:
    """The messages that the guide shows: JSON whose `type` is one of the protocol's."""
    shown = [json.loads(text) for text in code(name, "json")]
    return [one for one in shown if one.get("type") in KINDS]


def outline(text: str) -> list[int]:
    """How deep each heading is, in order."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [len(marks) for marks in re.findall(r"^(#+) ", plain, re.MULTILINE)]


def untold(block: str) -> str:
    """Code without what may be translated: comments, strings, text between tags."""
    block = re.sub(r"(?<![:\w])//.*$|^\s*# .*$", "", block, flags=re.MULTILINE)
    block = re.sub(r"`[^`]*`|'[^'\n]*'|\"[^\"\n]*\"", "''", block)
    block = re.sub(r"(>|\}\})[^<>{}\n]+(<|\{\{)", r"\1\2", block)
    return "\n".join(line.rstrip() for line in block.splitlines() if line.strip())


# ---------------------------------------------------------------- whole, and the same


def test_both_languages_have_the_same_chapters() -> None:
    """As many headings, each as deep, and as many rows of tables."""
    assert outline(GUIDES["guide"]) == outline(GUIDES["guia"])
    rows = [re.findall(r"^\| *(\S+)", text, re.MULTILINE) for text in GUIDES.values()]
    assert len(rows[0]) == len(rows[1])


def test_both_languages_have_the_same_code() -> None:
    """Block by block, but for comments and words."""
    both = [blocks(text) for text in GUIDES.values()]
    assert [language for language, _ in both[0]] == [language for language, _ in both[1]]
    for (language, one), (_, other) in zip(*both, strict=True):
        if language == "json":
            assert one == other
        else:
            assert untold(one) == untold(other)


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("kind", message_types())
def test_every_message_is_shown(name: str, kind: str) -> None:
    """As an example in JSON."""
    assert kind in {frame["type"] for frame in frames(name)}


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("word", error_codes())
def test_every_error_code_is_explained(name: str, word: str) -> None:
    """As a line of the table of errors."""
    assert re.search(rf"^\| `{word}` \|", GUIDES[name], re.MULTILINE)


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("number", [one for one in CloseCode if one != CloseCode.NORMAL])
def test_every_close_code_says_whether_to_come_back(name: str, number: CloseCode) -> None:
    """As the server means it; 1000 needs no explanation."""
    row = re.search(
        rf"^\| (?:\d{{4}}, )*{number.value}(?:, \d{{4}})* \|[^|]*\| (.+) \|$",
        GUIDES[name],
        re.MULTILINE,
    )
    assert row
    if number != CloseCode.UNAUTHENTICATED:
        assert row[1].startswith(("yes", "sí") if number.come_back else "no"), row[0]


@pytest.mark.parametrize("name", GUIDES)
def test_all_of_the_client_library_is_in_the_guide(name: str) -> None:
    """Each method of the class, each event, and each word that an error may have."""
    text = (ROOT / "clients/js/src/seat-selection-client.d.ts").read_text()
    declared = text[text.index("export class SeatSelectionClient") :]
    methods = re.findall(r"^  (\w+)[(<]", declared, re.MULTILINE)
    (events,) = re.findall(r"^export interface EventMap \{(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    (words,) = re.findall(r"^export type ErrorCode =(.*?);", text, re.MULTILINE | re.DOTALL)
    names = {
        *methods,
        *re.findall(r"^  (\w+):", events, re.MULTILINE),
        *re.findall(r'"(\w+)"', words),
    } - {"constructor"}
    assert {"joinRoom", "expiring", "token_failed"} <= names
    assert {one for one in names if not re.search(rf"`{one}\b", GUIDES[name])} == set()


@pytest.mark.parametrize("name", GUIDES)
def test_every_message_has_the_fields_of_the_protocol(name: str) -> None:
    """None that is unknown, none that is missing, none of another type."""
    for frame in frames(name):
        kind = KINDS[frame["type"]]
        fields = {field.encode_name for field in msgspec.structs.fields(kind)}
        assert frame.keys() - {"type"} <= fields, frame
        msgspec.json.decode(json.dumps(frame), type=kind)
        for info in (frame.get("user_info"), *frame.get("selections", ())):
            assert isinstance(info, dict | None)


@pytest.mark.parametrize("name", GUIDES)
def test_no_example_is_left_out(name: str) -> None:
    """What is neither run here nor in a browser is a command for the reader's own machine."""
    python = [block for block in code(name, "python") if block.startswith("# ")]
    assert python == code(name, "python")
    assert len(python) == 2
    languages = {language for language, _ in blocks(GUIDES[name])}
    assert languages <= {"json", "sh", "python", "js", "jsx", "vue", "html", "css"}
