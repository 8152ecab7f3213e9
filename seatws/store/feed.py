"""The feed: what other instances changed, room by room, as they publish it.

Pub/sub is at most once and can die silently. So the feed promises little: who listens counts revs
and compares, and after `on_feed_up` takes a snapshot of whatever it watches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from seatws.config import Config
from seatws.errors import StoreError
from seatws.holds import Event
from seatws.store.connect import KeptLink, Reply, ReplyError, pack
from seatws.store.health import check_server
from seatws.store.keys import room_keys, room_of_channel

log = logging.getLogger(__name__)

PROBE_S = 1.5
"""How often the connection is asked for a sign of life, which has as long to come."""

_decode_event = msgspec.msgpack.Decoder(Event).decode


class FeedListener(Protocol):
    """Who hears of events. Called on the loop; must not raise."""

    def on_event(self, room_id: str, event: Event) -> None:
        """Another instance changed the room."""

    def on_feed_up(self) -> None:
        """The feed is back, every subscription with it; what happened meanwhile is unknown."""

    def on_feed_down(self) -> None:
        """Nothing more is heard until `on_feed_up`."""


class Feed:
    """Subscriptions to rooms, on a connection of their own.

    A shared one would be closed by Redis when replies to commands pile up behind it (its limit
    for subscribers' buffers is 32 MiB).

    Args:
        origin: Events that begin with it are our own and are not reported: the script's reply
            brought them already.
    """

    def __init__(self, config: Config, url: str, origin: str, listener: FeedListener) -> None:
        self._prefix = config.redis.prefix
        self._origin = origin.encode()
        self._listener = listener
        self._rooms: dict[str, list[Callable[[StoreError | None], None]]] = {}
        """Each subscribed room, and who waits for the subscription to stand."""
        self._link = KeptLink(
            url,
            config.redis.connect_timeout_seconds,
            greet=check_server,
            on_reply=self._take,
            on_up=self._up,
            on_down=self._down,
        )
        self._opened = False
        self._watch: asyncio.Task[None] | None = None
        self._heard = True

    @property
    def is_up(self) -> bool:
        """Whether events can come."""
        return self._link.is_up

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreError: Redis can't be had.
        """
        await self._link.open()
        self._opened = True
        self._watch = asyncio.get_running_loop().create_task(self._watch_over())

    async def close(self) -> None:
        """Close for good."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._link.close()

    def subscribe(self, room_id: str, done: Callable[[StoreError | None], None]) -> None:
        """Hear of a room from now on. `done` is called when that stands, or can't be had."""
        if not self._link.is_up:
            done(StoreError("Redis is away"))
            return
        self._rooms.setdefault(room_id, []).append(done)
        self._say("SUBSCRIBE", room_id)

    def unsubscribe(self, room_id: str) -> None:
        """Hear no more of a room."""
        self._rooms.pop(room_id, None)
        if self._link.is_up:
            self._say("UNSUBSCRIBE", room_id)

    def _say(self, command: str, *room_ids: str) -> None:
        channels = [room_keys(self._prefix, room_id).channel for room_id in room_ids]
        self._link.send(pack(command, *channels))

    def _up(self) -> None:
        self._heard = True
        if self._rooms:
            # Before the listener's snapshots, which go another way: so it must not take one
            # until the subscription stands. The reply to this PING comes after all of them.
            self._say("SUBSCRIBE", *self._rooms)
        if self._opened:
            self._link.send(pack("PING", "back"))

    def _down(self) -> None:
        waiting = [done for room in self._rooms.values() for done in room]
        for room in self._rooms.values():
            room.clear()
        for done in waiting:
            done(StoreError("Redis went away before it answered"))
        self._listener.on_feed_down()

    def _take(self, reply: Reply) -> None:
        self._heard = True
        if isinstance(reply, ReplyError):
            log.error("Redis answered a subscription with %.200s", reply)
            self._link.abort()
            return
        match reply:
            case [b"message", channel, message]:
                if not message.startswith(self._origin):
                    self._take_message(room_of_channel(self._prefix, channel), message)
            case [b"subscribe", channel, _]:
                room_id = room_of_channel(self._prefix, channel)
                waiting = self._rooms.get(room_id)
                while waiting:
                    waiting.pop(0)(None)
            case [b"pong", b"back"] | b"back":
                self._listener.on_feed_up()

    def _take_message(self, room_id: str, message: bytes) -> None:
        try:
            event = _decode_event(message[len(self._origin) :])
        except msgspec.DecodeError:
            log.error("an event that is none came on a room's channel; is it ours alone?")
            return
        self._listener.on_event(room_id, event)

    async def _watch_over(self) -> None:
        while True:
            self._heard = False
            self._link.send(pack("PING", ""))
            await asyncio.sleep(PROBE_S)
            if not self._heard:
                self._link.abort()
