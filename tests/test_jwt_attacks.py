"""plugins/jwt_auth.py under attack: tokens that an issuer never made, each with its name.

The order is that of RFC 8725, the list of what to mind, where it has a section for it. 3.2 (which
algorithms) and 3.4 (what keys) are the configuration's: tests/test_jwt_keys.py. 3.11 and 3.12 (one
kind of token is not taken for another) are the setting `typ`: tests/test_jwt_auth.py.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import logging
import string
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from plugins.jwt_auth import JwtAuth
from seatws.plugins import NotAllowed
from tests.identity_provider import (
    AUDIENCE,
    CANARY,
    ISSUER,
    SECRET,
    base64url,
    by_message,
    claims,
    forge,
    jwt_auth,
    sign_in,
    signing_key,
)

HS, RS, ES = (signing_key(name) for name in ("HS256", "RS256", "ES256"))
EVIL = signing_key("RS256", 666)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256's group: as `r` or `s` it is as bad as zero."""
HEADER = {"alg": "HS256", "typ": "JWT"}
GOOD = HS.token()
HEAD, BODY, SIGNATURE = GOOD.split(".")


def signed(header: Any = HEADER, body: Any = None) -> str:
    """Signed with the right secret, whatever it says."""
    return forge(header, claims() if body is None else body, HS.sign)


def with_secret(key: bytes, header: Any = HEADER, digest: str = "sha256") -> str:
    return forge(header, claims(), lambda message: hmac.digest(key, message, digest))


def claims_text(extra: str) -> str:
    """Good claims, and more that a dict can't hold."""
    return f"{json.dumps(claims())[:-1]}, {extra}}}"


@pytest.fixture
def by_secret(tmp_path: Path) -> JwtAuth:
    """Checks with a secret for HS256."""
    return jwt_auth(HS.named("main").in_file(tmp_path))


@pytest.fixture
def by_public_keys(tmp_path: Path) -> JwtAuth:
    """Checks with public keys: RS256 and ES256."""
    return jwt_auth(RS.in_file(tmp_path), ES.in_file(tmp_path))


@pytest.fixture
def refused(caplog: pytest.LogCaptureFixture) -> Callable[[JwtAuth, str], str]:
    """Checks that a token is refused, and that nothing of it gets out; returns the reason."""
    caplog.set_level(logging.DEBUG)

    def check(plugin: JwtAuth, token: str) -> str:
        with pytest.raises(NotAllowed) as caught:
            plugin.authenticate(by_message(token))
        said = f"{caught.value.reason} {caught.value!r} {plugin.settings!r} {caplog.text}"
        assert CANARY not in said
        assert not any(part in said for part in token.split(".") if len(part) > 8)
        return caught.value.reason

    return check


JWE = {"alg": "dir", "enc": "A256GCM"}
SHAPE, JSON_, KEYS, TIME = "three parts", "not a JSON object", "none of the keys", "seconds before"
CANONICAL, ALG, READ = "canonical", "`alg`", "how the token is to be read"
CLIENT, ORIGIN = "client id", "`iss` or `aud` is not one"

