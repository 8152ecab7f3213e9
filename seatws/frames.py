"""WebSocket frames, the server's side (RFC 6455); deflated ones, too (RFC 7692, `deflate.py`).

Bytes in, events out: no I/O, no clock. Tornado checks the handshake and no more: its stream can't
share encoded bytes, bound what is unsent or close with 1007, and costs twice the CPU. What we send
is whole, so that it can be shared. A bare section number below is RFC 6455's.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, TypeAlias

import msgspec

from seatws.deflate import deflate, inflate
from seatws.errors import CloseCode, SeatwsError

# A header begins with FIN, three reserved bits and the opcode, then MASK and the length (5.2).
_FIN: Final = 0x80
_DEFLATED: Final = 0x40  # RSV1, on a message's first frame (RFC 7692 6)
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_WHOLE_TEXT: Final = _FIN | _TEXT

# The first bytes that are in order where they stand. All others break a rule about reserved bits
# or opcodes (5.2, RFC 7692 6.1), fragmented control frames (5.5) or fragmented messages (5.4).
_CONTROLS: Final = frozenset({_FIN | _CLOSE, _FIN | _PING, _FIN | _PONG})
_PLAIN: Final = frozenset({_TEXT, _BINARY, _FIN | _TEXT, _FIN | _BINARY})
_STARTS: Final = _CONTROLS | _PLAIN
_STARTS_OR_DEFLATED: Final = _STARTS | {_DEFLATED | first for first in _PLAIN}
_CONTINUES: Final = _CONTROLS | {_CONTINUATION, _FIN | _CONTINUATION}

_SHORT: Final = 125  # the longest payload with a 7-bit length, and of any control frame (5.5)

_number = int.from_bytes  # looked up once, not twice a frame


class Text(msgspec.Struct, frozen=True, gc=False):
    """A whole text message."""

    text: str


class Binary(msgspec.Struct, frozen=True, gc=False):
    """A whole binary message. Nobody here wants one, so what it said is not kept."""


class Fragment(msgspec.Struct, frozen=True, gc=False):
    """A frame that did not end its message, perhaps an empty one: nothing to do but count it."""


class Ping(msgspec.Struct, frozen=True, gc=False):
    """To be answered with `pong_frame(payload)`."""

    payload: bytes


class Pong(msgspec.Struct, frozen=True, gc=False):
    """The answer to a ping of ours, or unasked-for."""

    payload: bytes


class Close(msgspec.Struct, frozen=True, gc=False):
    """The client closes; `code` is None if it gave none. Always the last event."""

    code: int | None
    reason: str


class Violation(msgspec.Struct, frozen=True, gc=False):
    """The client broke a rule: close with this code and reason. Always the last event."""

    code: CloseCode
    reason: str


Event: TypeAlias = Text | Binary | Fragment | Ping | Pong | Close | Violation


class _Refused(SeatwsError):
    """A rule is broken. Becomes a `Violation` in `FrameReader.feed` and goes no further."""

    def __init__(self, reason: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


class FrameReader:
    """Turns one client's bytes into events, one a frame: `len(events)` is what a rate limit counts.

    Between messages it holds no buffer; within one, at most `max_bytes` and a header.

    Args:
        max_bytes: The longest message, both as sent and as inflated.
        inflates: Whether permessage-deflate was agreed on, see `deflate.negotiate`.
    """

    __slots__ = ("_fragments", "_max_bytes", "_need", "_opened", "_over", "_partial", "_starts")

    def __init__(self, max_bytes: int, inflates: bool) -> None:
        self._max_bytes = max_bytes
        self._starts = _STARTS_OR_DEFLATED if inflates else _STARTS
        self._partial: bytearray | None = None  # a frame of which not all has come
        self._need = 0  # how long it must get before it is worth another look
        self._fragments: bytearray | None = None  # the payload so far of a message under way
        self._opened = 0  # the first byte of that message
        self._over = False

    def feed(self, data: bytes | memoryview) -> list[Event]:
        """Read on. However the stream is cut, the events are the same.

        Args:
            data: What came next; perhaps a view into a buffer that is used again right afterwards.

        Returns:
            One event for each frame that is now complete. After a `Close` or a `Violation` there
            is never another, and whatever still comes is dropped.
        """
        if self._over:
            return []
        if self._partial is None:
            data = bytes(data)
        else:
            self._partial += data
            if len(self._partial) < self._need:
                return []
            data, self._partial = bytes(self._partial), None
        events: list[Event] = []
        try:
            self._read(data, events)
        except _Refused as refused:
            self._end(events, Violation(refused.code, str(refused)))
        except UnicodeDecodeError:
            self._end(events, Violation(CloseCode.NOT_UTF8, "not UTF-8"))  # 8.1
        except zlib.error:
            self._end(events, Violation(CloseCode.NOT_UTF8, "cannot be inflated"))
        return events

    def _read(self, data: bytes, events: list[Event]) -> None:
        """Add an event for each whole frame in `data`, and keep what is left."""
        start, end = 0, len(data)
        while start < end:
            # Each rule is tried as soon as its bytes are there: a length that is too much is
            # refused before any of its payload is waited for. `stop` is how far we have to see.
            stop = start + 2
            if stop > end:
                break
            first, length = data[start], data[start + 1] ^ _MASKED
            if self._fragments is None:
                allowed, room = self._starts, self._max_bytes
            else:
                allowed, room = _CONTINUES, self._max_bytes - len(self._fragments)
            if first not in allowed:
                raise _Refused(f"frame 0x{first:02x} is out of place")
            if length >= _MASKED:
                raise _Refused("frames must be masked")  # 5.1
            if length > _SHORT:
                if first & _CONTROL:
                    raise _Refused("control frame too long")  # 5.5
                stop += 2 if length == _SHORT + 1 else 8
                if stop > end:
                    break
                length = _long_length(data[start + 2 : stop])
            if length > room and not first & _CONTROL:
                raise self._too_big()
            stop += 4 + length
            if stop > end:
                break
            payload = _unmask(data[stop - length : stop], data[stop - length - 4 : stop - length])
            start = stop
            if first == _WHOLE_TEXT:
                events.append(Text(payload.decode()))
            elif first & _CONTROL:
                event = _control(first & _OPCODE, payload)
                if isinstance(event, Close):
                    self._end(events, event)
                    return
                events.append(event)
            else:
                events.append(self._data(first, payload))
        if start < end:
            self._partial, self._need = bytearray(data[start:]), stop - start

    def _data(self, first: int, payload: bytes) -> Event:
        """One frame of a message; the last one makes the message."""
        if not first & _FIN:
            if self._fragments is None:
                self._fragments, self._opened = bytearray(), first
            self._fragments += payload
            return Fragment()
        if self._fragments is not None:
            first, payload = self._opened, bytes(self._fragments + payload)
            self._fragments = None
        # A deflated message is never without a byte (RFC 7692 7.2.3.6), but none is plain enough.
        if first & _DEFLATED and payload:
            payload = inflate(payload, self._max_bytes + 1)
            if len(payload) > self._max_bytes:
                raise self._too_big()
        return Binary() if first & _OPCODE == _BINARY else Text(payload.decode())

    def _too_big(self) -> _Refused:
        return _Refused(f"message over {self._max_bytes} bytes", CloseCode.TOO_BIG)

    def _end(self, events: list[Event], last: Close | Violation) -> None:
        events.append(last)
        self._fragments = None
        self._over = True


def _long_length(field: bytes) -> int:
    """Read a length of 16 or 64 bits (5.2)."""
    length = _number(field)
    if length >> 63:
        raise _Refused("length with its top bit set")
    if length <= (_SHORT if len(field) == 2 else 0xFFFF):
        raise _Refused("length not in its shortest form")
    return length


def _unmask(payload: bytes, mask: bytes) -> bytes:
    """Undo the masking (5.3) with one XOR of two whole numbers, in linear time."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (_number(payload, "little") ^ _number(key, "little")).to_bytes(length, "little")


