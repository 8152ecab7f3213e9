"""Signs clients in by their JWT: who they are, as an issuer says that this server trusts.

    [[plugin]]
    use = "plugins.jwt_auth"
    issuer = "https://id.example.com/"
    audience = "seatws"
    [[plugin.keys]]
    algorithms = ["RS256"]
    jwks_url = "https://id.example.com/.well-known/jwks.json"

Where a token may stand is said here; how it is read, in `jwt_tokens`; what with, in `jwt_keys` and
`jwt_jwks`; what can be set, in `jwt_settings`. A request without a token is left to other plugins.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from plugins import jwt_tokens
from plugins.jwt_jwks import JwksUrl
from plugins.jwt_keys import Key, by_algorithm, read_keys, url_origin
from plugins.jwt_settings import JwtSettings
from plugins.jwt_tokens import Expected, Token
from seatws.errors import ConfigError
from seatws.plugins import ConnectRequest, Identity, NotAllowed, NotReady, Plugin

LONGEST_WAIT_S: Final = 1.5
"""For keys that are being fetched. Below the deadline that hooks have unless one is set: that one
passing would be taken for a fault, and the client for refused."""

_SUBPROTOCOL: Final = "bearer."


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an identity rests on: `Key.origin`. What else it takes is in its claims."""

    origin: Hashable = field(repr=False)


