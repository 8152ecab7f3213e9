"""`--explain`: it says what the plugins decide, and nothing of the token."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugins.permission_rules import ACTIONS
from plugins.room_permissions import RoomPermissions
from seatws import explain as explain_module
from seatws.errors import ConfigError, NotAllowed, NotReady
from seatws.explain import explain
from seatws.plugins import Action, ConnectRequest, Identity, Plugin, Verdict

CONF = Path(__file__).parent.parent / "conf"
TOKEN = "good.token"
FOR_THE_ROOM = ACTIONS[:4]


class CookieName(msgspec.Struct):
    cookie: str = "session"


class Door(Plugin):
    """Lets one token in, by one way."""

    def __init__(self, way: str = "message", **claims: Any) -> None:
        super().__init__(CookieName())
        self.way = way
        self.identity = Identity("ana", claims, expires_at=1705314600)
        self.seen: list[str] = []

    def authenticate(self, request: ConnectRequest) -> Identity | None:
        ways = {
            "message": request.token or "",
            "header": (request.headers.get("authorization") or "").removeprefix("Bearer "),
            "subprotocol": "".join(request.subprotocols).removeprefix("seatws.v1bearer."),
            "query": "".join(request.query.get("token", ())),
            "cookie": request.cookies.get("session", ""),
        }
        self.seen += [way for way, token in ways.items() if token]
        if not ways[self.way]:
            return None
        if ways[self.way] != TOKEN:
            raise NotAllowed("its signature is wrong")
        return self.identity


class Says(Plugin):
    """Answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__(None)
        self.answer = answer
        self.asked: list[tuple[Identity, Action, str | None]] = []

    def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Any:
        self.asked.append((identity, action, room_id))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class SaysLater(Says):
    """Answers after a turn of the loop, and has a line for each of its rules."""

    async def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Any:
        await asyncio.sleep(0)
        return super().may(identity, action, room_id, seat_ids)

    async def explain(self, identity: Identity, action: Action | None, room_id: str) -> list[str]:
        await asyncio.sleep(0)
        return [f"a rule of {identity.client_id} for {action} in {room_id}"]


class Late(Door):
    """Has its keys only after it was asked some times; then it is stopped."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.steps: list[str] = []

    async def start(self) -> None:
        self.steps.append("start")

    async def stop(self) -> None:
        self.steps.append("stop")
        raise RuntimeError("canary")

    def authenticate(self, request: ConnectRequest) -> Identity | None:
        self.steps.append("asked")
        if self.steps.count("asked") <= self.times:
            raise NotReady("no keys yet")
        return super().authenticate(request)


def shipped_rules() -> RoomPermissions:
    return RoomPermissions(RoomPermissions.Settings(file=str(CONF / "room_permissions.toml")))


# What is printed


def test_every_rule_says_why_and_every_action_what_comes_of_it() -> None:
    """The operator's page at three in the morning, word for word."""
    door = Door(roles=["buyer"], rooms="vip_*")
    assert explain([door, shipped_rules()], TOKEN, "funcion_premiere_1") == (
        [
            "signed in as ana, until 2024-01-15 10:30:00 UTC",
            'rule "whoever is signed in may look": allows join, read',
            'rule "buyers take seats": allows select, release',
            'rule "rooms named in the token": does not fit (rooms_claim: rooms)',
            'rule "premieres are by invitation": denies join, select, release, read',
            'rule "staff see the figures": does not fit (when: roles contains staff)',
            'join: refused (rule "premieres are by invitation" denies it)',
            'select: refused (rule "premieres are by invitation" denies it)',
            'release: refused (rule "premieres are by invitation" denies it)',
            'read: refused (rule "premieres are by invitation" denies it)',
            "stats: refused (no rule allows it)",
        ],
        True,
    )


