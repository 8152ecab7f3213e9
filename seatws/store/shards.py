"""Jobs on their way to the server that has their room, also while rooms move between servers."""

from __future__ import annotations

import asyncio
import logging
import operator
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from seatws.errors import StoreError
from seatws.store.clock import RedisClock
from seatws.store.cluster import Cluster, redirection, slot_of
from seatws.store.connect import Reply, pack
from seatws.store.pipeline import Job, OwnJob, Pipeline, Sent, Waiting
from seatws.store.servers import Server
from seatws.store.topology import OneServer, Topology

log = logging.getLogger(__name__)

RETRY_S = 0.05
"""Between attempts while a room is between two servers."""


class Lane(Protocol):
    """Where a room's jobs go now."""

    @property
    def is_up(self) -> bool:
        """Whether they have a chance."""

    def add(self, job: Job) -> None:
        """Do the job in its turn."""


MakePipeline = Callable[[Server, Callable[[list[tuple[str, Sent]]], None] | None], Pipeline]


class Shards:
    """One pipeline to each server that holds rooms.

    What a cluster's server did not do because the room is elsewhere is said again there. All jobs
    of the room's slot that come meanwhile line up behind, so that a room's jobs are done in the
    order in which they were asked, whatever moves.

    Args:
        topology: Which server has which room.
        timeout_s: How long a job may look for its room.
        make: Makes the pipeline to a server; given who takes what that server redirects.
    """

    def __init__(self, topology: Topology, timeout_s: float, make: MakePipeline) -> None:
        self._topology = topology
        self._timeout_s = timeout_s
        self._make = make
        self._cluster = topology if isinstance(topology, Cluster) else None
        self._pipelines: dict[Server, Pipeline] = {}
        self._only: Pipeline | None = None
        """Where nothing ever moves, the one pipeline: so nothing has to be looked up."""
        self._lines: dict[int, _Line] = {}
        """Slots whose jobs wait, since the slot is between two servers."""
        self._retiring: set[asyncio.Task[None]] = set()
        self._clock = RedisClock()
        self._is_open = False
        topology.watch(self._moved)

    async def open(self) -> None:
        """Connect to all servers that have rooms.

        Raises:
            StoreError: None can be had. With one of a cluster's, the others are waited for.
            ConfigError: One is not fit for holds.
        """
        failures: list[StoreError] = []
        for server in self._topology.servers:
            pipeline = self._pipelines[server] = self._make_pipeline(server)
            try:
                await pipeline.open()
            except StoreError as exc:
                failures.append(exc)
                if len(failures) == len(self._topology.servers):
                    raise
                log.error("Redis at %s can't be had: %s", server.name, exc)
                pipeline.start()
        self._is_open = True
        if isinstance(self._topology, OneServer):
            (self._only,) = self._pipelines.values()
        self._moved()  # perhaps they did meanwhile

    async def close(self) -> None:
        """Close for good; jobs that have no answer yet are told so."""
        self._is_open = False
        for line in list(self._lines.values()):
            line.fail("the server is going down")
        self._lines.clear()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for pipeline in self._pipelines.values():
            await pipeline.close()

    def lane(self, room_id: str) -> Lane:
        """Where the room's jobs go now."""
        if self._only is not None:
            return self._only
        if self._lines and (line := self._lines.get(slot_of(room_id))) is not None:
            return line
        pipeline = self._pipelines.get(self._topology.server_of(room_id))  # type: ignore[arg-type]
        if pipeline is None:
            return _NOWHERE
        if pipeline.is_starting:  # the server has just got its first slots; it will be a moment
            slot = slot_of(room_id)
            line = self._line(slot)
            line.go_on_soon(RETRY_S)
            return line
        return pipeline

    def is_up_at(self, server: Server) -> bool:
        """Whether jobs for this server have a chance."""
        pipeline = self._pipelines.get(server)
        return pipeline is not None and pipeline.is_up

    def clock(self, room_id: str) -> RedisClock:
        """The clock of the server that has the room."""
        if self._only is not None:
            return self._only.clock
        pipeline = self._pipelines.get(self._topology.server_of(room_id))  # type: ignore[arg-type]
        return self._clock if pipeline is None else pipeline.clock

    async def settle(self) -> None:
        """Wait until every job given so far is done."""
        while self._lines:
            await asyncio.wait([line.gone for line in self._lines.values()])
        await asyncio.gather(*map(_settle, self._pipelines.values()))

    def _make_pipeline(self, server: Server) -> Pipeline:
        if self._cluster is None:
            return self._make(server, None)
        pipeline: Pipeline = self._make(server, lambda those: self._redirected(pipeline, those))
        return pipeline

    # ------------------------------------------------------------ rooms that move

    def _moved(self) -> None:
        """Slots have moved: what is for them and was not sent yet goes the new way.

        What was sent the old way may come back undone. Until that is known, whatever else there is
        for its slot waits, or it would come first.
        """
        if not self._is_open:
            return
        servers = self._topology.servers
        for server in servers:
            self._pipeline_to(server)
        for server, pipeline in list(self._pipelines.items()):
            strays = pipeline.withdraw(
                lambda job, here=server: (  # type: ignore[misc]
                    bool(job.room_id) and self._topology.server_of(job.room_id) is not here
                )
            )
            slots = self._line_up(strays)
            for room_id in pipeline.rooms_under_way():
                if self._topology.server_of(room_id) is not server:
                    slots.add(slot := slot_of(room_id))
                    self._line(slot)
            for slot in slots:
                self._lines[slot].go_on_soon()
            if server not in servers:
                self._retire(server, pipeline)

    def _redirected(self, pipeline: Pipeline, those: list[tuple[str, Sent]]) -> None:
        """Take what a server did not do. Its pipeline is empty but for what was not sent."""
        assert self._cluster is not None  # noqa: S101  others redirect nothing
        later: set[int] = set()
        moves: list[tuple[int, tuple[str, int]]] = []
        for error, sent in those:
            named = redirection(error) if error.startswith(("MOVED", "ASK")) else None
            if error.startswith("ASK") and named is not None and self._ask(sent, named[1]):
                continue
            self._line_up([(sent.asked_at, _Again(sent))])
            if error.startswith("MOVED") and named is not None:
                moves.append(named)
            else:
                later.add(slot_of(sent.job.room_id))
        slots = {slot_of(sent.job.room_id) for _, sent in those} & self._lines.keys()
        self._line_up(pipeline.withdraw(lambda job: slot_of(job.room_id) in slots))
        for slot, address in moves:
            self._cluster.learn(slot, address)
        self._cluster.doubt()
        for slot in slots:
            self._lines[slot].go_on_soon(RETRY_S if slot in later else 0)

    def _ask(self, sent: Sent, address: tuple[str, int]) -> bool:
        """Say it to the server that is taking the slot over; False if that one is not there yet."""
        assert self._cluster is not None  # noqa: S101
        target = self._pipeline_to(self._cluster.server_at(address))
        if target.is_up:
            target.add(_Asking(), sent.asked_at)
            target.add(_Again(sent), sent.asked_at)
        return target.is_up

    def _pipeline_to(self, server: Server) -> Pipeline:
        pipeline = self._pipelines.get(server)
        if pipeline is None:
            pipeline = self._pipelines[server] = self._make_pipeline(server)
            pipeline.start()
        return pipeline

    def _retire(self, server: Server, pipeline: Pipeline) -> None:
        """Let a server without slots go when what is under way there is done.

        One that takes its first slot over is asked, too, before it has any: it stays a while.
        """

        async def retire() -> None:
            if pipeline.is_up:
                await _settle(pipeline)
            await asyncio.sleep(self._timeout_s)
            if server not in self._topology.servers and self._pipelines.get(server) is pipeline:
                del self._pipelines[server]
                await pipeline.close()

        task = asyncio.get_running_loop().create_task(retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _line_up(self, jobs: Iterable[Waiting]) -> set[int]:
        """Let jobs wait behind those of their slot; returns the slots."""
        slots = set()
        for asked_at, job in jobs:
            slot = slot_of(job.room_id)
            slots.add(slot)
            line = self._line(slot)
            line.jobs.append((asked_at, job))
            line.jobs.sort(key=_asked_at)  # one that comes back was asked before those that wait
        return slots

    def _line(self, slot: int) -> _Line:
        """The slot's line; a new one if there is none."""
        line = self._lines.get(slot)
        if line is None:
            line = self._lines[slot] = _Line(lambda: self._go_on(slot))
        return line

    def _go_on(self, slot: int) -> None:
        """Send what waits for a slot to the server that has it now, if that one is there."""
        line = self._lines[slot]
        line.drop_late(time.monotonic() - self._timeout_s)
        if self._comes_back(slot):
            line.go_on_soon(RETRY_S)
            return
        pipeline = None
        if line.jobs:
            server = self._topology.server_of(line.jobs[0][1].room_id)
            pipeline = None if server is None else self._pipelines.get(server)
            if pipeline is None or not pipeline.is_up:
                line.go_on_soon(RETRY_S)
                return
        del self._lines[slot]
        line.gone.set_result(None)
        for asked_at, job in line.jobs:
            assert pipeline is not None  # noqa: S101
            pipeline.add(job, asked_at)

    def _comes_back(self, slot: int) -> bool:
        """Whether something for the slot is under way to a server that has it no more."""
        return any(
            slot_of(room_id) == slot and self._topology.server_of(room_id) is not server
            for server, pipeline in self._pipelines.items()
            for room_id in pipeline.rooms_under_way()
        )


class _Line:
    """Jobs of a slot that is between two servers."""

    is_up = True

    def __init__(self, go_on: Callable[[], None]) -> None:
        self.jobs: list[Waiting] = []
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the jobs are on their way."""
        self._go_on = go_on
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: Job) -> None:
        """Line up (Lane)."""
        self.jobs.append((time.monotonic(), job))

    def go_on_soon(self, in_s: float = 0) -> None:
        """Try in so many seconds, or sooner if that was planned."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(in_s, self._try)

    def drop_late(self, oldest: float) -> None:
        """Fail jobs that have waited since before `oldest`."""
        late = [job for asked_at, job in self.jobs if asked_at < oldest]
        self.jobs = [waiting for waiting in self.jobs if waiting[0] >= oldest]
        for job in late:
            job.done(StoreError("the room was between two servers for too long"))

    def fail(self, why: str) -> None:
        """Fail all jobs."""
        if self._timer is not None:
            self._timer.cancel()
        self.gone.set_result(None)
        jobs, self.jobs = self.jobs, []
        for _, job in jobs:
            job.done(StoreError(why))

    def _try(self) -> None:
        self._timer = None
        self._go_on()


class _Nowhere:
    """Where jobs go of a slot that nobody has."""

    is_up = False

    def add(self, job: Job) -> None:
        """Fail the job (Lane)."""
        job.done(StoreError("no server of the cluster has the room"))


_NOWHERE = _Nowhere()
_asked_at = operator.itemgetter(0)


class _Again:
    """A job that one server did not do, for another."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self.room_id = sent.job.room_id
        self.changes = sent.job.changes

    def command(self) -> bytes:
        return self._sent.command

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        self._sent.job.done(reply, is_safe=is_safe)


class _Asking(OwnJob):
    """Stands before a job for a server that is taking the room's slot over."""

    def command(self) -> bytes:
        return pack("ASKING")


class _Settling(OwnJob):
    """Is done when everything before it is."""

    def __init__(self, settled: asyncio.Future[None]) -> None:
        self._settled = settled

    def command(self) -> bytes:
        return pack("PING")

    def done(self, reply: Reply | StoreError, *, is_safe: bool = True) -> None:
        del reply, is_safe
        if not self._settled.done():
            self._settled.set_result(None)


async def _settle(pipeline: Pipeline) -> None:
    settled = asyncio.get_running_loop().create_future()
    pipeline.add(_Settling(settled))
    await settled
