"""The keys of plugins/jwt_auth.py: which are taken, which not, and how several go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from plugins.jwt_keys import parse_jwks, read_keys
from plugins.jwt_settings import ALGORITHMS, PUBLIC_ALGORITHMS
from plugins.jwt_tokens import read
from seatws.errors import ConfigError
from seatws.plugins import NotAllowed
from tests.identity_provider import (
    CANARY,
    SECRET,
    SigningKey,
    jwt_auth,
    jwt_settings,
    sign_in,
    signing_key,
)

ENV = "SEATWS_JWT_SECRET"


# ---------------------------------------------------------------- keys that are taken

EVERY_KEY = [signing_key(name) for name in ALGORITHMS] + [signing_key("EdDSA", 448)]


@pytest.mark.parametrize("key", EVERY_KEY, ids=[*ALGORITHMS, "EdDSA with Ed448"])
def test_each_algorithm_signs_in_with_its_key_in_a_file(tmp_path: Path, key: SigningKey) -> None:
    """A secret or a PEM file, and the one algorithm that is named with it."""
    plugin = jwt_auth(key.in_file(tmp_path))
    assert sign_in(plugin, key.token()).client_id == "ana"
    with pytest.raises(NotAllowed):
        sign_in(plugin, signing_key("EdDSA", 1).token())


@pytest.mark.parametrize("name", PUBLIC_ALGORITHMS)
def test_each_public_algorithm_signs_in_with_its_key_in_a_set(tmp_path: Path, name: str) -> None:
    """A JWK Set with keys of all kinds; each is for its own `alg` alone."""
    file = tmp_path / "jwks.json"
    jwks = [signing_key(other).jwk(kid=other) for other in PUBLIC_ALGORITHMS]
    file.write_text(json.dumps({"keys": jwks}))
    everything = jwt_auth({"algorithms": list(PUBLIC_ALGORITHMS), "jwks_file": str(file)})
    assert sign_in(everything, signing_key(name).named(name).token()).client_id == "ana"
    others = [other for other in PUBLIC_ALGORITHMS if other != name]
    without = jwt_auth({"algorithms": others, "jwks_file": str(file)})
    with pytest.raises(NotAllowed):
        sign_in(without, signing_key(name).named(name).token())


@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["as it is", "LF", "CR LF"])
def test_a_secret_is_its_text_without_a_final_newline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """As editors and `openssl rand` write files; the same from the environment."""
    file = tmp_path / "secret"
    file.write_bytes((SECRET + end).encode())
    monkeypatch.setenv(ENV, SECRET + end)
    for row in (
        {"algorithms": ["HS256"], "secret_env": ENV},
        {"algorithms": ["HS256"], "secret_file": str(file)},
    ):
        assert sign_in(jwt_auth(row), signing_key("HS256").token()).client_id == "ana"


@pytest.mark.parametrize("end", [" ", "\n\n", "\r"], ids=["space", "two newlines", "CR"])
def test_nothing_else_is_taken_off_a_secret(tmp_path: Path, end: str) -> None:
    """Two servers that strip differently would refuse each other's tokens."""
    file = tmp_path / "secret"
    file.write_bytes((SECRET + end).encode())
    plugin = jwt_auth({"algorithms": ["HS256"], "secret_file": str(file)})
    exact = (SECRET + end).removesuffix("\n").encode()
    assert sign_in(plugin, SigningKey("HS256", exact).token()).client_id == "ana"
    with pytest.raises(NotAllowed):
        sign_in(plugin, signing_key("HS256").token())


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_its_hash(
    tmp_path: Path, algorithm: str, least: int
) -> None:
    """RFC 7518, 3.2; and RFC 8725, 3.5: a password is no key."""
    file = tmp_path / "secret"
    row = {"algorithms": [algorithm], "secret_file": str(file)}
    file.write_text("k" * least + "\n")
    assert sign_in(jwt_auth(row), SigningKey(algorithm, b"k" * least).token()).client_id == "ana"
    file.write_text("k" * (least - 1) + "\n")
    with pytest.raises(ConfigError, match=f"at least {least} bytes for {algorithm}, got"):
        jwt_auth(row)


