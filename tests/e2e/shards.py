"""Traffic in many rooms at once, over all shards of a cluster, and what is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
from collections.abc import Callable, Sequence
from typing import Self

from tests.e2e.traffic import History, Traffic
from tests.harness import HasRooms, Instance, holders_in_redis, wait_until_async

ANSWER_S = 3.0
"""The longest that a client waits for an answer, whatever Redis does (PROTOCOL section 4)."""
RIGHT_S = 5.0
"""How soon every viewer is right again once there is a primary."""
NOTICED_S = 5.0
"""How soon `/health` says 503 when Redis is away (PROTOCOL section 4)."""
UNDISTURBED_S = 1.5
"""The longest that an answer takes where nothing has happened, on a machine that has much to do."""


class Load:
    """Traffic in several rooms, each with its clients.

    An async context manager: entered, it flows.

    Args:
        rooms: Their names.
        instances: Where the clients connect.
        chance: What decides.
        has: Where a room's data is, for looking into it.
        clients: In each room.
    """

    def __init__(
        self,
        rooms: Sequence[str],
        instances: Sequence[Instance],
        chance: random.Random,
        has: Callable[[str], HasRooms],
        clients: int = 4,
    ) -> None:
        self.traffic = [Traffic(room, instances, chance, clients) for room in rooms]
        self.clients = len(rooms) * clients
        self._has = has
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(self._stack.enter_async_context(one) for one in self.traffic))
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stack.aclose()

    @property
    def histories(self) -> list[History]:
        """Of each room."""
        return [one.history for one in self.traffic]

    async def flows(self) -> None:
        """Wait until every client has got something done, from now on."""
        await asyncio.gather(*(one.flows() for one in self.traffic))

    async def is_refused(self) -> None:
        """Wait until every client has been told `store_unavailable`, from now on."""
        await asyncio.gather(*(one.is_refused() for one in self.traffic))

    async def settle(self) -> dict[str, dict[str, str]]:
        """Let all clients rest, and wait until every one's map is what Redis has. Returns that."""
        settled = await asyncio.gather(
            *(one.settle(self._has(one.room_id)) for one in self.traffic)
        )
        return {one.room_id: holders for one, holders in zip(self.traffic, settled, strict=True)}

    async def is_right(self) -> None:
        """There is a primary since this moment: wait until all is well, which must be soon."""
        try:
            async with asyncio.timeout(RIGHT_S):
                await self.flows()
                await self.settle()
        except TimeoutError:
            raise AssertionError(f"not right after {RIGHT_S} s: {self._wrongs()}") from None
        self.go_on()

    def _wrongs(self) -> list[str]:
        """What viewers see that is not so."""
        return [
            f"{viewer.client_id} at {viewer.url} sees {viewer.maps[one.room_id]}, revs "
            f"{viewer.revs[one.room_id][-3:]}, but Redis has {holders}"
            for one in self.traffic
            for holders in [holders_in_redis(self._has(one.room_id), one.room_id)]
            for viewer in one.viewers.values()
            if viewer.maps[one.room_id] != holders
        ]

    def go_on(self) -> None:
        """End the rest."""
        for one in self.traffic:
            one.go_on()

    async def judge(self, cuts: Sequence[str] = ()) -> None:
        """Let it come to rest, and fail if a promise was broken or an answer was late.

        Args:
            cuts: When a primary was lost together with the latest of what it had acknowledged.
        """
        for room_id, holders in (await self.settle()).items():
            (history,) = (one.history for one in self.traffic if one.room_id == room_id)
            history.judge(room_id, holders, cuts, is_rollback=bool(cuts))
            assert history.slowest_s <= ANSWER_S
            assert history.closed() == 0

    def refusals(self) -> int:
        """How often `store_unavailable` was said."""
        return sum(history.count("store_unavailable") for history in self.histories)

    def maps(self) -> int:
        """How many maps were sent."""
        return sum(history.maps() for history in self.histories)

    async def is_mapped_anew(self) -> None:
        """Wait until every viewer was sent a second map.

        Who lost nothing is right before that: before its instance hears of changes again.
        """
        await wait_until_async(lambda: self.maps() >= 2 * self.clients)

    def assert_undisturbed(self) -> None:
        """Nobody noticed anything: no refusal, no map but the first, no late answer."""
        assert self.refusals() == 0
        assert self.maps() == self.clients
        assert max(history.slowest_s for history in self.histories) < UNDISTURBED_S


def now() -> str:
    """The moment as it stands on the wire; Redis runs on this machine."""
    moment = datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
