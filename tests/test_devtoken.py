"""`run.py token`: what ends up in it, and who can sign it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seatws.devtoken import add_arguments, claims_of, make_token
from seatws.errors import ConfigError
from seatws.explain import explain
from seatws.loader import load_plugins
from seatws.plugins import Plugin


class Settings(msgspec.Struct):
    issuer: Any = "https://id.example.com/"
    audience: Any = ("seatws", "other")
    client_id_claim: str = "sub"


class Signer(Plugin):
    """Signs by writing down."""

    def sign(self, claims: dict[str, Any]) -> str:
        return json.dumps(claims)


class PublicKeysOnly(Plugin):
    def sign(self, claims: dict[str, Any]) -> str:
        raise ConfigError("no secret to sign with")


class NoSigner(Plugin):
    pass


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--sub", "ana", *given])


def claims_in(settings: Any, *given: str) -> dict[str, Any]:
    """What the token has that these arguments ask for."""
    asked = arguments(*given)
    token = make_token([NoSigner(None), Signer(settings)], claims_of(asked), asked.minutes)
    claims: dict[str, Any] = json.loads(token)
    return claims


def test_a_token_has_what_the_settings_and_the_arguments_ask_for() -> None:
    """Issuer and audience are the first that the server takes."""
    before = int(time.time())
    claims = claims_in(Settings(), "--room", "funcion_*", "--room", "vip_1", "--minutes", "1.5")
    assert before <= claims.pop("iat") <= time.time()
    assert before + 90 <= claims.pop("exp") <= time.time() + 90
    assert claims == {
        "iss": "https://id.example.com/",
        "aud": "seatws",
        "sub": "ana",
        "rooms": ["funcion_*", "vip_1"],
    }


def test_it_is_good_for_an_hour_and_names_no_rooms_where_nothing_is_said() -> None:
    """A token without rooms has no such claim, not an empty one."""
    claims = claims_in(Settings())
    assert claims["exp"] - claims["iat"] == 3600
    assert "rooms" not in claims


@pytest.mark.parametrize(
    "settings",
    [Settings("*", ("*",)), Settings(None, ()), None],
    ids=["any", "none", "no settings"],
)
def test_what_is_not_checked_is_not_filled_in(settings: Any) -> None:
    """Neither for `*` nor for a plugin that has no such settings."""
    assert set(claims_in(settings)) == {"iat", "exp", "sub"}


def test_the_client_id_stands_where_the_plugin_looks_for_it() -> None:
    """With `client_id_claim`, there and in `sub`."""
    claims = claims_in(Settings(client_id_claim="user"))
    assert claims["sub"] == claims["user"] == "ana"


@pytest.mark.parametrize(
    ("value", "claim"),
    [
        ("staff", "staff"),
        ('"staff"', "staff"),
        ('["staff", 1]', ["staff", 1]),
        ("7", 7),
        ("true", True),
        ("null", None),
        ("a=b", "a=b"),
        ("", ""),
        ("NaN", "NaN"),
        ("[1", "[1"),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=[
        *("text", "JSON text", "list", "number", "boolean", "null", "equals sign", "empty"),
        *("no JSON number", "broken JSON", "too deep"),
    ],
)
def test_a_claims_value_is_json_or_else_text(value: str, claim: Any) -> None:
    """So that `roles=["staff"]` and `role=staff` both do what they say."""
    assert claims_in(Settings(), "--claim", f"x.y={value}")["x.y"] == claim


def test_a_given_claim_wins_over_what_would_be_filled_in() -> None:
    """To try out what the server refuses."""
    claims = claims_in(
        Settings(), "--claim", "iss=other", "--claim", "exp=1", "--claim", 'aud=["x"]'
    )
    assert (claims["iss"], claims["exp"], claims["aud"]) == ("other", 1, ["x"])


@pytest.mark.parametrize(
    "given",
    [
        ["--claim", "sub=bob"],
        ["--room", "a", "--claim", "rooms=b"],
        ["--claim", "a=1", "--claim", "a=1"],
    ],
    ids=["sub", "rooms", "twice"],
)
def test_a_claim_given_twice_is_refused(given: list[str]) -> None:
    """None of them is left out in silence."""
    with pytest.raises(ConfigError, match="it has a value already; give it once"):
        claims_of(arguments(*given))


@pytest.mark.parametrize(
    "given",
    [
        ["--sub", "a b"],
        ["--sub", "a" * 65],
        ["--sub", "a\n"],
        ["--minutes", "0"],
        ["--minutes", "-1"],
        ["--minutes", "nan"],
        ["--minutes", "inf"],
        ["--minutes", "1h"],
        ["--claim", "roles"],
        ["--claim", "=x"],
    ],
    ids=" ".join,
)
def test_an_argument_that_makes_no_sense_is_refused(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With its name, on stderr: stdout is for the token alone."""
    with pytest.raises(SystemExit) as caught:
        arguments(*given)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"argument {given[0]}: expected " in printed.err


def test_without_a_plugin_that_signs_there_is_no_token() -> None:
    """The error says what to enable."""
    with pytest.raises(ConfigError, match="enable plugins"):
        make_token([NoSigner(None)], {"sub": "ana"}, 1)


def test_public_keys_alone_sign_nothing() -> None:
    """The first plugin that signs has the last word."""
    with pytest.raises(ConfigError, match="no secret to sign with"):
        make_token([PublicKeysOnly(None), Signer(None)], {"sub": "ana"}, 1)


def test_the_server_takes_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made with the configured secret, it signs in, and the rules see its claims."""
    monkeypatch.setenv("SEATWS_JWT_SECRET", "s" * 32)
    (tmp_path / "plugins.toml").write_text(
        '[[plugin]]\nuse = "plugins.jwt_auth"\nissuer = ["a", "b"]\naudience = "seatws"\n'
        'client_id_claim = "user"\nsources = ["query"]\n'
        '[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_env = "SEATWS_JWT_SECRET"\n'
        '[[plugin]]\nuse = "plugins.room_permissions"\nfile = "rules.toml"'
    )
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\nname = "all of it"\nactions = ["select"]\nrooms_claim = "rooms"\n'
        'when = [{ claim = "realm.roles", contains = "staff" }]'
    )
    plugins = [loaded.plugin for loaded in load_plugins(tmp_path)]
    asked = arguments("--room", "vip_*", "--claim", 'realm={"roles": ["staff"]}')
    token = make_token(plugins, claims_of(asked), asked.minutes)
    lines, verified = explain(plugins, f"{token}\n", "vip_1", "select")
    assert verified
    assert lines[0].startswith("signed in as ana, until 2")
    assert lines[1:] == [
        'rule "all of it": allows select',
        'select: allowed (rule "all of it" allows it)',
    ]
