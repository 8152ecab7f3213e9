"""The primary behind Sentinels, kept true by asking them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis.asyncio

from seatws.errors import StoreError
from seatws.redis_url import Address, RedisUrl, shown
from seatws.store.lookout import Informants, Lookout
from seatws.store.servers import ServerAt, ask, opened

log = logging.getLogger(__name__)


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
        self._known: dict[Address, PrimaryAt] = {}
        self._primary: PrimaryAt | None = None
        self._watchers: list[Callable[[], None]] = []
        self._informants = Informants(
            lambda address: opened(url.of_sentinel(address)), connect_timeout_s, self._check
        )
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
        await self._look()
        self._lookout.start()

    async def close(self) -> None:
        """Ask no more (Topology)."""
        await self._lookout.close()
        await self._informants.close()

    async def _look(self) -> None:
        """Ask who the primary is.

        Raises:
            StoreError: No Sentinel names one.
        """
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.name)
        try:
            host, port = await self._informants.ask(self._url.addresses, *command)
        except StoreError as exc:
            raise StoreError(f"no Sentinel names a primary: {exc}") from exc
        self._take((host.decode(), int(port)))

    def _check(self, sentinel: Address, named: Any) -> None:
        if named is None:
            raise StoreError(f"{shown(sentinel)} knows none that is called {self._url.name!r}")

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