FORGED: dict[str, tuple[str, str]] = {
    # RFC 8725, 3.1: the algorithm is the key's, whatever the header says.
    "alg none": (forge({"alg": "none"}, claims(), lambda _: b"x"), ALG),
    "alg none, without signature": (forge({"alg": "none"}, claims(), lambda _: b""), SHAPE),
    "alg nOnE": (forge({"alg": "nOnE"}, claims(), lambda _: b"x"), ALG),
    "alg hs256": (signed({"alg": "hs256"}), ALG),
    "no alg": (signed({"typ": "JWT"}), "no `alg`"),
    "alg a list": (signed({"alg": ["HS256"]}), "no `alg`"),
    "stronger hash, right secret": (signing_key("HS512").token(), ALG),
    "algorithm of another kind": (RS.token(), ALG),
    # RFC 8725, 3.3: every signature is checked.
    "signature stripped": (f"{HEAD}.{BODY}.", SHAPE),
    "signature cut off": (f"{HEAD}.{BODY}", SHAPE),
    "signature truncated": (GOOD[:-3], KEYS),
    "signature of another token": (f"{HEAD}.{BODY}.{HS.token(sub='bob').split('.')[2]}", KEYS),
    "claims of another token": (f"{HEAD}.{base64url(b'{}')}.{SIGNATURE}", KEYS),
    "hash without a key": (
        forge(HEADER, claims(), lambda message: hashlib.sha256(message).digest()),
        KEYS,
    ),
    # RFC 8725, 3.5: a key is not guessed.
    "empty secret": (with_secret(b""), KEYS),
    "another secret": (with_secret(b"x" * 64), KEYS),
    "secret and a newline": (with_secret(SECRET.encode() + b"\n"), KEYS),
    # RFC 8725, 3.6: nothing compressed, nothing encrypted.
    "compressed": (signed(HEADER | {"zip": "DEF"}), READ),
    "JWE": (".".join([base64url(json.dumps(JWE).encode()), "AA", "AA", BODY, "AA"]), SHAPE),
    "JWE header on three parts": (signed(HEADER | {"enc": "A256GCM"}), READ),
    "nested JWT": (signed(HEADER | {"cty": "JWT"}, GOOD), JSON_),
    # RFC 8725, 3.7, and RFC 7515, 2: UTF-8, base64url, one spelling.
    "claims not UTF-8": (signed(body=b'{"sub":"\xff"}'), JSON_),
    "claims with a BOM": (signed(body=b"\xef\xbb\xbf" + json.dumps(claims()).encode()), JSON_),
    "claims in UTF-16": (signed(body=json.dumps(claims()).encode("utf-16")), JSON_),
    "padded": (f"{GOOD}=", SHAPE),
    "space before": (f"{HEAD} .{BODY}.{SIGNATURE}", SHAPE),
    "newline after": (f"{GOOD}\n", SHAPE),
    "newline within": (f"{HEAD}.{BODY[:4]}\n{BODY[4:]}.{SIGNATURE}", SHAPE),
    "standard base64": (f"{HEAD}.{BODY}.{SIGNATURE[:-2]}+/", SHAPE),
    "last bits set": (f"{HEAD}.{BODY}.{SIGNATURE[:-1]}{chr(ord(SIGNATURE[-1]) + 1)}", CANONICAL),
    "a length that base64 has not": (f"{HEAD}.{BODY}.{'A' * 41}", CANONICAL),
    "not ASCII": (f"{HEAD}.{BODY}.é{SIGNATURE[1:]}", SHAPE),
    "lone surrogate": (f"{HEAD}.{BODY}.\ud800{SIGNATURE[1:]}", SHAPE),
    # Size and form.
    "no parts": (CANARY, SHAPE),
    "dots alone": ("..", SHAPE),
    "four parts": (f"{GOOD}.AA", SHAPE),
    "1 MiB": (HS.token(pad="A" * 1_048_576), "longer than 8192"),
    "a byte too long": (f"{HEAD}.{BODY}.{'A' * (8191 - len(HEAD) - len(BODY))}", "longer than"),
    "claims a list": (signed(body=[claims()]), JSON_),
    "claims a string": (signed(body='"ana"'), JSON_),
    "claims null": (signed(body="null"), JSON_),
    "header a list": (signed([HEADER]), JSON_),
    "two objects": (signed(body=json.dumps(claims()) * 2), JSON_),
    "a claim twice": (signed(body=claims_text('"sub": "bob"')), JSON_),
    "a claim twice, escaped": (signed(body=claims_text(r'"s\u0075b": "bob"')), JSON_),
    "a name twice within a claim": (signed(body=claims_text('"x": [{"y": 1, "y": 2}]')), JSON_),
    "a name twice in the header": (signed('{"alg": "none", "alg": "HS256"}'), JSON_),
    "exp twice": (signed(body=claims_text('"exp": 99999999999')), JSON_),
    "NaN somewhere": (signed(body=claims_text('"x": NaN')), JSON_),
    "Infinity in the header": (signed('{"alg": "HS256", "x": -Infinity}'), JSON_),
    "1e999 somewhere": (signed(body=claims_text('"x": 1e999')), JSON_),
    "5000 digits": (signed(body=claims_text(f'"x": {"9" * 5000}')), JSON_),
    # RFC 8725, 3.10: what the token says of its key is not believed.
    "kid that climbs": (with_secret(b"", HEADER | {"kid": "../../../../dev/null"}), KEYS),
    "kid that injects": (
        with_secret(b"x", HEADER | {"kid": "x' UNION SELECT 'x';--"}),
        KEYS,
    ),
    "kid of another key, right secret": (HS.token({"kid": "old"}), KEYS),
    "kid with a NUL": (HS.token({"kid": "main\0"}), KEYS),
    "kid a number": (HS.token({"kid": 1}), "`kid`"),
    "kid null": (HS.token({"kid": None}), "`kid`"),
    "jwk brought along": (with_secret(b"x", HEADER | {"jwk": {"kty": "oct", "k": "eA"}}), KEYS),
    # RFC 7515, 4.1.11: what must be understood is not.
    "crit unknown": (signed(HEADER | {"crit": ["x"], "x": 1}), READ),
    "crit known to RFC 7797": (signed(HEADER | {"crit": ["b64"], "b64": True}), READ),
    "crit empty": (signed(HEADER | {"crit": []}), READ),
    "crit null": (signed(HEADER | {"crit": None}), READ),
    "payload not encoded": (signed(HEADER | {"b64": False}), READ),
    # RFC 7519, 4.1.4 to 4.1.6: times are numbers.
    "exp missing": (HS.token(exp=...), "no `exp`"),
    "exp null": (HS.token(exp=None), TIME),
    "exp a string": (HS.token(exp=str(int(time.time()) + 60)), TIME),
    "exp true": (HS.token(exp=True), TIME),
    "exp a list": (HS.token(exp=[int(time.time()) + 60]), TIME),
    "exp 1e300": (HS.token(exp=1e300), TIME),
    "exp in year 10000": (HS.token(exp=253_402_300_800), TIME),
    "exp NaN": (HS.token(exp=float("nan")), JSON_),
    "exp infinite": (HS.token(exp=float("inf")), JSON_),
    "exp of 400 digits": (HS.token(exp=10**400), TIME),
    "exp negative": (HS.token(exp=-1), TIME),
    "nbf a string": (HS.token(nbf="0"), TIME),
    "nbf true": (HS.token(nbf=True), TIME),
    "iat a string": (HS.token(iat="0"), TIME),
    "expired": (HS.token(exp=int(time.time()) - 60), "expired"),
    "not valid yet": (HS.token(nbf=int(time.time()) + 600), "`nbf`"),
    "made in the future": (HS.token(iat=int(time.time()) + 600), "`iat`"),
    # RFC 8725, 3.8: issuer and subject.
    "no issuer": (HS.token(iss=...), ORIGIN),
    "another issuer": (HS.token(iss="https://evil.example.com/"), ORIGIN),
    "issuer without its slash": (HS.token(iss=ISSUER.rstrip("/")), ORIGIN),
    "issuer in a list": (HS.token(iss=[ISSUER]), "`iss` is not a string"),
    "issuer null": (HS.token(iss=None), "`iss` is not a string"),
    "no subject": (HS.token(sub=...), CLIENT),
    "subject empty": (HS.token(sub=""), CLIENT),
    "subject too long": (HS.token(sub="a" * 65), CLIENT),
    "subject with a newline": (HS.token(sub="ana\n"), CLIENT),
    "subject with a space": (HS.token(sub=f"ana {CANARY}"), CLIENT),
    "subject a number": (HS.token(sub=7), "`sub` is not a string"),
    "jti a number": (HS.token(jti=7), "`jti` is not a string"),
    # RFC 8725, 3.9: audience.
    "no audience": (HS.token(aud=...), ORIGIN),
    "another audience": (HS.token(aud="other"), ORIGIN),
    "audience in capitals": (HS.token(aud=AUDIENCE.upper()), ORIGIN),
    "audience as a part": (HS.token(aud=f"{AUDIENCE} other"), ORIGIN),
    "audience empty": (HS.token(aud=[]), ORIGIN),
    "audience null": (HS.token(aud=None), "`aud` is neither"),
    "audience with a number": (HS.token(aud=[AUDIENCE, 1]), "`aud` is neither"),
    "audience an object": (HS.token(aud={AUDIENCE: 1}), "`aud` is neither"),
    "typ a number": (signed({"alg": "HS256", "typ": 1}), "`typ`"),
}


