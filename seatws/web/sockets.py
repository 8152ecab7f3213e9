"""All sockets of this instance: how many there may be, which are dead, and how they go."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

from seatws.config import Config
from seatws.counts import Counts
from seatws.errors import CloseCode
from seatws.logs import loggable
from seatws.rooms.hub import Hub
from seatws.web.connection import CLOSE_S
from seatws.web.gate import Gate
from seatws.web.mass_disconnection import Begun, MassDisconnection, by_code

if TYPE_CHECKING:
    from seatws.web.socket import SeatSocket

log = logging.getLogger(__name__)

SWEEP_S: Final = 1.0
"""All sockets are looked at so often, instead of a timer for each."""
DRAIN_STEP_S: Final = 0.05
"""On the way down those who are due are sent away so often."""
SWEEP_SLICE: Final = 500
"""So many are looked at before the loop does other things."""
LINES_PER_TURN: Final = 100
"""When thousands close at once, so many are logged before the loop does other things: 1.5 ms."""
CLOSED: Final = (
    "closed: client %(client)s, code %(close_code)d, from %(address)s, after %(seconds).1f s, "
    "%(frames_in)d frames in, %(sends)d sends out, rooms: %(rooms)s"
)


class Sockets:
    """Every open socket.

    Args:
        config: Limits, heartbeat and drain.
        gate: Who says what clients may do.
        hub: Where requests go.
        counts: What is counted on the way.
    """

    def __init__(self, config: Config, gate: Gate, hub: Hub, counts: Counts) -> None:
        self.config = config
        self.gate = gate
        self.hub = hub
        self.counts = counts
        self._open: dict[SeatSocket, None] = {}
        self._by_address: Counter[str] = Counter()
        self._sweeping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._is_draining = False
        self._gone: deque[dict[str, Any]] = deque()
        """What is still to be logged of those that are closed."""
        self._losses = MassDisconnection()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._open)

    def start(self) -> None:
        """Begin to look for dead, slow and half-closed connections."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    def add(self, socket: SeatSocket) -> None:
        """Note a new one."""
        self._open[socket] = None
        self._by_address[socket.address] += 1
        self._empty.clear()
        self.counts.connections_opened += 1

    def remove(self, socket: SeatSocket) -> None:
        """Forget one that is closed, and leave its line in the log."""
        del self._open[socket]
        self._by_address[socket.address] -= 1
        if not self._by_address[socket.address]:
            del self._by_address[socket.address]
        if not self._open:
            self._empty.set()
        self.counts.closed(socket.close_code)
        if not self._is_draining:
            self._losses.closed(socket.close_code, socket.opened_at)
        if not log.isEnabledFor(logging.INFO):
            return
        loop = asyncio.get_running_loop()
        if not self._gone:
            loop.call_soon(self._log_gone)
        self._gone.append(
            {
                "client": socket.client_id,
                "close_code": socket.close_code,
                "address": socket.address or "-",
                "seconds": round(loop.time() - socket.opened_at, 1),
                "frames_in": socket.frames_in,
                "sends": socket.sends,
                "rooms": tuple(socket.viewers) or socket.left,
            }
        )

    def keep(self, task: asyncio.Future[None]) -> None:
        """Hold on to a socket's task until it is done: the loop itself does not."""
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    async def look_at_permissions(self) -> None:
        """After a reload: close and expel those who may no longer be where they are."""
        sockets = list(self._open)
        for at in range(0, len(sockets), SWEEP_SLICE):
            some = [socket for socket in sockets[at : at + SWEEP_SLICE] if socket.is_open]
            # Together: one for whom a plugin thinks long keeps nobody else where they are.
            await asyncio.gather(*(socket.look_at_permissions() for socket in some))

    def refusal_for(self, address: str) -> tuple[CloseCode, str] | None:
        """Why one more connection from there is one too many; None if it is not."""
        limits = self.config.limits
        if self._is_draining:
            return CloseCode.SERVICE_RESTART, "the server is being restarted"
        if limits.connections and len(self._open) >= limits.connections:
            return CloseCode.TRY_AGAIN_LATER, "this instance is full"
        if 0 < limits.connections_per_address <= self._by_address[address]:
            return CloseCode.RATE_LIMITED, "too many connections from this address"
        return None

    async def drain(self, seconds: float) -> None:
        """Send everybody away, spread over some time, and wait until they are gone.

        Those who don't answer the close are cut off some seconds after the last was told.
        """
        self._is_draining = True
        loop = asyncio.get_running_loop()
        began, total = loop.time(), len(self._open)
        leaving = list(self._open)
        random.shuffle(leaving)
        while leaving:
            share = min(1.0, (loop.time() - began) / seconds) if seconds else 1.0
            due = math.ceil(total * share) - (total - len(leaving))
            group, leaving = leaving[:due], leaving[due:]
            await self._see_off([socket for socket in group if socket.is_open])
            if leaving:
                await asyncio.sleep(DRAIN_STEP_S)
                if not self._open:
                    return
        try:
            async with asyncio.timeout(CLOSE_S + 2 * SWEEP_S):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d connections did not close in time", len(self._open))

    async def _see_off(self, sockets: list[SeatSocket]) -> None:
        """Send some away. What they asked for is done and answered; they can ask no more."""
        for socket in sockets:
            socket.hold()
        await self.hub.settle()
        for socket in sockets:
            socket.left = tuple(socket.viewers)
            self.hub.peer_leaves(socket)
            socket.say_goodbye(CloseCode.SERVICE_RESTART, "the server is being restarted")

    async def close(self) -> None:
        """Cut off who is left."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        for socket in list(self._open):
            socket.abort()
        while self._gone:
            self._log_gone()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _log_gone(self) -> None:
        for _ in range(min(LINES_PER_TURN, len(self._gone))):
            line = self._gone.popleft()
            line["client"] = loggable(line["client"])
            line["rooms"] = " ".join(map(loggable, line["rooms"])) or "-"
            log.info(CLOSED, line)
        if self._gone:
            asyncio.get_running_loop().call_soon(self._log_gone)

    def _look_at_losses(self, now: float) -> None:
        news = self._losses.look(now, len(self._open))
        if news is None:
            return
        facts = {
            "lost": news.lost.total(),
            "seconds": round(news.seconds, 1),
            "codes": by_code(news.lost),
        }
        if isinstance(news, Begun):
            self.counts.mass_disconnections += 1
            log.error(
                "mass disconnection: %(lost)d of %(stood)d connections lost within %(seconds).0f s "
                "(by close code %(codes)s)",
                facts | {"stood": news.stood},
            )
        else:
            log.warning(
                "the mass disconnection is over after %(seconds).0f s: %(lost)d lost in all "
                "(by close code %(codes)s), %(connections)d connections now",
                facts | {"connections": len(self._open)},
            )

    def _task_done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("handling a message failed; this is a bug", exc_info=exc)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        silence_s = self.config.heartbeat.interval_seconds or math.inf
        while True:
            await asyncio.sleep(SWEEP_S)
            if not self._is_draining:
                self._look_at_losses(loop.time())
            sockets = list(self._open)
            for at in range(0, len(sockets), SWEEP_SLICE):
                now = loop.time()
                for socket in sockets[at : at + SWEEP_SLICE]:
                    # Nearly all of them, nearly always: so there is no call for each.
                    if (
                        now - socket.heard_at <= silence_s
                        and socket.identity is None
                        and socket.sign_in_by is None
                        and socket.closing_since is None
                        and socket.behind_since is None
                    ):
                        continue
                    self._look_at(socket, now)
                await asyncio.sleep(0)

    def _look_at(self, socket: SeatSocket, now: float) -> None:
        heartbeat = self.config.heartbeat
        if socket.sign_in_by is not None and now > socket.sign_in_by and socket.is_open:
            socket.say_goodbye(CloseCode.TIMED_OUT, "did not sign in in time")
        if socket.identity is not None:
            socket.look_at_expiry(time.time())
        if socket.closing_since is not None:
            if now - socket.closing_since > CLOSE_S:
                socket.abort()
        elif socket.behind_since is not None:
            if now - socket.behind_since > self.config.limits.slow_seconds:
                socket.say_goodbye(CloseCode.TOO_SLOW, "did not read what it was sent")
        elif heartbeat.interval_seconds and not socket.is_thinking:
            if now - socket.heard_at <= heartbeat.interval_seconds:
                return
            if socket.pinged_at <= socket.heard_at:
                socket.ping()
            elif now - socket.pinged_at > heartbeat.timeout_seconds:
                socket.say_goodbye(CloseCode.TIMED_OUT, "no sign of life")
