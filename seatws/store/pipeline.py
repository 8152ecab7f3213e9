"""Commands to one Redis server, as many at a time as have gathered.

One pipeline is under way at a time. What is asked meanwhile waits for it and goes out together:
no timer, no window, and the busier, the fewer system calls a command.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import redis.asyncio

from seatws.errors import ConfigError, StoreError
from seatws.logs import Repeats
from seatws.store.clock import RedisClock
from seatws.store.connect import Greet, KeptLink, Reply, ReplyError, pack
from seatws.store.servers import Server, ask

log = logging.getLogger(__name__)

MAX_COMMANDS = 1000
"""In one pipeline, so that its first answer does not wait for a very long rest."""
PROBE_S = 2.0
"""How often Redis's clock is looked at, and with it the connection when nothing else is asked."""
TICK_S = 0.2
"""How often a late answer is looked for. It comes on top of the timeout."""

_GO_ELSEWHERE = ("READONLY", "LOADING ", "MASTERDOWN")
"""In answers of a server that is no primary, or not yet: connect anew, perhaps to another one.
Older ones say it in the middle of an error of the script's."""
_REDIRECTIONS = ("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")
"""How a cluster's server begins when it did nothing, since the room is, or will be, elsewhere."""


class Job(Protocol):
    """One command, and who waits for its reply."""

    room_id: str
    """Which room it is about; "" if none."""
    changes: bool
    """Whether it may change a hold: with `replicas_ack`, it is done when the replicas have it."""

    def command(self) -> bytes:
        """The command, packed; asked for when it is sent, once."""

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        """Take the reply. Redis's own errors come as StoreError.

        Args:
            reply: What Redis said.
            is_safe: False if too few replicas have what was changed: it stands now, but may be
                lost with the primary.
        """


class Sent(NamedTuple):
    """A command that is under way."""

    command: bytes
    job: Job
    asked_at: float
    """When the job was added; the timeout counts from there."""
    is_second: bool = False
    """It was said before, to a Redis that did not know the script."""


Waiting = tuple[float, Job]
"""When it was asked for (`time.monotonic()`), and what."""