@pytest.mark.parametrize(("token", "reason"), FORGED.values(), ids=FORGED)
def test_a_forged_token_is_refused(
    by_secret: JwtAuth,
    refused: Callable[[JwtAuth, str], str],
    token: str,
    reason: str,
) -> None:
    """Refused for what is wrong with it, and neither token nor claims stand in reason or log."""
    assert reason in refused(by_secret, token)


def ec_signature(r: int, s: int) -> Callable[[bytes], bytes]:
    return lambda _: r.to_bytes(32, "big") + s.to_bytes(32, "big")


def confused(key: bytes, algorithm: str = "HS256") -> str:
    return with_secret(key, HEADER | {"alg": algorithm}, f"sha{algorithm[2:]}")


FORGED_FOR_PUBLIC_KEYS: dict[str, tuple[str, str]] = {
    # RFC 8725, 2.1: the public key, which everybody has, used as a secret.
    "RS to HS, PEM": (confused(RS.pem), ALG),
    "RS to HS, PEM without its newline": (confused(RS.pem.rstrip()), ALG),
    "RS to HS512": (confused(RS.pem, "HS512"), ALG),
    "ES to HS": (confused(ES.pem), ALG),
    "PEM as secret, header says RS256": (with_secret(RS.pem, {"alg": "RS256"}), KEYS),
    "PS256 for an RS256 key": (signing_key("PS256").token(), ALG),
    "PSS signature, header says RS256": (signing_key("PS256").token({"alg": "RS256"}), KEYS),
    "stronger hash, right key": (signing_key("RS512").token(), ALG),
    "signed with SHA-512, header says RS256": (signing_key("RS512").token({"alg": "RS256"}), KEYS),
    "ES384, which nobody configured": (signing_key("ES384").token(), ALG),
    "P-384 signature, header says ES256": (signing_key("ES384").token({"alg": "ES256"}), KEYS),
    "Ed25519 signature, header says ES256": (signing_key("EdDSA").token({"alg": "ES256"}), KEYS),
    "RSA signature, header says ES256": (RS.token({"alg": "ES256"}), KEYS),
    "another RSA key": (signing_key("RS256", 1).token(), KEYS),
    "ES signature as DER": (
        forge({"alg": "ES256"}, claims(), lambda m: ES.private.sign(m, ECDSA(SHA256()))),
        KEYS,
    ),
    "ES signature of zeros": (forge({"alg": "ES256"}, claims(), ec_signature(0, 0)), KEYS),
    "ES signature of the order": (
        forge({"alg": "ES256"}, claims(), ec_signature(ORDER, ORDER)),
        KEYS,
    ),
    "RSA signature of zeros": (forge({"alg": "RS256"}, claims(), lambda _: bytes(256)), KEYS),
    "RSA signature of one": (
        forge({"alg": "RS256"}, claims(), lambda _: bytes(255) + b"\1"),
        KEYS,
    ),
    # RFC 8725, 3.10: the attacker's own key, with the way to it in the header.
    "jwk embedded": (EVIL.token({"jwk": EVIL.jwk()}), KEYS),
    "x5c embedded": (EVIL.token({"x5c": [base64.b64encode(EVIL.pem).decode()]}), KEYS),
    "jku": (EVIL.token({"jku": "http://127.0.0.1:1/jwks.json", "kid": "evil"}), KEYS),
    "x5u": (EVIL.token({"x5u": "file:///etc/passwd"}), KEYS),
    "kid a URL": (EVIL.token({"kid": "http://127.0.0.1:1/jwks.json"}), KEYS),
}


