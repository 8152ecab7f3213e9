"""The gate: asks the plugins who a client is and what it may do, before anything is done.

Whatever a plugin does wrong counts as a refusal and is logged with its name.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn
from weakref import WeakKeyDictionary

from seatws.config import Config
from seatws.counts import Counts
from seatws.errors import (
    ConfigError,
    NotAllowed,
    NoToken,
    NotReady,
    PluginError,
    RateLimited,
    Unauthenticated,
)
from seatws.loader import Loaded, load_plugins, where
from seatws.logs import about, loggable
from seatws.messages import wrong_id
from seatws.plugins import Action, ConnectRequest, Identity, Plugin, Verdict
from seatws.rules import one_line
from seatws.web.origins import Origins
from seatws.web.rate import Buckets

log = logging.getLogger(__name__)

_MINUTE_S: Final = 60
_LAST_MOMENT: Final = 253_402_300_799
"""Unix seconds: the end of year 9999, the last that a time on the wire can be."""


class Gate:
    """The plugins that run.

    Args:
        config: Origins, and the limit on failed sign-ins.
        directory: Where plugins.toml is.
        counts: What is counted on the way; None: nobody will ask.

    Raises:
        ConfigError: A plugin can't be loaded or is misconfigured.
    """

    def __init__(self, config: Config, directory: Path, counts: Counts | None = None) -> None:
        self._directory = directory
        self._counts = counts or Counts()
        self._origins = Origins(config.server.allowed_origins)
        per_minute = config.limits.failed_sign_ins_per_minute
        self._failures = Buckets(per_minute / _MINUTE_S, per_minute) if per_minute else None
        self._givers: WeakKeyDictionary[Identity, type[Plugin]] = WeakKeyDictionary()
        """Which plugin gave an identity."""
        self._reloading = asyncio.Lock()
        self._leaving: asyncio.Future[None] | None = None
        self.reloaded = asyncio.Event()
        """Set, and replaced, when a reload took effect."""
        self._use(self._load())

    @property
    def names(self) -> list[str]:
        """The plugins, in order."""
        return [loaded.use for loaded in self._loaded]

    @property
    def sign_in_seconds(self) -> float:
        """How long a connection may take to send its first `auth` message; 0: not at all."""
        return max((loaded.plugin.sign_in_seconds for loaded in self._authenticators), default=0)

    async def start(self) -> None:
        """Start the plugins.

        Raises:
            ConfigError: One of them failed; those before it are stopped again.
        """
        for number, loaded in enumerate(self._loaded):
            try:
                await self._wait(loaded, loaded.plugin.start())
            except Exception as exc:
                await self._stop(self._loaded[:number])
                raise ConfigError(f"plugin {loaded.use} did not start: {_words(exc)}") from exc

    async def stop(self) -> None:
        """Stop the plugins."""
        async with self._reloading:
            if self._leaving is not None:
                await self._leaving
            await self._stop(self._loaded)

    async def reload(self) -> bool:
        """Read plugins.toml and what it names anew.

        Returns:
            Whether it took effect. If not, all is as before, and the log says why.
        """
        async with self._reloading:
            if self._leaving is not None:
                await self._leaving
            try:
                fresh = self._load()
                before = self._loaded
                self._use(await self._take_over(fresh))
            except (ConfigError, PluginError) as exc:
                for line in str(exc).splitlines():
                    log.error("not reloaded, the plugins go on as before: %s", line)
                return False
            done, self.reloaded = self.reloaded, asyncio.Event()
            done.set()
            log.info("reloaded: plugins %s", ", ".join(self.names) or "none")
            kept = {id(loaded.plugin) for loaded in self._loaded}
            # Not waited for: who may no longer be in a room has to go now.
            self._leaving = asyncio.ensure_future(
                self._stop([loaded for loaded in before if id(loaded.plugin) not in kept])
            )
            return True

    async def authenticate(self, request: ConnectRequest) -> Identity:
        """Find out who is connecting.

        Raises:
            NoToken: No plugin knows what the client showed.
            Unauthenticated: The token is bad, or a plugin failed.
            RateLimited: The token is bad, and so were many from that address.
            NotReady: It can't be told yet.
        """
        while True:
            reloaded = self.reloaded
            try:
                identity = await self._identify(request)
            except NoToken:
                raise
            except (Unauthenticated, RateLimited):
                self._counts.sign_ins["refused"] += 1
                raise
            if reloaded is self.reloaded:
                self._counts.sign_ins["accepted"] += 1
                return identity
            # It was given before a reload that took effect meanwhile.

    async def _identify(self, request: ConnectRequest) -> Identity:
        for loaded in self._authenticators:
            try:
                answer = loaded.plugin.authenticate(request)
                if not isinstance(answer, Identity | None):
                    answer = await self._wait(loaded, answer)
            except NotAllowed as exc:
                self._refuse_sign_in(loaded, request, exc.reason)
            except NotReady as exc:
                extra = about(request.request_id)
                log.warning("%s can't tell yet who is who: %s", loaded.use, exc, extra=extra)
                raise
            except Exception as exc:
                extra = about(request.request_id)
                log.error(
                    "plugin %s failed in authenticate: %s", loaded.use, _words(exc), extra=extra
                )
                raise Unauthenticated("sign-in failed") from None
            if answer is None:
                continue
            if not _is_sound(answer):
                log.error("plugin %s: authenticate gave no sound Identity", loaded.use)
                raise Unauthenticated("sign-in failed")
            if left_s(answer) <= 0:
                self._refuse_sign_in(loaded, request, "its identity has ended")
            self._givers[answer] = type(loaded.plugin)
            return answer
        raise NoToken("no token")

    def may(
        self,
        identity: Identity,
        action: Action,
        room_id: str | None = None,
        seat_ids: Sequence[str] = (),
        request_id: str | None = None,
    ) -> bool | Awaitable[bool]:
        """Ask every plugin whether a client may do something: at once where none has to wait.

        A refusal's line in the log has `request_id`.
        """
        allowed = True
        waiting: list[tuple[Loaded, Awaitable[Any]]] = []
        for loaded in self.judges:
            try:
                verdict = loaded.plugin.may(identity, action, room_id, seat_ids)
            except Exception as exc:
                extra = about(request_id)
                log.error("plugin %s failed in may: %s", loaded.use, _words(exc), extra=extra)
                allowed = False
                continue
            if not isinstance(verdict, Verdict) and inspect.isawaitable(verdict):
                waiting.append((loaded, verdict))
            elif not self._allows(loaded, verdict, identity, action, room_id, request_id):
                allowed = False
        if not waiting:
            return allowed
        return self._later(waiting, allowed, identity, action, room_id, seat_ids, request_id)

    def still_stands(self, identity: Identity | None) -> bool:
        """Whether an identity would be given today, or none is needed."""
        if not self._authenticators:
            return True
        if identity is None:
            return False
        giver = self._givers.get(identity)
        # There may be several tables of one plugin: one of them is enough.
        return any(
            self._vouches(loaded, identity)
            for loaded in self._authenticators
            if type(loaded.plugin) is giver
        )

    # ------------------------------------------------------------ inside

    def _load(self) -> list[Loaded]:
        loaded = load_plugins(self._directory)
        for one in loaded:
            if getattr(one.plugin, "needs_exact_origins", False) and not self._origins.are_exact:
                raise ConfigError(
                    f"plugin {one.use} signs in by cookie: any page could use it while "
                    'server.allowed_origins has a "*"; list the exact origins of your pages there'
                )
        return loaded

    def _use(self, loaded: list[Loaded]) -> None:
        self._loaded = loaded
        self._authenticators = [
            one for one in loaded if type(one.plugin).authenticate is not Plugin.authenticate
        ]
        self.needs_identity = bool(self._authenticators)
        """Whether clients must say who they are; else a client id is taken at its word."""
        self.judges = [one for one in loaded if type(one.plugin).may is not Plugin.may]
        """Those that are asked by `may`."""

    async def _take_over(self, fresh: list[Loaded]) -> list[Loaded]:
        """Give present plugins their new settings and start new ones; all of it or nothing.

        Raises:
            PluginError: One of them failed; all are as before.
        """
        present = list(self._loaded)
        result: list[Loaded] = []
        undo: list[tuple[Loaded, bool]] = []
        for one in fresh:
            same = next((old for old in present if type(old.plugin) is type(one.plugin)), None)
            try:
                if same is None:
                    await self._wait(one, one.plugin.start())
                    undo.append((one, True))
                    result.append(one)
                else:
                    present.remove(same)
                    undo.append((same, False))
                    await self._wait(one, same.plugin.reload(one.settings))
                    result.append(replace(one, plugin=same.plugin))
            except Exception as exc:
                await self._undo(undo)
                raise PluginError(f"plugin {one.use} failed: {_words(exc)}") from exc
        return result

    async def _undo(self, steps: list[tuple[Loaded, bool]]) -> None:
        for one, was_started in reversed(steps):
            try:
                if was_started:
                    await self._wait(one, one.plugin.stop())
                else:
                    await self._wait(one, one.plugin.reload(one.settings))
            except Exception as exc:
                log.error("plugin %s could not go back: %s", one.use, _words(exc))

    async def _stop(self, loaded: list[Loaded]) -> None:
        for one in reversed(loaded):
            try:
                await self._wait(one, one.plugin.stop())
            except Exception as exc:
                log.error("plugin %s failed in stop: %s", one.use, _words(exc))

    async def _wait(self, loaded: Loaded, answer: Any) -> Any:
        """Wait for a hook, but no longer than it may take.

        Raises:
            PluginError: It is late. It is cancelled, and not waited for. Or it cancelled itself.
        """
        if not inspect.isawaitable(answer):
            return answer
        task = asyncio.ensure_future(answer)
        try:
            await asyncio.wait({task}, timeout=loaded.deadline_s)
        finally:
            if not task.done():
                task.cancel()
                task.add_done_callback(_forget)
        if not task.done():
            raise PluginError(f"it took longer than {loaded.deadline_s:g} s")
        if task.cancelled():
            raise PluginError("it was cancelled")  # from inside; not to be taken for our own end
        return task.result()

    async def _later(
        self,
        waiting: list[tuple[Loaded, Awaitable[Any]]],
        allowed: bool,
        identity: Identity,
        action: Action,
        room_id: str | None,
        seat_ids: Sequence[str],
        request_id: str | None,
    ) -> bool:
        reloaded = self.reloaded
        answers = (self._wait(loaded, answer) for loaded, answer in waiting)
        verdicts = await asyncio.gather(*answers, return_exceptions=True)
        if reloaded is not self.reloaded:  # it was asked before a reload that took effect meanwhile
            again = self.may(identity, action, room_id, seat_ids, request_id)
            return again if isinstance(again, bool) else await again
        for (loaded, _), verdict in zip(waiting, verdicts, strict=True):
            if isinstance(verdict, Exception):
                extra = about(request_id)
                log.error("plugin %s failed in may: %s", loaded.use, _words(verdict), extra=extra)
                allowed = False
            elif not self._allows(loaded, verdict, identity, action, room_id, request_id):
                allowed = False
        return allowed

    def _allows(
        self,
        loaded: Loaded,
        verdict: Any,
        identity: Identity,
        action: Action,
        room_id: str | None,
        request_id: str | None,
    ) -> bool:
        if verdict is None:
            return True
        # The bool, too: a forgotten `await` inside a Verdict would allow everything.
        if not isinstance(verdict, Verdict) or not isinstance(verdict.allowed, bool):
            log.error("plugin %s: may gave no Verdict", loaded.use)
            return False
        if not verdict.allowed:
            log.info(
                "%s refused %s in room %s to %s: %s",
                loaded.use,
                action,
                room_id,
                loggable(identity.client_id),
                one_line(str(verdict.reason)),
                extra=about(request_id),
            )
        return verdict.allowed

    def _vouches(self, loaded: Loaded, identity: Identity) -> bool:
        try:
            stands = loaded.plugin.still_stands(identity)
        except Exception as exc:
            log.error("plugin %s failed in still_stands: %s", loaded.use, _words(exc))
            return False
        if not isinstance(stands, bool):
            log.error("plugin %s: still_stands gave neither True nor False", loaded.use)
            return False
        return stands

    def _refuse_sign_in(self, loaded: Loaded, request: ConnectRequest, reason: str) -> NoReturn:
        extra = about(request.request_id)
        log.info("%s refused a sign-in: %s", loaded.use, one_line(str(reason)), extra=extra)
        if self._failures is not None:
            retry_after_ms = self._failures.take((request.address, ""), time.monotonic())
            if retry_after_ms:
                raise RateLimited(retry_after_ms)
        raise Unauthenticated("the token is not accepted") from None


def left_s(identity: Identity) -> float:
    """How long an identity still lasts, in seconds; 0 or less: it has ended."""
    if identity.expires_at is None:
        return math.inf
    return identity.expires_at + identity.grace_seconds - time.time()


def _is_sound(answer: Any) -> bool:
    """Whether what `authenticate` gave is an identity that holds and messages can be made with."""
    if not isinstance(answer, Identity):
        return False
    client_id: Any = answer.client_id
    ends: Any = answer.expires_at
    return (
        isinstance(client_id, str)
        and wrong_id("client_id", client_id) is None
        and (ends is None or (isinstance(ends, int | float) and 0 <= ends <= _LAST_MOMENT))
    )


def _forget(task: asyncio.Future[Any]) -> None:
    """Look at the result of a hook that nobody waits for any more, so that asyncio doesn't."""
    if not task.cancelled():
        task.exception()


def _words(exc: BaseException) -> str:
    """What went wrong in a plugin; only our own errors are known to hold no secret."""
    return str(exc) if isinstance(exc, PluginError | ConfigError) else where(exc)
