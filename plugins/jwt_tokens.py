"""Reads a JWT strictly and checks its claims. No I/O, no clock, no cryptography.

What a token holds, and in what form, is RFC 7515 (JWS compact), RFC 7519 (JWT) and RFC 8725 (what
to mind). Where they leave a choice, the stricter is taken: an issuer's library writes none of what
is refused here, so whatever has it was made by hand. No reason repeats any part of the token.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn

from plugins.jwt_settings import ANYONE, JwtSettings
from seatws.messages import CLIENT_ID
from seatws.plugins import NotAllowed

MAX_TOKEN_BYTES: Final = 8192
"""Proxies and browsers carry no longer headers than that, so no real token is."""
LAST_SECOND: Final = 253_402_300_799
"""The end of year 9999. Later times can't be written as PROTOCOL has them."""

_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
# By the length modulo 4: what pads it, and the last characters that leave no bit unused. With any
# other one the same bytes would have several spellings.
_PADDING: Final = (b"", None, b"==", b"=")
_LAST: Final = (None, None, frozenset(b"AQgw"), frozenset(b"AEIMQUYcgkosw048"))

_NOT_UNDERSTOOD: Final = frozenset({"crit", "b64", "zip", "enc"})
"""Header members that change how a token is to be read, or say that it must not be read without
understanding others (RFC 7515, 4.1.11; RFC 7797; RFC 7516)."""

_is_client_id: Final = re.compile(CLIENT_ID).match


class Token(NamedTuple):
    """A token that is well-formed, and nothing more: nobody has checked its signature."""

    algorithm: str
    kid: str | None
    typ: str
    claims: dict[str, Any]
    signed: bytes
    """What the signature is of."""
    signature: bytes


class Expected(NamedTuple):
    """What the configuration says of a token's contents."""

    issuers: frozenset[str] | None
    """None: not checked."""
    audiences: frozenset[str] | None
    typ: str
    client_id_claim: str
    leeway_seconds: float

    @classmethod
    def by(cls, settings: JwtSettings) -> Expected:
        """Take it from the settings."""
        return cls(
            issuers=_names(settings.issuer),
            audiences=_names(settings.audience),
            typ=_media_type(settings.typ),
            client_id_claim=settings.client_id_claim,
            leeway_seconds=settings.leeway_seconds,
        )

    def accepts_origin(self, claims: Mapping[str, Any]) -> bool:
        """Whether `iss` and `aud` (of their types, if there) are as they have to be."""
        audience = claims.get("aud", ())
        return (self.issuers is None or claims.get("iss") in self.issuers) and (
            self.audiences is None
            or not self.audiences.isdisjoint((audience,) if isinstance(audience, str) else audience)
        )


def read(text: object) -> Token:
    """Take a token apart.

    Raises:
        NotAllowed: It is not a JWS in compact form with JSON objects for header and claims.
    """
    if not isinstance(text, str):
        raise NotAllowed("token: not text")
    if len(text) > MAX_TOKEN_BYTES:
        raise NotAllowed(f"token: longer than {MAX_TOKEN_BYTES} bytes")
    raw = text.encode(errors="replace")  # a lone surrogate is no base64url either way
    parts = _COMPACT.fullmatch(raw)
    if parts is None:
        raise NotAllowed("token: not three parts in base64url")
    algorithm, kid, typ = _read_header(parts[1])
    claims = _read_object(parts[2], "claims")
    signature = _decode(parts[3])
    if signature is None:
        raise NotAllowed("signature: not base64url in its canonical form")
    return Token(algorithm, kid, typ, claims, raw[: parts.end(2)], signature)