class JwtAuth(Plugin):
    """Gives the identity that a token proves.

    Raises:
        ConfigError: A key can't be read or doesn't suit its algorithm.
    """

    Settings = JwtSettings

    def __init__(self, settings: JwtSettings) -> None:
        super().__init__(settings)
        self.clock: Callable[[], float] = time.time
        """Unix seconds. Tests turn it by hand, as they do the next one."""
        self.monotonic: Callable[[], float] = time.monotonic
        """Seconds that never go back: for the age of keys."""
        self._is_started = False
        self._adopt(settings, read_keys(settings.keys, os.environ), self._urls_of(settings, ()))

    @property
    def needs_exact_origins(self) -> bool:
        """A browser sends a cookie along whatever page asks: only `allowed_origins` stops others'.

        So they must then be exact, neither `*` nor patterns.
        """
        return "cookie" in self.settings.sources

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to fetch the keys that are behind URLs; nobody waits for that here."""
        self._is_started = True
        for url in self._urls:
            url.start()

    async def stop(self) -> None:
        """Stop fetching."""
        self._is_started = False
        for url in self._urls:
            await url.stop()

    async def reload(self, settings: JwtSettings) -> None:
        """Use other settings from now on; a URL that stays keeps the keys it served.

        Raises:
            ConfigError: A key can't be used; nothing has changed.
        """
        keys = read_keys(settings.keys, os.environ)
        before = self._urls
        self._adopt(settings, keys, self._urls_of(settings, before))
        if self._is_started:
            for url in self._urls:
                url.start()
        for url in before:
            if url not in self._urls:
                await url.stop()

    def _adopt(self, settings: JwtSettings, keys: Iterable[Key], urls: Sequence[JwksUrl]) -> None:
        self.settings = settings
        self.sign_in_seconds = settings.sign_in_seconds if "message" in settings.sources else 0
        self._expected = Expected.by(settings)
        self._keys = by_algorithm(keys)
        self._urls = urls
        self._algorithms = frozenset(name for row in settings.keys for name in row.algorithms)
        self._by_message = "message" in settings.sources
        looks: dict[str, Callable[[ConnectRequest], Iterable[str]]] = {
            "header": _in_header,
            "subprotocol": _in_subprotocols,
            "query": _in_query,
            "cookie": lambda request: _in_cookies(request, settings.cookie),
        }
        self._looks = tuple(looks[name] for name in settings.sources if name in looks)

    def _urls_of(self, settings: JwtSettings, before: Sequence[JwksUrl]) -> Sequence[JwksUrl]:
        """Those of the settings. One that was there goes on, or a new one begins with its keys."""
        urls = []
        for row in settings.keys:
            if row.jwks_url:
                same = [url for url in before if url.settings == row]
                url = same[0] if same else JwksUrl(row, lambda: self.monotonic())
                for other in before:
                    if other.settings.jwks_url == row.jwks_url and not url.has_keys:
                        url.adopt(other)
                urls.append(url)
        return tuple(urls)

    # ------------------------------------------------------------ signing in

    def authenticate(self, request: ConnectRequest) -> Awaitable[Identity | None] | Identity | None:
        """Check the token of a request, if it has one where one may stand.

        Returns at once but where keys have to be fetched first.

        Raises:
            NotAllowed: There are two that differ, or it is not good here and now.
            NotReady: There are no keys yet to tell with.
        """
        text = self._token_of(request)
        if text is None:
            return None
        token = jwt_tokens.read(text)
        if token.algorithm not in self._algorithms:
            raise NotAllowed("header: `alg` is not one that is configured")
        key = self._key_of(token)
        if key is not None:
            return self._identity(token, key)
        searches = self._searches(token)
        if searches:
            return self._after(searches, token)
        raise self._refusal(token)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Sign a token for trying things out (`run.py token`), with the first secret there is.

        Raises:
            ConfigError: There are public keys alone: who has the private ones signs.
        """
        for key in (key for keys in self._keys.values() for key in keys):
            if key.algorithm.startswith("HS"):
                return key.sign(claims)
        raise ConfigError(
            "plugins.jwt_auth has public keys alone, which can't sign: ask your identity provider "
            "for a token"
        )

    def still_stands(self, identity: Identity) -> bool:
        """Whether the key it was signed with, its issuer and its audience are still configured."""
        basis = identity.basis
        if not isinstance(basis, _Basis):
            return True
        origins = {key.origin for keys in self._keys.values() for key in keys}
        for url in self._urls:
            row = url.settings
            origins.update(url_origin(algorithm, row.jwks_url) for algorithm in row.algorithms)
        return basis.origin in origins and self._expected.accepts_origin(identity.claims)

    def _token_of(self, request: ConnectRequest) -> str | None:
        if request.token is not None:
            return request.token if self._by_message else None
        found: set[str] = set()
        for look in self._looks:
            found.update(look(request))
        found.discard("")  # a page that has no token yet writes `?token=`
        if len(found) > 1:
            raise NotAllowed("token: two that differ")
        return found.pop() if found else None

    def _key_of(self, token: Token) -> Key | None:
        for key in self._keys.get(token.algorithm, ()):
            if key.fits(token):
                return key
        for url in self._urls:
            for key in url.keys(token.algorithm):
                if key.fits(token):
                    return key
        return None

    def _identity(self, token: Token, key: Key) -> Identity:
        client_id, end = jwt_tokens.check(token, self._expected, self.clock())
        return Identity(
            client_id=client_id,
            claims=token.claims,
            expires_at=end,
            grace_seconds=self.settings.leeway_seconds,
            warn_seconds=self.settings.warn_seconds,
            basis=_Basis(key.origin),
        )

    def _searches(self, token: Token) -> dict[asyncio.Task[bool], JwksUrl]:
        """The fetches that may bring the key of a token."""
        searches = {}
        for url in self._urls:
            if token.algorithm in url.settings.algorithms:
                fetching = url.search(token.kid)
                if fetching is not None:
                    searches[fetching] = url
        return searches

    async def _after(self, searches: dict[asyncio.Task[bool], JwksUrl], token: Token) -> Identity:
        done, late = await asyncio.wait(searches, timeout=LONGEST_WAIT_S)
        key = self._key_of(token)
        if key is not None:
            return self._identity(token, key)
        if late:
            raise NotReady("the keys are still being fetched")
        for fetching in done:
            if token.kid is not None and not fetching.cancelled() and fetching.result():
                searches[fetching].remember_unknown(token.kid)
        raise self._refusal(token)

    def _refusal(self, token: Token) -> NotAllowed | NotReady:
        """Why a token that no key fits is refused: for good where all keys are there."""
        for url in self._urls:
            if token.algorithm in url.settings.algorithms and not url.has_keys:
                return NotReady("there are no keys yet to tell with")
        return NotAllowed("signature: fits none of the keys")


# ---------------------------------------------------------------- where a token may stand


def _in_header(request: ConnectRequest) -> Iterable[str]:
    tokens = []
    for value in request.headers.get_list("Authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            tokens.append(token.strip(" "))
    return tokens


def _in_subprotocols(request: ConnectRequest) -> Iterable[str]:
    return [
        offered.removeprefix(_SUBPROTOCOL)
        for offered in request.subprotocols
        if offered.startswith(_SUBPROTOCOL)
    ]


def _in_query(request: ConnectRequest) -> Iterable[str]:
    return request.query.get("token", ())


def _in_cookies(request: ConnectRequest, name: str) -> Iterable[str]:
    """Of the header, too: a cookie that another subdomain put beside ours has the same name."""
    tokens = [request.cookies.get(name, "")]
    for header in request.headers.get_list("Cookie"):
        for pair in header.split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                tokens.append(value.strip().strip('"'))
    return tokens
