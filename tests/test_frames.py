"""The server's side of RFC 6455 and RFC 7692, rule by rule; bare sections are RFC 6455's.

Each case is read whole, byte by byte and in random cuts, always through a buffer that is
overwritten right afterwards, as the socket does it. The groups are those of Autobahn's test suite.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri
from websockets.utils import accept_key

from seatws.deflate import inflate, negotiate
from seatws.errors import CloseCode
from seatws.frames import (
    Binary,
    Close,
    Event,
    Fragment,
    FrameReader,
    Ping,
    Pong,
    Text,
    Violation,
    close_frame,
    deflated,
    deflated_text_frame,
    ping_frame,
    pong_frame,
    text_frame,
)

LIMIT = 16_384
HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # RFC 7692 7.2.3.1
HELLO_AGAIN = b"\xf2\x00\x11\x00\x00"  # RFC 7692 7.2.3.2, by what is still in the window
HELLO_FINAL = b"\xf3\x48\xcd\xc9\xc9\x07\x00"  # RFC 7692 7.2.3.4, there with a 00 behind it

FIN, RSV1 = 0x80, 0x40
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
DEFLATED = FIN | RSV1 | TEXT


def header(first: int, length: int, width: int | None = None) -> bytes:
    """A client's header up to the mask; `width` is that of the extra length field, 0, 2 or 8."""
    if width is None:
        width = 0 if length < 126 else 2 if length < 65_536 else 8
    short = {0: length, 2: 126, 8: 127}[width]
    return bytes((first, 0x80 | short)) + (length.to_bytes(width) if width else b"")


def frame(first: int, payload: bytes = b"", key: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    """A masked frame, masked the plain way."""
    masked = bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))
    return header(first, len(payload)) + key + masked


def text(message: bytes, first: int = FIN | TEXT) -> bytes:
    return frame(first, message)


def fragments(*payloads: bytes, first: int = TEXT) -> bytes:
    """One message in as many frames as there are payloads."""
    last = len(payloads) - 1
    return b"".join(
        frame((FIN if place == last else 0) | (CONTINUATION if place else first), payload)
        for place, payload in enumerate(payloads)
    )


