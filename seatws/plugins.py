"""The plugin contract: one small class with hooks that do nothing, and what they work with.

A plugin says who a client is (`authenticate`) and what it may do (`may`). It is asked before
anything reaches the store, for the socket and for HTTP alike. `conf/plugins.toml` names the plugins
that run; how to write one is in docs/plugins.md. `plugins/` holds ordinary ones: the server has no
private path for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec
from tornado.httputil import HTTPHeaders

from seatws.errors import NotAllowed, NotReady

__all__ = ["Action", "ConnectRequest", "Identity", "NotAllowed", "NotReady", "Plugin", "Verdict"]

Action = Literal["join", "select", "release", "read", "stats"]


class Identity(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Who a client is.

    Of all this only the client id ever leaves the process: in holds, broadcasts and the log.
    """

    client_id: str
    claims: Mapping[str, Any] = {}
    """What else is known, for `may`."""
    expires_at: float | None = None
    """When it ends, Unix seconds; the server then closes the connection. None: never."""
    grace_seconds: float = 0
    """The connection is closed so long after `expires_at`: clocks differ."""
    warn_seconds: float = 0
    """`auth_expiring` is sent so long before `expires_at`. 0: not at all."""
    basis: Any = None
    """The plugin's own note of what it trusted, for `still_stands`."""

    def __repr__(self) -> str:
        """Without what must not reach a log."""
        return f"Identity(client_id={self.client_id!r}, expires_at={self.expires_at})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a plugin says of one action."""

    allowed: bool
    reason: str = ""
    """For the log, never for the client. No secret, no claim."""


class ConnectRequest(msgspec.Struct, frozen=True, eq=False):
    """What is known of a client that has not said who it is, or says it anew."""

    client_id: str | None
    """From the path, the body or the query; None if the request has none."""
    headers: HTTPHeaders
    """Whatever the case of their names; `get`, and `get_list` for one that stands twice."""
    query: Mapping[str, Sequence[str]] = {}
    cookies: Mapping[str, str] = {}
    subprotocols: Sequence[str] = ()
    address: str = ""
    token: str | None = None
    """Of an `auth` message. Then there are no headers, no query, no cookies, no subprotocols."""
    request_id: str | None = None
    """The HTTP request's id in our log and in its answer, or what the `auth` message has as its."""

    def __repr__(self) -> str:
        """Without what must not reach a log."""
        return f"ConnectRequest(client_id={self.client_id!r}, address={self.address!r})"


class NoSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a plugin that has none."""


class Plugin:
    """What a plugin may decide. Override the hooks you need; the rest abstain.

    It is made once, with its settings: `__init__` may read files, raises `ConfigError` if they are
    bad, and starts nothing (`run.py --check` and each reload make one more and throw it away).
    Hooks are plain or `async def`. A plain one runs on the event loop and must return at once. An
    async one has `deadline_seconds`. Whatever fails or is late counts as a refusal.
    """

    Settings: ClassVar[type[msgspec.Struct]] = NoSettings
    """The plugin's own keys in its table of conf/plugins.toml, checked before it is made."""

    sign_in_seconds: float = 0
    """Above 0: a connection without identity may wait so long for an `auth` message."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def start(self) -> Awaitable[None] | None:
        """The server is about to listen. An error stops the start."""
        return None

    def stop(self) -> Awaitable[None] | None:
        """The server has gone down, or the plugin is no longer configured."""
        return None

    def reload(self, settings: Any) -> Awaitable[None] | None:
        """The configuration was read anew (SIGHUP). On an error the old one must go on."""
        self.settings = settings
        return None

    def authenticate(self, request: ConnectRequest) -> Awaitable[Identity | None] | Identity | None:
        """Say who is connecting.

        Returns:
            The identity, which then stands; or None to leave it to the next plugin.

        Raises:
            NotAllowed: The token is of this plugin's kind and is bad. No other plugin is asked.
            NotReady: It can't be told yet; the client is asked to come back later.
        """
        return None

    def may(
        self, identity: Identity, action: Action, room_id: str | None, seat_ids: Sequence[str]
    ) -> Awaitable[Verdict | None] | Verdict | None:
        """Say whether a client may do something. One refusal refuses, whatever the others say.

        Args:
            identity: Who; without an authenticating plugin, just the client id it claims.
            action: What.
            room_id: Where; None for `stats`.
            seat_ids: The seats of a `select` or a `release`; else empty.

        Returns:
            A verdict, or None for no opinion.
        """
        return None

    def still_stands(self, identity: Identity) -> bool:
        """Say, after a reload, whether an identity that `authenticate` gave would be given today.

        Its connection is closed with 4401 if not.
        """
        return True
