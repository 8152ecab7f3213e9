"""plugins/jwt_auth.py: where a token may stand, what a good one gives, what a reload changes."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugins import jwt_auth as module
from plugins.jwt_auth import JwtAuth
from seatws.errors import ConfigError
from seatws.plugins import ConnectRequest, Identity, NotAllowed, Plugin
from tests.identity_provider import (
    AUDIENCE,
    CANARY,
    ISSUER,
    Json,
    by_message,
    claims,
    jwt_auth,
    jwt_settings,
    request,
    sign_in,
    signing_key,
)

HS = signing_key("HS256")
GOOD, OTHER = HS.token(), HS.token(jti="another")
NOW = 1_700_000_000
ALL_SOURCES = ["header", "subprotocol", "query", "cookie", "message"]

Make = Callable[..., JwtAuth]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes the plugin with a secret and what else is set; its clock stands at `NOW`."""

    def make_one(**settings: Any) -> JwtAuth:
        plugin = jwt_auth(HS.in_file(tmp_path), **settings)
        plugin.clock = lambda: NOW
        return plugin

    return make_one


def at(now: float, **changes: Any) -> str:
    """A token of that time, without `iat`."""
    return HS.token(**{"exp": now + 3600, "iat": ..., **changes})


def test_the_module_has_one_plugin() -> None:
    """`use = "plugins.jwt_auth"` names it without its class."""
    classes = [each for each in vars(module).values() if inspect.isclass(each)]
    ours = [each for each in classes if each.__module__ == module.__name__]
    assert [each for each in ours if issubclass(each, Plugin)] == [JwtAuth]


# ---------------------------------------------------------------- where a token may stand

PLACES: dict[str, Callable[[str], ConnectRequest]] = {
    "header": lambda token: request(("Authorization", f"Bearer {token}")),
    "subprotocol": lambda token: request(subprotocols=["seatws.v1", f"bearer.{token}"]),
    "query": lambda token: request(query={"token": [token]}),
    "cookie": lambda token: request(("Cookie", f"a=b; seat={token}"), cookies={"seat": token}),
    "message": by_message,
}


def only(*sources: str) -> Json:
    return {"sources": list(sources), **({"cookie": "seat"} if "cookie" in sources else {})}


@pytest.mark.parametrize("source", PLACES)
def test_a_token_is_found_where_it_may_stand_and_nowhere_else(make: Make, source: str) -> None:
    """A source that isn't listed isn't looked at: the plugin abstains, good token or bad."""
    asked = PLACES[source](at(NOW))
    identity = make(**only(source)).authenticate(asked)
    assert isinstance(identity, Identity)
    assert identity.client_id == "ana"
    elsewhere = make(**only(*(name for name in ALL_SOURCES if name != source)))
    assert elsewhere.authenticate(asked) is None
    assert elsewhere.authenticate(PLACES[source]("rubbish")) is None


NO_TOKEN = {
    "nothing": request(),
    "another scheme": request(("Authorization", "Basic YW5hOmFuYQ==")),
    "a scheme that begins alike": request(("Authorization", f"Bearers {GOOD}")),
    "no scheme": request(("Authorization", GOOD)),
    "Bearer and nothing": request(("Authorization", "Bearer")),
    "no bearer among the subprotocols": request(subprotocols=["seatws.v1", "bearer"]),
    "bearer. and nothing": request(subprotocols=["seatws.v1", "bearer."]),
    "an empty token in the query": request(query={"token": [""]}),
    "another name in the query": request(query={"Token": [GOOD], "access_token": [GOOD]}),
    "another cookie": request(("Cookie", f"seats={GOOD}"), cookies={"seats": GOOD}),
}


@pytest.mark.parametrize("asked", NO_TOKEN.values(), ids=NO_TOKEN)
def test_a_request_without_a_token_is_left_to_others(make: Make, asked: ConnectRequest) -> None:
    """None: another plugin may know the client, or it signs in by its first message."""
    assert make(**only(*ALL_SOURCES)).authenticate(asked) is None