def deflate(message: bytes, level: int = 6, end: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """What a client sends for this message (RFC 7692 7.2.1)."""
    compressor = zlib.compressobj(level, wbits=-15)
    return (compressor.compress(message) + compressor.flush(end)).removesuffix(b"\x00\x00\xff\xff")


def read(stream: bytes, cuts: Iterable[int], inflates: bool, limit: int = LIMIT) -> list[Event]:
    """Read a stream in pieces, each from a buffer that is overwritten afterwards."""
    reader = FrameReader(limit, inflates)
    events: list[Event] = []
    start = 0
    for stop in (*sorted(cuts), len(stream)):
        buffer = bytearray(stream[start:stop])
        events += reader.feed(memoryview(buffer))
        buffer[:] = b"\xff" * len(buffer)
        start = stop
    return events


def broken(code: CloseCode) -> Violation:
    """A violation whatever its reason says; see `told`."""
    return Violation(code, "")


def told(events: list[Event]) -> list[Event]:
    """The events without the violations' reasons, which are for people."""
    assert all(event.reason for event in events if isinstance(event, Violation))
    return [broken(event.code) if isinstance(event, Violation) else event for event in events]


PROTOCOL_ERROR = broken(CloseCode.PROTOCOL_ERROR)
NOT_UTF8 = broken(CloseCode.NOT_UTF8)
TOO_BIG = broken(CloseCode.TOO_BIG)


class Case(NamedTuple):
    """A stream and what is read from it."""

    name: str
    stream: bytes
    events: list[Event]
    inflates: bool = False
    limit: int = LIMIT


LENGTHS = [
    Case(f"1.1-text-of-{n}", text(b"*" * n), [Text("*" * n)], limit=65_536)
    for n in (0, 1, 125, 126, 127, 128, 65_535, 65_536)
] + [
    Case("1.2-binary", frame(FIN | BINARY, b"\xfe\x00"), [Binary()]),
    Case("1.2-binary-empty", frame(FIN | BINARY), [Binary()]),
    Case("1-at-the-limit", text(b"*" * LIMIT), [Text("*" * LIMIT)]),
    Case("1-one-over", text(b"*" * (LIMIT + 1)), [TOO_BIG]),
    Case("1-65535-over", text(b"*" * 65_535), [TOO_BIG]),
    Case("1-65536-over", text(b"*" * 65_536), [TOO_BIG]),
    Case("1-over-by-header-alone-16-bit", header(FIN | TEXT, LIMIT + 1), [TOO_BIG]),
    Case("1-over-by-header-alone-64-bit", header(FIN | BINARY, 2**63 - 1), [TOO_BIG]),
    Case("1-over-a-small-limit", header(FIN | TEXT, 11), [TOO_BIG], limit=10),
    Case("5.2-top-bit-of-length", header(FIN | TEXT, 2**63), [PROTOCOL_ERROR]),
    Case("5.2-125-in-16-bit", header(FIN | TEXT, 125, 2), [PROTOCOL_ERROR]),
    Case("5.2-0-in-16-bit", header(FIN | TEXT, 0, 2), [PROTOCOL_ERROR]),
    Case("5.2-65535-in-64-bit", header(FIN | TEXT, 65_535, 8), [PROTOCOL_ERROR]),
    Case("5.2-5-in-64-bit", header(FIN | TEXT, 5, 8), [PROTOCOL_ERROR]),
    Case("5.1-not-masked", text_frame(b"hello"), [PROTOCOL_ERROR]),
    Case("5.1-not-masked-nor-short", text_frame(b"*" * 200), [PROTOCOL_ERROR]),
    Case("5.1-control-not-masked", ping_frame(), [PROTOCOL_ERROR]),
    Case("5.3-mask-of-zeros", frame(FIN | TEXT, b"hello", bytes(4)), [Text("hello")]),
    Case("5.3-mask-of-ones", frame(FIN | TEXT, b"hello", b"\xff" * 4), [Text("hello")]),
    Case("5.7-example", bytes.fromhex("818537fa213d7f9f4d5158"), [Text("Hello")]),
    Case("many-at-once", text(b"a") * 300, [Text("a")] * 300),
]

PINGS = [
    Case("2.1-ping-empty", frame(FIN | PING), [Ping(b"")]),
    Case("2.3-ping-not-utf8", frame(FIN | PING, b"\x00\xff\xfe"), [Ping(b"\x00\xff\xfe")]),
    Case("2.4-ping-of-125", frame(FIN | PING, b"\xfe" * 125), [Ping(b"\xfe" * 125)]),
    Case("2.5-ping-of-126", frame(FIN | PING, b"\xfe" * 126), [PROTOCOL_ERROR]),
    Case("2.5-ping-of-125-in-16-bit", header(FIN | PING, 125, 2), [PROTOCOL_ERROR]),
    Case("2.5-close-of-126", header(FIN | CLOSE, 126), [PROTOCOL_ERROR]),
    Case("2.5-pong-of-64-bit", header(FIN | PONG, 70_000), [PROTOCOL_ERROR]),
    Case("2.7-pong-unasked-for", frame(FIN | PONG, b"p") + text(b"a"), [Pong(b"p"), Text("a")]),
    Case("2.10-ten-pings", frame(FIN | PING, b"p") * 10, [Ping(b"p")] * 10),
    Case("2-ping-whatever-the-limit", frame(FIN | PING, b"*" * 125), [Ping(b"*" * 125)], limit=1),
]

RESERVED = [
    Case(
        f"3-{name}-rsv{bits}{'-inflates' * inflates}",
        text(b"a") + frame(first | bits << 4),
        [Text("a"), PROTOCOL_ERROR],
        inflates,
    )
    for inflates in (False, True)
    for bits in range(1, 8)
    for name, first in (
        ("text", FIN | TEXT),
        ("text-open", TEXT),
        ("binary", FIN | BINARY),
        ("ping", FIN | PING),
        ("close", FIN | CLOSE),
    )
    if not (inflates and bits == 4 and first & 0x0F in (TEXT, BINARY))
] + [
    Case(
        f"3-rsv1-on-a-continuation-{first:02x}",
        frame(RSV1 | TEXT, HELLO[:3]) + frame(first, HELLO[3:]),
        [Fragment(), PROTOCOL_ERROR],
        True,
    )
    for first in (RSV1 | CONTINUATION, FIN | RSV1 | CONTINUATION)
]

OPCODES = [
    Case(f"4-opcode-{opcode:x}{'-start' * (not fin)}", frame(fin | opcode) * 2, [PROTOCOL_ERROR])
    for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
    for fin in (FIN, 0)
]

FRAGMENTED = [
    Case("5.1-ping-fragmented", frame(PING, b"p"), [PROTOCOL_ERROR]),
    Case("5.2-pong-fragmented", frame(PONG, b"p"), [PROTOCOL_ERROR]),
    Case("5-close-fragmented", frame(CLOSE), [PROTOCOL_ERROR]),
    Case("5.3-two-fragments", fragments(b"hel", b"lo"), [Fragment(), Text("hello")]),
    Case("5-binary", fragments(b"\xff", b"\xff", first=BINARY), [Fragment(), Binary()]),
    Case("5-all-empty", fragments(b"", b"", b""), [Fragment(), Fragment(), Text("")]),
    Case("5-empty-then-some", fragments(b"", b"a", b""), [Fragment(), Fragment(), Text("a")]),
    Case("5-empty-then-new", frame(TEXT) + text(b"a"), [Fragment(), PROTOCOL_ERROR]),
    Case(
        "5.6-ping-between",
        frame(TEXT, b"hel") + frame(FIN | PING, b"p") + frame(FIN | CONTINUATION, b"lo"),
        [Fragment(), Ping(b"p"), Text("hello")],
    ),
    Case(
        "5-close-between",
        frame(TEXT, b"hel") + frame(FIN | CLOSE) + frame(FIN | CONTINUATION, b"lo"),
        [Fragment(), Close(None, "")],
    ),
    Case("5.9-continues-nothing", frame(FIN | CONTINUATION, b"a"), [PROTOCOL_ERROR]),
    Case("5.11-continues-nothing-open", frame(CONTINUATION, b"a"), [PROTOCOL_ERROR]),
    Case(
        "5.12-continues-an-ended-message",
        fragments(b"a", b"b") + frame(FIN | CONTINUATION, b"c"),
        [Fragment(), Text("ab"), PROTOCOL_ERROR],
    ),
    Case("5.18-text-in-text", frame(TEXT, b"a") + text(b"b"), [Fragment(), PROTOCOL_ERROR]),
    Case("5.18-start-in-text", frame(TEXT, b"a") * 2, [Fragment(), PROTOCOL_ERROR]),
    Case("5-binary-in-text", frame(TEXT) + frame(FIN | BINARY, b"b"), [Fragment(), PROTOCOL_ERROR]),
    Case(
        "5-two-messages",
        fragments(b"a", b"b") + fragments(b"c", b"d"),
        [Fragment(), Text("ab"), Fragment(), Text("cd")],
    ),
    Case(
        "5-sum-at-the-limit",
        fragments(b"*" * (LIMIT - 1), b"*", b""),
        [Fragment(), Fragment(), Text("*" * LIMIT)],
    ),
    Case(
        "5-sum-over-the-limit",
        frame(TEXT, b"*" * LIMIT) + header(FIN | CONTINUATION, 1),
        [Fragment(), TOO_BIG],
    ),
    Case(
        "5-sum-over-the-limit-open",
        frame(TEXT, b"*" * LIMIT) + header(CONTINUATION, LIMIT),
        [Fragment(), TOO_BIG],
    ),
    Case(
        "5-ping-in-a-full-message",
        frame(TEXT, b"*" * LIMIT) + frame(FIN | PING, b"p") + frame(FIN | CONTINUATION),
        [Fragment(), Ping(b"p"), Text("*" * LIMIT)],
    ),
]

VALID_UTF8 = {
    "6.2-several-lengths": "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "6.5-greek": "κόσμε".encode(),
    "6.6-first-of-4-bytes": "\U00010000".encode(),
    "6.9-last-of-all": "\U0010ffff".encode(),
    "6.11-beside-surrogates": "\ud7ff\ue000".encode(),
    "6.22-no-characters": "\ufffe\uffff".encode(),
    "6-nul": b"\x00",
}
INVALID_UTF8 = {
    "6.3-surrogates-and-more": bytes.fromhex("cebae1bdb9cf83cebcceb5eda080656469746564"),
    "6.8-first-of-5-bytes": b"\xf8\x88\x80\x80\x80",
    "6.10-past-the-last": b"\xf4\x90\x80\x80",
    "6.12-continuation-alone": b"\x80",
    "6.14-start-alone": b"\xc3 ",
    "6.15-cut-off": b"\xe2\x82",
    "6.16-fe-ff": b"\xfe\xff",
    "6.17-overlong-slash": b"\xc0\xaf",
    "6.18-overlong-3": b"\xe0\x9f\xbf",
    "6.20-surrogate": b"\xed\xa0\x80",
    "6.21-surrogate-pair": b"\xed\xa0\xbd\xed\xb8\x80",
}


def utf8_cases() -> Iterator[Case]:
    """Each piece of text whole, a byte a fragment, and deflated."""
    texts: dict[str, tuple[bytes, Event]] = {
        **{name: (payload, Text(payload.decode())) for name, payload in VALID_UTF8.items()},
        **{name: (payload, NOT_UTF8) for name, payload in INVALID_UTF8.items()},
    }
    for name, (payload, event) in texts.items():
        pieces = [payload[place : place + 1] for place in range(len(payload))]
        counted: list[Event] = [Fragment() for _ in pieces]
        squeezed = deflate(payload)
        yield Case(name, text(payload), [event])
        yield Case(f"{name}-fragments", fragments(b"", *pieces), [*counted, event])
        yield Case(f"{name}-deflated", text(squeezed, DEFLATED), [event], True)
        yield Case(
            f"{name}-deflated-fragments",
            fragments(squeezed[:1], squeezed[1:], first=RSV1 | TEXT),
            [Fragment(), event],
            True,
        )


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, code.to_bytes(2) + reason)


