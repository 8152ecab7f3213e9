"""A client's socket: frames in, requests to the hub; answers and news out. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from tornado.httputil import HTTPHeaders

from seatws.errors import (
    BadMessage,
    ClientError,
    CloseCode,
    NotAllowed,
    NotReady,
    RateLimited,
    Unauthenticated,
)
from seatws.frames import text_frame
from seatws.logs import log_refusal
from seatws.messages import (
    AnyCommand,
    Auth,
    AuthExpiring,
    AuthOk,
    Goodbye,
    JoinRoom,
    LeaveRoom,
    Message,
    Ping,
    Pong,
    ReleaseSeat,
    SelectSeat,
    SelectSeats,
    Unreadable,
    decode,
    encode,
    refusal,
    refusal_of,
    rfc3339,
    type_of,
)
from seatws.plugins import Action, ConnectRequest, Identity
from seatws.rooms.peer import Peer, Viewer
from seatws.web.connection import Connection
from seatws.web.sockets import Sockets

log = logging.getLogger(__name__)

BAD_FRAMES: Final = 20
"""So many in a row close the connection (PROTOCOL section 1)."""
RETRY_AFTER_MS: Final = (500, 2500)
"""What clients are told to wait, at random, so that they don't all come back at once."""

_NO_HEADERS: Final = HTTPHeaders()

_C = TypeVar("_C", JoinRoom, SelectSeat, SelectSeats, ReleaseSeat)


