"""The settings of `plugins.jwt_auth`: its table of conf/plugins.toml, and that of each key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from seatws.rules import Rule, mismatch, number, text

SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_ALGORITHMS = (
    *("RS256", "RS384", "RS512"),
    *("PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512"),
    "EdDSA",
)
ALGORITHMS = SECRET_ALGORITHMS + PUBLIC_ALGORITHMS
SOURCES = ("header", "subprotocol", "query", "cookie", "message")
KINDS = ("secret_env", "secret_file", "public_key_file", "jwks_file", "jwks_url")
ANYONE = "*"
"""As `issuer` or `audience`: not checked."""

_SIGN_IN_SECONDS = 10.0
_LONGEST_S = 31_536_000  # a year: beyond it nobody means it, and a loop's timers need some bound
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _is_choice(value: object, words: tuple[str, ...]) -> bool:
    """Whether it is a list of some of the words, none twice."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, str) and item in words for item in value)
        and len(set(value)) == len(value)
    )


def _are_names(value: object) -> bool:
    """Whether it is a name, or a list of them in which `*` stands alone."""
    names = value if isinstance(value, list) else [value]
    return (
        all(isinstance(name, str) and name for name in names)
        and len(names) > 0
        and (ANYONE not in names or len(names) == 1)
    )


def _is_jwks_url(value: object) -> bool:
    if not isinstance(value, str) or re.fullmatch(r"https?://[!-~]+", value) is None:
        return False
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - a property that raises
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc or "#" in value:
        return False
    return parts.scheme == "https" or parts.hostname in _LOOPBACK


_ISSUER = Rule(
    "the issuer's name or a list of names, exactly as `iss` has it",
    'for example "https://id.example.com/"; "*", alone, leaves it unchecked',
    _are_names,
)

_AUDIENCE = Rule(
    "this service's name at the issuer or a list of names, exactly as `aud` has it",
    'for example "seatws"; "*", alone, leaves it unchecked',
    _are_names,
)

_SOURCES = Rule(
    f"a list of some of {', '.join(SOURCES)}, none twice",
    'for example ["header", "subprotocol", "message"]',
    lambda value: _is_choice(value, SOURCES),
)

_ALGORITHMS = Rule(
    f"a list of some of {', '.join(ALGORITHMS)}, none twice",
    'the one that the issuer signs with, for example ["RS256"]',
    lambda value: _is_choice(value, ALGORITHMS),
)

_KEYS = Rule(
    "one [[plugin.keys]] table or more",
    "write [[plugin.keys]] on a line below this plugin's settings, and the key's below it",
    lambda value: (
        isinstance(value, list) and value != [] and all(isinstance(row, Mapping) for row in value)
    ),
)

# Not shown, since the secret itself may stand here by mistake; capitals only, so that it is found
# to be one here, and not named as a variable that isn't set.
_VARIABLE = Rule(
    "the name of an environment variable, in capitals",
    "for example SEATWS_JWT_SECRET; the secret itself stands in that variable, not in this file",
    lambda value: (
        isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value) is not None
    ),
    secret=True,
)

_FILE = text(r"[^\0]+", "the path of a file", "a relative one starts at the conf directory")