CLOSES = [
    Case("7.1-after-it-nothing", close(1000) + text(b"a") + close(1001), [Close(1000, "")]),
    Case("7.1-after-it-nothing-bad", close(1000) + b"\xff" * 99, [Close(1000, "")]),
    Case("7.1-violation-then-nothing", b"\xff\x80" + text(b"a") + close(1000), [PROTOCOL_ERROR]),
    Case("7.3-without-a-code", frame(FIN | CLOSE), [Close(None, "")]),
    Case("7.3-one-byte", frame(FIN | CLOSE, b"\x03"), [PROTOCOL_ERROR]),
    Case("7.3-reason", close(1000, "adiós".encode()), [Close(1000, "adiós")]),
    Case("7.3-longest-reason", close(1000, b"*" * 123), [Close(1000, "*" * 123)]),
    Case("7.3-reason-too-long", close(1000, b"*" * 124), [PROTOCOL_ERROR]),
    Case("7.5-reason-not-utf8", close(1000, b"\xce\xba\xed\xa0\x80"), [NOT_UTF8]),
    *(
        Case(f"7.7-code-{code}", close(code, b"r"), [Close(code, "r")])
        for code in (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4440, 4999)
    ),
    *(
        Case(f"7.9-code-{code}", close(code, b"r"), [PROTOCOL_ERROR])
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    ),
]

