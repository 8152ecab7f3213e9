"""Looking where rooms are, again and again, for what moves without anyone of us hearing of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from seatws.errors import StoreError

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""So often."""
LOOK_AGAIN_S = 0.1
"""The least between two looks, however often there is doubt."""


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
