"""How large the frames are that viewers get, by the server's own encoding."""

from __future__ import annotations

from random import Random
from typing import Final

from seatws.frames import deflated, text_frame
from seatws.holds import Hold, hold_of
from seatws.messages import CurrentSelections, SeatReleased, SeatSelected, encode

ROOM: Final = "funcion_12345"
USER_INFO: Final = b'{"name":"Ana Perez"}'
NOW_MS: Final = 1_705_314_600_000
HEADERS: Final = 52
"""IPv4 and TCP with timestamps, a packet. Ethernet and a proxy's TLS come on top."""
SEGMENT: Final = 1448
"""Bytes of payload in such a packet on Ethernet."""


def _hold(number: int, random: Random) -> Hold:
    seat = f"{'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[number % 26]}{number // 26 + 1}"
    client = f"user_{random.randrange(10**10):010}"
    since = NOW_MS + random.randrange(300_000)
    return hold_of(ROOM, seat, client, since, since + 300_000, USER_INFO)


def delivery() -> float:
    """The frame of a change, the mean of a seat taken and a seat free again."""
    hold = _hold(1, Random(1))
    client = hold.selection.client_id
    taken = SeatSelected(
        seat_id="B12",
        room_id=ROOM,
        client_id=client,
        user_info=hold.selection.user_info,
        rev=12_345,
        expires_at=hold.selection.expires_at,
    )
    free = SeatReleased(
        seat_id="B12", room_id=ROOM, client_id=client, rev=12_345, reason="released"
    )
    return (len(text_frame(encode(taken))) + len(text_frame(encode(free)))) / 2


def whole_map(held: int, *, is_deflated: bool = False) -> int:
    """The frame with a map of so many holds, each of another client."""
    random = Random(held)
    text = encode(
        CurrentSelections(
            room_id=ROOM,
            selections=[_hold(number, random).selection for number in range(held)],
            rev=12_345,
            server_time="2024-01-15T10:30:00.000Z",
        )
    )
    frame = text_frame(text)
    return len(deflated(frame) if is_deflated else frame)


def on_the_wire(payload: float) -> float:
    """Bytes with the headers of the packets that they fill, one at least."""
    return payload + HEADERS * max(1.0, payload / SEGMENT)
