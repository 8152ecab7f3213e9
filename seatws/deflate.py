"""permessage-deflate (RFC 7692): agreeing on it, inflating what comes, deflating what goes out.

Neither side keeps its window from one message to the next. So a deflated message is the same bytes
for every client, made once; and no connection costs the memory of an inflater.

A message may also be made of parts, each deflated by itself or just wrapped: what seldom changes is
deflated once and used again. A bare section number below is RFC 7692's.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Final

WINDOW_BITS: Final = 12
"""Of what we deflate: 4 KiB. Messages repeat themselves at short distances, so the largest window
makes a map smaller by 3 % only; and clients that limit it (Python's websockets: to 12) can take
the same bytes as all others."""
_LEVEL: Final = 1
"""6 takes two to three times as long and makes a map smaller by a seventh."""
_MEMORY: Final = 5
"""With it a deflater has 40 KiB, a quarter of what it has with zlib's own 8, and is faster by half:
all of it stays in the processor's cache."""

# What the sender takes off (7.2.1), and the receiver puts back (7.2.2).
_END: Final = b"\x00\x00\xff\xff"
# And an empty final block: a message that was cut short does not reach its end, and so isn't taken
# for a shorter one.
_TAIL: Final = _END + b"\x03\x00"
# After a final block may come others (7.2.1). Each costs us an inflater and the client two bytes,
# so not without end; an honest client sends one, if any.
_FINAL_BLOCKS: Final = 16

_STORED_MOST: Final = 0xFFFF  # bytes of a block without compression (RFC 1951 3.2.4)

# All that one may say in an offer (7.1.1, 7.1.2).
_PARAMETER: Final = re.compile(
    r"(?P<flag>(?:server|client)_no_context_takeover|client_max_window_bits)"
    r"|(?P<limit>(?:server|client)_max_window_bits)"
    r'[ \t]*=[ \t]*(?P<quote>"?)(?P<bits>[89]|1[0-5])(?P=quote)'
)


def negotiate(offers: str) -> str | None:
    """Take up the first of the client's offers that is acceptable (7.1).

    Args:
        offers: The request's Sec-WebSocket-Extensions.

    Returns:
        The response's Sec-WebSocket-Extensions, or None to send none and do without.
    """
    # A quoted value must be a token (RFC 6455 9.1), so no comma or semicolon hides in one.
    for offer in offers.split(","):
        name, *parameters = (part.strip(" \t") for part in offer.split(";"))
        if name == "permessage-deflate" and (granted := _grant(parameters)) is not None:
            return f"{name}; server_no_context_takeover; client_no_context_takeover{granted}"
    return None


def _grant(parameters: list[str]) -> str | None:
    """What these parameters of an offer add to the answer; None declines the offer."""
    seen: set[str] = set()
    granted = ""
    for parameter in parameters:
        found = _PARAMETER.fullmatch(parameter)
        if found is None or (name := found["flag"] or found["limit"]) in seen:
            return None
        seen.add(name)
        if name == "server_max_window_bits":
            if int(found["bits"]) < WINDOW_BITS:
                return None  # it could not inflate what all others get
            granted = f"; {name}={WINDOW_BITS}"
    return granted


def inflate(message: bytes, at_most: int) -> bytes:
    """Inflate a message, but no more than its first `at_most` bytes (7.2.2).

    Raises:
        zlib.error: It is damaged or cut short.
    """
    inflated, rest = b"", message + _TAIL
    for _ in range(_FINAL_BLOCKS):
        inflater = zlib.decompressobj(-zlib.MAX_WBITS, zdict=inflated)
        inflated += inflater.decompress(rest, at_most - len(inflated))
        if len(inflated) == at_most:
            return inflated
        if not inflater.eof:
            raise zlib.error("cut short")
        # All of the tail left over: a final block without the empty block that ought to follow it
        # (7.2.3.4). It is easily forgotten, and other servers don't mind.
        rest = inflater.unused_data
        if rest in (b"", _TAIL):
            return inflated
    raise zlib.error("too many final blocks")


def deflate(message: bytes) -> bytes:
    """Deflate a whole message (7.2.1)."""
    return deflated_part(message)[: -len(_END)]


def deflated_part(data: bytes) -> bytes:
    """Deflate a part of a message. It needs nothing of what comes before it."""
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -WINDOW_BITS, _MEMORY)
    return deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)


def stored_part(data: bytes) -> bytes:
    """Wrap a part of a message without compression: 5 bytes more, and no time."""
    return b"".join(
        b"\x00%b%b%b"
        % (len(block).to_bytes(2, "little"), (len(block) ^ 0xFFFF).to_bytes(2, "little"), block)
        for block in (data[at : at + _STORED_MOST] for at in range(0, len(data), _STORED_MOST))
    )


def message_of(parts: Iterable[bytes]) -> bytes:
    """A whole message of parts."""
    return b"".join([*parts, b"\x00"])  # an empty block, of which `_END` is taken off
