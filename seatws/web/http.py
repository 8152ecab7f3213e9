"""HTTP: health, figures, a room's map, and holds for clients without a WebSocket."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any, Final

from seatws.config import Config
from seatws.errors import BadMessage, NotAllowed, RateLimited, Unauthenticated
from seatws.holds import hold_of
from seatws.messages import decode_put, wrong_id
from seatws.metrics import Metrics
from seatws.plugins import Action, Identity
from seatws.privacy import UserInfoFilter
from seatws.rooms.hub import Hub
from seatws.rooms.room import Room
from seatws.web.gate import Gate, left_s
from seatws.web.problems import ApiHandler, request_of
from seatws.web.rate import Buckets
from seatws.web.sockets import Sockets

LONGEST_WAIT_S: Final = 60.0
"""`?wait=` above it counts as it: proxies give up on silent requests about then."""


class Api:
    """What the handlers work with."""

    def __init__(
        self, config: Config, gate: Gate, hub: Hub, sockets: Sockets, metrics: Metrics
    ) -> None:
        self.config = config
        self.gate = gate
        self.hub = hub
        self.sockets = sockets
        self.metrics = metrics
        self.buckets = Buckets(config.limits.messages_per_second, config.limits.burst)
        self.share = UserInfoFilter(config.privacy.shared_user_info)
        self.started_at = time.monotonic()
        self.is_draining = asyncio.Event()
        """Set when the server is going down: requests that wait are answered."""


class _Handler(ApiHandler):
    def initialize(self, api: Api) -> None:
        """Take what the handlers work with (Tornado calls it with the route's arguments)."""
        self.api = api

    def check(self, **ids: str) -> None:
        """Refuse illegal ids.

        Raises:
            BadMessage: It names the first one.
        """
        for name, value in ids.items():
            if problem := wrong_id(name, value):
                raise BadMessage(f"{name}: {problem}")

    async def identify(self, client_id: str | None) -> Identity:
        """Find out who is asking.

        Args:
            client_id: Who it says it is; None if it leaves that to its token.

        Raises:
            BadMessage: It is no client id.
            Unauthenticated: It has no good token and needs one.
            NotAllowed: The token is another client's.
            NotReady: It can't be told yet.
        """
        if client_id is not None:
            self.check(client_id=client_id)
        if not self.api.gate.needs_identity:
            return Identity(client_id or "")
        identity = await self.api.gate.authenticate(request_of(self, client_id))
        if client_id is not None and identity.client_id != client_id:
            raise NotAllowed("the token is another client's")
        return identity

    async def require(
        self,
        identity: Identity,
        action: Action,
        room_id: str | None = None,
        seat_ids: Sequence[str] = (),
    ) -> None:
        """Let nobody do what the plugins refuse.

        Raises:
            NotAllowed: One of them does.
        """
        verdict = self.api.gate.may(identity, action, room_id, seat_ids, self.request_id)
        if not (verdict if isinstance(verdict, bool) else await verdict):
            raise NotAllowed


class HealthHandler(_Handler):
    """`GET /health`: whether this instance can serve."""

    route = "/health"

    def get(self) -> None:
        """200 when Redis can be reached and it is not on its way down, else 503."""
        hub = self.api.hub
        is_healthy = hub.is_up and not self.api.is_draining.is_set()
        if not is_healthy:
            self.set_status(503)
        self.send_json(
            {
                "status": "healthy" if is_healthy else "unhealthy",
                "service": "websocket",
                "active_connections": len(self.api.sockets),
                "active_rooms": hub.active_rooms,
                "redis_connected": hub.is_up,
            }
        )

    head = get


class StatsHandler(_Handler):
    """`GET /stats`: this instance's figures; no client ids, no names."""

    route = "/stats"

    async def get(self) -> None:
        """Each room that is followed here, with its viewers and holds."""
        client_id = self.get_query_argument("client_id", None, strip=False)
        await self.require(await self.identify(client_id), "stats")
        rooms = {
            room.room_id: {"connections": room.viewers, "selections": len(room.mirror.holds)}
            for room in self.api.hub.rooms.values()
        }
        self.send_json(
            {
                "active_connections": len(self.api.sockets),
                "active_rooms": self.api.hub.active_rooms,
                "temporary_selections": sum(room["selections"] for room in rooms.values()),
                "rooms": rooms,
                "uptime_seconds": round(time.monotonic() - self.api.started_at, 3),
            }
        )

    head = get


class SelectionsHandler(_Handler):
    """`GET /room/{room_id}/selections`: the room's map, at once or at its next change."""

    route = "/room/{room_id}/selections"

    waiting: asyncio.Future[None] | None = None
    gone = False

    async def get(self, room_id: str) -> None:
        """200 with the map, or 304 if it is the one that the client knows."""
        self.check(room_id=room_id)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s()
        known = _tags(self.request.headers.get("If-None-Match", ""))
        identity = await self.identify(self.get_query_argument("client_id", None, strip=False))
        while True:
            reloaded = self.api.gate.reloaded  # before asking: one meanwhile asks again
            self._check_stands(identity)
            await self.require(identity, "read", room_id)
            room = await self.api.hub.live_room(room_id)
            tag = _tag_of(room)
            left = until - loop.time()
            ends = left <= 0 or self.gone or self.api.is_draining.is_set()
            if ends or not known & {tag, "*"}:
                break
            await self._wait_for_change(room, reloaded, min(left, left_s(identity)))
        self.set_header("ETag", tag)
        if known & {tag, "*"}:
            self.set_status(304)
            return
        selections = [hold.selection for hold in room.mirror.holds.values()]
        self.send_json({"room_id": room_id, "selections": selections, "count": len(selections)})

    head = get

    def on_connection_close(self) -> None:
        """The client has gone: wait no longer."""
        self.gone = True
        if self.waiting is not None:
            self.waiting.cancel()

    def _check_stands(self, identity: Identity) -> None:
        """Refuse a token that ended, or is no longer trusted, while the request waited."""
        if left_s(identity) <= 0 or (
            self.api.gate.needs_identity and not self.api.gate.still_stands(identity)
        ):
            raise Unauthenticated("the token ended")

    async def _wait_for_change(self, room: Room, reloaded: asyncio.Event, seconds: float) -> None:
        self.waiting = room.changed()
        until: list[asyncio.Future[Any]] = [self.waiting]
        for event in (self.api.is_draining, reloaded):
            until.append(asyncio.ensure_future(event.wait()))
        try:
            await asyncio.wait(until, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in until:
                future.cancel()

    def _wait_s(self) -> float:
        text = self.get_query_argument("wait", "0", strip=False)
        if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text):
            raise BadMessage("wait: must be a number of seconds, such as 25")
        return min(float(text), LONGEST_WAIT_S)


class SelectionHandler(_Handler):
    """`/room/{room_id}/selections/{seat_id}`: one hold."""

    route = "/room/{room_id}/selections/{seat_id}"

    methods = "PUT, DELETE, OPTIONS"

    async def put(self, room_id: str, seat_id: str) -> None:
        """Hold the seat: 201, or 200 if it is the client's already."""
        self.check(room_id=room_id, seat_id=seat_id)
        limits = self.api.config.limits
        if len(self.request.body) > limits.message_bytes:
            most = f"the body must be at most {limits.message_bytes} bytes"
            self.send_problem(413, "invalid_message", most)
            return
        put = decode_put(self.request.body, limits.user_info_bytes)
        client_id = await self._allowed_client(put.client_id, "select", room_id, seat_id)
        user_info = bytes(put.user_info)
        seat, rev, deadline_ms = await self.api.hub.hold(room_id, client_id, seat_id, user_info)
        self.set_status(201 if rev else 200)
        room = await self.api.hub.live_room(room_id)
        hold = room.mirror.holds.get(seat)
        if hold is None or hold.selection.client_id != client_id:
            # It ended while we looked for it; this is what it was.
            since_ms = deadline_ms - self.api.config.holds.seconds * 1000
            shared = self.api.share(user_info.decode())
            hold = hold_of(room_id, seat, client_id, since_ms, deadline_ms, shared)
        self.send_json(hold.selection)

    async def delete(self, room_id: str, seat_id: str) -> None:
        """End the hold: 204."""
        self.check(room_id=room_id, seat_id=seat_id)
        claimed = self.get_query_argument("client_id", None, strip=False)
        client_id = await self._allowed_client(claimed, "release", room_id, seat_id)
        await self.api.hub.free(room_id, client_id, seat_id)
        self.set_status(204)

    async def _allowed_client(
        self, claimed: str | None, action: Action, room_id: str, seat_id: str
    ) -> str:
        """Whose hold it is about, if it may do that and does not do it too often."""
        if claimed is None and not self.api.gate.needs_identity:
            raise BadMessage("client_id: missing")
        identity = await self.identify(claimed)
        key = (self.request.remote_ip or "", identity.client_id)
        if retry_after_ms := self.api.buckets.take(key, time.monotonic()):
            raise RateLimited(retry_after_ms)
        await self.require(identity, action, room_id, (seat_id,))
        return identity.client_id


class MetricsHandler(_Handler):
    """`GET /metrics`: Prometheus text."""

    route = "/metrics"

    def get(self) -> None:
        """All that is counted."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.api.metrics.text())

    head = get


def _tag_of(room: Room) -> str:
    """The map's entity tag: the same on every instance (RFC 9110 8.8.3)."""
    return f'"{room.mirror.epoch}-{room.mirror.rev}"'


def _tags(if_none_match: str) -> set[str]:
    """The tags of the header; weak ones count as strong (RFC 9110 13.1.2)."""
    return {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")} - {""}