class Pipeline:
    """A kept connection for commands. Jobs are done in the order in which they were added.

    Args:
        server: Which Redis.
        connect_timeout_s: For opening a connection.
        timeout_s: For an answer, from when it was asked for; over it the connection is given up.
        scripts: Lua sources that jobs call by their SHA-1.
        replicas: So many must have a change before its job is done; 0: none.
        greet: Said on each new connection first. Its ConfigError stops the first `open` only.
        on_up: The connection stands again; called before any waiting job.
        on_down: The connection was lost; called after the jobs that were lost with it.
        on_redirected: Gets the commands that this server did not do because their room is not
            here, with its words, in order; nothing else is under way then. None: they fail.
        on_round_trip: Called with the seconds from a pipeline's sending to its last answer.
    """

    def __init__(
        self,
        server: Server,
        connect_timeout_s: float,
        timeout_s: float,
        *,
        scripts: tuple[bytes, ...],
        replicas: int,
        greet: Greet,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_redirected: Callable[[list[tuple[str, Sent]]], None] | None,
        on_round_trip: Callable[[float], None],
    ) -> None:
        self.clock = RedisClock()
        self._timeout_s = timeout_s
        self._scripts = scripts
        # Half of the timeout is for the replicas, so that one that is away costs no connection.
        self._wait = pack("WAIT", replicas, int(timeout_s * 500)) if replicas else b""
        self._replicas = replicas
        self._greet = greet
        self._on_up = on_up
        self._on_down = on_down
        self._on_redirected = on_redirected
        self._on_round_trip = on_round_trip
        self._link = KeptLink(
            server,
            connect_timeout_s,
            greet=self._introduce,
            on_reply=self._take_reply,
            on_up=self._up,
            on_down=self._down,
        )
        self._waiting: deque[Waiting] = deque()
        self._again: list[Sent] = []
        self._under_way: deque[Sent] = deque()
        self._sent_at = 0.0
        self._unsafe: list[tuple[Job, Reply]] = []
        """Replies that wait for the replicas."""
        self._redirected: list[tuple[str, Sent]] = []
        self._repeats = Repeats()
        self._kick: asyncio.Handle | None = None
        self._needs_scripts = False
        self._opened = False
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether commands have a chance."""
        return self._link.is_up

    @property
    def is_starting(self) -> bool:
        """Whether the first connection is being opened, after `start`."""
        return self._link.is_starting

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreError: Redis can't be had.
            ConfigError: It is not fit for holds.
        """
        self._loop = asyncio.get_running_loop()  # once: asking is a system call, getpid(2)
        await self._link.open()
        self._opened = True
        self._watch = self._loop.create_task(self._watch_over())

    def start(self) -> None:
        """Connect as soon as that can be; `on_up` tells."""
        self._loop = asyncio.get_running_loop()
        self._opened = True
        self._link.start()
        self._watch = self._loop.create_task(self._watch_over())

    async def close(self) -> None:
        """Close for good; jobs that have no answer yet are told so."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._link.close()
        self._fail_all("the server is going down")

    def add(self, job: Job, asked_at: float = 0.0) -> None:
        """Send the job's command as soon as may be. Without a connection it fails at once.

        Args:
            job: What is to be done.
            asked_at: Since when somebody waits for it, `time.monotonic()`; 0: now.
        """
        if not self._link.is_up:
            job.done(StoreError("Redis is away"))
            return
        self._waiting.append((asked_at or time.monotonic(), job))
        if not self._under_way and self._kick is None:
            # At the end of this turn of the loop: what else it brings goes along.
            self._kick = self._loop.call_soon(self._kicked)

    def withdraw(self, is_meant: Callable[[Job], bool]) -> list[Waiting]:
        """Take back jobs that have not been sent, in order."""
        taken = [waiting for waiting in self._waiting if is_meant(waiting[1])]
        self._waiting = deque(waiting for waiting in self._waiting if not is_meant(waiting[1]))
        return taken

    def rooms_under_way(self) -> set[str]:
        """The rooms of jobs that have been sent and have no answer yet."""
        return {sent.job.room_id for sent in self._under_way if sent.job.room_id}

    async def _introduce(self, connection: redis.asyncio.Connection) -> None:
        try:
            await self._greet(connection)
        except ConfigError as exc:
            if not self._opened:
                raise
            log.error("%s", exc)  # no reason to stop serving, but one to look
        for script in self._scripts:
            await ask(connection, "SCRIPT", "LOAD", script)
        asked_at = time.monotonic()
        self._learn_time(await ask(connection, "TIME"), asked_at)

    def _up(self) -> None:
        if self._opened:
            self._on_up()

    def _down(self) -> None:
        self._fail_all("Redis went away before it answered")
        self._on_down()

    def _fail_all(self, why: str) -> None:
        unsafe, self._unsafe = self._unsafe, []
        sent = [*(sent for _, sent in self._redirected), *self._under_way, *self._again]
        lost = [*(each.job for each in sent), *(job for _, job in self._waiting)]
        for jobs in (self._redirected, self._under_way, self._again, self._waiting):
            jobs.clear()
        for job, reply in unsafe:
            self._finish(job, reply, is_safe=False)
        for job in lost:
            self._finish(job, StoreError(why))

    def _kicked(self) -> None:
        self._kick = None
        if not self._under_way and self._link.is_up:
            self._send()

    def _send(self) -> None:
        batch, self._again = self._again, []
        now = time.monotonic()
        if self._needs_scripts:
            self._needs_scripts = False
            loads = [pack("SCRIPT", "LOAD", script) for script in self._scripts]
            batch = [Sent(load, OwnJob(), now) for load in loads] + batch
        while self._waiting and len(batch) < MAX_COMMANDS:
            asked_at, job = self._waiting.popleft()
            batch.append(Sent(job.command(), job, asked_at))
        if not batch:
            return
        if self._wait and any(sent.job.changes for sent in batch):
            batch.append(Sent(self._wait, _Replicas(self), now))
        self._sent_at = now
        self._under_way.extend(batch)
        self._link.send(b"".join([sent.command for sent in batch]))

    def _take_reply(self, reply: Reply) -> None:
        sent = self._under_way.popleft()
        if isinstance(reply, ReplyError):
            self._take_error(str(reply), sent)
        elif self._wait and (sent.job.changes or (self._unsafe and sent.job.room_id)):
            # A read behind a change has seen it: told first, it would put the answer out of order.
            self._unsafe.append((sent.job, reply))
        else:
            self._finish(sent.job, reply)
        if not self._under_way:
            self._on_round_trip(time.monotonic() - self._sent_at)
            if self._redirected and self._on_redirected is not None:
                redirected, self._redirected = self._redirected, []
                self._on_redirected(redirected)
            # What was answered or redirected may have made somebody ask, and it was sent already.
            if (self._waiting or self._again) and not self._under_way:
                self._send()

    def _take_error(self, error: str, sent: Sent) -> None:
        if error.startswith("NOSCRIPT") and not sent.is_second:
            # Not run, so it is safe to say it again: this Redis has forgotten the scripts.
            self._needs_scripts = True
            self._again.append(sent._replace(is_second=True))
            return
        if error.startswith(_REDIRECTIONS) and self._on_redirected is not None:
            self._redirected.append((error, sent))
            return
        self._complain(error)
        self._finish(sent.job, StoreError("Redis could not do it"))
        if any(word in error for word in _GO_ELSEWHERE):
            self._link.abort()

    def _complain(self, error: str) -> None:
        """Log an error of Redis's, but not for each of the thousands that one cause makes."""
        if self._repeats.is_due(error[:20]):
            log.error("Redis answered %.200s", error)

    def _take_replicas(self, reply: Reply | StoreError) -> None:
        """Finish the changes of this pipeline, now that it is known how many replicas have them."""
        is_safe = isinstance(reply, int) and reply >= self._replicas
        if not is_safe:
            self._complain(f"WAIT: fewer than {self._replicas} replicas have the last changes")
        unsafe, self._unsafe = self._unsafe, []
        for job, its_reply in unsafe:
            self._finish(job, its_reply, is_safe=is_safe)

    def _finish(self, job: Job, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        try:
            job.done(reply, is_safe=is_safe)
        except Exception:
            log.exception("what was to be done with an answer of Redis failed; this is a bug")

    async def _watch_over(self) -> None:
        probe_at = time.monotonic() + PROBE_S
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if self._under_way and now - self._under_way[0].asked_at > self._timeout_s:
                self._link.abort()
            elif now >= probe_at:
                probe_at = now + PROBE_S
                if self._link.is_up:
                    self.add(_Probe(self))

    def _learn_time(self, reply: list[bytes], asked_at: float) -> None:
        seconds, microseconds = map(int, reply)
        self.clock.learn(seconds * 1000 + microseconds / 1000, asked_at, time.monotonic())


class OwnJob:
    """A job of the store's own, about no room. Its reply is of no interest unless it says so."""

    room_id = ""
    changes = False

    def command(self) -> bytes:
        """None, for those that are made as `Sent` at once (Job)."""
        return b""

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        """Nobody waits (Job)."""


class _Replicas(OwnJob):
    """Asks how many replicas have the changes before it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        del is_safe
        self._pipeline._take_replicas(reply)


class _Probe(OwnJob):
    """Looks at Redis's clock."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._asked_at = 0.0

    def command(self) -> bytes:
        self._asked_at = time.monotonic()
        return pack("TIME")

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        del is_safe
        if not isinstance(reply, StoreError):
            self._pipeline._learn_time(reply, self._asked_at)