BOMB = deflate(bytes(16_000_000), 9)
NOISE = random.Random(1).randbytes(LIMIT)


def inflating(name: str, payload: bytes, *events: Event) -> Case:
    return Case(name, text(payload, DEFLATED), list(events), True)


COMPRESSED = [
    inflating("7.2.3.1-one-block", HELLO, Text("Hello")),
    Case(
        "7.2.3.1-fragmented",
        fragments(HELLO[:3], HELLO[3:], first=RSV1 | TEXT),
        [Fragment(), Text("Hello")],
        True,
    ),
    inflating("7.2.3.3-stored", b"\x00\x05\x00\xfa\xffHello\x00", Text("Hello")),
    inflating("7.2.3.4-final-block", HELLO_FINAL + b"\x00", Text("Hello")),
    inflating("7.2.3.4-final-block-alone", HELLO_FINAL, Text("Hello")),
    inflating(
        "7.2.3.5-two-blocks",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
        Text("Hello"),
    ),
    inflating("7.2.1-final-blocks", HELLO_FINAL * 3 + HELLO, Text("Hello" * 4)),
    inflating("7.2.1-final-block-looked-back-at", HELLO_FINAL + HELLO_AGAIN, Text("HelloHello")),
    inflating("7.2.1-final-blocks-without-end", b"\x03\x00" * 5_000, NOT_UTF8),
    inflating("7.2.3.6-empty", b"\x00", Text("")),
    inflating("7.2.3.6-empty-fixed", b"\x02\x00", Text("")),
    inflating("empty-final", b"\x03\x00\x00", Text("")),
    inflating("no-bytes-at-all", b"", Text("")),
    Case("6-not-deflated-though-agreed", text(b"Hello"), [Text("Hello")], True),
    Case(
        "6.1-control-between-fragments",
        frame(RSV1 | TEXT, HELLO[:3]) + frame(FIN | PING) + frame(FIN | CONTINUATION, HELLO[3:]),
        [Fragment(), Ping(b""), Text("Hello")],
        True,
    ),
    Case("12-binary", frame(FIN | RSV1 | BINARY, deflate(b"\xff" * 99)), [Binary()], True),
    Case("12-window-forgotten", text(HELLO, DEFLATED) * 3, [Text("Hello")] * 3, True),
    inflating("7.1.1.2-window-kept-by-the-client", HELLO_AGAIN, NOT_UTF8),
    inflating("12-at-the-limit", deflate(b"*" * LIMIT), Text("*" * LIMIT)),
    inflating("12-one-over", deflate(b"*" * (LIMIT + 1)), TOO_BIG),
    inflating("12-one-over-in-final-blocks", deflate(b"*" * LIMIT, end=zlib.Z_FINISH) * 2, TOO_BIG),
    inflating("12-bomb", BOMB, TOO_BIG),
    Case("12-bomb-binary", frame(FIN | RSV1 | BINARY, BOMB), [TOO_BIG], True),
    inflating("12-not-smaller-and-over", deflate(NOISE), TOO_BIG),
    inflating("12-not-deflate-at-all", b"\xff" * 20, NOT_UTF8),
    inflating("12-cut-short", deflate(b"one seat, and another seat")[:-4], NOT_UTF8),
    Case(
        "12-cut-short-in-a-stored-block",
        frame(FIN | RSV1 | BINARY, b"\x00\x40\x00\xbf\xffHello"),
        [NOT_UTF8],
        True,
    ),
    inflating("12-not-utf8", deflate(b"\xff"), NOT_UTF8),
    inflating("12-zlib-header", zlib.compress(b"Hello"), NOT_UTF8),
    inflating("12-final-block-and-rubbish", HELLO_FINAL + b"\xff" * 9, NOT_UTF8),
]

