"""The feed: what other instances changed, room by room, as they publish it.

Pub/sub is at most once and can die silently. So the feed promises little: who listens counts revs
and compares, and after `on_feed_up` takes a snapshot of whatever it watches.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from seatws.config import Config
from seatws.errors import StoreError
from seatws.holds import Event
from seatws.store.connect import KeptLink, Reply, ReplyError, pack, say_nothing
from seatws.store.keys import room_keys, room_of_channel

log = logging.getLogger(__name__)

PROBE_S = 1.5
"""How often the connection is asked for a sign of life, which has as long to come."""

_ALL_STAND = b"all subscriptions stand"

Confirmed = Callable[[StoreError | None], None]
"""Called with None when a subscription stands, with an error when it can't be had."""

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
        self._rooms: dict[str, None] = {}
        self._unconfirmed: deque[Confirmed] = deque()
        """Who waits for each SUBSCRIBE that was said, in order: every one is confirmed once."""
        self._link = KeptLink(
            url,
            config.redis.connect_timeout_seconds,
            greet=say_nothing,
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

    def subscribe(self, room_id: str, done: Confirmed) -> None:
        """Hear of a room from now on. `done` is called when that stands, or can't be had."""
        if not self._link.is_up:
            done(StoreError("Redis is away"))
            return
        self._rooms[room_id] = None
        self._unconfirmed.append(done)
        self._say("SUBSCRIBE", room_id)

    def unsubscribe(self, room_id: str) -> None:
        """Hear no more of a room."""
        if self._rooms.pop(room_id, self) is None and self._link.is_up:
            self._say("UNSUBSCRIBE", room_id)

    def _say(self, command: str, *room_ids: str) -> None:
        channels = [room_keys(self._prefix, room_id).channel for room_id in room_ids]
        self._link.send(pack(command, *channels))

    def _up(self) -> None:
        self._heard = True
        if not self._opened:
            return
        if self._rooms:
            self._unconfirmed.extend([_nobody] * len(self._rooms))
            self._say("SUBSCRIBE", *self._rooms)
        # The listener's snapshots go another way, so it must take none until every subscription
        # stands: the answer to this comes after all of them.
        self._link.send(pack("PING", _ALL_STAND))

    def _down(self) -> None:
        unconfirmed, self._unconfirmed = self._unconfirmed, deque()
        for done in unconfirmed:
            done(StoreError("Redis went away before it answered"))
        self._listener.on_feed_down()

    def _take(self, reply: Reply) -> None:
        self._heard = True
        match reply:
            case [b"message", channel, message]:
                if not message.startswith(self._origin):
                    self._take_message(room_of_channel(self._prefix, channel), message)
            case [b"subscribe", _, _]:
                self._unconfirmed.popleft()(None)
            case [b"pong", said] | bytes(said) if said == _ALL_STAND:
                self._listener.on_feed_up()
            case ReplyError():
                log.error("Redis answered a subscription with %.200s", reply)
                self._link.abort()

    def _take_message(self, room_id: str, message: bytes) -> None:
        try:
            event = _decode_event(message[len(self._origin) :])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            event = None
        if event is None or not event.changes:
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


def _nobody(error: StoreError | None) -> None:
    """Waits for a subscription that is only said again."""
