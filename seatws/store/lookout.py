"""Looking where rooms are, again and again, for what moves without anyone of us hearing of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import redis.asyncio
import redis.exceptions

from seatws.errors import StoreError
from seatws.redis_url import Address
from seatws.store.servers import ask, explain

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""So often."""
LOOK_AGAIN_S = 0.1
"""The least between two looks, however often there is doubt."""
ANSWER_S = 1.0
"""How long a server may take to answer before another one is asked."""


class Informants:
    """Servers of which each can say where rooms are, on a connection to the one that last did.

    Args:
        connect: Opens a connection to one of them.
        connect_timeout_s: For opening one.
        check: Given an answer and whose it is; its StoreError has the next one asked.
    """

    def __init__(
        self,
        connect: Callable[[Address], Awaitable[redis.asyncio.Connection]],
        connect_timeout_s: float,
        check: Callable[[Address, Any], None] = lambda address, reply: None,
    ) -> None:
        self._connect = connect
        self._answer_s = min(ANSWER_S, connect_timeout_s)
        self._check = check
        self._connection: redis.asyncio.Connection | None = None
        self.asked: Address | None = None
        """Whom the connection goes to, or last went to."""

    async def ask(self, addresses: Iterable[Address], *command: str) -> Any:
        """Ask one after the other, the last that answered first; the first answer.

        Raises:
            StoreError: Nobody answers.
        """
        failure: Exception = StoreError("no server is known")
        first = () if self.asked is None else (self.asked,)
        for address in dict.fromkeys((*first, *addresses)):
            try:
                reply = await self._ask(address, command)
                self._check(address, reply)
            except (OSError, redis.exceptions.RedisError, StoreError) as exc:
                await self.close()
                # Of several reasons, that of one who answered is worth the most.
                if not isinstance(failure, redis.exceptions.AuthenticationError):
                    failure = exc
            else:
                return reply
        raise StoreError(explain(failure)) from failure

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _ask(self, address: Address, command: tuple[str, ...]) -> Any:
        async with asyncio.timeout(self._answer_s):
            if self._connection is None or address != self.asked:
                await self.close()
                self._connection = await self._connect(address)
                self.asked = address
            return await ask(self._connection, *command)


class Lookout:
    """Looks each second, and sooner in doubt.

    Args:
        look: One look; its StoreError is no reason to end.
    """

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._doubted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def doubt(self) -> None:
        """Look soon."""
        self._doubted.set()

    def start(self) -> None:
        """Look from now on."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Look no more."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._doubted.wait()
            except TimeoutError:
                pass
            self._doubted.clear()
            try:
                await self._look()
            except StoreError as exc:
                log.debug("nobody says where the rooms are: %s", exc)
            except Exception:
                log.exception("looking where the rooms are failed in a way that is a bug")
