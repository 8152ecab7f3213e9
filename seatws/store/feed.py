"""The feed: what other instances changed, room by room, as they publish it.

Pub/sub is at most once and can die silently. So the feed promises little: who listens counts revs
and compares, and takes a snapshot after `on_feed_up` of whatever that server has, and after
`on_feed_moved` of that room.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from seatws.config import Config
from seatws.errors import StoreError
from seatws.holds import Event
from seatws.logs import Repeats
from seatws.store.cluster import slot_of
from seatws.store.connect import KeptLink, Reply, ReplyError, pack, say_nothing
from seatws.store.keys import room_keys, room_of_channel
from seatws.store.servers import Server
from seatws.store.topology import Topology

log = logging.getLogger(__name__)

PROBE_S = 1.5
"""How often a connection is asked for a sign of life, which has as long to come."""

_ALL_STAND = b"all subscriptions stand"

Confirmed = Callable[[StoreError | None], None]
"""Called with None when a subscription stands, with an error when it can't be had."""

_decode_event = msgspec.msgpack.Decoder(Event).decode


class FeedListener(Protocol):
    """Who hears of events. Called on the loop; must not raise."""

    def on_event(self, room_id: str, event: Event) -> None:
        """Another instance changed the room."""

    def on_feed_up(self, server: Server) -> None:
        """All of the server's rooms are heard of again; what happened meanwhile is unknown."""

    def on_feed_down(self, server: Server) -> None:
        """Nothing more is heard of the server's rooms until `on_feed_up`."""

    def on_feed_moved(self, room_id: str) -> None:
        """The room is heard of from another server now; what happened meanwhile is unknown."""


class Feed:
    """Subscriptions to rooms, at the servers that have them.

    Args:
        config: Prefix and timeout.
        topology: Which server has which room.
        origin: Events that begin with it are our own and are not reported: the script's reply
            brought them already.
        listener: Who hears.
    """

    def __init__(
        self, config: Config, topology: Topology, origin: str, listener: FeedListener
    ) -> None:
        self._config = config
        self._topology = topology
        self._origin = origin
        self._listener = listener
        self._lines: dict[Server, _Line] = {}
        self._rooms: dict[str, Server | None] = {}
        """Every room that is to be heard of, and where that was last asked for."""
        self._retiring: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._is_open = False
        topology.watch(self._moved)

    def is_up_at(self, server: Server) -> bool:
        """Whether events of this server's rooms can come."""
        line = self._lines.get(server)
        return line is not None and line.is_up

    async def open(self) -> None:
        """Connect to all servers that have rooms.

        Raises:
            StoreError: None can be had. With one of a cluster's, the others are waited for.
        """
        failures = 0
        for server in self._topology.servers:
            line = self._lines[server] = self._make_line(server)
            try:
                await line.open()
            except StoreError:
                failures += 1
                if failures == len(self._topology.servers):
                    raise
                line.start()
        self._is_open = True
        self._moved()  # perhaps they did meanwhile

    async def close(self) -> None:
        """Close for good."""
        self._is_open = False
        if self._again is not None:
            self._again.cancel()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for line in self._lines.values():
            await line.close()

    def subscribe(self, room_id: str, done: Confirmed) -> None:
        """Hear of a room from now on. `done` is called when that stands, or can't be had."""
        server = self._topology.server_of(room_id)
        line = None if server is None else self._lines.get(server)
        if line is None or not line.is_up:
            self._rooms[room_id] = None  # asked for when the server is there
            done(StoreError("Redis is away"))
            return
        self._rooms[room_id] = server
        line.subscribe(room_id, done)

    def unsubscribe(self, room_id: str) -> None:
        """Hear no more of a room."""
        server = self._rooms.pop(room_id, None)
        if server is not None and (line := self._lines.get(server)) is not None:
            line.unsubscribe(room_id)

    def _make_line(self, server: Server) -> _Line:
        return _Line(
            server,
            self._config,
            self._origin.encode(),
            is_cluster=self._topology.is_cluster,
            rooms=functools.partial(self._rooms_of, server),
            on_event=self._listener.on_event,
            on_up=functools.partial(self._listener.on_feed_up, server),
            on_down=functools.partial(self._listener.on_feed_down, server),
            on_stray=functools.partial(self._stray, server),
        )

    def _rooms_of(self, server: Server) -> list[str]:
        """The rooms that a server is now asked for, all at once."""
        its = [room for room in self._rooms if self._topology.server_of(room) is server]
        self._rooms |= dict.fromkeys(its, server)
        return its

    def _stray(self, server: Server, room_id: str) -> None:
        """A server says that a room is not, or no longer, with it."""
        if room_id not in self._rooms or self._topology.server_of(room_id) is not server:
            return  # that is what was asked for
        self._rooms[room_id] = None  # so that it is asked for anew, even at the same server
        self._topology.doubt()
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(PROBE_S, self._ask_again)

    def _ask_again(self) -> None:
        self._again = None
        self._moved()

    def _moved(self) -> None:
        """Slots have moved: ask the right servers, and leave those that have none any more."""
        if not self._is_open:
            return
        servers = self._topology.servers
        for server in servers:
            if server not in self._lines:
                self._lines[server] = line = self._make_line(server)
                line.start()
        for room_id, before in list(self._rooms.items()):
            now = self._topology.server_of(room_id)
            if now is before or now is None:
                continue
            if before is not None and (old := self._lines.get(before)) is not None:
                old.unsubscribe(room_id)
            if self._lines[now].is_up:  # else it asks for all its rooms when it is
                self._rooms[room_id] = now
                self._lines[now].subscribe(room_id, functools.partial(self._moved_room, room_id))
        for server, line in list(self._lines.items()):
            if server not in servers:
                del self._lines[server]
                task = asyncio.get_running_loop().create_task(line.close())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def _moved_room(self, room_id: str, error: StoreError | None) -> None:
        if error is None and room_id in self._rooms:
            self._listener.on_feed_moved(room_id)