CASES = [
    *LENGTHS,
    *PINGS,
    *RESERVED,
    *OPCODES,
    *FRAGMENTED,
    *utf8_cases(),
    *CLOSES,
    *COMPRESSED,
]
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@every_case
def test_each_rule_is_kept_when_all_comes_at_once(case: Case) -> None:
    assert told(read(case.stream, (), case.inflates, case.limit)) == case.events
    assert told(FrameReader(case.limit, case.inflates).feed(case.stream)) == case.events


@every_case
def test_each_rule_is_kept_when_bytes_come_one_by_one(case: Case) -> None:
    cuts = range(1, len(case.stream))
    assert told(read(case.stream, cuts, case.inflates, case.limit)) == case.events


@every_case
@settings(max_examples=20, deadline=None)
@given(places=st.lists(st.floats(0, 1), max_size=30))
def test_each_rule_is_kept_when_bytes_come_in_any_pieces(case: Case, places: list[float]) -> None:
    cuts = [round(place * len(case.stream)) for place in places]
    assert told(read(case.stream, cuts, case.inflates, case.limit)) == case.events


@every_case
def test_an_event_is_there_with_its_frames_last_byte(case: Case) -> None:
    """Nothing waits for the byte after; what can be refused by a header is refused by it."""
    reader = FrameReader(case.limit, case.inflates)
    events = reader.feed(case.stream)
    assert reader.feed(b"") == []
    assert reader.feed(frame(FIN | PING)) == ([] if is_end(events[-1]) else [Ping(b"")])