def test_a_key_is_bound_to_its_algorithm_by_itself(tmp_path: Path) -> None:
    """RFC 8725, 3.1, also where nobody has sorted the keys before: the header can't choose."""
    (key,) = read_keys(jwt_settings(signing_key("HS256").in_file(tmp_path)).keys, {})
    assert key.fits(read(signing_key("HS256").token()))
    assert not key.fits(read(signing_key("HS256").token({"alg": "HS512"})))


# ---------------------------------------------------------------- rotation

OLD, NEW, NAMELESS = (signing_key("RS256", number) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("key", "kid", "is_good"),
    [
        (OLD, "old", True),
        (NEW, "new", True),
        (OLD, ..., True),
        (NEW, ..., True),
        (NAMELESS, ..., True),
        (NAMELESS, "old", True),
        (NAMELESS, "anything", True),
        (OLD, "new", False),
        (NEW, "anything", False),
        (signing_key("RS256", 4), "old", False),
        (signing_key("RS256", 4), ..., False),
    ],
)
def test_several_keys_are_configured_at_once(
    tmp_path: Path, key: SigningKey, kid: Any, is_good: bool
) -> None:
    """A `kid` picks the keys of that id and those without; one without is tried on all."""
    keys = [OLD.named("old"), NEW.named("new"), NAMELESS]
    plugin = jwt_auth(*(each.in_file(tmp_path) for each in keys))
    if is_good:
        assert sign_in(plugin, key.token({"kid": kid})).client_id == "ana"
    else:
        with pytest.raises(NotAllowed):
            sign_in(plugin, key.token({"kid": kid}))


# ---------------------------------------------------------------- keys that are not taken


def public_pem(private: Any) -> bytes:
    return bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


RS, ES = signing_key("RS256"), signing_key("ES256")
OKP_PEM = signing_key("EdDSA").pem
WEAK = rsa.generate_private_key(65537, 1024)
SSH2 = b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n"
BAD_FILES: dict[str, tuple[str, str, bytes, str]] = {
    "secret empty": ("secret_file", "HS256", b"\n", "at least 32 bytes for HS256, got 0"),
    "secret a PEM": ("secret_file", "HS256", RS.pem, "expected a secret, got PEM"),
    "secret a private PEM": ("secret_file", "HS256", RS.private_pem, "expected a secret, got PEM"),
    "secret an SSH key": ("secret_file", "HS256", b"ssh-rsa " + b"A" * 64, "got PEM or an SSH key"),
    "secret a JWK": ("secret_file", "HS256", json.dumps(RS.jwk()).encode(), "got a JWK"),
    "secret an oct JWK": (
        "secret_file",
        "HS256",
        b'{"kty":"oct","k":"' + b"A" * 64 + b'"}',
        "a JWK",
    ),
    "secret a JWK Set": ("secret_file", "HS256", b'{"keys":[' + b" " * 64 + b"]}", "got a JWK"),
    "secret an SSH2 key": ("secret_file", "HS256", SSH2, "got what looks like another key"),
    "secret too long": ("secret_file", "HS256", b"k" * 262_145, "longer than 262144 bytes"),
    "private PEM": ("public_key_file", "RS256", RS.private_pem, "openssl pkey -pubout"),
    "certificate": ("public_key_file", "RS256", b"-----BEGIN CERTIFICATE-----\n", "openssl x509"),
    "not PEM": ("public_key_file", "RS256", CANARY.encode(), "not a public key as PEM"),
    "PEM cut off": ("public_key_file", "RS256", RS.pem[:200], "not a public key as PEM"),
    "weak RSA": ("public_key_file", "RS256", public_pem(WEAK), "of 2048 to 16384 bits, got 1024"),
    "EC for RS256": ("public_key_file", "RS256", ES.pem, "expected an RSA key for RS256"),
    "EC for PS512": ("public_key_file", "PS512", ES.pem, "expected an RSA key for PS512"),
    "RSA for ES256": ("public_key_file", "ES256", RS.pem, "on the curve secp256r1 for ES256"),
    "P-384 for ES256": ("public_key_file", "ES256", signing_key("ES384").pem, "got secp384r1"),
    "P-256 for ES512": ("public_key_file", "ES512", ES.pem, "secp521r1 for ES512, got secp256r1"),
    "secp256k1 for ES256": (
        "public_key_file",
        "ES256",
        public_pem(ec.generate_private_key(ec.SECP256K1())),
        "got secp256k1",
    ),
    "Ed25519 for ES256": ("public_key_file", "ES256", OKP_PEM, "on the curve secp256r1"),
    "RSA for EdDSA": ("public_key_file", "EdDSA", RS.pem, "expected an Ed25519 or Ed448 key"),
    "X25519 for EdDSA": (
        "public_key_file",
        "EdDSA",
        public_pem(x25519.X25519PrivateKey.generate()),
        "expected an Ed25519 or Ed448 key",
    ),
    "JWKS not JSON": ("jwks_file", "RS256", CANARY.encode(), "not a JWK Set"),
    "JWKS not UTF-8": ("jwks_file", "RS256", b"\xff" * 64, "not a JWK Set"),
    "JWKS a single JWK": ("jwks_file", "RS256", json.dumps(RS.jwk()).encode(), "not a JWK Set"),
    "JWKS empty": ("jwks_file", "RS256", b'{"keys": []}', "can be used: it is empty"),
    "JWKS with a name twice": ("jwks_file", "RS256", b'{"keys": [], "keys": []}', "not a JWK Set"),
    "JWKS too long": ("jwks_file", "RS256", b" " * 262_145, "longer than 262144 bytes"),
    "JWKS of 101 keys": (
        "jwks_file",
        "RS256",
        json.dumps({"keys": [RS.jwk()] * 101}).encode(),
        "more than 100 keys",
    ),
}


