"""The keys that tokens are checked with: read from where the settings say, and fit for their use.

A key is bound to one algorithm by the configuration (RFC 8725, 3.1); what a token's header says can
pick among the keys, and no more. No error and no `repr` has a key's content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from plugins.jwt_settings import KeySettings
from plugins.jwt_tokens import Token, read_json
from seatws.errors import ConfigError

MAX_DOCUMENT_BYTES: Final = 262_144
"""Of a key file or a JWK Set. Real sets have some kilobytes."""
MAX_KEYS: Final = 100
"""Of one set: a token without `kid` is tried on all that have its algorithm."""
MIN_RSA_BITS: Final = 2048  # RFC 7518, 3.3 and 3.5
MAX_RSA_BITS: Final = 16_384  # OpenSSL checks nothing with larger ones

_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518, 3.2
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_BAD_KEY: Final = (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError)
"""What PyJWT and cryptography raise for key material that they can't use."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One key and its one algorithm."""

    algorithm: str
    id: str
    """The `kid` of its tokens. Empty: tokens with any, or with none."""
    origin: Hashable = field(repr=False)
    """What an identity rests on that this key vouched for. Equal while the key is configured."""
    _implementation: Any = field(repr=False)
    _material: Any = field(repr=False)

    def fits(self, token: Token) -> bool:
        """Whether it signed the token."""
        return (
            (token.kid is None or not self.id or self.id == token.kid)
            and token.algorithm == self.algorithm
            and self._implementation.verify(token.signed, self._material, token.signature)
        )

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims; only a secret can make one."""
        headers = {"kid": self.id} if self.id else None
        return jwt.encode(dict(claims), self._material, self.algorithm, headers)


def by_algorithm(keys: Iterable[Key]) -> dict[str, tuple[Key, ...]]:
    """Sort keys for `find`."""
    sorted_keys: dict[str, tuple[Key, ...]] = {}
    for key in keys:
        sorted_keys[key.algorithm] = (*sorted_keys.get(key.algorithm, ()), key)
    return sorted_keys


def read_keys(settings: Sequence[KeySettings], environ: Mapping[str, str]) -> list[Key]:
    """Read all keys that are no URL.

    Raises:
        ConfigError: With a problem for each key that can't be used.
    """
    keys: list[Key] = []
    problems: list[str] = []
    for number, row in enumerate(settings, 1):
        try:
            keys += _read(row, environ)
        except _UnusableKeyError as exc:
            problems.append(f"keys {number}: {row.kind}: {exc}")
    if problems:
        raise ConfigError(*problems)
    return keys


def parse_jwks(document: bytes, algorithms: Sequence[str], url: str = "") -> list[Key]:
    """Read a JWK Set (RFC 7517): those of its keys that may be used.

    Not used are `oct` keys (a published secret is none), private ones, keys for another purpose or
    algorithm, weak ones, and those that more than one of the algorithms would fit.

    Args:
        document: What was fetched or read.
        algorithms: Which may be used.
        url: Where it is from, if it was fetched: then the URL is what is configured, not the keys.

    Raises:
        ValueError: It has no such key. The text says why, and repeats nothing of it.
    """
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        found = read_json(str(document, "utf-8-sig"))
    except ValueError:
        found = None
    rows = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise ValueError('not a JWK Set, which is JSON of the form {"keys": [...]}')
    if len(rows) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} keys")
    keys: list[Key] = []
    reasons: list[str] = []
    for number, row in enumerate(rows, 1):
        try:
            keys.append(_from_jwk(row, algorithms, url))
        except _UnusableKeyError as exc:
            reasons.append(f"key {number} {exc}")
    if not keys:
        why = "; ".join(reasons[:5]) or "it is empty"
        raise ValueError(f"no key in it that can be used: {why}")
    return keys


class _UnusableKeyError(Exception):
    """Why a key can't be used, without any of its content."""


def _read(settings: KeySettings, environ: Mapping[str, str]) -> list[Key]:
    match settings.kind:
        case "secret_env":
            name = settings.secret_env
            if name not in environ:
                raise _UnusableKeyError(f"the environment has no {name}; set it before the start")
            content = os.fsencode(environ[name])
            return [_from_secret(settings, content, name)]
        case "secret_file":
            content = _content(settings.secret_file)
            return [_from_secret(settings, content, settings.secret_file)]
        case "public_key_file":
            content = _content(settings.public_key_file)
            return [_from_pem(settings, content, settings.public_key_file)]
        case "jwks_file":
            content = _content(settings.jwks_file)
            try:
                return parse_jwks(content, settings.algorithms)
            except ValueError as exc:
                raise _UnusableKeyError(
                    f"{settings.jwks_file}: {exc}; the set needs a public key for one of"
                    f" {', '.join(settings.algorithms)}"
                ) from None
    return []


