"""Which server has which room: one for all of them, one that may change, a cluster's primaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from seatws.config import Config
from seatws.redis_url import RedisUrl, split_redis_url
from seatws.store.cluster import Cluster
from seatws.store.sentinel import SentinelPrimary
from seatws.store.servers import Server, ServerAt


class Topology(Protocol):
    """Where rooms are. Asked for every command, so it answers from memory."""

    is_cluster: bool

    @property
    def servers(self) -> tuple[Server, ...]:
        """Those that hold rooms now."""

    def server_of(self, room_id: str) -> Server | None:
        """Who has the room now; None if that is nobody."""

    def doubt(self) -> None:
        """Something is not as it was known: look again."""

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` whenever rooms have moved."""

    async def open(self) -> None:
        """Find the servers.

        Raises:
            StoreError: They can't be found.
        """

    async def close(self) -> None:
        """Look no more."""


class OneServer:
    """Every room is in one place."""

    is_cluster = False

    def __init__(self, server: Server) -> None:
        self.servers = (server,)
        self._server = server

    def server_of(self, room_id: str) -> Server:
        """The one (Topology)."""
        del room_id
        return self._server

    def doubt(self) -> None:
        """There is nothing to find out (Topology)."""

    def watch(self, on_change: Callable[[], None]) -> None:
        """Nothing moves (Topology)."""

    async def open(self) -> None:
        """There is nothing to find (Topology)."""

    async def close(self) -> None:
        """There is nothing to end (Topology)."""


def topology_of(config: Config, url: str) -> Topology:
    """What a URL leads to; it has been checked with the settings."""
    parts = split_redis_url(url)
    match parts:
        case RedisUrl(kind="cluster"):
            return Cluster(parts, config.redis.connect_timeout_seconds)
        case RedisUrl(kind="sentinel"):
            return SentinelPrimary(parts, config.redis.connect_timeout_seconds)
        case _:
            return OneServer(ServerAt(url))