@pytest.mark.parametrize(
    ("kind", "algorithm", "content", "problem"), BAD_FILES.values(), ids=BAD_FILES
)
def test_a_key_file_that_does_not_do_is_named_with_what_to_do(
    tmp_path: Path, kind: str, algorithm: str, content: bytes, problem: str
) -> None:
    """RFC 8725, 3.2 and 3.4: which key, which file, what is wrong; nothing of what is in it."""
    file = tmp_path / "the.key"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        jwt_auth({"algorithms": [algorithm], kind: str(file)})
    (text,) = caught.value.problems
    assert text.startswith(f"keys 1: {kind}: {file}: ")
    assert problem in text
    assert CANARY not in text


@pytest.mark.parametrize("kind", ["secret_file", "jwks_file"])
def test_a_file_without_end_is_not_read_to_its_end(kind: str) -> None:
    """A path that is a device, by mistake, does not hang the start."""
    algorithm = "HS256" if kind == "secret_file" else "RS256"
    with pytest.raises(ConfigError, match="/dev/zero: longer than 262144 bytes"):
        jwt_auth({"algorithms": [algorithm], kind: "/dev/zero"})


def test_a_set_that_is_too_long_is_not_parsed() -> None:
    """Wherever it came from."""
    with pytest.raises(ValueError, match="longer than 262144 bytes"):
        parse_jwks(json.dumps({"keys": [RS.jwk()]}).encode() + b" " * 262_144, ["RS256"])