def _control(opcode: int, payload: bytes) -> Ping | Pong | Close:
    if opcode != _CLOSE:
        return Ping(payload) if opcode == _PING else Pong(payload)
    if not payload:
        return Close(None, "")
    code = _number(payload[:2])
    # 7.4, and 1012 to 1014, which IANA has added since. A single byte (5.5.1) comes to less.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise _Refused("invalid close code")
    return Close(code, payload[2:].decode())


_SHORT_HEADERS: Final = [bytes((_WHOLE_TEXT, length)) for length in range(_SHORT + 1)]
_LONG_HEADERS: Final = {_SHORT + 1: 4, _SHORT + 2: 10}
_header_of_16_bits = struct.Struct("!BBH").pack


def text_frame(payload: bytes) -> bytes:
    """A whole text message of UTF-8, ready to be sent to any number of clients."""
    if len(payload) <= _SHORT:
        return _SHORT_HEADERS[len(payload)] + payload
    return _long_frame(_WHOLE_TEXT, payload)


def deflated_text_frame(payload: bytes) -> bytes:
    """The same of a message that is deflated already, for clients that agreed to it."""
    if len(payload) <= _SHORT:
        return bytes((_WHOLE_TEXT | _DEFLATED, len(payload))) + payload
    return _long_frame(_WHOLE_TEXT | _DEFLATED, payload)


def deflated(frame: bytes) -> bytes:
    """The message of a `text_frame` deflated; the frame itself if that makes it no shorter."""
    start = _LONG_HEADERS.get(frame[1], 2)
    shorter = deflated_text_frame(deflate(frame[start:]))
    return shorter if len(shorter) < len(frame) else frame


def _long_frame(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length <= 0xFFFF:
        return _header_of_16_bits(first, _SHORT + 1, length) + payload
    return struct.pack("!BBQ", first, _SHORT + 2, length) + payload


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping; its pong brings the payload back, at most 125 bytes."""
    return _control_frame(_PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a `Ping` with this payload."""
    return _control_frame(_PONG, payload)


def close_frame(code: int | None, reason: str = "") -> bytes:
    """A close, perhaps without a code. Of the reason goes what fits into 123 bytes (5.5)."""
    if code is None:
        return _control_frame(_CLOSE, b"")
    fits = reason.encode(errors="replace")[: _SHORT - 2].decode(errors="ignore")
    return _control_frame(_CLOSE, code.to_bytes(2) + fits.encode())


def _control_frame(opcode: int, payload: bytes) -> bytes:
    if len(payload) > _SHORT:
        raise ValueError(f"a control frame takes {_SHORT} bytes, not {len(payload)}")
    return bytes((_FIN | opcode, len(payload))) + payload
