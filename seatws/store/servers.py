"""How to get a connection to a Redis server, opened and ready for its first command."""

from __future__ import annotations

from typing import Any, Protocol

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from seatws.errors import StoreError


class Server(Protocol):
    """A server that holds rooms, or what leads to it."""

    name: str
    """For logs: `host:port` where there are several, else `""`."""

    async def connect(self) -> redis.asyncio.Connection:
        """Open a connection. Who calls sets a limit to the time.

        Raises:
            StoreError, OSError, redis.exceptions.RedisError: It can't be had.
        """


class ServerAt:
    """The server at one URL of redis-py's form."""

    def __init__(self, url: str, name: str = "") -> None:
        self.name = name
        self._url = url

    async def connect(self) -> redis.asyncio.Connection:
        """Open a connection (Server)."""
        return await opened(self._url)


async def ask(connection: redis.asyncio.Connection, *command: str | bytes) -> Any:
    """Say one command on a connection that redis-py drives, and wait for the answer.

    Raises:
        redis.exceptions.RedisError: Redis refused, or went away.
    """
    try:
        await connection.send_command(*command)
    except RuntimeError as exc:
        raise _closed() from exc
    return await connection.read_response()


def _closed() -> redis.exceptions.ConnectionError:
    """For uvloop's RuntimeError ("the handler is closed"): it saw the peer go before we wrote."""
    return redis.exceptions.ConnectionError("the connection was closed")


async def opened(url: str) -> redis.asyncio.Connection:
    """A connection to the server at a URL of redis-py's form. Who calls sets a limit to the time.

    Raises:
        StoreError, OSError, redis.exceptions.RedisError: It can't be had.
    """
    try:
        pool: redis.asyncio.ConnectionPool = redis.asyncio.ConnectionPool.from_url(
            url,
            client_name="seatws",
            retry=Retry(NoBackoff(), 0),  # who keeps the connection tries again, at its own pace
        )
        # Whatever the URL's options say: replies, pub/sub too, have one shape everywhere.
        pool.connection_kwargs |= {"protocol": 2, "decode_responses": False}
        connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]
    except (TypeError, ValueError) as exc:
        raise StoreError("it has an option that redis-py does not take") from exc
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except RuntimeError as exc:
        await connection.disconnect(nowait=True)
        raise _closed() from exc
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


_REFUSALS = ("username-password", "AUTH", "WRONGPASS", "NOAUTH", "Authentication")
"""How Redis and redis-py begin, or say within, that a user or a password is not right."""


def explain(exc: Exception) -> str:
    """What kept us from Redis, in words that hold no secret."""
    text = str(exc)
    if any(word in text for word in _REFUSALS):
        return "it refused the user or the password"
    if isinstance(exc, TimeoutError | redis.exceptions.TimeoutError):
        return "it did not answer in time"
    if isinstance(exc, redis.exceptions.ConnectionError | OSError):
        return text or type(exc).__name__
    return f"it answered {text[:120]!r}"