def _content(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        raise _UnusableKeyError(
            f"{path}: no such file; a relative path starts at the conf directory"
        ) from None
    except OSError as exc:
        raise _UnusableKeyError(
            f"{path}: cannot be read ({exc.strerror}); make it a file that the server's user may"
            " read"
        ) from None
    if len(content) > MAX_DOCUMENT_BYTES:
        raise _UnusableKeyError(f"{path}: longer than {MAX_DOCUMENT_BYTES} bytes, so it is no key")
    return content


def _from_secret(settings: KeySettings, content: bytes, where: str) -> Key:
    (algorithm,) = settings.algorithms
    secret = content[:-2] if content.endswith(b"\r\n") else content.removesuffix(b"\n")
    least = _SECRET_BYTES[algorithm]
    if b"-----BEGIN" in secret or secret.startswith((b"ssh-", b"ecdsa-")):
        raise _UnusableKeyError(
            f"{where}: expected a secret, got PEM or an SSH key; a public key has its place under"
            " public_key_file, with an algorithm such as RS256"
        )
    if _is_jwk(secret):
        raise _UnusableKeyError(
            f"{where}: expected a secret, got a JWK; write the secret itself, as text"
        )
    if len(secret) < least:
        raise _UnusableKeyError(
            f"{where}: expected at least {least} bytes for {algorithm}, got {len(secret)};"
            " `openssl rand -hex 32` makes a secret that suits each algorithm"
        )
    implementation = jwt.get_algorithm_by_name(algorithm)
    try:
        material = implementation.prepare_key(secret)
    except _BAD_KEY:
        raise _UnusableKeyError(
            f"{where}: expected a secret, got what looks like another key; `openssl rand -hex 32`"
            " makes a secret that suits each algorithm"
        ) from None
    return Key(algorithm, settings.id, _fingerprint(algorithm, secret), implementation, material)


def _is_jwk(secret: bytes) -> bool:
    try:
        found = read_json(str(secret, "utf-8-sig"))
    except ValueError:
        return False
    return isinstance(found, dict) and not found.keys().isdisjoint({"kty", "keys"})


def _from_pem(settings: KeySettings, content: bytes, where: str) -> Key:
    (algorithm,) = settings.algorithms
    if b"PRIVATE KEY" in content:
        raise _UnusableKeyError(
            f"{where}: expected a public key, got a private one, which only the issuer may have;"
            " `openssl pkey -pubout -in FILE` writes its public half"
        )
    if b"BEGIN CERTIFICATE" in content:
        raise _UnusableKeyError(
            f"{where}: expected a public key, got a certificate;"
            " `openssl x509 -pubkey -noout -in FILE` writes its key"
        )
    try:
        material = load_pem_public_key(content)
    except _BAD_KEY:
        raise _UnusableKeyError(
            f'{where}: not a public key as PEM; it begins with "-----BEGIN PUBLIC KEY-----"'
        ) from None
    if reason := _unfit(algorithm, material):
        raise _UnusableKeyError(f"{where}: {reason}; give the algorithm that the key was made for")
    return _public_key(algorithm, settings.id, material, "")


def _from_jwk(row: object, algorithms: Sequence[str], url: str) -> Key:
    if not isinstance(row, dict):
        raise _UnusableKeyError("is not an object")
    kind, curve, kid = row.get("kty"), row.get("crv"), row.get("kid", "")
    operations = row.get("key_ops", ["verify"])
    if kind == "oct":
        raise _UnusableKeyError("is a secret, which has no place in a JWK Set")
    if "d" in row:
        raise _UnusableKeyError("is a private one, which only the issuer may have")
    if row.get("use", "sig") != "sig" or not (
        isinstance(operations, list) and "verify" in operations
    ):
        raise _UnusableKeyError("is not for signatures")
    if not isinstance(kid, str):
        raise _UnusableKeyError("has a `kid` that is not a string")
    fitting = [name for name in algorithms if _is_for(name, kind, curve)]
    if "alg" in row:
        fitting = [name for name in fitting if name == row["alg"]]
    if not fitting:
        raise _UnusableKeyError("is for none of the algorithms that are configured")
    if len(fitting) > 1:
        raise _UnusableKeyError(f"has no `alg`, and {' and '.join(fitting)} would fit it")
    algorithm = fitting[0]
    try:
        material = jwt.PyJWK(row, algorithm).key
    except _BAD_KEY:
        raise _UnusableKeyError("is damaged") from None
    if reason := _unfit(algorithm, material):
        raise _UnusableKeyError(f"does not suit {algorithm}: {reason}")
    return _public_key(algorithm, kid, material, url)


def _is_for(algorithm: str, kind: object, curve: object) -> bool:
    """Whether an algorithm takes keys of a JWK's type (RFC 7518, 6.1; RFC 8037)."""
    match algorithm[:2]:
        case "RS" | "PS":
            return kind == "RSA"
        case "ES":
            curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
            return kind == "EC" and curve == curves[algorithm]
        case _:
            return kind == "OKP" and curve in ("Ed25519", "Ed448")


def _unfit(algorithm: str, key: object) -> str | None:
    """What is wrong with a public key for an algorithm; None if nothing is."""
    match algorithm[:2]:
        case "RS" | "PS":
            if not isinstance(key, rsa.RSAPublicKey):
                return f"expected an RSA key for {algorithm}, got another"
            if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                bits = f"{MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
                return f"expected an RSA key of {bits}, got {key.key_size}"
        case "ES":
            curve = _CURVES[algorithm]
            if not isinstance(key, ec.EllipticCurvePublicKey):
                return f"expected a key on the curve {curve} for {algorithm}, got another"
            if key.curve.name != curve:
                return f"expected a key on the curve {curve} for {algorithm}, got {key.curve.name}"
        case _:
            if not isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
                return f"expected an Ed25519 or Ed448 key for {algorithm}, got another"
    return None


def _public_key(algorithm: str, kid: str, material: Any, url: str) -> Key:
    implementation = jwt.get_algorithm_by_name(algorithm)
    encoded = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    origin = url_origin(algorithm, url) if url else _fingerprint(algorithm, encoded)
    return Key(algorithm, kid, origin, implementation, implementation.prepare_key(material))


def url_origin(algorithm: str, url: str) -> Hashable:
    """The `origin` of the keys of a URL: whatever it serves now, they came from there."""
    return algorithm, url


def _fingerprint(algorithm: str, material: bytes) -> Hashable:
    return algorithm, hashlib.sha256(material).digest()
