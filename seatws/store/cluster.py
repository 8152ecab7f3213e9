"""A Redis Cluster's map: which primary has which slot, kept true by asking."""

from __future__ import annotations

import logging
import random
from binascii import crc_hqx
from collections.abc import Callable, Iterable
from typing import Any

from seatws.errors import StoreError
from seatws.redis_url import Address, RedisUrl, shown
from seatws.store.lookout import Informants, Lookout
from seatws.store.servers import ServerAt

log = logging.getLogger(__name__)

SLOTS = 16384


def slot_of(room_id: str) -> int:
    """A room's slot: its keys' hash tag is the room's id (Redis Cluster specification)."""
    return crc_hqx(room_id.encode(), 0) % SLOTS


class Cluster:
    """The primaries of a cluster, and their slots.

    Args:
        url: Some of its servers; the others are learnt from them.
        connect_timeout_s: For opening a connection.
    """

    is_cluster = True

    def __init__(self, url: RedisUrl, connect_timeout_s: float) -> None:
        self._url = url
        self._known: dict[Address, ServerAt] = {}
        self._by_slot: list[ServerAt | None] = [None] * SLOTS
        self._servers: tuple[ServerAt, ...] = ()
        self._may_know: list[Address] = list(url.addresses)
        """Who can be asked for the map, the likeliest to answer first."""
        self._informants = Informants(
            lambda address: self.server_at(address).connect(), connect_timeout_s
        )
        self._watchers: list[Callable[[], None]] = []
        self._lookout = Lookout(self._look)

    @property
    def servers(self) -> tuple[ServerAt, ...]:
        """The primaries that have slots (Topology)."""
        return self._servers

    def server_of(self, room_id: str) -> ServerAt | None:
        """Who has the room now (Topology)."""
        return self._by_slot[slot_of(room_id)]

    def server_at(self, address: Address) -> ServerAt:
        """The server at an address, perhaps one that has no slot yet."""
        server = self._known.get(address)
        if server is None:
            url = self._url.of_server(address)
            server = self._known[address] = ServerAt(url, shown(address))
        return server

    def doubt(self) -> None:
        """Read the map soon (Topology)."""
        self._lookout.doubt()

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever slots have moved (Topology)."""
        self._watchers.append(on_change)

    def learn(self, slot: int, address: Address) -> None:
        """Take a server's word that a slot is at another one."""
        server = self.server_at(address)
        if self._by_slot[slot] is not server:
            by_slot = self._by_slot.copy()
            by_slot[slot] = server
            self._take(by_slot)
        self.doubt()

    async def open(self) -> None:
        """Read the map (Topology).

        Raises:
            StoreError: None of the servers in the URL gives one.
        """
        await self._look()
        if not self._servers:
            await self._informants.close()
            raise StoreError("the cluster has no slots assigned; create it with redis-cli")
        self._lookout.start()

    async def close(self) -> None:
        """Read the map no more (Topology)."""
        await self._lookout.close()
        await self._informants.close()

    async def _look(self) -> None:
        """Read the map from whoever gives it.

        Raises:
            StoreError: Nobody does.
        """
        self._read(
            await self._informants.ask((*self._may_know, *self._url.addresses), "CLUSTER", "SLOTS")
        )

    def _read(self, ranges: Iterable[Any]) -> None:
        """Take CLUSTER SLOTS' reply: {{first, last, {host, port, id}, replicas...}, ...}."""
        # A slot that is missing is on its way: whoever was asked has heard that its owner became a
        # replica, but not yet whose. That owner knows, and says MOVED.
        by_slot = self._by_slot.copy()
        may_know: list[Address] = []
        for first, last, *nodes in ranges:
            addresses = [self._address(node) for node in nodes]
            may_know += addresses
            by_slot[first : last + 1] = [self.server_at(addresses[0])] * (last + 1 - first)
        random.shuffle(may_know)  # so that not all instances ask the same one
        self._may_know = may_know
        if by_slot != self._by_slot:
            self._take(by_slot)

    def _address(self, node: list[Any]) -> Address:
        host, port = node[0], node[1]
        asked = self._informants.asked
        assert asked is not None  # noqa: S101  it has just answered
        # A server that does not know its own name or address gives none: it is the one we asked.
        return (host or b"").decode() or asked[0], int(port)

    def _take(self, by_slot: list[ServerAt | None]) -> None:
        self._by_slot = by_slot
        before = self._servers
        self._servers = tuple(dict.fromkeys(server for server in by_slot if server is not None))
        if before and set(before) != set(self._servers):
            names = ", ".join(server.name for server in self._servers) or "none"
            log.warning("the cluster's primaries are now %s", names)
        for on_change in self._watchers:
            on_change()


def redirection(error: str) -> tuple[int, Address] | None:
    """The slot and the server that a `MOVED` or `ASK` error names; None if it names none."""
    _, slot, where = error.split(" ", 2)
    host, _, port = where.strip().rpartition(":")
    return (int(slot), (host.strip("[]"), int(port))) if host else None
