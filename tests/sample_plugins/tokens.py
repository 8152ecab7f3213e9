"""Signs clients in by tokens that anybody can write, for what the server makes of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from seatws.plugins import ConnectRequest, Identity, NotAllowed, NotReady, Plugin
from seatws.rules import number, text, texts

_SECONDS = number(0, 3600, "10 suits most")


class TokenSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plugin's table."""

    sources: Annotated[tuple[str, ...], texts(r"\w+", "a list of sources", "all by default")] = (
        "header",
        "subprotocol",
        "query",
        "message",
    )
    realm: Annotated[str, text(r"\w+", "a word", "its good tokens begin with it")] = "good"
    revoked: Annotated[tuple[str, ...], texts(".+", "a list of client ids", "none at first")] = ()
    sign_in_seconds: Annotated[float, _SECONDS] = 10.0
    grace_seconds: Annotated[float, _SECONDS] = 0.0
    warn_seconds: Annotated[float, _SECONDS] = 0.0
    file: str = ""
    """A `slow` token is decided when this file is there."""


class Tokens(Plugin):
    """Knows `KIND:CLIENT:EXPIRES`, the last in Unix seconds, or `never`.

    `good` (or another realm) is who it says; `bad`, `unready`, `fails`, `odd` and `late` are what
    they say; `slow` is good after a while. It abstains from all others.
    """

    Settings = TokenSettings
    settings: TokenSettings

    def __init__(self, settings: TokenSettings) -> None:
        super().__init__(settings)
        self.reload(settings)

    def reload(self, settings: TokenSettings) -> None:
        self.settings = settings
        self.sign_in_seconds = settings.sign_in_seconds if "message" in settings.sources else 0

    def authenticate(self, request: ConnectRequest) -> Awaitable[Identity | None] | Identity | None:
        token = next(iter(self._tokens(request)), "")
        kind, _, rest = token.partition(":")
        client_id, _, expires = rest.partition(":")
        if client_id in self.settings.revoked or kind == "bad":
            raise NotAllowed("bad, or revoked")
        if kind == self.settings.realm:
            return self._identity(client_id, expires, token)
        match kind:
            case "unready":
                raise NotReady("no keys yet")
            case "fails":
                raise RuntimeError(token)
            case "odd":
                return token  # type: ignore[return-value]  # that is what is odd
            case "late":
                return asyncio.Event().wait()  # type: ignore[return-value]  # it never returns
            case "slow":
                return self._slowly(client_id, expires, token)
        return None

    def still_stands(self, identity: Identity) -> bool:
        return identity.client_id not in self.settings.revoked

    def _identity(self, client_id: str, expires: str, token: str) -> Identity:
        return Identity(
            client_id,
            claims={"token": token},
            expires_at=None if expires == "never" else float(expires),
            grace_seconds=self.settings.grace_seconds,
            warn_seconds=self.settings.warn_seconds,
        )

    async def _slowly(self, client_id: str, expires: str, token: str) -> Identity:
        await until_there(self.settings.file)
        return self._identity(client_id, expires, token)

    def _tokens(self, request: ConnectRequest) -> Iterable[str]:
        for source in self.settings.sources:
            match source:
                case "header":
                    for value in request.headers.get_list("Authorization"):
                        yield value.removeprefix("Bearer ")
                case "subprotocol":
                    for word in request.subprotocols:
                        if word.startswith("bearer."):
                            # A colon may not stand in a subprotocol (RFC 6455 4.1, RFC 9110 5.6.2).
                            yield word.removeprefix("bearer.").replace("~", ":")
                case "query":
                    yield from request.query.get("token", ())
                case "message" if request.token is not None:
                    yield request.token


async def until_there(file: str) -> None:
    """Wait for a test to make a file."""
    path = Path(file)
    while not path.exists():  # noqa: ASYNC110, ASYNC240  # the test is another process
        await asyncio.sleep(0.005)