_JWKS_URL = Rule(
    "an https:// URL without user, password and #",
    "for example https://id.example.com/.well-known/jwks.json; http:// only to 127.0.0.1, [::1] and"
    " localhost",
    _is_jwks_url,
)


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[plugin.keys]]`: where a key is, and the algorithms that it is for."""

    algorithms: Annotated[tuple[str, ...], _ALGORITHMS]
    """Exactly one for a secret or a PEM file; for a JWKS, those of its keys that may be used."""

    secret_env: Annotated[str, _VARIABLE] = ""
    """The environment variable that holds the secret."""

    secret_file: Annotated[str, _FILE] = ""
    """The file that holds the secret, as it stands, a final newline apart."""

    public_key_file: Annotated[str, _FILE] = ""
    """A public key as PEM."""

    jwks_file: Annotated[str, _FILE] = ""
    """A JWK Set (RFC 7517)."""

    jwks_url: Annotated[str, _JWKS_URL] = ""
    """Where the issuer keeps its JWK Set."""

    id: Annotated[str, text(r"(?s).{0,256}", "at most 256 characters", "as the `kid` has it")] = ""
    """The `kid` of its tokens. Empty: it is tried on tokens with any."""

    refresh_seconds: Annotated[float, number(1, _LONGEST_S, "300 is five minutes")] = 300.0
    """Seconds from one fetch of the URL to the next."""

    cooldown_seconds: Annotated[float, number(1, _LONGEST_S, "30 is half a minute")] = 30.0
    """Seconds between two fetches because of an unknown `kid`."""

    timeout_seconds: Annotated[float, number(1, _LONGEST_S, "3 suits most")] = 3.0
    """Seconds that a whole fetch may take."""

    stale_seconds: Annotated[float, number(1, _LONGEST_S, "86400 is a day")] = 86_400.0
    """Seconds that the last good set is used while fetching fails."""

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return next(kind for kind in KINDS if getattr(self, kind))

    def conflict(self) -> tuple[str, str] | None:
        """One kind of key, with algorithms and settings that go with it."""
        kinds = [kind for kind in KINDS if getattr(self, kind)]
        if len(kinds) != 1:
            return kinds[-1] if kinds else "/".join(KINDS), mismatch(
                f"exactly one of {', '.join(KINDS)}",
                " and ".join(kinds) or "none",
                "give each key a [[plugin.keys]] of its own" if kinds else "say where the key is",
            )
        return self._unfit_algorithms(kinds[0]) or self._useless(kinds[0])

    def _unfit_algorithms(self, kind: str) -> tuple[str, str] | None:
        is_secret = kind.startswith("secret")
        fitting = SECRET_ALGORITHMS if is_secret else PUBLIC_ALGORITHMS
        given = ", ".join(self.algorithms)
        if not set(self.algorithms) <= set(fitting):
            hint = "a secret is for HS256, HS384, HS512 alone, and they for nothing else"
            return "algorithms", mismatch(f"some of {', '.join(fitting)} for {kind}", given, hint)
        if len(self.algorithms) > 1 and not kind.startswith("jwks"):
            hint = "name the one that the issuer signs with; another key has its own table"
            return "algorithms", mismatch(f"exactly one for {kind}", given, hint)
        return None

    def _useless(self, kind: str) -> tuple[str, str] | None:
        if self.id and kind.startswith("jwks"):
            return "id", mismatch(
                f"none with {kind}", "one", "take it out: each key of a JWK Set has its own `kid`"
            )
        defaults = {field.name: field.default for field in msgspec.structs.fields(self)}
        for name in ("refresh_seconds", "cooldown_seconds", "timeout_seconds", "stale_seconds"):
            value = getattr(self, name)
            if kind != "jwks_url" and value != defaults[name]:
                return name, mismatch(f"none with {kind}", f"{value:g}", "it is for jwks_url alone")
        return None


class JwtSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's table."""

    issuer: Annotated[str | tuple[str, ...], _ISSUER]
    """Who makes the tokens. `*`: not checked."""

    audience: Annotated[str | tuple[str, ...], _AUDIENCE]
    """Whom the tokens are for. `*`: not checked."""

    keys: Annotated[tuple[KeySettings, ...], _KEYS]
    """What the tokens are checked with. Several at once for rotation."""

    sources: Annotated[tuple[str, ...], _SOURCES] = ("header", "subprotocol", "query", "message")
    """Where a token may stand. Nothing else is looked at."""

    cookie: Annotated[
        str,
        text(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*", "a cookie's name", 'for example "seatws_token"'),
    ] = ""
    """The name of the cookie, with `cookie` in `sources`."""

    sign_in_seconds: Annotated[float, number(1, 60, "10 suits most")] = _SIGN_IN_SECONDS
    """Seconds to the first message, with `message` in `sources`."""

    client_id_claim: Annotated[str, text(r"(?s).+", "a claim's name", '"sub" is usual')] = "sub"
    """The claim that is the client id."""

    typ: Annotated[str, text(r"[!-~]*", "a media type", 'for example "at+jwt"; "" takes any')] = ""
    """What the header's `typ` has to be. Empty: anything."""

    leeway_seconds: Annotated[float, number(0, 60, "30 suits most")] = 30.0
    """Seconds that the issuer's clock may differ from ours."""

    warn_seconds: Annotated[float, number(0, 3600, "60 suits most, 0 is never")] = 60.0
    """`auth_expiring` so many seconds before the end. 0: never."""

    def conflict(self) -> tuple[str, str] | None:
        """Settings that go together, and no secret beside a public key."""
        if ("cookie" in self.sources) != bool(self.cookie):
            expected = 'a cookie\'s name with "cookie" in sources, and none without'
            fix = 'name it in cookie, or take "cookie" out of sources'
            return "cookie", mismatch(expected, "one of the two", fix)
        if "message" not in self.sources and self.sign_in_seconds != _SIGN_IN_SECONDS:
            expected = 'none without "message" in sources'
            fix = 'take it out, or add "message" to sources'
            return "sign_in_seconds", mismatch(expected, f"{self.sign_in_seconds:g}", fix)
        named = {algorithm for key in self.keys for algorithm in key.algorithms}
        if not named.isdisjoint(SECRET_ALGORITHMS) and not named <= set(SECRET_ALGORITHMS):
            # RFC 8725, 2.1: where both are taken, a public key may come to be used as a secret.
            return "keys", mismatch("only secrets or only public keys", "both", "take one kind out")
        return None
