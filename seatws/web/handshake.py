"""The way from an HTTP request to a `SeatSocket`: Tornado checks it, we answer and keep the socket.

All that touches Tornado's inner parts stands here; `tests/test_handshake.py` fails loudly when a
new Tornado has other ones.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from seatws.deflate import negotiate
from seatws.errors import ClientError, CloseCode, NotAllowed, NoToken, NotReady
from seatws.messages import wrong_id
from seatws.plugins import Identity
from seatws.web.origins import Origins
from seatws.web.problems import ProblemHandler, request_of
from seatws.web.socket import SeatSocket, close_for
from seatws.web.sockets import Sockets

SUBPROTOCOL = "seatws.v1"


class SeatHandler(ProblemHandler, WebSocketHandler):
    """`GET /ws/{client_id}`: upgrades, and is gone once the socket is handed over."""

    route = "/ws/{client_id}"

    methods = "GET"

    def initialize(self, sockets: Sockets, origins: Origins) -> None:
        """Take what the handler needs (Tornado calls it with the route's arguments)."""
        self._sockets = sockets
        self._origins = origins
        self._extension: str | None = None
        self._refusal: tuple[CloseCode, str] | None = None
        self._identity: Identity | None = None
        self._sign_in_seconds = 0.0

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Check the request, then shake hands."""
        (self._client_id,) = args
        if problem := wrong_id("client_id", self._client_id):
            self.send_problem(400, "invalid_message", f"client_id in the path: {problem}")
            return
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            self.set_header("Upgrade", "websocket")
            self.send_problem(426, "invalid_message", "this address takes WebSockets only")
            return
        if self._sockets.config.compression.enabled:
            self._extension = negotiate(self.request.headers.get("Sec-WebSocket-Extensions", ""))
        self._refusal = self._sockets.refusal_for(self.request.remote_ip or "")
        if self._refusal is None and self._sockets.gate.needs_identity:
            await self._authenticate()
        await super().get(*args, **kwargs)

    async def _authenticate(self) -> None:
        """Find out who it is; a refusal waits until the socket stands, where it can be read."""
        gate = self._sockets.gate
        try:
            self._identity = await gate.authenticate(request_of(self, self._client_id))
            if self._identity.client_id != self._client_id:
                raise NotAllowed("the token is another client's")
        except NoToken as error:
            if gate.sign_in_seconds:
                self._sign_in_seconds = gate.sign_in_seconds
            else:
                self._refusal = close_for(error)
        except (ClientError, NotReady) as error:
            self._refusal = close_for(error)

    def check_origin(self, origin: str) -> bool:
        """Whether a page from there may connect (Tornado answers 403 if not)."""
        return self._origins.allows(origin)

    def get_websocket_protocol(self) -> WebSocketProtocol13 | None:
        """Tornado's protocol, of which only the beginning is used."""
        if self.request.headers.get("Sec-WebSocket-Version") != "13":
            return None
        params = _WebSocketParams(
            ping_interval=None, ping_timeout=None, max_message_size=1, compression_options=None
        )
        return _Handover(self, False, params)

    def take_over(self) -> None:
        """Make the socket ours, and say yes."""
        stream = self.detach()
        if stream.closed():  # the client has gone, most of all while a plugin looked at its token
            return
        # Nothing holds on to the handler from now on but it itself, in these two circles. Without
        # them all of Tornado's for this connection goes at once, and the collector finds nothing.
        self.ws_connection = None
        self.ui.clear()
        stream.io_loop.remove_handler(stream.socket)
        came_already = bytes(stream._read_buffer)
        loop = asyncio.get_running_loop()
        address = self.request.remote_ip or ""
        # Again: others came in, or the server began to go, while a plugin looked at the token.
        refusal = self._refusal or self._sockets.refusal_for(address)
        socket = SeatSocket(
            self._sockets,
            loop,
            stream.socket,
            self._client_id,
            address,
            deflates=self._extension is not None,
        )
        answer = self._answer()
        if refusal is not None:
            socket.accept(answer)
            socket.say_goodbye(*refusal)  # a browser can't read a refused handshake, but this
            return
        socket.accept(answer, self._identity)
        if self._sign_in_seconds:
            socket.sign_in_by = loop.time() + self._sign_in_seconds
        if came_already:
            socket.receive(came_already)

    def _answer(self) -> bytes:
        """The answer to a good handshake (RFC 6455 4.2.2).

        Written here, so that what follows goes out with it, in one packet.
        """
        headers = self.request.headers
        accept = WebSocketProtocol13.compute_accept_value(headers["Sec-WebSocket-Key"])
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
        ]
        offered = headers.get("Sec-WebSocket-Protocol", "")
        if SUBPROTOCOL in (word.strip() for word in offered.split(",")):
            lines.append(f"Sec-WebSocket-Protocol: {SUBPROTOCOL}")
        if self._extension is not None:
            lines.append(f"Sec-WebSocket-Extensions: {self._extension}")
        return "\r\n".join([*lines, "", ""]).encode()


class _Handover(WebSocketProtocol13):
    """Gives the socket away where Tornado would answer the handshake and read frames."""

    handler: SeatHandler

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        headers = handler.request.headers
        if headers.get("Host") and headers.get("Sec-WebSocket-Key"):
            self.handler.take_over()
        else:
            missing = "Host and Sec-WebSocket-Key"
            self.handler.send_problem(400, "invalid_message", f"the handshake needs {missing}")
