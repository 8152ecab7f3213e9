"""conf/room_permissions.toml and conf/plugins.toml: as shipped, and what a wrong one is told."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugins.jwt_settings import KINDS, JwtSettings, KeySettings
from plugins.permission_rules import read_rules
from plugins.room_permissions import RoomPermissions
from seatws.errors import ConfigError
from seatws.loader import load_plugins
from seatws.plugins import Identity
from tests.test_room_permissions import EXAMPLE

SHIPPED = Path(__file__).parent.parent / "conf"

ACTIONS = 'actions = ["join"]\n'
SOUND = '[[rule]]\nname = "sound"\n' + ACTIONS


def problems_of(directory: Path, text: str | bytes) -> list[str]:
    """What the file is told, its directory left out."""
    file = directory / "rules.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        RoomPermissions(RoomPermissions.Settings(file=str(file)))
    assert str(caught.value).splitlines() == list(caught.value.problems), "one line a problem"
    return [problem.replace(f"{directory}/", "") for problem in caught.value.problems]


# What is refused, and how


ACTION = "expected a list of one or more of join, select, release, read, stats"
ACTION_FIX = 'for example ["join", "read"]'
PATTERN = "expected a list of one or more patterns of A-Z a-z 0-9 . _ : @ - and *"
PATTERN_FIX = (
    'for example ["funcion_*", "sala-3"]; * is any run of characters, and nothing else is special'
)
CLAIM = "expected the name of a claim"
VALUE = "expected text, a number, true or false"
VALUE_FIX = 'for example "staff"'
VALUES = "expected a list of one or more of text, numbers, true or false"
VALUES_FIX = 'for example ["buyer", "staff"]'
COMPARED = "expected one of equals, contains and any_of beside it"
COMPARED_FIX = 'for example { claim = "roles", contains = "staff" }'
NO_ROOM = 'expected none in a rule with "stats", which belongs to no room'
NO_ROOM_FIX = 'take it out, or give "stats" a rule of its own'


@pytest.mark.parametrize(
    ("lines", "key", "says"),
    [
        (
            'effect = "no"',
            "effect",
            'expected one of "allow", "deny", got "no"; write it in lower case',
        ),
        ('actions = ["watch"]', "actions", f'{ACTION}, got ["watch"]; {ACTION_FIX}'),
        ('actions = "join"', "actions", f'{ACTION}, got "join"; {ACTION_FIX}'),
        ("actions = []", "actions", f"{ACTION}, got []; {ACTION_FIX}"),
        ('rooms = "funcion_*"', "rooms", f'{PATTERN}, got "funcion_*"; {PATTERN_FIX}'),
        ('rooms = ["a_[0-9]"]', "rooms", f'{PATTERN}, got ["a_[0-9]"]; {PATTERN_FIX}'),
        ('rooms = ["sala?"]', "rooms", f'{PATTERN}, got ["sala?"]; {PATTERN_FIX}'),
        ("rooms = []", "rooms", f"{PATTERN}, got []; {PATTERN_FIX}"),
        (
            'rooms_claim = ["rooms"]',
            "rooms_claim",
            f'{CLAIM}, got ["rooms"]; for example "rooms"; leave it out to need no such claim',
        ),
        ('room = ["a"]', "room", "no such setting; did you mean rooms?"),
        (
            'roles = ["a"]',
            "roles",
            "no such setting; the settings here are name, effect, actions, rooms, rooms_claim,"
            " when, unless",
        ),
        (
            'when = { claim = "a", equals = 1 }',
            "when",
            'expected a list of conditions, got {"claim": "a", "equals": 1}; in [ ] even if it is'
            ' one: [{ claim = "roles", contains = "staff" }]',
        ),
        ('when = ["staff"]', "when 1", "expected a table of settings"),
        ("when = [{ equals = 1 }]", "when 1: claim", "missing; it has no default"),
        (
            'unless = [{ claim = "", equals = 1 }]',
            "unless 1: claim",
            f'{CLAIM}, got ""; "roles", or "realm_access.roles" for one inside another',
        ),
        (
            'when = [{ claim = "a" }]',
            "when 1: claim",
            f"{COMPARED}, got none of them; {COMPARED_FIX}",
        ),
        (
            'unless = [{ claim = "a", equals = 1 }, { claim = "a", equals = 1, any_of = [1] }]',
            "unless 2: claim",
            f"{COMPARED}, got equals and any_of; {COMPARED_FIX}",
        ),
        (
            'when = [{ claim = "a", equal = 1 }]',
            "when 1: equal",
            "no such setting; did you mean equals?",
        ),
        (
            'when = [{ claim = "a", equals = ["a"] }]',
            "when 1: equals",
            f'{VALUE}, got ["a"]; {VALUE_FIX}',
        ),
        (
            'when = [{ claim = "a", contains = nan }]',
            "when 1: contains",
            f"{VALUE}, got NaN; {VALUE_FIX}",
        ),
        (
            'when = [{ claim = "a", equals = 2024-01-15 }]',
            "when 1: equals",
            f'{VALUE}, got "2024-01-15"; {VALUE_FIX}',
        ),
        (
            'when = [{ claim = "a", any_of = "staff" }]',
            "when 1: any_of",
            f'{VALUES}, got "staff"; {VALUES_FIX}',
        ),
        (
            'when = [{ claim = "a", any_of = [] }]',
            "when 1: any_of",
            f"{VALUES}, got []; {VALUES_FIX}",
        ),
        (
            'actions = ["join", "stats"]\nrooms = ["*"]',
            "rooms",
            f'{NO_ROOM}, got ["*"]; {NO_ROOM_FIX}',
        ),
        (
            'actions = ["stats"]\nrooms_claim = "rooms"',
            "rooms_claim",
            f'{NO_ROOM}, got "rooms"; {NO_ROOM_FIX}',
        ),
    ],
    ids=[
        "effect",
        "unknown action",
        "one action",
        "no action",
        "one room",
        "a regular expression",
        "a pattern of a shell",
        "no room",
        "rooms_claim",
        "misspelt key",
        "unknown key",
        "one condition",
        "text for a condition",
        "no claim",
        "empty claim",
        "nothing compared",
        "two compared",
        "misspelt comparison",
        "list for a value",
        "no number of JSON",
        "a date",
        "text for values",
        "no values",
        "stats in rooms",
        "stats in rooms_claim",
    ],
)
def test_a_wrong_rule_is_told_where_what_and_how_to_mend_it(
    tmp_path: Path, lines: str, key: str, says: str
) -> None:
    """File, rule, key, what is expected, what was found, what to write."""
    text = SOUND + f'[[rule]]\nname = "ours"\n{"" if "actions" in lines else ACTIONS}{lines}'
    assert problems_of(tmp_path, text) == [f'rules.toml: rule 2 "ours": {key}: {says}']


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param("", "name: missing; it has no default", id="missing"),
        pytest.param(
            'name = ""',
            'name: expected 1 to 100 printable characters, got ""; for example "buyers take'
            ' seats"; the log names the rule by it',
            id="empty",
        ),
        pytest.param(
            r'name = "a\nb"',
            r'name: expected 1 to 100 printable characters, got "a\nb"; for example "buyers take'
            ' seats"; the log names the rule by it',
            id="two lines",
        ),
        pytest.param(
            "name = 7",
            'name: expected 1 to 100 printable characters, got 7; for example "buyers take'
            ' seats"; the log names the rule by it',
            id="number",
        ),
    ],
)
def test_a_rule_without_a_good_name_is_told_by_its_number(
    tmp_path: Path, name: str, problem: str
) -> None:
    """The log and `--explain` need a name for each rule."""
    assert problems_of(tmp_path, f"{SOUND}[[rule]]\n{name}\n{ACTIONS}") == [
        f"rules.toml: rule 2: {problem}"
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            '[[rule]]\nname = "a"\nactions = [join]\n',
            "not valid TOML: Invalid value (at line 3, column 12); text stands in quotes, as in"
            ' name = "buyers"',
            id="not TOML",
        ),
        pytest.param(b"\xff", "not UTF-8 text at byte 0; save it as UTF-8", id="not UTF-8"),
        pytest.param(
            "[[rules]]", "rules: no such table; did you mean [[rule]]?", id="misspelt table"
        ),
        pytest.param(
            "strict = true",
            "strict: no such table; there are only [[rule]] tables here",
            id="unknown key",
        ),
        pytest.param(
            '[rule]\nname = "a"',
            "rule: expected [[rule]] tables; write the name in two brackets",
            id="single brackets",
        ),
        pytest.param("rule = [1]", "rule 1: expected a table of settings", id="no table"),
        pytest.param(
            r'"\u001b[31m" = 1',
            r"\x1b[31m: no such table; there are only [[rule]] tables here",
            id="what a terminal obeys",
        ),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str | bytes, says: str) -> None:
    """Before any rule can be named: the file, and the line where TOML ends."""
    assert problems_of(tmp_path, text) == [f"rules.toml: {says}"]


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """One run shows all that has to be mended, in the file's order."""
    text = (
        f'{SOUND}effect = "no"\nactionz = 1\n'
        f'[[rule]]\nname = "sound"\n{ACTIONS}when = [{{}}, {{ claim = 1, equals = [] }}]\n'
        '[[rule]]\nname = "third"\nactions = ["stats"]\nrooms_claim = "a"\n'
        'unless = [{ claim = "a" }]'
    )
    found = problems_of(tmp_path, "[x]\n" + text)
    assert [problem.split(": expected")[0].split(";")[0] for problem in found] == [
        "rules.toml: x: no such table",
        'rules.toml: rule 1 "sound": effect',
        'rules.toml: rule 1 "sound": actionz: no such setting',
        'rules.toml: rule 2 "sound": when 1: claim: missing',
        'rules.toml: rule 2 "sound": when 2: claim',
        'rules.toml: rule 2 "sound": when 2: equals',
        'rules.toml: rule 2 "sound": name',
        'rules.toml: rule 3 "third": rooms_claim',
        'rules.toml: rule 3 "third": unless 1: claim',
    ]
    assert "got that of rule 1; give one of them another name" in found[6]


