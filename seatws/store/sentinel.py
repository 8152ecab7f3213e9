"""The primary behind Sentinels, kept true by asking them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import redis.asyncio
import redis.exceptions

from seatws.errors import StoreError
from seatws.redis_url import Address, RedisUrl, shown
from seatws.store.lookout import Lookout
from seatws.store.servers import ServerAt, ask, explain, opened

log = logging.getLogger(__name__)

ANSWER_S = 1.0
"""How long one Sentinel may take: with all of them asked in turn, a dead one costs little."""


class PrimaryAt(ServerAt):
    """The server that the Sentinels name."""

    async def connect(self) -> redis.asyncio.Connection:
        """Open a connection (Server)."""
        connection = await super().connect()
        try:
            role = await ask(connection, "ROLE")
            if role[0] != b"master":  # the Sentinels know it sooner than the server itself
                raise StoreError("the server that the Sentinels name is no primary yet")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection


class SentinelPrimary:
    """Every room is at the primary, whichever server that is now.

    A primary that hands over does not know it for ten seconds, in which it goes on confirming what
    will be lost. So the Sentinels are asked again and again, not only when the connection breaks.

    Args:
        url: Some of the Sentinels, and what they call the primary.
        connect_timeout_s: For opening a connection.
    """

    is_cluster = False

    def __init__(self, url: RedisUrl, connect_timeout_s: float) -> None:
        self._url = url
        self._answer_s = min(ANSWER_S, connect_timeout_s)
        self._known: dict[Address, PrimaryAt] = {}
        self._primary: PrimaryAt | None = None
        self._watchers: list[Callable[[], None]] = []
        self._connection: redis.asyncio.Connection | None = None
        self._connected_to: Address = url.addresses[0]
        self._lookout = Lookout(self._look)

    @property
    def servers(self) -> tuple[PrimaryAt, ...]:
        """The primary (Topology)."""
        return () if self._primary is None else (self._primary,)

    def server_of(self, room_id: str) -> PrimaryAt | None:
        """The primary (Topology)."""
        del room_id
        return self._primary

    def doubt(self) -> None:
        """Ask the Sentinels soon (Topology)."""
        self._lookout.doubt()

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever there is another primary (Topology)."""
        self._watchers.append(on_change)

    async def open(self) -> None:
        """Ask for the primary (Topology).

        Raises:
            StoreError: None of the Sentinels names one.
        """
        try:
            await self._look()
        except BaseException:
            await self._drop_connection()
            raise
        self._lookout.start()

    async def close(self) -> None:
        """Ask no more (Topology)."""
        await self._lookout.close()
        await self._drop_connection()

    async def _look(self) -> None:
        """Ask the Sentinels, the last one that answered first.

        Raises:
            StoreError: None names a primary.
        """
        failure: Exception = StoreError("no Sentinel is known")
        for address in dict.fromkeys((self._connected_to, *self._url.addresses)):
            try:
                named = await self._named_by(address)
            except (OSError, redis.exceptions.RedisError, StoreError) as exc:
                await self._drop_connection()
                # Of several reasons, that of one who answered is worth the most.
                if not isinstance(failure, redis.exceptions.AuthenticationError):
                    failure = exc
            else:
                self._take(named)
                return
        raise StoreError(f"no Sentinel names a primary: {explain(failure)}") from failure

    async def _named_by(self, address: Address) -> Address:
        async with asyncio.timeout(self._answer_s):
            if self._connection is None or address != self._connected_to:
                await self._drop_connection()
                self._connection = await opened(self._url.of_sentinel(address))
                self._connected_to = address
            named = await ask(
                self._connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.name
            )
        if named is None:
            raise StoreError(f"{shown(address)} knows none that is called {self._url.name!r}")
        host, port = named
        return host.decode(), int(port)

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    def _take(self, address: Address) -> None:
        primary = self._known.get(address)
        if primary is None:
            url = self._url.of_server(address)
            primary = self._known[address] = PrimaryAt(url, shown(address))
        if primary is self._primary:
            return
        if self._primary is not None:
            log.warning("the primary is now %s", primary.name)
        self._primary = primary
        for on_change in self._watchers:
            on_change()