def test_one_action_is_explained_alone() -> None:
    """Then a rule also says that it is not about that action."""
    door = Door(scope="openid premiere")
    lines, _ = explain([door, shipped_rules()], TOKEN, "funcion_premiere_1", "select")
    assert lines[1:] == [
        'rule "whoever is signed in may look": does not fit (actions)',
        'rule "buyers take seats": does not fit'
        " (when: roles any_of buyer, staff; there is no such claim)",
        'rule "rooms named in the token": does not fit (rooms_claim: rooms)',
        'rule "premieres are by invitation": does not fit (unless: scope contains premiere)',
        'rule "staff see the figures": does not fit (actions)',
        "select: refused (no rule allows it)",
    ]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ('claim = "a.b", equals = "x y"', "a.b equals x y"),
        ('claim = "a", equals = 1', "a equals 1"),
        ('claim = "a", equals = "1"', 'a equals "1"'),
        ('claim = "a", contains = true', "a contains true"),
        ('claim = "a", contains = "true"', 'a contains "true"'),
        (r'claim = "a\n", any_of = ["b\u001b", 2.5]', r"a\n any_of b\x1b, 2.5"),
    ],
    ids=["text", "number", "number in a text", "boolean", "boolean in a text", "escapes"],
)
def test_a_condition_is_told_in_plain_words(tmp_path: Path, condition: str, words: str) -> None:
    """Types can be told apart, and a terminal obeys nothing of it."""
    file = tmp_path / "rules.toml"
    file.write_text(f'[[rule]]\nname = "n"\nactions = ["join"]\nwhen = [{{ {condition} }}]')
    rules = RoomPermissions(RoomPermissions.Settings(file=str(file)))
    lines, _ = explain([Door(), rules], TOKEN, "r", "join")
    assert lines[1] == f'rule "n": does not fit (when: {words}; there is no such claim)'


@pytest.mark.parametrize("room_id", ["funcion_1", "funcion_premiere_1", "vip_1", "x"])
@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"roles": ["buyer"]},
        {"roles": "staff", "scope": "premiere"},
        {"rooms": ["vip_*", "funcion_premiere_1"], "scope": "x premiere"},
    ],
    ids=["somebody", "buyer", "invited staff", "rooms of its own"],
)
def test_the_outcome_is_what_the_server_would_decide(claims: dict[str, Any], room_id: str) -> None:
    """For each action, what `may` says to a client with those claims."""
    rules = shipped_rules()
    lines, _ = explain([Door(**claims), rules], TOKEN, room_id)
    identity = Identity("ana", claims)
    for action, line in zip(ACTIONS, lines[-5:], strict=True):
        verdict = rules.may(identity, action, None if action == "stats" else room_id, ())
        word = "allowed" if verdict.allowed else "refused"
        assert line == f"{action}: {word} ({verdict.reason})"


def test_nothing_of_the_token_is_printed_but_who_it_is() -> None:
    """Neither the token nor a claim: the lines may go into a ticket."""
    door = Door(roles=["canary"], scope="canary", rooms=["canary*"], canary="canary")
    lines, _ = explain([door, shipped_rules()], TOKEN, "funcion_1")
    refused, _ = explain([door, shipped_rules()], "canary.token", "funcion_1")
    assert TOKEN not in "".join(lines)
    assert "canary" not in "".join(lines + refused)


# Who it is


WAYS = ["message", "header", "subprotocol", "query", "cookie"]


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_tried_every_way_until_one_is_taken(way: str) -> None:
    """Which ways are open is the plugin's setting; white space around the token is the file's."""
    door = Door(way)
    lines, verified = explain([door], f"\n {TOKEN}\r\n", "r", "join")
    assert verified
    assert lines[0].startswith("signed in as ana")
    assert door.seen == WAYS[: WAYS.index(way) + 1]


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("bad", "tests.test_explain refuses it: its signature is wrong"),
        ("", "expected one token, without spaces; is it the right file?"),
        ("a b", "expected one token, without spaces; is it the right file?"),
        ("a\nb", "expected one token, without spaces; is it the right file?"),
        ("ä", "expected one token, without spaces; is it the right file?"),
    ],
    ids=["bad", "empty", "two words", "two lines", "not ASCII"],
)
def test_a_token_that_does_not_verify_is_told_why(token: str, says: str) -> None:
    """One line, and the second value says it."""
    assert explain([Door()], token, "r") == ([f"the token does not verify: {says}"], False)