WITH_TWO = {
    "header and query": request(("Authorization", f"Bearer {GOOD}"), query={"token": [OTHER]}),
    "header and subprotocol": request(
        ("Authorization", f"Bearer {GOOD}"), subprotocols=[f"bearer.{OTHER}"]
    ),
    "query and cookie": request(query={"token": [GOOD]}, cookies={"seat": OTHER}),
    "two headers": request(
        ("Authorization", f"Bearer {GOOD}"), ("Authorization", f"bearer {OTHER}")
    ),
    "twice in the query": request(query={"token": [GOOD, OTHER]}),
    "two subprotocols": request(subprotocols=[f"bearer.{OTHER}", f"bearer.{GOOD}"]),
    "two cookies": request(("Cookie", f"seat={OTHER}; seat={GOOD}"), cookies={"seat": GOOD}),
    "cookies in two headers": request(("Cookie", f"seat={OTHER}"), ("Cookie", f"seat={GOOD}")),
}


@pytest.mark.parametrize("asked", WITH_TWO.values(), ids=WITH_TWO)
def test_two_tokens_that_differ_are_refused(make: Make, asked: ConnectRequest) -> None:
    """Which of them is meant is for nobody to guess."""
    plugin = make(**only(*ALL_SOURCES))
    plugin.clock = time.time
    with pytest.raises(NotAllowed) as caught:
        plugin.authenticate(asked)
    assert caught.value.reason == "token: two that differ"


def test_the_same_token_in_two_places_is_one(make: Make) -> None:
    """A page that sends it by all means it has is understood."""
    token = at(NOW)
    asked = request(
        ("Authorization", f"bearer  {token}"),
        ("Cookie", f'seat="{token}"'),
        cookies={"seat": token},
        query={"token": [token, token]},
        subprotocols=["seatws.v1", f"bearer.{token}"],
    )
    assert make(**only(*ALL_SOURCES)).authenticate(asked) is not None


def test_a_second_token_where_none_is_looked_for_does_not_matter(make: Make) -> None:
    """`?token=` may belong to somebody else in front of us once it is switched off here."""
    asked = request(("Authorization", f"Bearer {at(NOW)}"), query={"token": [OTHER]})
    assert make(**only("header")).authenticate(asked) is not None


def test_an_auth_message_with_an_empty_token_is_refused(make: Make) -> None:
    """It says that it is a token, so it is a bad one."""
    with pytest.raises(NotAllowed):
        make().authenticate(by_message(""))


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({}, 10), ({"sign_in_seconds": 2.5}, 2.5), (only("header", "query"), 0)],
    ids=["default", "set", "no message"],
)
def test_a_connection_waits_for_a_message_only_if_one_may_sign_in(
    make: Make, settings: Json, seconds: float
) -> None:
    """`sign_in_seconds` is 0 without `message` among the sources."""
    assert make(**settings).sign_in_seconds == seconds


def test_a_cookie_needs_exact_origins(make: Make) -> None:
    """Any page can make a browser send it: the core asks `needs_exact_origins`."""
    assert make(**only("header", "cookie")).needs_exact_origins
    assert not make().needs_exact_origins


# ---------------------------------------------------------------- what a good token gives


def test_an_identity_has_what_the_token_says(make: Make) -> None:
    """Client id, all claims, `exp`, the leeway as grace, the warning; and shows little of it."""
    plugin = make(leeway_seconds=5, warn_seconds=7)
    identity = sign_in(plugin, at(NOW, scope="a b", sub="ana@x.es:1"))
    assert identity.client_id == "ana@x.es:1"
    assert identity.claims == claims(exp=NOW + 3600, iat=..., scope="a b", sub="ana@x.es:1")
    assert identity.expires_at == NOW + 3600
    assert (identity.grace_seconds, identity.warn_seconds) == (5, 7)
    assert CANARY not in repr(identity) + repr(plugin.settings) + repr(identity.basis)
    assert repr(identity.basis) == "_Basis()"