def test_a_missing_file_and_one_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """Permissions are never left out in silence."""
    for file, says in ((tmp_path / "gone.toml", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=says) as caught:
            RoomPermissions(RoomPermissions.Settings(file=str(file)))
        assert str(caught.value).startswith(f"{file}: ")


def test_an_empty_file_is_no_rules(tmp_path: Path) -> None:
    """It is sound, and nobody may do anything."""
    (tmp_path / "rules.toml").write_text("\ufeff# later\r\n", encoding="utf-8")
    assert read_rules(tmp_path / "rules.toml") == ()


# What is shipped


def test_no_plugin_runs_as_shipped() -> None:
    """The guide's own frontends, which know nothing of tokens, work at once."""
    assert load_plugins(SHIPPED) == []


def test_the_shipped_rules_are_the_documented_ones() -> None:
    """Whoever enables the plugin has the example to begin with."""
    shipped = (SHIPPED / "room_permissions.toml").read_text()
    assert tomllib.loads(shipped) == tomllib.loads(EXAMPLE)
    assert len(read_rules(SHIPPED / "room_permissions.toml")) == 5


def examples() -> list[str]:
    """What the commented examples are without their `#`."""
    lines = (SHIPPED / "plugins.toml").read_text().splitlines()
    code = [line[1:] for line in lines if line.startswith("#") and line[1:2].strip()]
    return [f"[[plugin]]{block}" for block in "\n".join(code).split("[[plugin]]")[1:]]


SECRET, PROVIDER, PERMISSIONS = range(3)


@pytest.mark.parametrize(
    "chosen",
    [[SECRET], [PROVIDER], [PERMISSIONS], [SECRET, PERMISSIONS], [PROVIDER, PERMISSIONS]],
    ids=["secret", "provider", "permissions", "secret and rules", "provider and rules"],
)
def test_the_shipped_examples_load_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: list[int]
) -> None:
    """Taking the # off is all there is to do, the secret apart."""
    monkeypatch.setenv("SEATWS_JWT_SECRET", "s" * 32)
    conf = shutil.copytree(SHIPPED, tmp_path / "conf")
    (conf / "plugins.toml").write_text("\n".join(examples()[number] for number in chosen))
    modules = {SECRET: "plugins.jwt_auth", PROVIDER: "plugins.jwt_auth"}
    expected = [modules.get(number, "plugins.room_permissions") for number in chosen]
    assert [one.use for one in load_plugins(conf)] == expected