def test_a_token_that_no_plugin_takes_does_not_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a plugin signs clients in, all abstaining is a refusal."""
    monkeypatch.setattr(Door, "authenticate", lambda self, request: None)
    lines, verified = explain([Door(), shipped_rules()], TOKEN, "r")
    assert lines == [
        "the token does not verify: no plugin takes it; is it meant for another server?"
    ]
    assert not verified


def test_without_sign_in_the_rules_are_asked_for_somebody() -> None:
    """There is no token to verify then; the lines say so."""
    lines, verified = explain([shipped_rules()], TOKEN, "funcion_1")
    assert verified
    assert lines[0] == "no plugin looks at tokens: asked for a client without claims"
    assert lines[-5].startswith("join: allowed")
    assert lines[-1] == "stats: refused (no rule allows it)"


def test_in_open_mode_everything_is_allowed() -> None:
    """No plugin: no rules, and no refusal."""
    lines, verified = explain([], "", "r")
    assert verified
    assert lines[1:] == [f"{action}: allowed (no plugin has anything to say)" for action in ACTIONS]


def test_keys_that_have_to_be_fetched_are_waited_for() -> None:
    """Plugins are started, asked again while they can't tell, and stopped, whatever that does."""
    door = Late(2)
    lines, verified = explain([door], TOKEN, "r", "join")
    assert verified
    assert lines[-1] == "join: allowed (no plugin has anything to say)"
    assert door.steps == ["start", "asked", "asked", "asked", "stop"]


def test_keys_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for ever, and says what for."""
    monkeypatch.setattr(explain_module, "KEYS_WAIT_S", 0)
    door = Late(1_000_000)
    says = "the token does not verify: tests.test_explain can't tell yet: no keys yet"
    assert explain([door], TOKEN, "r") == ([says], False)
    assert door.steps == ["start", "asked", "stop"]


@pytest.mark.parametrize("step", ["start", "authenticate"])
@pytest.mark.parametrize(
    ("error", "says"),
    [(ConfigError("a file is gone"), "a file is gone"), (ValueError("canary"), "ValueError at ")],
    ids=["our own", "any other"],
)
def test_a_plugin_that_fails_is_named_and_its_text_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, says: str
) -> None:
    """An error's text may have the token in it, unless it is one of ours."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Door, step, fail)
    (line,), verified = explain([Door()], TOKEN, "r")
    assert not verified
    assert line.startswith("the token does not verify: tests.test_explain ")
    assert f": {says}" in line
    assert "canary" not in line


# What the other plugins say


@pytest.mark.parametrize("kind", [Says, SaysLater], ids=["at once", "later"])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "read: allowed (it may)"),
        (Verdict(True), "read: allowed (it may)"),
        (Verdict(True, "why not"), "read: allowed (it may; why not)"),
        (Verdict(False), "read: refused"),
        (Verdict(False, "too late"), "read: refused (too late)"),
        (NotAllowed("no"), "read: refused (tests.test_explain failed: no)"),
        (True, "read: refused (tests.test_explain failed: may gave no Verdict)"),
    ],
    ids=["abstains", "allows", "allows, why", "refuses", "refuses, why", "raises", "wrong type"],
)
def test_one_refusal_refuses(kind: type[Says], answer: Any, says: str) -> None:
    """Every plugin is asked; what fails refuses, as in the server."""
    plugins = [Door(), Says(Verdict(True, "it may")), kind(answer)]
    lines, verified = explain(plugins, TOKEN, "r", "read")
    assert verified
    assert lines[-1] == says


def test_plugins_are_asked_of_the_room_and_stats_of_none() -> None:
    """With the identity that the token gave; a plugin's own rules have their lines."""
    door, other = Door(), SaysLater(None)
    lines, _ = explain([door, other], TOKEN, "r")
    assert lines[1] == "a rule of ana for None in r"
    places = [(door.identity, action, "r") for action in FOR_THE_ROOM]
    assert other.asked == [*places, (door.identity, "stats", None)]


def test_a_plugin_whose_explanation_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is told all the same."""
    monkeypatch.setattr(SaysLater, "explain", lambda *_: 1 / 0)
    lines, verified = explain([Door(), SaysLater(Verdict(True, "it may"))], TOKEN, "r", "join")
    assert verified
    assert lines[1].startswith("tests.test_explain failed: ZeroDivisionError at ")
    assert lines[2] == "join: allowed (it may)"
