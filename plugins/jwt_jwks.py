"""The keys behind a `jwks_url`: fetched beside the loop's work, kept fresh, kept while it is away.

The set at hand answers; nobody waits for a refresh. A fetch is waited for in two cases only: there
is no set yet, or a token has a `kid` that the set doesn't know, as after a rotation.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from tornado.httpclient import HTTPError
from tornado.iostream import IOStream, UnsatisfiableReadError
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient
from tornado.tcpclient import TCPClient

from plugins.jwt_keys import MAX_DOCUMENT_BYTES, Key, by_algorithm, parse_jwks
from plugins.jwt_settings import KeySettings

log = logging.getLogger(__name__)

MAX_UNKNOWN_KIDS: Final = 256
"""That are remembered, so as not to be looked for again and again."""
_FIRST_RETRY_S: Final = 1.0
_HEADER_BYTES: Final = 65_536  # as Tornado limits them itself


class JwksUrl:
    """One URL and the keys it serves. Answers from what it has; `start` and `stop` it on the loop.

    Args:
        settings: With `jwks_url`.
        clock: Seconds; it never goes back.
    """

    def __init__(self, settings: KeySettings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self._clock = clock
        parts = urlsplit(settings.jwks_url)
        self._name = f"{parts.scheme}://{parts.netloc}{parts.path}"  # a query may hold a password
        self._document = b""
        self._keys: dict[str, tuple[Key, ...]] = {}
        self._kids: frozenset[str] = frozenset()
        self._unknown: dict[str, None] = {}
        self._fetched_at = -math.inf
        self._no_search_before = -math.inf
        self._failures = 0
        self._warned_of = ""
        self._keeper: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[bool] | None = None

    @property
    def has_keys(self) -> bool:
        """Whether there is a set, not too old."""
        return self._clock() - self._fetched_at <= self.settings.stale_seconds

    def keys(self, algorithm: str) -> Sequence[Key]:
        """Those for an algorithm."""
        return self._keys.get(algorithm, ()) if self.has_keys else ()

    def adopt(self, other: JwksUrl) -> None:
        """Begin with what another one with the same URL fetched last."""
        if other._document:
            try:
                self._take(other._document)
            except ValueError:
                return  # not for the algorithms of now
            self._fetched_at = other._fetched_at

    def start(self) -> None:
        """Fetch now, and then from time to time. Harmless if it runs."""
        if self._keeper is None:
            self._fetch()  # now: whoever signs in in this very moment finds it under way
            self._keeper = asyncio.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """End it, a fetch under way included."""
        tasks = [task for task in (self._keeper, self._fetching) if task is not None]
        self._keeper = self._fetching = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def search(self, kid: str | None) -> asyncio.Task[bool] | None:
        """Say what to wait for before a token that no key fits is refused.

        Returns:
            The fetch under way, begun for this `kid` if none was; None: waiting would not help.
        """
        if not self.has_keys:
            return self._fetching
        if kid is None or kid in self._kids or kid in self._unknown:
            return None
        if self._fetching is None:
            now = self._clock()
            if self._keeper is None or now < self._no_search_before:
                return None
            self._no_search_before = now + self.settings.cooldown_seconds
            self._fetch()
        return self._fetching

    def remember_unknown(self, kid: str) -> None:
        """Don't look for it until the next refresh."""
        if kid not in self._kids:
            self._unknown[kid] = None
            if len(self._unknown) > MAX_UNKNOWN_KIDS:
                del self._unknown[next(iter(self._unknown))]

    async def _keep_fresh(self) -> None:
        while True:
            if await self._fetch():
                self._unknown.clear()
                await asyncio.sleep(self.settings.refresh_seconds)
            else:
                longest = min(self.settings.cooldown_seconds, self.settings.refresh_seconds)
                retry = _FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 16)
                await asyncio.sleep(min(retry, longest))

    def _fetch(self) -> asyncio.Task[bool]:
        """The fetch under way; a new one if there is none."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_once())
        return self._fetching

    async def _fetch_once(self) -> bool:
        problem = ""
        try:
            self._take(await _get(self.settings.jwks_url, self.settings.timeout_seconds))
        except HTTPTimeoutError:
            problem = f"no whole answer within {self.settings.timeout_seconds:g} s"
        except HTTPError as exc:
            hint = "; redirects are not followed" if 300 <= exc.code < 400 else ""
            problem = f"HTTP {exc.code}{hint}" if exc.code < 599 else "the connection broke off"
        except UnsatisfiableReadError:
            problem = "headers that are too long"
        except ValueError as exc:
            problem = str(exc)
        except OSError as exc:
            problem = exc.strerror or type(exc).__name__
        except Exception as exc:
            # Whatever it may be, the next try must come, or the keys would stay old for ever.
            log.exception("%s: fetching the keys failed", self._name)
            problem = type(exc).__name__
        finally:
            self._fetching = None
        if problem:
            self._failures += 1
            now = "the last good ones stay in use" if self.has_keys else "nobody can sign in by it"
            level = logging.DEBUG if now == self._warned_of else logging.WARNING
            self._warned_of = now
            log.log(level, "%s: no new keys: %s; %s", self._name, problem, now)
            return False
        self._fetched_at = self._clock()
        if self._failures:
            log.info("%s: keys are there again", self._name)
        self._failures = 0
        self._warned_of = ""
        return True

    def _take(self, document: bytes) -> None:
        """Use a JWK Set.

        Raises:
            ValueError: It can't be used; the old one stays.
        """
        keys = parse_jwks(document, self.settings.algorithms, self.settings.jwks_url)
        self._document = document
        self._keys = by_algorithm(keys)
        self._kids = frozenset(key.id for key in keys)


class _Connections(TCPClient):
    """Remembers what it opened, so that a fetch can be cut off: Tornado's client has no way to."""

    task: asyncio.Task[Any] | None = None
    stream: IOStream | None = None

    async def connect(self, *args: Any, **options: Any) -> IOStream:
        """As the base class's."""
        self.task = asyncio.current_task()
        self.stream = await super().connect(*args, **options)
        return self.stream

    async def cut(self) -> None:
        """Close what is open, or stop opening it; return when that is done."""
        if self.stream is not None:
            self.stream.close()
        elif self.task is not None:
            self.task.cancel()
        if self.task is not None:
            await asyncio.wait([self.task])


async def _get(url: str, timeout_seconds: float) -> bytes:
    """Fetch a document, redirects not followed. Cancelled, it leaves nothing behind.

    Raises:
        HTTPError, OSError, UnsatisfiableReadError: There is none.
    """
    client = SimpleAsyncHTTPClient(
        force_instance=True,
        max_body_size=MAX_DOCUMENT_BYTES,
        max_buffer_size=MAX_DOCUMENT_BYTES + _HEADER_BYTES,
    )
    client.tcp_client = connections = _Connections(client.resolver)
    fetching = client.fetch(
        url,
        headers={"Accept": "application/jwk-set+json, application/json"},
        follow_redirects=False,
        decompress_response=False,  # nobody needs it here, and small bodies may grow large
        connect_timeout=timeout_seconds,
        request_timeout=timeout_seconds,  # of it all
    )
    # Tornado logs an error for a future that was cancelled before its end, and asyncio for one
    # whose exception nobody looked at.
    fetching.add_done_callback(lambda future: future.exception())
    try:
        return (await asyncio.shield(fetching)).body
    finally:
        await connections.cut()
        client.close()
