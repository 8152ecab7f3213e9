"""The hub: all rooms of this instance, and the way of a request into them and back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from seatws.config import Config
from seatws.counts import Counts
from seatws.errors import ClientError, LimitReached, StoreError
from seatws.holds import Event, Outcome
from seatws.logs import log_refusal
from seatws.messages import (
    JoinRoom,
    LeaveRoom,
    Message,
    ReleaseSeat,
    RoomJoined,
    RoomLeft,
    SelectSeat,
    SelectSeats,
    refusal_of,
)
from seatws.privacy import UserInfoFilter
from seatws.rooms.answers import answers_to, error_of
from seatws.rooms.peer import Peer, Viewer
from seatws.rooms.room import Room
from seatws.store.clock import RedisClock
from seatws.store.feed import Feed
from seatws.store.holds import Done, HoldStore
from seatws.store.servers import Server
from seatws.store.topology import topology_of

log = logging.getLogger(__name__)

LINGER_S = 30.0
"""How long a room is followed after its last viewer left: a reload of the page finds it here."""
MAX_LINGERING = 1000
"""Rooms that nobody is in; beyond it the one that has been empty longest goes first."""
COMPARE_S = 2.0
"""Every room is compared with Redis so often: pub/sub can lose a message without a word."""
COMPARE_AT_ONCE = 100
OPEN_S = 2.5
"""How long a room may take to open; PROTOCOL promises an answer within 3 s."""


class Hub:
    """Rooms by id. Listens to the store and the feed, is asked by the edges.

    Args:
        config: The limits, and what of `user_info` is shared.
        url: Which Redis.
        counts: What is counted on the way.
    """

    def __init__(self, config: Config, url: str, counts: Counts) -> None:
        self.rooms: dict[str, Room] = {}
        self._topology = topology_of(config, url)
        self._store = HoldStore(config, self._topology, self)
        self._feed = Feed(config, self._topology, self._store.origin, self)
        self._counts = counts
        self._share = UserInfoFilter(config.privacy.shared_user_info)
        self._deflate_from = config.compression.min_bytes
        self._max_rooms = config.limits.rooms_per_connection
        self._max_seats = config.holds.max_seats_per_client
        self._lingering: dict[Room, float] = {}
        """Rooms that nobody is in, those first that have been so for longest, and since when."""
        self._away: dict[Server, float] = {}
        """Servers that have rooms and can't be reached, and since when."""
        self._topology.watch(self._moved)
        self._tending: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect to Redis.

        Raises:
            StoreError: Redis can't be had.
            ConfigError: It is not fit for holds.
        """
        try:
            await self._topology.open()
            await self._store.open()
            await self._feed.open()
        except BaseException:
            await self._close_redis()
            raise
        self._tending = asyncio.get_running_loop().create_task(self._tend())

    async def close(self) -> None:
        """Let all rooms go and close the connections to Redis."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        for room in list(self.rooms.values()):
            self._forget(room)
        await self._close_redis()

    async def _close_redis(self) -> None:
        await self._feed.close()
        await self._store.close()
        await self._topology.close()

    @property
    def is_up(self) -> bool:
        """Whether Redis can be reached, as far as one knows; of a cluster, a part of it."""
        return self.shards_up > 0

    @property
    def shards(self) -> int:
        """How many Redis servers share the rooms."""
        return len(self._topology.servers)

    @property
    def shards_up(self) -> int:
        """How many of them can be reached, as far as one knows."""
        return sum(1 for server in self._topology.servers if self._is_up_at(server))

    def _is_up_at(self, server: Server) -> bool:
        return self._store.is_up_at(server) and self._feed.is_up_at(server)

    @property
    def active_rooms(self) -> int:
        """How many rooms have viewers here."""
        return sum(1 for room in self.rooms.values() if room.viewers)

    @property
    def clock(self) -> RedisClock:
        """Redis's clock; of a cluster, that of the server that has the room ""."""
        return self._store.clock("")

    # ------------------------------------------------------------ requests of peers

    def join(self, peer: Peer, command: JoinRoom) -> None:
        """Make the peer a viewer. It gets `room_joined` and the map, or an `error`."""
        room_id = command.room_id
        viewer = peer.viewers.get(room_id)
        try:
            if viewer is None and self._max_rooms and len(peer.viewers) >= self._max_rooms:
                raise LimitReached(f"at most {self._max_rooms} rooms a connection")
            room = self._room(room_id)
        except (LimitReached, StoreError) as error:
            self.refuse(peer, command, error)
            return
        if viewer is None:
            viewer = peer.viewers[room_id] = Viewer(peer)
        self._lingering.pop(room, None)
        room.join(viewer, command.request_id)
        if not room.is_live:
            asyncio.get_running_loop().call_later(OPEN_S, self._give_up, room, room.waiting_since)

    def expel(self, peer: Peer, room_id: str) -> None:
        """Make the peer a viewer no more because it may not be one. It is told."""
        self._remove(peer, room_id, connected=True)
        peer.tell(RoomLeft(room_id=room_id, client_id=peer.client_id, reason="forbidden"))

    def leave(self, peer: Peer, command: LeaveRoom) -> None:
        """Make the peer a viewer no more. Answered whether it was one or not."""
        self._answer_waiting_joins(peer, command.room_id)
        self._remove(peer, command.room_id, connected=True)
        left = RoomLeft(
            room_id=command.room_id, client_id=peer.client_id, request_id=command.request_id
        )
        peer.tell(left)

    def _answer_waiting_joins(self, peer: Peer, room_id: str) -> None:
        """A peer that leaves before it was let in still gets the answers that it waits for."""
        viewer = peer.viewers.get(room_id)
        if viewer is not None:
            for request_id in self.rooms[room_id].joining.get(viewer, ()):
                peer.tell(
                    RoomJoined(room_id=room_id, client_id=peer.client_id, request_id=request_id)
                )

    def select(self, peer: Peer, command: SelectSeat | SelectSeats) -> None:
        """Hold one seat or several, all or none. Answered when Redis has stored it, or refused."""
        seats = [command.seat_id] if isinstance(command, SelectSeat) else command.seat_ids
        self._store.select(
            command.room_id,
            peer.client_id,
            seats,
            bytes(command.user_info),
            self._answerer(peer, command),
        )

    def release(self, peer: Peer, command: ReleaseSeat) -> None:
        """End a hold of the peer's client. Answered when Redis has stored it, or refused."""
        self._store.release(
            command.room_id,
            peer.client_id,
            command.seat_id,
            self._answerer(peer, command),
        )

    async def settle(self) -> None:
        """Wait until everything that was asked so far has its answer."""
        await self._store.settle()

    def peer_leaves(self, peer: Peer) -> None:
        """Send a peer what its rooms still owe it; it gets no more."""
        for room_id in list(peer.viewers):
            self._remove(peer, room_id, connected=True)

    def peer_closed(self, peer: Peer) -> None:
        """Forget a peer whose connection is gone. Its client's holds stay."""
        for room_id in list(peer.viewers):
            self._remove(peer, room_id, connected=False)

    def peer_drained(self, peer: Peer) -> None:
        """All that the peer was sent is out: rooms where it fell behind send it their map."""
        for room_id, viewer in peer.viewers.items():
            self.rooms[room_id].recover(viewer)

    # ------------------------------------------------------------ requests without a connection

    async def live_room(self, room_id: str) -> Room:
        """The room, when it can be vouched for. It is followed for some time after.

        Raises:
            StoreError: Redis is away or late.
        """
        room = self._room(room_id)
        self._lingering.pop(room, None)
        try:
            async with asyncio.timeout(OPEN_S):
                while not room.is_live:
                    await room.changed()
                    self._check_up(room_id)
                    if self.rooms.get(room_id) is not room:
                        raise StoreError("Redis could not be read")
        except TimeoutError:
            raise StoreError("Redis did not answer in time") from None
        return room

    async def hold(
        self, room_id: str, client_id: str, seat_id: str, user_info: bytes
    ) -> tuple[str, int, int]:
        """Hold a seat for a client without a connection.

        Returns:
            The seat, the change's rev (0: it was the client's already), the deadline in Unix ms.

        Raises:
            ClientError: It was refused; nothing was changed.
            StoreError: Redis is away or late.
        """
        outcome = await _wait_for(
            lambda done: self._store.select(room_id, client_id, [seat_id], user_info, done)
        )
        if error := error_of(outcome, self._max_seats):
            raise error
        return outcome.seats[0]

    async def free(self, room_id: str, client_id: str, seat_id: str) -> None:
        """End a hold for a client without a connection.

        Raises:
            ClientError: It was refused; nothing was changed.
            StoreError: Redis is away or late.
        """
        outcome = await _wait_for(
            lambda done: self._store.release(room_id, client_id, seat_id, done)
        )
        if error := error_of(outcome, self._max_seats):
            raise error

    # ------------------------------------------------------------ what Redis says

    def on_event(self, room_id: str, event: Event) -> None:
        """A room changed elsewhere (FeedListener)."""
        if room := self.rooms.get(room_id):
            room.on_event(event)

    def on_commit(self, room_id: str, event: Event) -> None:
        """A room was changed from here (StoreListener)."""
        changes = self._counts.changes
        for change in event.changes:
            changes[change.kind] += 1
        self.on_event(room_id, event)

    def on_feed_moved(self, room_id: str) -> None:
        """The room is at another server now (FeedListener)."""
        if room := self.rooms.get(room_id):
            room.read_anew("moved")

    def on_store_up(self, server: Server) -> None:
        """Commands for the server's rooms have a chance again (StoreListener)."""
        self._came_back(server)

    def on_store_down(self, server: Server) -> None:
        """Commands for the server's rooms are refused (StoreListener)."""
        self._went_away(server)

    def on_feed_up(self, server: Server) -> None:
        """Events of the server's rooms come again (FeedListener)."""
        self._came_back(server)

    def on_feed_down(self, server: Server) -> None:
        """No events of the server's rooms come (FeedListener)."""
        self._went_away(server)

    def on_round_trip(self, seconds: float) -> None:
        """A pipeline was answered (StoreListener)."""
        self._counts.redis_round_trip_s.observe(seconds)

    def _went_away(self, server: Server) -> None:
        self._counts.redis_losses += 1
        if server in self._topology.servers and server not in self._away:
            self._away[server] = time.monotonic()
            log.error("Redis%s is away; seats can't be changed until it is back", _at(server))

    def _came_back(self, server: Server) -> None:
        if not self._is_up_at(server):
            return
        away_since = self._away.pop(server, None)
        rooms = [
            room for room in self.rooms.values() if self._topology.server_of(room.room_id) is server
        ]
        if away_since is not None:
            away_s = time.monotonic() - away_since
            log.warning(
                "Redis%s is back after %.1f s; reading %d rooms anew",
                _at(server),
                away_s,
                len(rooms),
            )
        for room in rooms:
            room.read_anew("reconnected")

    def _moved(self) -> None:
        """Who has no room any more is not missed."""
        for server in self._away.keys() - set(self._topology.servers):
            del self._away[server]

    def _check_up(self, room_id: str) -> None:
        server = self._topology.server_of(room_id)
        if server is None or not self._is_up_at(server):
            raise StoreError("Redis is away")

    # ------------------------------------------------------------ rooms

    def _room(self, room_id: str) -> Room:
        """The room, opened if it is not followed yet; perhaps not live.

        Raises:
            StoreError: Redis is away.
        """
        self._check_up(room_id)
        room = self.rooms.get(room_id)
        if room is None:
            room = Room(
                room_id,
                self._store,
                self._feed,
                self._share,
                self._counts,
                self._room_failed,
                self._deflate_from,
            )
            self.rooms[room_id] = room
            room.open()
        return room

    def _room_failed(self, room: Room, error: StoreError) -> None:
        """A room can't be read now. Who waited for it is refused; who is in it stays."""
        joining, room.joining = room.joining, {}
        for viewer, request_ids in joining.items():
            if not room.has(viewer):  # it may have been in already, and joined again
                viewer.peer.viewers.pop(room.room_id, None)
            for request_id in request_ids:
                command = JoinRoom(room_id=room.room_id, request_id=request_id)
                self.refuse(viewer.peer, command, error)
        if not room.is_used:
            self._forget(room)

    def _give_up(self, room: Room, since: float) -> None:
        if room.joining and room.waiting_since == since:
            self._room_failed(room, StoreError("Redis did not answer in time"))

    def _remove(self, peer: Peer, room_id: str, *, connected: bool) -> None:
        viewer = peer.viewers.pop(room_id, None)
        if viewer is None:
            return
        room = self.rooms[room_id]
        if connected:
            room.leave(viewer)
        else:
            room.drop(viewer)

    def _forget(self, room: Room) -> None:
        self._lingering.pop(room, None)
        if self.rooms.get(room.room_id) is room:
            del self.rooms[room.room_id]
            room.close()

    async def _tend(self) -> None:
        """Compare every room with Redis every two seconds, and let unused ones go in time."""
        while True:
            rooms = list(self.rooms.values())
            groups = [
                rooms[at : at + COMPARE_AT_ONCE] for at in range(0, len(rooms), COMPARE_AT_ONCE)
            ]
            for group in groups or [[]]:
                for room in group:
                    room.compare()
                await asyncio.sleep(COMPARE_S / max(1, len(groups)))
            self._let_go(time.monotonic())

    def _let_go(self, now: float) -> None:
        for room in self.rooms.values():
            if room.is_used:
                self._lingering.pop(room, None)
            else:
                self._lingering.setdefault(room, now)
        for room, since in list(self._lingering.items()):
            if now - since < LINGER_S and len(self._lingering) <= MAX_LINGERING:
                return
            self._forget(room)

    # ------------------------------------------------------------ answers

    def _answerer(self, peer: Peer, command: SelectSeat | SelectSeats | ReleaseSeat) -> Done:
        asked_at = time.monotonic()

        def answer(outcome: Outcome | StoreError) -> None:
            if isinstance(outcome, StoreError):
                self.refuse(peer, command, outcome, asked_at)
            elif error := error_of(outcome, self._max_seats):
                self.refuse(peer, command, error, asked_at)
            else:
                for rev, message in answers_to(command, peer.client_id, outcome):
                    self._tell_in_order(peer, command.room_id, rev, message, asked_at)

        return answer

    def refuse(
        self,
        peer: Peer,
        command: JoinRoom | SelectSeat | SelectSeats | ReleaseSeat,
        error: ClientError | StoreError,
        asked_at: float = 0.0,
    ) -> None:
        """Answer a request, read at `asked_at` (`time.monotonic()`), with an error."""
        self._counts.refusals[error.code] += 1
        answer = refusal_of(command, error)
        log_refusal(peer.client_id, answer)
        self._tell_in_order(peer, command.room_id, 0, answer, asked_at)

    def _tell_in_order(
        self, peer: Peer, room_id: str, rev: int, message: Message, asked_at: float
    ) -> None:
        if viewer := peer.viewers.get(room_id):
            self.rooms[room_id].answer(viewer, rev, message, asked_at)
        else:
            peer.tell(message)
            self._counts.answered(asked_at)


def _at(server: Server) -> str:
    """Which server, where there are several."""
    return f" at {server.name}" if server.name else ""


async def _wait_for(ask: Callable[[Done], None]) -> Outcome:
    """Turn the store's callback into something to wait for.

    Raises:
        StoreError: Redis is away or late.
    """
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome | StoreError) -> None:
        if answer.done():
            return  # whoever asked has gone
        if isinstance(outcome, StoreError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    ask(done)
    return await answer
