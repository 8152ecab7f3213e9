"""Every Redis server that holds rooms, asked about itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from seatws.config import Redis
from seatws.doctor import rights, server_rules
from seatws.doctor.finding import Finding
from seatws.errors import StoreError
from seatws.store.cluster import slot_of
from seatws.store.health import parse_info
from seatws.store.servers import explain

ROUND_TRIPS: Final = 20


@dataclass(frozen=True, slots=True)
class Server:
    """One server."""

    name: str
    """For people."""
    client: redis.Redis
    is_cluster: bool = False
    is_replica: bool = False
    slots: frozenset[int] | None = None
    """Those of a cluster that it has; None: it has every room."""

    def has(self, room_id: str) -> bool:
        """Whether the room is there, to be changed."""
        return not self.is_replica and (self.slots is None or slot_of(room_id) in self.slots)

    def findings(self, settings: Redis) -> Iterator[Finding]:
        """All that can be said of it."""
        for found in self._findings(settings):
            yield found._replace(about=f"{self.name}: {found.about}")

    def ask(self, *words: str | int) -> Any:
        """Say a command.

        Returns:
            The reply in RESP2's form: text, whole numbers, None, and lists of these.

        Raises:
            redis.exceptions.RedisError: Refused, or no answer.
        """
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def followers(self, channel: str) -> int:
        """How many instances listen to a room's events."""
        _, count = self.ask("PUBSUB", "SHARDNUMSUB" if self.is_cluster else "NUMSUB", channel)
        return int(count)

    def _findings(self, settings: Redis) -> Iterator[Finding]:
        try:
            began = time.perf_counter()
            info = parse_info(self.ask("INFO"))
            took = time.perf_counter() - began
            yield Finding("ok", "reachable", f"connected and answered in {took * 1000:.0f} ms")
            looks = [self._look_at_clock() for _ in range(ROUND_TRIPS)]
            _, ahead_s = min(looks)  # the one that took shortest says most
            yield from server_rules.health(info, ahead_s, is_cluster=self.is_cluster)
            yield from server_rules.persistence(info, self._config("appendfsync"))
            yield from server_rules.replication(info, settings.replicas_ack)
            yield server_rules.memory(info)
            yield server_rules.clients(info)
            yield server_rules.latency([took for took, _ in looks])
            yield from server_rules.clock(ahead_s)
            if not self.is_replica:
                yield from rights.may(self.client, settings.prefix, is_cluster=self.is_cluster)
        except (redis.exceptions.RedisError, OSError) as exc:
            yield unusable(exc, settings.prefix)

    def _config(self, name: str) -> str | None:
        try:
            found = self.ask("CONFIG", "GET", name)
        except redis.exceptions.ResponseError:
            return None  # not allowed, or, where others run the server, not known
        return str(found[1]) if found else None

    def _look_at_clock(self) -> tuple[float, float]:
        """How long the answer took, and how far Redis's clock is ahead of ours, in seconds.

        TIME and not PING, which Redis refuses while it can't write to its disk.
        """
        asked_at, began = time.time(), time.perf_counter()
        seconds, microseconds = map(int, self.ask("TIME"))
        took = time.perf_counter() - began
        return took, seconds + microseconds / 1e6 - (asked_at + took / 2)


def open_at(url: str, settings: Redis) -> redis.Redis:
    """A client for one server, which connects when it is first asked something.

    Raises:
        StoreError: redis-py can't use the URL.
    """
    options: dict[str, Any] = {
        "client_name": "seatws-doctor",
        "socket_connect_timeout": settings.connect_timeout_seconds,
        "socket_timeout": settings.timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        client = redis.Redis.from_url(url, **options)
        # Whatever the URL's options say.
        client.connection_pool.connection_kwargs |= {
            "protocol": 2,
            "decode_responses": True,
            "encoding_errors": "backslashreplace",
        }
        client.connection_pool.make_connection()
    except (TypeError, ValueError) as exc:
        raise StoreError("redis.url has an option that redis-py does not take") from exc
    client.response_callbacks.clear()  # replies as they are: redis-py's shapes are its own
    return client


def unusable(exc: Exception, prefix: str) -> Finding:
    """What to say of a server that can't be asked."""
    why = explain(exc).rstrip(".")
    if isinstance(exc, redis.exceptions.NoPermissionError):
        given = rights.rights_for(prefix, is_cluster=False)
        fix = f"`ACL SETUSER <user> {given}` there (in a cluster +cluster, too)"
    elif isinstance(exc, redis.exceptions.AuthenticationError) or "password" in why:
        fix = "put the right ones into SEATWS_REDIS__URL"
    else:
        fix = "start it, open the way to it, or set SEATWS_REDIS__URL to another one"
    return Finding("problem", "reachable", f"can't be used: {why}", fix)