class _Line:
    """Subscriptions at one server, on a connection of their own.

    A shared one would be closed by Redis when replies to commands pile up behind it (its limit
    for subscribers' buffers is 32 MiB).
    """

    def __init__(
        self,
        server: Server,
        config: Config,
        origin: bytes,
        *,
        is_cluster: bool,
        rooms: Callable[[], list[str]],
        on_event: Callable[[str, Event], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_stray: Callable[[str], None],
    ) -> None:
        self._prefix = config.redis.prefix
        self._origin = origin
        self._subscribe = "SSUBSCRIBE" if is_cluster else "SUBSCRIBE"
        self._unsubscribe = "SUNSUBSCRIBE" if is_cluster else "UNSUBSCRIBE"
        self._rooms = rooms
        self._on_event = on_event
        self._on_up = on_up
        self._on_down = on_down
        self._on_stray = on_stray
        self._unconfirmed: deque[tuple[str, Confirmed]] = deque()
        """Who waits for each subscription that was said, in order: each is answered once."""
        self._link = KeptLink(
            server,
            config.redis.connect_timeout_seconds,
            greet=say_nothing,
            on_reply=self._take,
            on_up=self._up,
            on_down=self._down,
        )
        self._opened = False
        self._watch: asyncio.Task[None] | None = None
        self._heard = True
        self._waits_for_all = False
        """Whether it has still to be said that all subscriptions stand."""
        self._repeats = Repeats()

    @property
    def is_up(self) -> bool:
        """Whether events can come."""
        return self._link.is_up

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreError: The server can't be had.
        """
        await self._link.open()
        self._opened = True
        self._watch = asyncio.get_running_loop().create_task(self._watch_over())

    def start(self) -> None:
        """Connect as soon as that can be; `on_up` tells."""
        self._opened = True
        self._link.start()
        self._watch = asyncio.get_running_loop().create_task(self._watch_over())

    async def close(self) -> None:
        """Close for good."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._link.close()

    def subscribe(self, room_id: str, done: Confirmed) -> None:
        """Ask for a room's events; only while it is up."""
        self._unconfirmed.append((room_id, done))
        self._link.send(pack(self._subscribe, room_keys(self._prefix, room_id).channel))

    def unsubscribe(self, room_id: str) -> None:
        """Ask for a room's events no more."""
        if self._link.is_up:
            self._link.send(pack(self._unsubscribe, room_keys(self._prefix, room_id).channel))

    def _up(self) -> None:
        self._heard = True
        if not self._opened:
            return
        for room_id in self._rooms():
            self.subscribe(room_id, _nobody)
        # The listener's snapshots go another way, so it must take none until every subscription
        # stands: the answer to this comes after all of them.
        self._waits_for_all = True
        self._link.send(pack("PING", _ALL_STAND))

    def _down(self) -> None:
        unconfirmed, self._unconfirmed = self._unconfirmed, deque()
        for _, done in unconfirmed:
            done(StoreError("Redis went away before it answered"))
        self._on_down()

    def _take(self, reply: Reply) -> None:
        self._heard = True
        match reply:
            case [b"message" | b"smessage", channel, message]:
                if not message.startswith(self._origin):
                    self._take_message(room_of_channel(self._prefix, channel), message)
            case [b"subscribe" | b"ssubscribe", bytes(channel), _]:
                room_id = room_of_channel(self._prefix, channel)
                if self._unconfirmed and self._unconfirmed[0][0] == room_id:
                    self._unconfirmed.popleft()[1](None)
            case [b"sunsubscribe", bytes(channel), _]:
                # Asked for, or because the slot has gone to another server.
                self._on_stray(room_of_channel(self._prefix, channel))
            case [b"pong", said] | bytes(said) if said == _ALL_STAND:
                self._all_stand()
            case ReplyError() if str(reply).startswith("MISCONF"):
                self._take_ill_health()
            case ReplyError() if str(reply).startswith(("MOVED", "CLUSTERDOWN")):
                self._take_refusal(str(reply))
            case ReplyError():
                log.error("Redis answered a subscription with %.200s", reply)
                self._link.abort()

    def _all_stand(self) -> None:
        self._waits_for_all = False
        self._on_up()

    def _take_ill_health(self) -> None:
        """Redis can't write to its disk, and then answers PING so; it serves subscribers still."""
        if self._repeats.is_due():
            log.error("Redis can't write to its disk and refuses changes; look at its log")
        if self._waits_for_all and not self._unconfirmed:
            self._all_stand()

    def _take_refusal(self, error: str) -> None:
        """A slot is not here, and so a room can't be subscribed, or was unsubscribed too late."""
        if not self._unconfirmed:
            return
        room_id, done = self._unconfirmed[0]
        if error.startswith("MOVED") and error.split(" ")[1] != str(slot_of(room_id)):
            return
        self._unconfirmed.popleft()
        done(StoreError("the room is at another server"))
        self._on_stray(room_id)

    def _take_message(self, room_id: str, message: bytes) -> None:
        try:
            event = _decode_event(message[len(self._origin) :])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            event = None
        if event is None or not event.changes:
            log.error("an event that is none came on a room's channel; is it ours alone?")
            return
        self._on_event(room_id, event)

    async def _watch_over(self) -> None:
        while True:
            self._heard = False
            self._link.send(pack("PING", ""))
            await asyncio.sleep(PROBE_S)
            if not self._heard:
                self._link.abort()


def _nobody(error: StoreError | None) -> None:
    """Waits for a subscription that is only said again."""
