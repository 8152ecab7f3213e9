"""Permissions: which rules fit, what comes of them, and what a wrong rule file is told."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from plugins.permission_rules import ACTIONS, Rule
from plugins.room_permissions import REMEMBERED, ROOMS_REMEMBERED, RoomPermissions
from seatws.errors import ConfigError
from seatws.plugins import Action, Identity, Verdict

EXAMPLE = """
[[rule]]
name = "whoever is signed in may look"
rooms = ["funcion_*"]
actions = ["join", "read"]
[[rule]]
name = "buyers take seats"
rooms = ["funcion_*"]
actions = ["select", "release"]
when = [{ claim = "roles", any_of = ["buyer", "staff"] }]
[[rule]]
name = "rooms named in the token"
rooms_claim = "rooms"
actions = ["join", "read", "select", "release"]
[[rule]]
name = "premieres are by invitation"
effect = "deny"
rooms = ["funcion_premiere_*"]
actions = ["join", "read", "select", "release"]
unless = [{ claim = "scope", contains = "premiere" }]
[[rule]]
name = "staff see the figures"
actions = ["stats"]
when = [{ claim = "roles", contains = "staff" }]
"""

NONE: set[str] = set()
LOOK = {"join", "read"}
USE = LOOK | {"select", "release"}


def who(**claims: Any) -> Identity:
    return Identity("ana", claims)


def settings(directory: Path, text: str) -> RoomPermissions.Settings:
    file = directory / "rules.toml"
    file.write_text(text, encoding="utf-8")
    return RoomPermissions.Settings(file=str(file))


def rules(directory: Path, *texts: str, actions: str = '["join"]') -> RoomPermissions:
    """Rules of these lines each, with a name and actions."""
    tables = [
        f'[[rule]]\nname = "rule-{number}"\n'
        + ("" if "actions =" in text else f"actions = {actions}\n")
        + text
        for number, text in enumerate(texts, 1)
    ]
    return RoomPermissions(settings(directory, "\n".join(tables)))


def ask(
    plugin: RoomPermissions, identity: Identity, room_id: str = "r", action: Action = "join"
) -> Verdict:
    return plugin.may(identity, action, None if action == "stats" else room_id, ())


def allowed(plugin: RoomPermissions, identity: Identity, room_id: str = "r") -> set[str]:
    return {action for action in ACTIONS if ask(plugin, identity, room_id, action).allowed}


# The example


@pytest.mark.parametrize(
    ("claims", "funcion_1", "funcion_premiere_7", "vip_3", "figures"),
    [
        pytest.param({}, LOOK, NONE, NONE, False, id="somebody"),
        pytest.param({"roles": ["buyer"]}, USE, NONE, NONE, False, id="buyer"),
        pytest.param({"roles": "buyer"}, USE, NONE, NONE, False, id="buyer in a text"),
        pytest.param({"roles": ["Buyer"]}, LOOK, NONE, NONE, False, id="buyer in another case"),
        pytest.param({"roles": ["staff"]}, USE, NONE, NONE, True, id="staff"),
        pytest.param({"scope": "openid premiere"}, LOOK, LOOK, NONE, False, id="invited"),
        pytest.param({"scope": "premieres"}, LOOK, NONE, NONE, False, id="another word"),
        pytest.param(
            {"roles": ["x", "buyer"], "scope": "premiere"},
            USE,
            USE,
            NONE,
            False,
            id="invited buyer",
        ),
        pytest.param({"rooms": ["vip_*"]}, LOOK, NONE, USE, False, id="a pattern of its own"),
        pytest.param({"rooms": "vip_3"}, LOOK, NONE, USE, False, id="a room of its own"),
        pytest.param({"rooms": ["*"]}, USE, NONE, USE, False, id="every room, yet no premiere"),
        pytest.param(
            {"rooms": ["funcion_premiere_7"], "scope": "premiere"},
            *(LOOK, USE, NONE, False),
            id="the premiere in the token",
        ),
    ],
)
def test_the_example_allows_what_it_says(
    tmp_path: Path,
    claims: dict[str, Any],
    funcion_1: set[str],
    funcion_premiere_7: set[str],
    vip_3: set[str],
    figures: bool,
) -> None:
    """Every action of each kind of client, in every kind of room, by the documented rules."""
    plugin = RoomPermissions(settings(tmp_path, EXAMPLE))
    stats = {"stats"} if figures else NONE
    assert allowed(plugin, who(**claims), "funcion_1") == funcion_1 | stats
    assert allowed(plugin, who(**claims), "funcion_premiere_7") == funcion_premiere_7 | stats
    assert allowed(plugin, who(**claims), "vip_3") == vip_3 | stats


# Which rules fit


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([], id="no rule"),
        pytest.param(['effect = "deny"'], id="a deny"),
        pytest.param(['rooms = ["x"]'], id="another room"),
        pytest.param(['when = [{ claim = "x", equals = 1 }]'], id="another client"),
    ],
)
def test_what_no_rule_allows_is_refused(tmp_path: Path, texts: list[str]) -> None:
    """No rule means no; there is no abstaining."""
    assert allowed(rules(tmp_path, *texts), who()) == NONE


@pytest.mark.parametrize("order", [1, -1], ids=["allow first", "deny first"])
def test_one_deny_wins_over_every_allow(tmp_path: Path, order: int) -> None:
    """The order of the rules is of no matter."""
    texts = ["", 'effect = "deny"\nrooms = ["closed"]', 'rooms = ["*"]'][::order]
    plugin = rules(tmp_path, *texts)
    assert not ask(plugin, who(), "closed").allowed
    assert ask(plugin, who(), "open").allowed


def test_a_rule_is_about_its_own_actions_alone(tmp_path: Path) -> None:
    """An action that a rule does not name is none of its business."""
    for action in ACTIONS:
        assert allowed(rules(tmp_path, "", actions=f'["{action}"]'), who()) == {action}


@pytest.mark.parametrize(
    ("claims", "room_id", "fits"),
    [
        pytest.param({"rooms": ["a*"]}, "ab", True, id="both fit"),
        pytest.param({"rooms": ["b", "a*"]}, "ab", True, id="any of the list"),
        pytest.param({"rooms": "ab"}, "ab", True, id="one text"),
        pytest.param({"rooms": "ab ax"}, "ab", False, id="a text is one pattern, not words"),
        pytest.param({"rooms": ["b*"]}, "bb", False, id="rooms does not fit"),
        pytest.param({"rooms": ["ac"]}, "ab", False, id="rooms_claim does not fit"),
        pytest.param({"rooms": []}, "ab", False, id="empty list"),
        pytest.param({}, "ab", False, id="missing"),
        pytest.param({"rooms": None}, "ab", False, id="null"),
        pytest.param({"rooms": 7}, "a7", False, id="number"),
        pytest.param({"rooms": True}, "ab", False, id="boolean"),
        pytest.param({"rooms": {"ab": 1}}, "ab", False, id="object"),
        pytest.param({"rooms": [["ab"], {}, 1, None]}, "ab", False, id="no texts in the list"),
        pytest.param({"rooms": [1, "ab"]}, "ab", True, id="the texts in the list"),
    ],
)
def test_a_room_has_to_fit_the_rules_patterns_and_the_tokens(
    tmp_path: Path, claims: dict[str, Any], room_id: str, fits: bool
) -> None:
    """`rooms_claim` narrows `rooms`; of another type than list or text it fits no room."""
    plugin = rules(tmp_path, 'rooms = ["a*"]\nrooms_claim = "rooms"')
    assert ask(plugin, who(**claims), room_id).allowed is fits
    assert not plugin.may(who(**claims), "join", None, ()).allowed


def test_all_of_when_and_none_of_unless(tmp_path: Path) -> None:
    """One condition of `when` that fails, or one of `unless` that holds, silences the rule."""
    plugin = rules(
        tmp_path,
        'when = [{ claim = "a", equals = 1 }, { claim = "b", equals = 1 }]\n'
        'unless = [{ claim = "c", equals = 1 }, { claim = "d", equals = 1 }]',
    )
    assert ask(plugin, who(a=1, b=1)).allowed
    assert not ask(plugin, who(a=1)).allowed
    assert not ask(plugin, who(b=1)).allowed
    assert not ask(plugin, who(a=1, b=1, c=1)).allowed
    assert not ask(plugin, who(a=1, b=1, d=1)).allowed


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        ('equals = "a"', ["a"], ["A", "a ", "a b", ["a"], {"a": "a"}, None, ""]),
        ("equals = 1", [1, 1.0], ["1", True, [1], None, 2, {}]),
        ("equals = 1.5", [1.5], ["1.5", 1, True]),
        ("equals = 0", [0, 0.0, -0.0], [False, "", None, []]),
        ("equals = true", [True], [1, 1.0, "true", [True], False, None]),
        ("equals = false", [False], [0, 0.0, None, "", [], True]),
        (
            'contains = "a"',
            [["a"], ["b", "a"], "a", "b a c", " a ", ["a", {}, [1]]],
            ["ab", "b-a", "b\ta", "A", [["a"]], ["b a"], {"a": 1}, 1, None, [], ""],
        ),
        ("contains = 1", [[1], [1.0], ["x", 1]], [1, "1", [True], ["1"], None]),
        ("contains = true", [[True], [0, True]], [True, [1], ["true"], "true"]),
        ('contains = ""', [[""]], ["", "a  b", [], " "]),
        (
            'any_of = ["a", 1, true]',
            ["a", "b a", 1, 1.0, True, ["a"], ["b", 1], [True]],
            ["ab", "1", "true", 2, False, [False, 0], ["b a"], [["a"]], {"a": 1}, None, []],
        ),
        ("any_of = [1, 2]", [1, [2.0]], [True, [True], "1 2", ["1"]]),
        ('any_of = ["b a"]', ["b a", ["b a"]], ["a", "b", "c b a"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_condition_compares_by_value_and_type(
    tmp_path: Path, condition: str, holds: list[Any], fails: list[Any]
) -> None:
    """The three kinds of condition, against every type that a claim can have in JSON."""
    plugin = rules(tmp_path, f'when = [{{ claim = "x", {condition} }}]')
    assert [value for value in holds if not ask(plugin, who(x=value)).allowed] == []
    assert [value for value in fails if ask(plugin, who(x=value)).allowed] == []
    assert not ask(plugin, who()).allowed, "a missing claim never holds"


@pytest.mark.parametrize(
    ("claims", "holds"),
    [
        pytest.param({"realm.access": {"roles": "a"}}, False, id="half literal"),
        pytest.param({"realm": {"access": {"roles": "a"}}}, True, id="by its dots"),
        pytest.param({"realm.access.roles": "a"}, True, id="literal"),
        pytest.param(
            {"realm.access.roles": "b", "realm": {"access": {"roles": "a"}}},
            False,
            id="literal before dots",
        ),
        pytest.param({"realm": {"access": "roles"}}, False, id="no object"),
        pytest.param({"realm": {"access": ["roles"]}}, False, id="list"),
        pytest.param({"realm": None}, False, id="null"),
        pytest.param({"roles": "a"}, False, id="last part alone"),
    ],
)
def test_a_claims_name_is_taken_literally_then_by_its_dots(
    tmp_path: Path, claims: dict[str, Any], holds: bool
) -> None:
    """In conditions and in `rooms_claim` alike."""
    name = "realm.access.roles"
    by_condition = rules(tmp_path, f'when = [{{ claim = "{name}", equals = "a" }}]')
    assert ask(by_condition, who(**claims)).allowed is holds
    by_room = rules(tmp_path, f'rooms_claim = "{name}"')
    assert ask(by_room, who(**claims), "a").allowed is holds


# Verdicts


def test_the_reason_names_the_rule_and_no_claim(tmp_path: Path) -> None:
    """It is logged; what a token says is not."""
    plugin = RoomPermissions(settings(tmp_path, EXAMPLE))
    canary = who(scope="canary", roles=["canary", "buyer"], rooms=["canary*"])
    reasons = {
        room_id: ask(plugin, canary, room_id, "select").reason
        for room_id in ("funcion_1", "funcion_premiere_1", "canary1", "other")
    }
    assert reasons == {
        "funcion_1": 'rule "buyers take seats" allows it',
        "funcion_premiere_1": 'rule "premieres are by invitation" denies it',
        "canary1": 'rule "rooms named in the token" allows it',
        "other": "no rule allows it",
    }
    assert "canary" not in "".join(plugin.explain(canary, None, "canary1"))


def test_a_verdict_is_found_once_and_then_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one identity, action and room; what is another's, or elsewhere, is asked anew."""
    plugin = rules(tmp_path, 'rooms = ["a"]\nwhen = [{ claim = "x", equals = 1 }]')
    asked: list[tuple[object, str | None]] = []
    misfit = Rule.misfit

    def counted(rule: Rule, claims: Any, room_id: str | None) -> str:
        asked.append((claims["x"], room_id))
        return misfit(rule, claims, room_id)

    monkeypatch.setattr(Rule, "misfit", counted)
    one, same_name = who(x=1), who(x=2)
    for _ in range(3):
        assert ask(plugin, one, "a").allowed
        assert not ask(plugin, same_name, "a").allowed
        assert not ask(plugin, one, "b").allowed
        assert not ask(plugin, one, "a", "read").allowed
    assert asked == [(1, "a"), (2, "a")]


