"""A client's socket: frames in, requests to the hub; answers and news out. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from typing import Final

from seatws.errors import BadMessage, ClientError, CloseCode, RateLimited
from seatws.frames import text_frame
from seatws.messages import (
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
    rfc3339,
    type_of,
)
from seatws.rooms.peer import Viewer
from seatws.web.connection import Connection
from seatws.web.sockets import Sockets

log = logging.getLogger(__name__)

BAD_FRAMES: Final = 20
"""So many in a row close the connection (PROTOCOL section 1)."""
RETRY_AFTER_MS: Final = (500, 2500)
"""What clients are told to wait, at random, so that they don't all come back at once."""


class SeatSocket(Connection):
    """One client's WebSocket, a `Peer` for the rooms.

    Args:
        sockets: All of them; this one is in it until it is closed.
        loop: The loop that watches the socket.
        sock: A connected, non-blocking TCP socket; owned from now on.
        client_id: Who it is.
        address: Where from, for the limits.
        inflates: Whether permessage-deflate was negotiated.
    """

    __slots__ = ("_bad_frames", "_sockets", "address", "client_id", "viewers")

    def __init__(
        self,
        sockets: Sockets,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        client_id: str,
        address: str,
        *,
        inflates: bool,
    ) -> None:
        super().__init__(loop, sock, sockets.config.limits, inflates=inflates)
        self.client_id = client_id
        self.address = address
        self.viewers: dict[str, Viewer] = {}
        self._sockets = sockets
        self._bad_frames = 0
        sockets.add(self)

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

    def on_text(self, text: str) -> None:
        """Hand a request on."""
        sockets = self._sockets
        try:
            command = decode(text, sockets.config.limits.user_info_bytes)
        except Unreadable as error:
            self._refuse_frame(error)
            return
        self._bad_frames = 0
        sockets.counts.messages[type_of(command)] += 1
        match command:
            case SelectSeat() | SelectSeats():
                sockets.hub.select(self, command)
            case ReleaseSeat():
                sockets.hub.release(self, command)
            case JoinRoom():
                sockets.hub.join(self, command)
            case LeaveRoom():
                sockets.hub.leave(self, command)
            case Ping():
                now = rfc3339(sockets.hub.clock.now_ms())
                self.tell(Pong(timestamp=now, request_id=command.request_id))

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

    def _refuse_frame(self, error: BadMessage) -> None:
        self._bad_frames += 1
        if self._bad_frames >= BAD_FRAMES:
            self.say_goodbye(CloseCode.BAD_FRAMES, "too many frames that are no messages")
        else:
            self._refuse(error)

    def _refuse(self, error: ClientError) -> None:
        self._sockets.counts.refusals[error.code] += 1
        request = error.request if isinstance(error, Unreadable) else None
        self.tell(refusal(error, request=request))