@pytest.mark.parametrize(
    ("token", "reason"), FORGED_FOR_PUBLIC_KEYS.values(), ids=FORGED_FOR_PUBLIC_KEYS
)
def test_a_token_forged_for_public_keys_is_refused(
    by_public_keys: JwtAuth, refused: Callable[[JwtAuth, str], str], token: str, reason: str
) -> None:
    """What is public vouches for nothing, whatever the header makes of it."""
    assert reason in refused(by_public_keys, token)


def test_the_good_tokens_that_the_forged_ones_differ_from_are_accepted(
    by_secret: JwtAuth, by_public_keys: JwtAuth
) -> None:
    """So that it is their difference that is refused."""
    not_looked_at = {"jku": "http://127.0.0.1:1/", "jwk": {}, "x5u": "", "x5c": []}
    for token in (GOOD, signed(), HS.token({"kid": "main"}), HS.token(not_looked_at)):
        assert sign_in(by_secret, token).client_id == "ana"
    for key in (RS, ES):
        assert sign_in(by_public_keys, key.token()).client_id == "ana"


def test_a_token_one_character_away_from_a_good_one_is_refused(by_secret: JwtAuth) -> None:
    """Each character counts, to the last bit of the last one."""
    alphabet = string.ascii_letters + string.digits + "-_.=+/ "
    accepted = []
    for place, there in enumerate(GOOD):
        for other in alphabet.replace(there, ""):
            token = GOOD[:place] + other + GOOD[place + 1 :]
            with contextlib.suppress(NotAllowed):
                accepted.append((token, by_secret.authenticate(by_message(token))))
    assert accepted == []


def test_no_beginning_of_a_token_is_accepted(by_secret: JwtAuth) -> None:
    """However it is cut, nothing of it signs anybody in."""
    for length in range(1, len(GOOD)):
        with pytest.raises(NotAllowed):
            by_secret.authenticate(by_message(GOOD[:length]))


@pytest.mark.parametrize("what", ["header", "claims"])
def test_deep_nesting_is_refused_like_anything_else(by_secret: JwtAuth, what: str) -> None:
    """Whether the parser gives up or gets through is Python's; that it is a refusal is ours."""
    deep = f'{{"alg": "HS256", "x": {"[" * 2900}{"]" * 2900}}}'
    header, body = (deep, "{}") if what == "header" else ('{"alg": "HS256"}', deep)
    with pytest.raises(NotAllowed):
        by_secret.authenticate(by_message(forge(header, body, lambda _: bytes(32))))


def test_a_huge_token_is_refused_before_anything_of_it_is_read(by_secret: JwtAuth) -> None:
    """64 MiB of it cost no more than 64 bytes."""
    tokens = {size: f"{HEAD}.{'A' * size}.{SIGNATURE}" for size in (64, 67_108_864)}
    peaks = {}
    for size, token in tokens.items():
        tracemalloc.start()
        with pytest.raises(NotAllowed):
            by_secret.authenticate(by_message(token))
        peaks[size] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[67_108_864] < 65_536