TIMES: dict[str, tuple[Json, bool]] = {
    "a moment before exp and leeway": ({"exp": NOW - 29.9}, True),
    "at exp and leeway": ({"exp": NOW - 30}, False),
    "nbf as far ahead as clocks may differ": ({"nbf": NOW + 30}, True),
    "nbf further ahead": ({"nbf": NOW + 30.5}, False),
    "iat as far ahead as clocks may differ": ({"iat": NOW + 30}, True),
    "iat further ahead": ({"iat": NOW + 31}, False),
    "times with fractions": ({"exp": NOW + 0.5, "nbf": NOW - 0.5, "iat": NOW - 0.5}, True),
    "made in 1970": ({"nbf": 0, "iat": 0}, True),
    "good to the end of year 9999": ({"exp": 253_402_300_799}, True),
    "a whole number as a float": ({"exp": 2e9}, True),
}


@pytest.mark.parametrize(("times", "is_good"), TIMES.values(), ids=TIMES)
def test_a_token_is_good_from_nbf_to_exp_give_or_take_the_leeway(
    make: Make, times: Json, is_good: bool
) -> None:
    """The ends belong to it where it begins, and not where it ends (RFC 7519, 4.1.4 and 4.1.5)."""
    plugin, token = make(), at(NOW, **times)
    if is_good:
        assert sign_in(plugin, token).expires_at == times.get("exp", NOW + 3600)
    else:
        with pytest.raises(NotAllowed):
            sign_in(plugin, token)


FOR_US: dict[str, tuple[Json, Json]] = {
    "audience among others": ({}, {"aud": ["other", AUDIENCE]}),
    "one of our audiences": ({"audience": ["a", "b"]}, {"aud": ["x", "b"]}),
    "one of our issuers": ({"issuer": ["https://a/", "https://b/"]}, {"iss": "https://b/"}),
    "issuer not checked": ({"issuer": "*"}, {"iss": ...}),
    "issuer not checked, another there": ({"issuer": ["*"]}, {"iss": "https://evil/"}),
    "audience not checked": ({"audience": "*"}, {"aud": ["other"]}),
    "another claim for the client id": ({"client_id_claim": "user.name"}, {"user.name": "ana"}),
    "client id without sub": ({"client_id_claim": "uid"}, {"uid": "ana", "sub": ...}),
    "sub that is no client id, not used": (
        {"client_id_claim": "uid"},
        {"uid": "ana", "sub": "a b"},
    ),
}


@pytest.mark.parametrize(("settings", "changes"), FOR_US.values(), ids=FOR_US)
def test_a_token_for_us_is_accepted(make: Make, settings: Json, changes: Json) -> None:
    """Issuer, audience and client id are what the configuration says they are."""
    assert sign_in(make(**settings), at(NOW, **changes)).client_id == "ana"


NOT_FOR_US: dict[str, tuple[Json, Json]] = {
    "issuer as pattern": ({"issuer": "https://*"}, {"iss": "https://a/"}),
    "issuer not checked, but no string": ({"issuer": "*"}, {"iss": 1}),
    "audience not checked, but no string": ({"audience": "*"}, {"aud": 1}),
    "claim for the client id missing": ({"client_id_claim": "uid"}, {}),
    "claim for the client id a list": ({"client_id_claim": "uid"}, {"uid": ["ana"]}),
    "claim for the client id nested": ({"client_id_claim": "user.name"}, {"user": {"name": "ana"}}),
}


@pytest.mark.parametrize(("settings", "changes"), NOT_FOR_US.values(), ids=NOT_FOR_US)
def test_a_token_for_others_is_refused(make: Make, settings: Json, changes: Json) -> None:
    """Names are compared as they stand, and claims have their types though they be not checked."""
    with pytest.raises(NotAllowed):
        sign_in(make(**settings), at(NOW, **changes))


@pytest.mark.parametrize(
    ("configured", "typ", "is_good"),
    [
        ("", "anything", True),
        ("", ..., True),
        ("at+jwt", "at+jwt", True),
        ("at+jwt", "application/AT+JWT", True),
        ("application/at+jwt", "at+jwt", True),
        ("at+jwt", "JWT", False),
        ("at+jwt", ..., False),
        ("at+jwt", "application/application/at+jwt", False),
    ],
)
def test_a_token_is_of_the_kind_that_is_configured(
    make: Make, configured: str, typ: Any, is_good: bool
) -> None:
    """RFC 8725, 3.11 and 3.12: an ID token, say, is not taken for an access token."""
    token = HS.token({"typ": typ}, exp=NOW + 60, iat=...)
    plugin = make(typ=configured)
    if is_good:
        assert sign_in(plugin, token).client_id == "ana"
    else:
        with pytest.raises(NotAllowed):
            sign_in(plugin, token)


