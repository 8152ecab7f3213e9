"""What `run.py --explain` prints: what each rule says of a token in a room, and what comes of it.

It asks the configured plugins as the server would: who is it, by the token; may it, for each
action. A plugin that has rules adds a method

    explain(identity, action, room_id) -> list[str]

with a line for each: its name and what it says of the action, or of all of them if that is None.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from typing import Any, Final, TypeVar, get_args

from tornado.httputil import HTTPHeaders

from seatws.errors import NotAllowed, NotReady, SeatwsError
from seatws.loader import where
from seatws.plugins import Action, ConnectRequest, Identity, Plugin, Verdict

ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

KEYS_WAIT_S: Final = 10.0
"""For plugins that fetch keys first: so long are they asked again."""
_ASK_AGAIN_S: Final = 0.1

_T = TypeVar("_T")


def explain(
    plugins: Sequence[Plugin], token: str, room_id: str, action: Action | None = None
) -> tuple[list[str], bool]:
    """Explain what a token may do in a room.

    The plugins are started for it and stopped again, as some can tell nothing before: keys may have
    to be fetched. Nothing that is printed comes from the token but the client id and the expiry.

    Args:
        plugins: As configured, in order.
        token: As the client has it; white space around it is of no matter.
        room_id: Where.
        action: What is asked for; None: all actions.

    Returns:
        The lines: who it is; one for each rule; one for each action, which begins with it and says
        `allowed` or `refused`. And whether the token verified; if not, one line that says why.
    """
    return asyncio.run(_explain(plugins, token.strip(), room_id, action))


async def _explain(
    plugins: Sequence[Plugin], token: str, room_id: str, action: Action | None
) -> tuple[list[str], bool]:
    try:
        async with _started(plugins):
            identity, who = await _identify(plugins, token)
            lines = [who]
            for plugin in plugins:
                lines += await _rules(plugin, identity, action, room_id)
            for each in ACTIONS if action is None else (action,):
                lines.append(await _outcome(plugins, identity, each, room_id))
    except _Unverified as exc:
        return [f"the token does not verify: {exc}"], False
    return lines, True


class _Unverified(Exception):
    """Nobody knows who it is. The text is safe to print."""


@contextlib.asynccontextmanager
async def _started(plugins: Sequence[Plugin]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for plugin in plugins:
            try:
                await _answer(plugin.start())
            except Exception as exc:
                raise _Unverified(f"{_name(plugin)} did not start: {_words(exc)}") from exc
            stack.push_async_callback(_stop, plugin)
        yield


async def _stop(plugin: Plugin) -> None:
    with contextlib.suppress(Exception):  # all is said by now
        await _answer(plugin.stop())


async def _identify(plugins: Sequence[Plugin], token: str) -> tuple[Identity, str]:
    asked = [plugin for plugin in plugins if type(plugin).authenticate is not Plugin.authenticate]
    if not asked:
        nobody = Identity("nobody")
        return nobody, "no plugin looks at tokens: asked for a client without claims"
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise _Unverified("expected one token, without spaces; is it the right file?")
    for request in _requests(plugins, token):
        for plugin in asked:
            identity = await _authenticate(plugin, request)
            if identity is not None:
                return identity, f"signed in as {identity.client_id}, {_ends(identity)}"
    raise _Unverified("no plugin takes it; is it meant for another server?")


def _requests(plugins: Sequence[Plugin], token: str) -> Iterator[ConnectRequest]:
    """Every way that a token may come in, until one is taken: which are is the plugins' setting."""
    none = HTTPHeaders()
    yield ConnectRequest(None, none, token=token)
    yield ConnectRequest(None, HTTPHeaders({"Authorization": f"Bearer {token}"}))
    yield ConnectRequest(None, none, subprotocols=("seatws.v1", f"bearer.{token}"))
    yield ConnectRequest(None, none, query={"token": [token]})
    for plugin in plugins:
        if cookie := getattr(plugin.settings, "cookie", ""):
            yield ConnectRequest(None, none, cookies={cookie: token})


async def _authenticate(plugin: Plugin, request: ConnectRequest) -> Identity | None:
    give_up_at = asyncio.get_running_loop().time() + KEYS_WAIT_S
    while True:
        try:
            answer = await _answer(plugin.authenticate(request))
            break
        except NotAllowed as exc:
            raise _Unverified(f"{_name(plugin)} refuses it: {_words(exc)}") from exc
        except NotReady as exc:
            if asyncio.get_running_loop().time() >= give_up_at:
                raise _Unverified(f"{_name(plugin)} can't tell yet: {_words(exc)}") from exc
        except Exception as exc:
            raise _Unverified(f"{_name(plugin)} failed: {_words(exc)}") from exc
        await asyncio.sleep(_ASK_AGAIN_S)
    if isinstance(answer, Identity | None):
        return answer
    raise _Unverified(f"{_name(plugin)} failed: authenticate gave no Identity")


async def _rules(
    plugin: Plugin, identity: Identity, action: Action | None, room_id: str
) -> list[str]:
    ask = getattr(plugin, "explain", None)
    if ask is None:
        return []
    try:
        lines: list[str] = await _answer(ask(identity, action, room_id))
    except Exception as exc:
        return [f"{_name(plugin)} failed: {_words(exc)}"]
    return lines


async def _outcome(
    plugins: Sequence[Plugin], identity: Identity, action: Action, room_id: str
) -> str:
    place = None if action == "stats" else room_id
    verdicts = [await _may(plugin, identity, action, place) for plugin in plugins]
    said = [verdict for verdict in verdicts if verdict is not None]
    refusals = [verdict for verdict in said if not verdict.allowed]
    reasons = "; ".join(verdict.reason for verdict in refusals or said if verdict.reason)
    if not said:
        reasons = "no plugin has anything to say"
    return f"{action}: {'refused' if refusals else 'allowed'}{f' ({reasons})' if reasons else ''}"


async def _may(
    plugin: Plugin, identity: Identity, action: Action, room_id: str | None
) -> Verdict | None:
    """What a plugin says, asked of no seat in particular. Failing is refusing, as in the server."""
    try:
        answer = await _answer(plugin.may(identity, action, room_id, ()))
    except Exception as exc:
        return Verdict(False, f"{_name(plugin)} failed: {_words(exc)}")
    if isinstance(answer, Verdict | None):
        return answer
    return Verdict(False, f"{_name(plugin)} failed: may gave no Verdict")


async def _answer(answer: Awaitable[_T] | _T) -> Any:
    return await answer if inspect.isawaitable(answer) else answer


def _name(plugin: Plugin) -> str:
    return type(plugin).__module__


def _words(exc: Exception) -> str:
    """What went wrong in a plugin; only our own errors are known to hold no secret."""
    if isinstance(exc, NotAllowed):
        return exc.reason or "no reason given"
    return str(exc) if isinstance(exc, SeatwsError) else where(exc)


def _ends(identity: Identity) -> str:
    if identity.expires_at is None:
        return "without an end"
    try:
        ends = datetime.datetime.fromtimestamp(identity.expires_at, datetime.UTC)
    except (ValueError, OverflowError, OSError):  # a plugin's infinity
        return "until the end of time"
    return f"until {ends:%Y-%m-%d %H:%M:%S} UTC"