class SeatSocket(Connection):
    """One client's WebSocket, a `Peer` for the rooms.

    Args:
        sockets: All of them; this one is in it until it is closed.
        loop: The loop that watches the socket.
        sock: A connected, non-blocking TCP socket; owned from now on.
        client_id: Who it says it is, in the path.
        address: Where from, for the limits.
        deflates: Whether permessage-deflate was negotiated.
    """

    __slots__ = (
        "_bad_frames",
        "_sockets",
        "_undecided",
        "_warned",
        "address",
        "client_id",
        "identity",
        "left",
        "sign_in_by",
        "viewers",
    )

    def __init__(
        self,
        sockets: Sockets,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        client_id: str,
        address: str,
        *,
        deflates: bool,
    ) -> None:
        super().__init__(loop, sock, sockets.config.limits, deflates=deflates)
        self.client_id = client_id
        self.address = address
        self.viewers: dict[str, Viewer] = {}
        self.left: tuple[str, ...] = ()
        """The rooms that it was taken out of before its end, for the log."""
        self.identity: Identity | None = None
        """Who it is, once it has signed in; never set in open mode."""
        self.sign_in_by: float | None = None
        """Until when it may sign in, loop time; None when it has, or need not."""
        self._sockets = sockets
        self._bad_frames = 0
        self._warned = False
        self._undecided: deque[AnyCommand] | None = None
        """What came while a plugin was thinking; None when none is."""
        sockets.add(self)

    @property
    def is_thinking(self) -> bool:
        """Whether nothing is read for now, as a plugin has to decide first."""
        return self._undecided is not None

    # ------------------------------------------------------------ out

    def tell(self, message: Message) -> None:
        """Send one message to this client."""
        self.send(text_frame(encode(message)))

    def say_goodbye(self, code: CloseCode, reason: str) -> None:
        """Close, and say whether and when to come back."""
        after_ms = random.randint(*RETRY_AFTER_MS) if code.come_back else 0  # noqa: S311
        goodbye = Goodbye(
            code=code, reason=reason, reconnect=code.come_back, retry_after_ms=after_ms
        )
        self.close(code, reason, text_frame(encode(goodbye)))

    # ------------------------------------------------------------ in

    def on_text(self, text: str) -> None:
        """Read a request, and take it when those before it are decided."""
        sockets = self._sockets
        try:
            command = decode(text, sockets.config.limits.user_info_bytes)
        except Unreadable as error:
            self._refuse_frame(error)
            return
        self._bad_frames = 0
        sockets.counts.messages[type_of(command)] += 1
        if self._undecided is not None:
            self._undecided.append(command)
        elif (later := self._obey(command)) is not None:
            self._think(later)

    def on_binary(self) -> None:
        """Refuse it: messages are text."""
        self._refuse_frame(BadMessage("messages must be text frames, not binary"))

    def on_flood(self, retry_after_ms: int, *, goes_on: bool) -> None:
        """Refuse what came too fast, and close if it goes on."""
        if goes_on:
            self.say_goodbye(CloseCode.RATE_LIMITED, "kept sending too fast")
        else:
            self._refuse(RateLimited(retry_after_ms))

    def on_drained(self) -> None:
        """Let rooms in which it fell behind send their map."""
        self._sockets.hub.peer_drained(self)

    def on_closed(self) -> None:
        """Leave all rooms. The client's holds stay."""
        self._sockets.remove(self)
        self._sockets.hub.peer_closed(self)

    def _obey(self, command: AnyCommand) -> Awaitable[None] | None:
        """Do what is asked; or, where a plugin has to think first, return what to wait for."""
        hub = self._sockets.hub
        match command:
            case SelectSeat():
                return self._if_allowed(command, "select", (command.seat_id,), hub.select)
            case SelectSeats():
                return self._if_allowed(command, "select", command.seat_ids, hub.select)
            case ReleaseSeat():
                return self._if_allowed(command, "release", (command.seat_id,), hub.release)
            case JoinRoom():
                return self._if_allowed(command, "join", (), hub.join)
            case LeaveRoom():
                if self._is_known(command):
                    hub.leave(self, command)
            case Ping():
                now = rfc3339(hub.clock.now_ms())
                self.tell(Pong(timestamp=now, request_id=command.request_id))
            case Auth():
                if self._sockets.gate.needs_identity:
                    return self._sign_in_with(command)
                self._refuse(BadMessage("type: this server asks for no token"), command)
        return None

    def _if_allowed(
        self, command: _C, action: Action, seat_ids: Sequence[str], do: Callable[[Peer, _C], None]
    ) -> Awaitable[None] | None:
        gate = self._sockets.gate
        if not self._is_known(command):
            return None
        if not gate.judges:
            do(self, command)
            return None
        who = self.identity or Identity(self.client_id)
        verdict = gate.may(who, action, command.room_id, seat_ids, command.request_id)
        if not isinstance(verdict, bool):
            return self._if_allowed_later(command, verdict, do)
        self._do_or_refuse(command, verdict, do)
        return None

    async def _if_allowed_later(
        self, command: _C, verdict: Awaitable[bool], do: Callable[[Peer, _C], None]
    ) -> None:
        allowed = await verdict
        if self.is_open:  # nobody would take it out of a room again
            self._do_or_refuse(command, allowed, do)

    def _do_or_refuse(self, command: _C, allowed: bool, do: Callable[[Peer, _C], None]) -> None:
        if allowed:
            do(self, command)
        else:
            self._sockets.hub.refuse(self, command, NotAllowed())

    def _think(self, decision: Awaitable[None]) -> None:
        """Wait for a plugin. What comes meanwhile is read no further, and taken in order after."""
        # At once, not in the task: more requests may lie in the bytes that are being read.
        self._undecided = deque()
        self.hold()
        self._sockets.keep(asyncio.ensure_future(self._decide(decision, self._undecided)))

    async def _decide(self, decision: Awaitable[None], queue: deque[AnyCommand]) -> None:
        try:
            await decision
            while queue and self.is_open:
                later = self._obey(queue.popleft())
                if later is not None:
                    await later
        finally:
            self._undecided = None
            self.heard_at = asyncio.get_running_loop().time()  # it was we who did not listen
            self.go_on()

    # ------------------------------------------------------------ who it is

    def accept(self, answer: bytes, identity: Identity | None = None) -> None:
        """Answer the handshake and, to a client that has signed in with it, say so."""
        if identity is None:
            self.send(answer)
            return
        self.send(answer + text_frame(encode(self._sign_in(identity))))
        self.look_at_expiry(time.time())

    def _sign_in(self, identity: Identity, request_id: str | None = None) -> AuthOk:
        """Take a good identity, first or renewed; what to answer."""
        self.identity = identity
        self.sign_in_by = None
        self._warned = not identity.warn_seconds
        ends = identity.expires_at
        return AuthOk(
            client_id=identity.client_id,
            expires_at=None if ends is None else _time_of(ends),
            request_id=request_id,
        )

    def look_at_expiry(self, now: float) -> None:
        """Warn before the token ends, and close when it has; `now` in Unix seconds."""
        identity = self.identity
        if identity is None or identity.expires_at is None:
            return
        if not self._warned and now >= identity.expires_at - identity.warn_seconds:
            self._warned = True
            self.tell(AuthExpiring(expires_at=_time_of(identity.expires_at)))
        if now >= identity.expires_at + identity.grace_seconds:
            self.say_goodbye(CloseCode.UNAUTHENTICATED, "the token ended")

    async def look_at_permissions(self) -> None:
        """After a renewal or a reload: does the identity stand, and may it be where it is?"""
        gate = self._sockets.gate
        if not gate.needs_identity:
            self.identity = self.sign_in_by = None
        if self.sign_in_by is None and not gate.still_stands(self.identity):
            self.say_goodbye(CloseCode.UNAUTHENTICATED, "sign in again")
            return
        who = self.identity or Identity(self.client_id)
        for room_id in list(self.viewers):
            verdict = gate.may(who, "join", room_id)
            allowed = verdict if isinstance(verdict, bool) else await verdict
            if not allowed and room_id in self.viewers:
                self._sockets.hub.expel(self, room_id)

    async def _sign_in_with(self, command: Auth) -> None:
        is_renewal = self.identity is not None
        request = ConnectRequest(
            client_id=self.client_id,
            headers=_NO_HEADERS,
            address=self.address,
            token=command.token,
            request_id=command.request_id,
        )
        try:
            identity = await self._sockets.gate.authenticate(request)
            if identity.client_id != self.client_id:
                raise NotAllowed("the token is another client's")
        except (ClientError, NotReady) as error:
            if not is_renewal:
                self.say_goodbye(*close_for(error))
            elif isinstance(error, NotReady):
                self._refuse(Unauthenticated("sign-in is not possible yet"), command)
            else:
                self._refuse(error, command)
            return
        self.tell(self._sign_in(identity, command.request_id))
        self.look_at_expiry(time.time())
        if is_renewal:
            await self.look_at_permissions()

    def _is_known(self, command: AnyCommand) -> bool:
        """Whether the client has said who it is, if it must; it is told if not."""
        if self.identity is None and self._sockets.gate.needs_identity:
            self._refuse(Unauthenticated("sign in first"), command)
            return False
        return True

    # ------------------------------------------------------------ refusing

    def _refuse_frame(self, error: BadMessage) -> None:
        self._bad_frames += 1
        if self._bad_frames >= BAD_FRAMES:
            self.say_goodbye(CloseCode.BAD_FRAMES, "too many frames that are no messages")
        else:
            self._refuse(error)

    def _refuse(self, error: ClientError, command: AnyCommand | None = None) -> None:
        self._sockets.counts.refusals[error.code] += 1
        if command is not None:
            answer = refusal_of(command, error)
        else:
            request = error.request if isinstance(error, Unreadable) else None
            answer = refusal(error, request=request)
        log_refusal(self.client_id, answer)
        self.tell(answer)


def close_for(error: ClientError | NotReady) -> tuple[CloseCode, str]:
    """How a connection ends that could not sign in."""
    if isinstance(error, NotReady):
        return CloseCode.TRY_AGAIN_LATER, "sign-in is not possible yet"
    if isinstance(error, RateLimited):
        return CloseCode.RATE_LIMITED, "too many failed sign-ins from this address"
    if isinstance(error, NotAllowed):
        return CloseCode.FORBIDDEN, "the token is another client's"
    return CloseCode.UNAUTHENTICATED, str(error)


def _time_of(unix_s: float) -> str:
    return rfc3339(int(unix_s * 1000))