def test_the_shipped_examples_have_every_setting_with_its_default() -> None:
    """As seatws.toml has the core's. What stands there is what leaving it out gives."""
    secret, provider, permissions = (tomllib.loads(text)["plugin"][0] for text in examples())
    assert compared(JwtSettings, secret) == []
    assert compared(RoomPermissions.Settings, permissions) == []
    assert set(compared(KeySettings, secret["keys"][0] | provider["keys"][0])) <= set(KINDS)
    text = (SHIPPED / "plugins.toml").read_text()
    assert [kind for kind in KINDS if kind not in text] == []


def compared(kind: type[msgspec.Struct], table: dict[str, Any]) -> list[str]:
    """Settings that a table lacks or sets to something else than their default."""
    return [
        field.name
        for field in msgspec.structs.fields(kind)
        if field.name not in table
        or (not field.required and as_toml_has_it(field.default) != table[field.name])
    ]


def as_toml_has_it(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def test_the_rules_are_looked_for_beside_plugins_toml(tmp_path: Path) -> None:
    """Where `file` is left out, too, and wherever the server is started."""
    (tmp_path / "plugins.toml").write_text('[[plugin]]\nuse = "plugins.room_permissions"\n')
    (tmp_path / "room_permissions.toml").write_text(SOUND)
    (loaded,) = load_plugins(tmp_path)
    verdict = loaded.plugin.may(Identity("ana"), "join", "r", ())
    assert getattr(verdict, "reason", "") == 'rule "sound" allows it'
