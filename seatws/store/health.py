"""What a Redis must be for holds to be safe in it."""

from __future__ import annotations

import re

import redis.asyncio
import redis.exceptions

from seatws.errors import ConfigError
from seatws.store.connect import ask
from seatws.store.keys import room_keys

OLDEST_REDIS = (6, 2)


async def check_server(connection: redis.asyncio.Connection, prefix: str) -> None:
    """Look at a server before it is trusted with holds.

    Raises:
        ConfigError: It is too old, may throw holds away when memory runs short, or lets us not
            publish (`prefix` begins our channels): a hold would be stored and nobody told.
        redis.exceptions.RedisError: It could not be asked.
    """
    info: dict[str, str] = {}
    for section in ("server", "memory"):
        text = (await ask(connection, "INFO", section)).decode(errors="replace")
        info |= dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE))
    version = info.get("redis_version", "")  # Valkey says here which Redis it is compatible with
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers and numbers < OLDEST_REDIS:
        raise ConfigError(f"redis.url: Redis {version} is too old; use 6.2 or newer, or Valkey")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigError(
            f"redis.url: this Redis has maxmemory-policy {policy} and so may drop holds when its "
            "memory runs short; set `maxmemory-policy noeviction` there"
        )
    try:
        await ask(connection, "PUBLISH", room_keys(prefix, "").channel, "")
    except redis.exceptions.NoPermissionError:
        raise ConfigError(
            f"redis.url: this user may not publish to channels {prefix}:*; allow it there: "
            f"`ACL SETUSER <user> &{prefix}:*`"
        ) from None