def is_end(event: Event) -> bool:
    return isinstance(event, Close | Violation)


# --- any input at all -----------------------------------------------------------------------------

FIRSTS = st.one_of(
    st.sampled_from(
        [FIN | TEXT, TEXT, CONTINUATION, FIN | CONTINUATION, DEFLATED, RSV1 | TEXT, FIN | PING]
    ),
    st.integers(0, 255),
)
FRAMES = st.builds(
    frame,
    FIRSTS,
    st.one_of(
        st.text(max_size=200).map(str.encode),
        st.text(max_size=200).map(str.encode).map(deflate),
        st.binary(max_size=200),
    ),
    st.binary(min_size=4, max_size=4),
)
STREAMS = st.one_of(
    st.binary(max_size=400),
    st.lists(st.one_of(FRAMES, FRAMES, FRAMES, st.binary(max_size=9)), max_size=20).map(b"".join),
)


@settings(max_examples=500, deadline=None)
@given(stream=STREAMS, places=st.lists(st.floats(0, 1), max_size=30), inflates=st.booleans())
def test_no_input_raises_or_depends_on_the_cuts(
    stream: bytes, places: list[float], inflates: bool
) -> None:
    """Whatever a client sends, and however it arrives: the same events, and one end at most."""
    whole = read(stream, (), inflates, 300)
    assert read(stream, [round(place * len(stream)) for place in places], inflates, 300) == whole
    assert read(stream, range(len(stream)), inflates, 300) == whole
    assert not any(is_end(event) for event in whole[:-1])


