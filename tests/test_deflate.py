"""permessage-deflate (RFC 7692): who it is agreed with, and what the messages are made of.

How deflated messages are read, bombs and broken ones included, is in `test_frames.py`.
"""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatws import deflate
from seatws.deflate import deflated_part, inflate, message_of, negotiate, stored_part

# --- agreeing to deflate --------------------------------------------------------------------------

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
OURS = f"{AGREED}; server_max_window_bits=12"


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ("", None),
        ("permessage-deflate", AGREED),  # Firefox, Safari
        ("permessage-deflate; client_max_window_bits", AGREED),  # Chrome
        ("permessage-deflate; client_max_window_bits=8", AGREED),
        ('permessage-deflate;client_max_window_bits="15"', AGREED),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", AGREED),
        ("permessage-deflate; server_max_window_bits=12; client_max_window_bits=12", OURS),
        ('permessage-deflate;server_max_window_bits="15"', OURS),
        ("\t permessage-deflate\t;\tserver_max_window_bits = 13 ", OURS),
        ("permessage-deflate; server_max_window_bits=11", None),  # narrower than what all get
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=9, permessage-deflate", AGREED),
        ("x-webkit-deflate-frame", None),
        ("x-webkit-deflate-frame, permessage-deflate", AGREED),
        ("permessage-bzip2; a=1; b, , permessage-deflate", AGREED),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=010", None),
        ("permessage-deflate; server_max_window_bits=\u0669", None),  # a nine, in Arabic
        ('permessage-deflate; server_max_window_bits="10', None),
        ("permessage-deflate; server_max_window_bits=", None),
        ("permessage-deflate; client_max_window_bits=", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover=", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; level=9", None),
        ("permessage-deflate;", None),
        ("permessage-deflate; ; client_max_window_bits", None),
        ("permessage-deflate client_max_window_bits", None),
        ("permessage-deflate=1", None),
        ("permessage-deflate; level=9, permessage-deflate; client_max_window_bits", AGREED),
        (
            "permessage-deflate; level=9, permessage-deflate; server_max_window_bits=12",
            OURS,
        ),
        ("permessage-deflate, permessage-deflate; server_max_window_bits=9", AGREED),
    ],
)
def test_the_first_acceptable_offer_is_taken_up(offers: str, answer: str | None) -> None:
    """Unknown, repeated and wrong parameters decline an offer, not the next one (RFC 7692 7.1)."""
    assert negotiate(offers) == answer


@settings(deadline=None)
@given(st.text('permessage-deflate;,= "\\019\t'))
def test_no_offer_raises(offers: str) -> None:
    negotiate(offers)


# --- what we send ---------------------------------------------------------------------------------

PIECES = st.binary(max_size=300) | st.binary(max_size=3).map(lambda piece: piece * 5_000)
"""Short ones, and such that reach out of the window."""


def read(message: bytes, window_bits: int = deflate.WINDOW_BITS) -> bytes:
    """Inflate as a client does that keeps no window, and wants to know of a final block."""
    inflater = zlib.decompressobj(-window_bits)
    inflated = inflater.decompress(message + b"\x00\x00\xff\xff")
    assert not inflater.unused_data
    assert not inflater.eof
    return inflated


@settings(deadline=None)
@given(message=PIECES)
def test_a_deflated_message_is_inflated_in_the_window_that_was_promised(message: bytes) -> None:
    """By somebody else, and by ourselves."""
    deflated = deflate.deflate(message)
    assert read(deflated) == message
    assert inflate(deflated, len(message) + 1) == message


def test_distances_stay_within_the_promised_window() -> None:
    """What repeats itself just within it is found; what is further away is not pointed at."""
    noise = random.Random(7692).randbytes(3_000)
    assert len(deflate.deflate(noise * 2)) < 3_200
    far = random.Random(7692).randbytes(5_000) * 2
    assert len(deflate.deflate(far)) > 10_000
    assert read(deflate.deflate(far)) == far


@settings(deadline=None)
@given(pieces=st.lists(st.tuples(PIECES, st.booleans()), max_size=9))
def test_a_message_is_made_of_parts(pieces: list[tuple[bytes, bool]]) -> None:
    """Deflated or wrapped, in any order; each may be used again, in other messages, too."""
    parts = [deflated_part(piece) if tight else stored_part(piece) for piece, tight in pieces]
    whole = b"".join(piece for piece, _ in pieces)
    assert read(message_of(parts)) == whole
    assert read(message_of(parts[::-1] + parts)) == (
        b"".join(piece for piece, _ in reversed(pieces)) + whole
    )


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 200_000])
def test_a_stored_part_costs_five_bytes_a_block(length: int) -> None:
    """And is what it wraps."""
    data = random.Random(length).randbytes(length)
    assert len(stored_part(data)) - length == 5 * -(-length // 65_535)
    assert read(message_of([stored_part(data)])) == data


def test_rfc_7692_7_2_3() -> None:
    """Its examples of one message: a stored block, and a block with fixed codes."""
    assert message_of([stored_part(b"Hello")]) == b"\x00\x05\x00\xfa\xffHello\x00"  # 7.2.3.3
    assert deflate.deflate(b"Hello") == b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # 7.2.3.1
    assert read(b"\xf2\x48\xcd\xc9\xc9\x07\x00") == b"Hello"


def test_what_repeats_itself_becomes_small() -> None:
    """Like a map: to less than a fifth."""
    seat = '{"seat_id":"A%d","room_id":"funcion_123","user_info":{"name":"Ana %d"}},'
    seats = "".join(seat % (number, number * 7919) for number in range(500)).encode()
    assert len(deflate.deflate(seats)) < len(seats) / 5