def test_what_rules_say_to_everyone_is_bounded_too(tmp_path: Path) -> None:
    """A client that asks for room after room costs no more memory than that."""
    plugin = rules(tmp_path, 'rooms = ["*7"]')
    for number in range(ROOMS_REMEMBERED + 100):
        assert ask(plugin, who(), str(number)).allowed is (number % 10 == 7)
        assert len(plugin._about) <= ROOMS_REMEMBERED
    assert len(plugin._verdicts) == 0


def test_what_is_remembered_ends_with_the_identity_and_has_a_bound(tmp_path: Path) -> None:
    """A client that asks for room after room costs no more memory than that."""
    plugin = rules(tmp_path, 'rooms_claim = "mine"')
    identity = who(mine=["*7"])
    for number in range(5 * REMEMBERED):
        assert ask(plugin, identity, str(number)).allowed is (number % 10 == 7)
        assert len(plugin._verdicts[identity]) <= REMEMBERED
    alive = weakref.ref(identity)
    del identity
    gc.collect()
    assert alive() is None
    assert len(plugin._verdicts) == 0


def test_a_reload_takes_effect_for_those_already_asked(tmp_path: Path) -> None:
    """New rules count at once, also where a verdict was remembered."""
    plugin, identity = rules(tmp_path, ""), who()
    assert ask(plugin, identity).allowed
    plugin.reload(settings(tmp_path, EXAMPLE))
    assert not ask(plugin, identity).allowed
    other = tmp_path / "other"
    other.mkdir()
    plugin.reload(settings(other, '[[rule]]\nname = "n"\nactions = ["join"]'))
    assert ask(plugin, identity).allowed
    assert plugin.settings.file == str(other / "rules.toml")


def test_a_reload_of_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    """The rules go on as they were, and so do the settings."""
    plugin, identity = rules(tmp_path, 'rooms = ["a"]'), who()
    before = plugin.settings
    with pytest.raises(ConfigError):
        plugin.reload(RoomPermissions.Settings(file=str(tmp_path / "gone.toml")))
    assert plugin.settings is before
    (tmp_path / "rules.toml").write_text("[[rule]")
    with pytest.raises(ConfigError):
        plugin.reload(before)
    assert ask(plugin, identity, "a").allowed
    assert not ask(plugin, identity, "b").allowed