@settings(deadline=None)
@given(
    message=st.one_of(st.text(), st.text("seat", max_size=2_000)).map(str.encode),
    level=st.integers(0, 9),
    wbits=st.integers(9, 15),
    strategy=st.sampled_from(
        [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE]
    ),
    flush=st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH, zlib.Z_NO_FLUSH]),
    place=st.floats(0, 1),
)
def test_every_way_to_deflate_a_message_is_understood(
    message: bytes, level: int, wbits: int, strategy: int, flush: int, place: float
) -> None:
    """Any level, window, strategy; several blocks, final ones among them (RFC 7692 7.2.1)."""
    cut = round(place * len(message))
    compressor = zlib.compressobj(level, wbits=-wbits, strategy=strategy)
    squeezed = compressor.compress(message[:cut]) + compressor.flush(flush)
    if flush == zlib.Z_FINISH:
        compressor = zlib.compressobj(level, wbits=-wbits, strategy=strategy)
    squeezed += compressor.compress(message[cut:]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    stream = text(squeezed.removesuffix(b"\x00\x00\xff\xff"), DEFLATED)
    assert read(stream, (), inflates=True) == [Text(message.decode())]


# --- memory ---------------------------------------------------------------------------------------


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Trace what is allocated within: a function that gives the bytes held now, and the peak."""
    gc.collect()
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


def test_a_bomb_never_unfolds() -> None:
    """16 MB in 16 KiB: what is over the limit is not inflated, let alone held."""
    stream = text(BOMB, DEFLATED)
    reader = FrameReader(LIMIT, inflates=True)
    with traced() as memory:
        assert told(reader.feed(stream)) == [TOO_BIG]
        assert memory()[1] < 256 * 1_024


def test_an_idle_connection_holds_no_buffer() -> None:
    """Between messages a reader is only itself, whatever it has read before."""
    stream = text(b"*" * 9_000) + fragments(b"*", b"*" * 9_000) + frame(FIN | PING, b"*" * 125)
    with traced() as memory:
        readers = [FrameReader(LIMIT, inflates=True) for _ in range(1_000)]
        for reader in readers:
            assert len(reader.feed(stream[:9_999]) + reader.feed(stream[9_999:])) == 4
        assert memory()[0] / len(readers) < 150


UNFINISHED = {
    "a-frame": text(b"*" * LIMIT)[:-1],
    "fragments": frame(TEXT, b"*") + frame(CONTINUATION) * 999 + frame(CONTINUATION, NOISE[1:]),
    "both": frame(TEXT, b"*" * 9_000) + frame(FIN | CONTINUATION, b"*" * (LIMIT - 9_000))[:-1],
}


@pytest.mark.parametrize("piece", [1, 100, LIMIT])
@pytest.mark.parametrize("stream", UNFINISHED.values(), ids=UNFINISHED)
def test_an_unfinished_message_holds_no_more_than_the_limit(stream: bytes, piece: int) -> None:
    """A growing bytearray has up to an eighth to spare, and no more than that."""
    reader = FrameReader(LIMIT, inflates=True)
    with traced() as memory:
        for start in range(0, len(stream), piece):
            assert set(reader.feed(stream[start : start + piece])) <= {Fragment()}
        assert memory()[0] < LIMIT * 9 / 8 + 1_000


@pytest.mark.parametrize("last", [close(1000), b"\xff\xff"], ids=["close", "violation"])
def test_nothing_is_held_after_the_end(last: bytes) -> None:
    """Neither what was under way, nor what still comes."""
    reader = FrameReader(LIMIT, inflates=True)
    stream = frame(TEXT, b"*" * 9_000) + last + b"*" * 99_999
    with traced() as memory:
        assert len(reader.feed(stream)) == 2
        assert reader.feed(stream) == []
        assert memory()[0] < 1_000


# --- what we send ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "start"),
    [
        (0, "8100"),
        (1, "8101"),
        (125, "817d"),
        (126, "817e007e"),
        (127, "817e007f"),
        (65_535, "817effff"),
        (65_536, "817f0000000000010000"),
    ],
)
def test_a_text_frame_is_whole_and_has_the_shortest_length(length: int, start: str) -> None:
    """Neither masked nor fragmented; 7, 16 or 64 bits of length (5.1, 5.2)."""
    assert text_frame(b"*" * length) == bytes.fromhex(start) + b"*" * length


@pytest.mark.parametrize("length", [9, 50, 125, 126, 500, 65_535, 65_536])
def test_a_frame_is_deflated_if_that_makes_it_shorter(length: int) -> None:
    """With RSV1 (RFC 7692 6), and the shortest length again; else it is the very same."""
    noise = text_frame(random.Random(length).randbytes(length))
    assert deflated(noise) is noise
    squeezed = deflated(text_frame(b"seat " * length))
    assert len(squeezed) < length * 5
    first, short = squeezed[:2]
    assert first == FIN | RSV1 | TEXT
    start = {126: 4, 127: 10}.get(short, 2)
    assert len(squeezed) - start == (short if start == 2 else int.from_bytes(squeezed[2:start]))
    assert inflate(squeezed[start:], 10**6) == b"seat " * length


@pytest.mark.parametrize(
    ("length", "start"),
    [
        (125, "c17d"),
        (126, "c17e007e"),
        (65_535, "c17effff"),
        (65_536, "c17f0000000000010000"),
    ],
)
def test_a_deflated_frame_has_the_shortest_length(length: int, start: str) -> None:
    """As a plain one (5.2)."""
    assert deflated_text_frame(b"*" * length) == bytes.fromhex(start) + b"*" * length


def test_control_frames_are_whole_and_short() -> None:
    """At most 125 bytes; more is our bug, and not sent (5.5)."""
    assert ping_frame() == b"\x89\x00"
    assert ping_frame(b"p") == b"\x89\x01p"
    assert pong_frame(b"*" * 125) == b"\x8a\x7d" + b"*" * 125
    assert close_frame(CloseCode.TOO_SLOW, "slow") == b"\x88\x06\x11\x58slow"
    with pytest.raises(ValueError, match="125 bytes, not 126"):
        pong_frame(b"*" * 126)


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("", ""),
        ("*" * 123, "*" * 123),
        ("*" * 124, "*" * 123),
        ("é" * 62, "é" * 61),
        ("*" + "€" * 41, "*" + "€" * 40),
        ("**" + "\U0001f4ba" * 31, "**" + "\U0001f4ba" * 30),
        ("\ud800", "?"),
    ],
    ids=["none", "fits", "one-over", "2-bytes", "3-bytes", "4-bytes", "surrogate"],
)
def test_a_close_reason_is_cut_between_characters(reason: str, sent: str) -> None:
    """At most 123 bytes, and still UTF-8 (5.5)."""
    assert close_frame(1000, reason)[2:] == b"\x03\xe8" + sent.encode()


# --- a foreign implementation ---------------------------------------------------------------------


def connected(options: dict[str, Any]) -> tuple[ClientProtocol, FrameReader]:
    """A client of the `websockets` package that has shaken hands with us, and our reader for it."""
    extensions = [ClientPerMessageDeflateFactory(**options)] if options else []
    client = ClientProtocol(parse_uri("ws://localhost/"), extensions=extensions)
    request = client.connect()
    client.send_request(request)
    client.data_to_send()
    agreed = negotiate(request.headers.get("Sec-WebSocket-Extensions", ""))
    assert (agreed is not None) == bool(options)
    response = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(request.headers['Sec-WebSocket-Key'])}",
        *([f"Sec-WebSocket-Extensions: {agreed}"] if agreed else []),
        "\r\n",
    ]
    client.receive_data("\r\n".join(response).encode())
    assert client.handshake_exc is None
    client.events_received()
    return client, FrameReader(LIMIT, inflates=agreed is not None)


every_client = pytest.mark.parametrize(
    "options",
    [
        {},
        {"client_max_window_bits": True},
        {"server_max_window_bits": 12, "client_max_window_bits": 9},
        {"server_no_context_takeover": True, "client_no_context_takeover": True},
    ],
    ids=["plain", "as-browsers-offer", "small-windows", "no-takeover"],
)


LARGE_TEXTS = [
    random.Random(1).randbytes(40_000).hex(),  # deflates to a frame with 64 bits of length
    "".join(f"{number}," for number in range(20_000)) * 2,  # repeats itself out of our window
]


@every_client
def test_a_foreign_client_is_understood(options: dict[str, Any]) -> None:
    """Messages of every length, whole and fragmented, with pings between; and its close."""
    client, reader = connected(options)
    expected: list[Event] = []
    for length in (0, 1, 125, 126, 127, 128, 4_096, LIMIT):
        message = ("butaca \u00f1 \u20ac" * LIMIT).encode()[:length].decode(errors="ignore")
        client.send_text(message.encode())
        client.send_text(message[:5].encode(), fin=False)
        client.send_ping(b"between")
        client.send_continuation(b"", fin=False)
        client.send_continuation(message[5:].encode(), fin=True)
        client.send_binary(b"\xff")
        client.send_pong(b"")
        expected += [Text(message), Fragment(), Ping(b"between"), Fragment(), Text(message)]
        expected += [Binary(), Pong(b"")]
    client.send_close(1001, "adi\u00f3s")
    expected.append(Close(1001, "adi\u00f3s"))
    events = [event for written in client.data_to_send() for event in reader.feed(written)]
    assert events == expected


@every_client
def test_a_foreign_client_understands_us(options: dict[str, Any]) -> None:
    """Plain, and deflated where that was agreed on and makes it shorter (RFC 7692 6)."""
    client, _ = connected(options)
    texts = ["", "*", "*" * 125, "*" * 126, "\u00f1" * 40_000, *LARGE_TEXTS]
    for message in texts:
        plain = text_frame(message.encode())
        client.receive_data(deflated(plain) if options else plain)
    client.receive_data(ping_frame(b"p") + pong_frame(b"q") + close_frame(4440, "too slow"))
    client.receive_eof()
    received = [event for event in client.events_received() if isinstance(event, Frame)]
    assert [(event.opcode, bytes(event.data)) for event in received] == [
        *((Opcode.TEXT, message.encode()) for message in texts),
        (Opcode.PING, b"p"),
        (Opcode.PONG, b"q"),
        (Opcode.CLOSE, b"\x11\x58too slow"),
    ]
    assert (client.close_code, client.close_reason) == (4440, "too slow")
