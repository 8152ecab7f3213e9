"""What a Redis must be for holds to be safe in it."""

from __future__ import annotations

import logging
import re
import time

import redis.asyncio
import redis.exceptions

from seatws.config import Redis
from seatws.errors import ConfigError
from seatws.store.keys import room_keys
from seatws.store.servers import ask

log = logging.getLogger(__name__)

OLDEST_REDIS = (6, 2)
OLDEST_CLUSTER = (7, 0)
"""The first with sharded pub/sub."""
CLOCK_OFF_S = 5.0
"""More than that between Redis's clock and this machine's is worth a look."""


class HealthCheck:
    """Looks at servers before they are trusted with holds.

    Args:
        settings: Those that led there.
        publish: `PUBLISH`, or `SPUBLISH` in a cluster.
    """

    def __init__(self, settings: Redis, publish: str) -> None:
        self._settings = settings
        self._publish = publish
        self._warned: set[str] = set()

    async def __call__(self, connection: redis.asyncio.Connection) -> None:
        """Look at one. What is no reason to refuse it is logged, once.

        Raises:
            ConfigError: It is too old, may throw holds away when memory runs short, or lets us
                not publish: a hold would be stored and nobody told.
            redis.exceptions.RedisError: It could not be asked.
        """
        info = await read_info(connection)
        refusal = refusal_of(info, is_cluster=self._publish == "SPUBLISH")
        if refusal is not None:
            raise ConfigError(f"redis.url: {refusal}")
        await _check_publishing(connection, self._settings.prefix, self._publish)
        ahead_s = await read_clock(connection) - time.time()
        replicas_ack = self._settings.replicas_ack
        for warning in warnings_of(info, ahead_s=ahead_s, replicas_ack=replicas_ack):
            kind = re.sub(r"\d", "", warning)
            if kind not in self._warned:
                self._warned.add(kind)
                log.warning("%s", warning)


async def read_clock(connection: redis.asyncio.Connection) -> float:
    """The server's clock, in seconds since 1970."""
    seconds, microseconds = await ask(connection, "TIME")
    return int(seconds) + int(microseconds) / 1_000_000


async def read_info(connection: redis.asyncio.Connection) -> dict[str, str]:
    """What INFO says of the server, its memory, its disk and its replicas."""
    info: dict[str, str] = {}
    for section in ("server", "memory", "persistence", "replication"):
        info |= parse_info((await ask(connection, "INFO", section)).decode(errors="replace"))
    return info


def parse_info(text: str) -> dict[str, str]:
    """The fields of an answer to INFO."""
    return dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE))


def refusal_of(info: dict[str, str], *, is_cluster: bool) -> str | None:
    """Why this server is not to be trusted with holds; None if it may be."""
    version = info.get("redis_version", "")  # Valkey says here which Redis it is compatible with
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    oldest = OLDEST_CLUSTER if is_cluster else OLDEST_REDIS
    if numbers and numbers < oldest:
        what = "a cluster" if is_cluster else "seatws"
        needed = ".".join(map(str, oldest))
        return f"Redis {version} is too old for {what}; use {needed} or newer, or Valkey"
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return (
            f"this Redis has maxmemory-policy {policy} and so may drop holds when its memory runs "
            "short; set `maxmemory-policy noeviction` there"
        )
    return None


def warnings_of(info: dict[str, str], *, ahead_s: float, replicas_ack: int) -> list[str]:
    """What could lose holds, or mislead people, in plain words.

    Args:
        info: What INFO says.
        ahead_s: How far the server's clock is ahead of this machine's.
        replicas_ack: The setting.
    """
    warnings = []
    if info.get("aof_enabled") == "0":
        warnings.append(
            "this Redis has appendonly off: its restart loses the holds of the last minutes, or "
            "all; set `appendonly yes` there"
        )
    if info.get("aof_last_write_status") == "err" or info.get("rdb_last_bgsave_status") == "err":
        warnings.append(
            "this Redis can't write to its disk, and a restart would lose holds; look at its log"
        )
    if abs(ahead_s) > CLOCK_OFF_S:
        direction = "ahead of" if ahead_s > 0 else "behind"
        warnings.append(
            f"Redis's clock is {abs(ahead_s):.0f} s {direction} this machine's; deadlines are by "
            "Redis's: set both by NTP"
        )
    replicas = int(info.get("connected_slaves", "0"))
    if replicas < replicas_ack:
        warnings.append(
            f"redis.replicas_ack is {replicas_ack} and this Redis has {replicas} replicas now: "
            "every change is refused until it has enough"
        )
    return warnings


async def _check_publishing(
    connection: redis.asyncio.Connection, prefix: str, publish: str
) -> None:
    try:
        await ask(connection, publish, room_keys(prefix, "").channel, "")
    except redis.exceptions.NoPermissionError:
        raise ConfigError(
            f"redis.url: this user may not publish to channels {prefix}:*; allow it there: "
            f"`ACL SETUSER <user> &{prefix}:*`"
        ) from None
    except (redis.exceptions.MovedError, redis.exceptions.ClusterDownError):
        pass  # it may; the slot of this channel is another server's, which is asked the same