@lru_cache(maxsize=64)  # all tokens of one key have the same
def _read_header(part: bytes) -> tuple[str, str | None, str]:
    """Its `alg`, `kid` and `typ`."""
    header = _read_object(part, "header")
    algorithm = header.get("alg")
    kid = header.get("kid")
    typ = header.get("typ", "")
    if not isinstance(algorithm, str):
        raise NotAllowed("header: no `alg`")
    if "kid" in header and not isinstance(kid, str):
        raise NotAllowed("header: `kid` is not a string")
    if not isinstance(typ, str):
        raise NotAllowed("header: `typ` is not a string")
    if not _NOT_UNDERSTOOD.isdisjoint(header):
        raise NotAllowed("header: something in it changes how the token is to be read")
    return algorithm, kid, typ


def check(token: Token, expected: Expected, now: float) -> tuple[str, float]:
    """Check a token whose signature is good.

    Args:
        token: Its `typ` and claims are looked at.
        expected: By configuration.
        now: Unix seconds.

    Returns:
        The client id, and `exp`.

    Raises:
        NotAllowed: A claim is missing, of a wrong type, or says that the token is not for here and
            now.
    """
    if expected.typ and _media_type(token.typ) != expected.typ:
        raise NotAllowed("header: not the `typ` that is configured")
    claims = token.claims
    leeway = expected.leeway_seconds

    end = _time(claims, "exp")
    if end is None:
        raise NotAllowed("claims: no `exp`")
    if now >= end + leeway:
        raise NotAllowed("token: expired")
    for name in ("nbf", "iat"):
        begin = _time(claims, name)
        if begin is not None and now < begin - leeway:
            raise NotAllowed(f"token: not valid yet, by its `{name}`")

    for name in ("iss", "sub", "jti"):
        if not isinstance(claims.get(name, ""), str):
            raise NotAllowed(f"claims: `{name}` is not a string")
    audience = claims.get("aud", "")
    if not isinstance(audience, str) and not (
        isinstance(audience, list) and all(isinstance(name, str) for name in audience)
    ):
        raise NotAllowed("claims: `aud` is neither a string nor a list of strings")
    if not expected.accepts_origin(claims):
        raise NotAllowed("claims: `iss` or `aud` is not one that is configured")

    client_id = claims.get(expected.client_id_claim)
    if not isinstance(client_id, str) or not _is_client_id(client_id):
        raise NotAllowed("claims: the one for the client id is missing or is no client id")
    return client_id, end


def read_json(text: str) -> Any:
    """Parse JSON without what its readers disagree about.

    Raises:
        ValueError: Not JSON (RFC 8259); or a name stands twice in an object, a number is NaN or too
            large to be one, or it is nested too deep.
    """
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _read_object(part: bytes, what: str) -> dict[str, Any]:
    raw = _decode(part)
    if raw is None:
        raise NotAllowed(f"{what}: not base64url in its canonical form")
    try:
        found = read_json(str(raw, "utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotAllowed(f"{what}: not a JSON object, in UTF-8, with each name once")
    return found


def _decode(part: bytes) -> bytes | None:
    """Decode base64url, known to have its characters only; None if it is not canonical."""
    rest = len(part) % 4
    padding = _PADDING[rest]
    last = _LAST[rest]
    if padding is None or (last is not None and part[-1] not in last):
        return None
    return a2b_base64(part.translate(_TO_STANDARD) + padding)


def _time(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, 2), Unix seconds; None if it isn't there."""
    if name not in claims:
        return None
    value = claims[name]
    # Not isinstance: True is an int, and no time.
    if type(value) not in (int, float) or not 0 <= value <= LAST_SECOND:
        raise NotAllowed(f"claims: `{name}` is not a number of seconds before the year 10000")
    return float(value)


def _media_type(typ: str) -> str:
    """For comparing: case and `application/` are of no matter (RFC 7515, 4.1.9)."""
    return typ.lower().removeprefix("application/")


def _names(given: str | tuple[str, ...]) -> frozenset[str] | None:
    names = frozenset((given,) if isinstance(given, str) else given)
    return None if ANYONE in names else names


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError("too large a number")
    return value


_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite
)