# ---------------------------------------------------------------- reload

RS = signing_key("RS256")


@pytest.mark.gen_test(timeout=60)
async def test_a_reload_puts_new_settings_in_place_of_all_old_ones(tmp_path: Path) -> None:
    """Keys, sources and times are the new ones; what the old ones signed is refused."""
    plugin = jwt_auth(HS.in_file(tmp_path))
    await plugin.reload(jwt_settings(RS.in_file(tmp_path), sources=["query"], leeway_seconds=1))
    with pytest.raises(NotAllowed):
        plugin.authenticate(request(query={"token": [GOOD]}))
    identity = plugin.authenticate(request(query={"token": [RS.token()]}))
    assert isinstance(identity, Identity)
    assert identity.grace_seconds == 1
    assert plugin.sign_in_seconds == 0
    assert plugin.authenticate(by_message(RS.token())) is None


@pytest.mark.gen_test(timeout=60)
async def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A key that can't be read leaves the old settings in force, all of them."""
    plugin = jwt_auth(HS.in_file(tmp_path))
    before = plugin.settings
    missing = {"algorithms": ["HS256"], "secret_file": str(tmp_path / "gone")}
    with pytest.raises(ConfigError, match="gone: no such file"):
        await plugin.reload(jwt_settings(missing, sources=["query"]))
    assert plugin.settings is before
    assert sign_in(plugin, GOOD).client_id == "ana"
    assert plugin.sign_in_seconds == 10


def reloads(directory: Path) -> dict[str, tuple[list[Json], Json, bool]]:
    """Keys and settings of now, and whether who signed in with `RS` before still stands."""
    rs, hs, other = (key.in_file(directory) for key in (RS, HS, signing_key("RS256", 1)))
    jwks_file = directory / "jwks.json"
    jwks_file.write_text(json.dumps({"keys": [RS.jwk(kid="renamed")]}))
    return {
        "nothing changed": ([rs], {}, True),
        "a key more": ([other, rs], {}, True),
        "the key under another id": ([rs | {"id": "new"}], {}, True),
        "the key in a JWKS file": (
            [{"algorithms": ["RS256"], "jwks_file": str(jwks_file)}],
            {},
            True,
        ),
        "other settings": ([rs], {"sources": ["query"], "leeway_seconds": 0}, True),
        "the key gone": ([other], {}, False),
        "a secret instead": ([hs], {}, False),
        "the key for another algorithm": ([rs | {"algorithms": ["PS256"]}], {}, False),
        "an issuer more": ([rs], {"issuer": ["https://new/", ISSUER]}, True),
        "issuer no longer checked": ([rs], {"issuer": "*"}, True),
        "the issuer gone": ([rs], {"issuer": "https://new/"}, False),
        "an audience more": ([rs], {"audience": ["new", AUDIENCE]}, True),
        "the audience gone": ([rs], {"audience": "new"}, False),
    }


@pytest.mark.gen_test(timeout=60)
async def test_an_identity_stands_while_its_key_issuer_and_audience_are_configured(
    tmp_path: Path,
) -> None:
    """After a reload the core asks for each connection, and closes those that no longer stand."""
    found, expected = {}, {}
    for name, (keys, settings, stands) in reloads(tmp_path).items():
        plugin = jwt_auth(RS.in_file(tmp_path))
        identity = sign_in(plugin, RS.token())
        await plugin.reload(jwt_settings(*keys, **settings))
        found[name], expected[name] = plugin.still_stands(identity), stands
    assert found == expected


def test_an_identity_of_another_plugin_stands_as_far_as_this_one_knows(make: Make) -> None:
    """What somebody else vouched for isn't for us to take back."""
    assert make().still_stands(Identity("ana"))