BAD_JWKS: dict[str, tuple[str, object, str]] = {
    "not an object": ("RS256", "key", "is not an object"),
    "secret": ("RS256", {"kty": "oct", "k": CANARY, "alg": "HS256"}, "is a secret"),
    "private": ("RS256", RS.jwk(d=CANARY), "is a private one"),
    "for encryption": ("RS256", RS.jwk(use="enc"), "is not for signatures"),
    "for wrapping": ("RS256", RS.jwk(use=..., key_ops=["wrapKey"]), "is not for signatures"),
    "key_ops no list": ("RS256", RS.jwk(key_ops="verify"), "is not for signatures"),
    "kid a number": ("RS256", RS.jwk(kid=1), "`kid` that is not a string"),
    "another algorithm": ("RS256", RS.jwk(alg="RS512"), "none of the algorithms"),
    "alg of another type": ("ES256", RS.jwk(alg="ES256"), "none of the algorithms"),
    "alg null": ("RS256", RS.jwk(alg=None), "none of the algorithms"),
    "another curve": ("ES256", ES.jwk(crv="P-384"), "none of the algorithms"),
    "curve of another length": ("ES384", ES.jwk(crv="P-384", alg="ES384"), "is damaged"),
    "not on its curve": ("ES256", ES.jwk(y=ES.jwk()["x"]), "is damaged"),
    "RSA without n": ("RS256", RS.jwk(n=...), "is damaged"),
    "RSA n a number": ("RS256", RS.jwk(n=5), "is damaged"),
    "RSA e even": ("RS256", RS.jwk(e="Ag"), "is damaged"),
    "weak RSA": ("RS256", SigningKey("RS256", WEAK).jwk(), "got 1024"),
    "Ed25519 too short": ("EdDSA", signing_key("EdDSA").jwk(x="AA"), "is damaged"),
    "X25519": ("EdDSA", signing_key("EdDSA").jwk(crv="X25519"), "none of the algorithms"),
}


@pytest.mark.parametrize(("algorithm", "bad", "reason"), BAD_JWKS.values(), ids=BAD_JWKS)
def test_a_key_of_a_set_that_does_not_do_is_not_used(
    tmp_path: Path, algorithm: str, bad: object, reason: str
) -> None:
    """Alone it stops the start, and the error says why; beside a good one it is left aside."""
    file = tmp_path / "jwks.json"
    row = {"algorithms": [algorithm], "jwks_file": str(file)}
    file.write_text(json.dumps({"keys": [bad]}))
    with pytest.raises(ConfigError) as caught:
        jwt_auth(row)
    assert reason in str(caught.value)
    assert CANARY not in str(caught.value)
    good = signing_key(algorithm, 5).named("good")
    file.write_text(json.dumps({"keys": [bad, good.jwk()]}))
    assert sign_in(jwt_auth(row), good.token()).client_id == "ana"


def test_a_key_without_alg_is_for_the_one_algorithm_that_fits_it(tmp_path: Path) -> None:
    """Some issuers publish no `alg`. Where two would fit, a key would be bound to neither."""
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [RS.jwk(alg=...), ES.jwk(alg=...)]}))
    plugin = jwt_auth({"algorithms": ["RS256", "ES256", "ES384"], "jwks_file": str(file)})
    for key in (RS, ES):
        assert sign_in(plugin, key.token()).client_id == "ana"
    file.write_text(json.dumps({"keys": [RS.jwk(alg=...)]}))
    with pytest.raises(ConfigError, match="key 1 has no `alg`, and RS256 and PS256 would fit it"):
        jwt_auth({"algorithms": ["RS256", "PS256"], "jwks_file": str(file)})


def test_all_keys_that_do_not_do_are_named_at_once(tmp_path: Path) -> None:
    """One start is enough to learn of them all."""
    with pytest.raises(ConfigError) as caught:
        jwt_auth(
            {"algorithms": ["HS256"], "secret_env": "SEATWS_NOT_SET_ANYWHERE"},
            {"algorithms": ["HS256"], "secret_file": str(tmp_path / "gone")},
            {"algorithms": ["HS256"], "secret_file": str(tmp_path)},
        )
    assert [text.partition(";")[0] for text in caught.value.problems] == [
        "keys 1: secret_env: the environment has no SEATWS_NOT_SET_ANYWHERE",
        f"keys 2: secret_file: {tmp_path / 'gone'}: no such file",
        f"keys 3: secret_file: {tmp_path}: cannot be read (Is a directory)",
    ]
