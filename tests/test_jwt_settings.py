"""The table of plugins/jwt_auth.py in conf/plugins.toml: what is refused, and in what words."""

from __future__ import annotations

import pytest

from seatws.errors import ConfigError
from tests.identity_provider import CANARY, ISSUER, SECRET, Json, jwt_settings

ENV = "SEATWS_JWT_SECRET"
BY_ENV = {"algorithms": ["HS256"], "secret_env": ENV}
PEM = {"algorithms": ["RS256"], "public_key_file": "key.pem"}
URL = {"algorithms": ["RS256"], "jwks_url": "https://id.example.com/jwks.json"}


REFUSED: dict[str, tuple[list[Json], Json, str]] = {
    "no keys": ([], {}, "plugin 1: keys: expected one [[plugin.keys]] table or more"),
    "no kind of key": ([{"algorithms": ["HS256"]}], {}, "exactly one of secret_env, secret_file"),
    "two kinds": ([BY_ENV | {"jwks_url": URL["jwks_url"]}], {}, "got secret_env and jwks_url"),
    "no algorithms": ([{"secret_env": ENV}], {}, "keys 1: algorithms: missing"),
    "algorithms empty": ([BY_ENV | {"algorithms": []}], {}, "keys 1: algorithms: expected a list"),
    "algorithm none": ([BY_ENV | {"algorithms": ["none"]}], {}, "expected a list of some of HS256"),
    "algorithm in lower case": ([BY_ENV | {"algorithms": ["hs256"]}], {}, "expected a list"),
    "algorithm twice": ([URL | {"algorithms": ["RS256", "RS256"]}], {}, "none twice"),
    "algorithms not a list": ([BY_ENV | {"algorithms": "HS256"}], {}, "expected a list"),
    "ES256K": ([PEM | {"algorithms": ["ES256K"]}], {}, "expected a list of some of HS256"),
    "two for a secret": ([BY_ENV | {"algorithms": ["HS256", "HS512"]}], {}, "exactly one for"),
    "two for a PEM": ([PEM | {"algorithms": ["RS256", "PS256"]}], {}, "exactly one for"),
    "RS256 for a secret": ([BY_ENV | {"algorithms": ["RS256"]}], {}, "HS512 for secret_env, got"),
    "HS256 for a PEM": ([PEM | {"algorithms": ["HS256"]}], {}, "for public_key_file, got HS256"),
    "HS256 for a JWKS": ([URL | {"algorithms": ["RS256", "HS256"]}], {}, "for jwks_url, got"),
    "secret beside public key": ([BY_ENV, PEM], {}, "only secrets or only public keys, got both"),
    "id with a JWKS": ([URL | {"id": "a"}], {}, "keys 1: id: expected none with jwks_url"),
    "refresh without URL": ([PEM | {"refresh_seconds": 5}], {}, "it is for jwks_url alone"),
    "timeout 0": ([URL | {"timeout_seconds": 0}], {}, "timeout_seconds: expected a number from 1"),
    "stale for ever": ([URL | {"stale_seconds": float("inf")}], {}, "stale_seconds: expected"),
    "http": ([URL | {"jwks_url": "http://id.example.com/"}], {}, "http:// only to 127.0.0.1"),
    "http to what begins like loopback": (
        [URL | {"jwks_url": "http://127.0.0.1.example.com/"}],
        {},
        "expected an https:// URL",
    ),
    "http to loopback as user": (
        [URL | {"jwks_url": f"http://localhost:{CANARY}@example.com/"}],
        {},
        "expected an https:// URL",
    ),
    "file": ([URL | {"jwks_url": "file:///etc/passwd"}], {}, "expected an https:// URL"),
    "password in the URL": ([URL | {"jwks_url": f"https://a:{CANARY}@b/"}], {}, "without user"),
    "port that is none": ([URL | {"jwks_url": "https://a:b/"}], {}, "expected an https:// URL"),
    "newline in the URL": ([URL | {"jwks_url": "https://a/\r\nX: y"}], {}, "expected an https"),
    "secret in place of its variable": ([BY_ENV | {"secret_env": SECRET}], {}, "not in this file"),
    "secret in the file": ([BY_ENV | {"secret": SECRET}], {}, "secret: no such setting; did you"),
    "unknown setting": ([BY_ENV], {"isuer": "x"}, "isuer: no such setting; did you mean issuer?"),
    "issuer empty": ([BY_ENV], {"issuer": ""}, "issuer: expected the issuer's name"),
    "issuer list empty": ([BY_ENV], {"issuer": []}, "issuer: expected"),
    "issuer any or one": ([BY_ENV], {"issuer": ["*", ISSUER]}, "issuer: expected"),
    "audience a number": ([BY_ENV], {"audience": 7}, "audience: expected"),
    "sources empty": ([BY_ENV], {"sources": []}, "sources: expected a list of some of header"),
    "source unknown": ([BY_ENV], {"sources": ["url"]}, "sources: expected"),
    "source twice": ([BY_ENV], {"sources": ["query", "query"]}, "none twice"),
    "cookie without name": ([BY_ENV], {"sources": ["cookie"]}, 'cookie\'s name with "cookie" in'),
    "cookie not a source": ([BY_ENV], {"cookie": "a"}, 'cookie\'s name with "cookie" in'),
    "cookie with a space": ([BY_ENV], {"cookie": "a b"}, "cookie: expected a cookie's name"),
    "sign in without message": (
        [BY_ENV],
        {"sources": ["query"], "sign_in_seconds": 5},
        'sign_in_seconds: expected none without "message" in sources, got 5',
    ),
    "sign in at once": ([BY_ENV], {"sign_in_seconds": 0}, "a number from 1 to 60"),
    "leeway too large": ([BY_ENV], {"leeway_seconds": 61}, "a number from 0 to 60"),
    "warning too early": ([BY_ENV], {"warn_seconds": 3601}, "a number from 0 to 3600"),
    "claim without name": ([BY_ENV], {"client_id_claim": ""}, "client_id_claim: expected"),
}


@pytest.mark.parametrize(("keys", "settings", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_setting_is_named_with_what_to_write(
    keys: list[Json], settings: Json, problem: str
) -> None:
    """Where, what was expected, what to do; and never a secret that stands in the wrong place."""
    with pytest.raises(ConfigError) as caught:
        jwt_settings(*keys, **settings)
    text = "\n".join(caught.value.problems)
    assert problem in text
    assert text.startswith("conf/plugins.toml: plugin 1: ")
    assert CANARY not in text


@pytest.mark.parametrize("name", ["issuer", "audience"])
def test_leaving_a_check_out_must_be_said(name: str) -> None:
    """Issuer and audience have no default: `*` says that they aren't checked."""
    with pytest.raises(ConfigError, match=f"{name}: missing; it has no default"):
        jwt_settings(BY_ENV, **{name: ...})


GOOD_URLS = [
    "https://id.example.com/.well-known/jwks.json?tenant=a",
    "https://id.example.com:8443/",
    *(f"http://{host}:8080/jwks" for host in ("127.0.0.1", "[::1]", "localhost")),
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_jwks_url_is_https_or_this_machine(url: str) -> None:
    """Whoever can change what is fetched can sign in as anybody."""
    assert jwt_settings(URL | {"jwks_url": url}).keys[0].jwks_url == url
