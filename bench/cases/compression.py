"""What permessage-deflate costs the server and saves on the wire, for clients that all offer it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench.cases import joins
from bench.load import lost_in
from bench.processes import Failed
from bench.results import Row
from bench.rounds import Plan, Traffic, column, in_turn
from bench.servers import Ours
from seatws.config import Compression
from seatws.holds import Mirror, hold_of
from seatws.rooms.snapshots import SnapshotFrames

CASE = "clients that offer to deflate"
OFF = "off"
OFFER = "--deflate"
SMALL = Traffic(1000, 50, 100)
LARGE = Traffic(1000, 50, 100, options=("--note-bytes", "900"))
MAPS = (200, 1000, 5000)
REMAKES = 200
START_MS = 1_700_000_000_000


def compression(plan: Plan) -> Iterator[Row]:
    """Joins and deliveries beside the same with `compression.enabled` off; and the map's frame."""
    with _on_and_off() as (on, off):
        mine, theirs = joins.in_turn(plan, on, off, joins.EXPECT)
    for figure, name in (
        ("µs of CPU a join", "us_per_join"),
        ("bytes a join", "bytes_per_join"),
    ):
        yield Row(
            case=f"{CASE}, a map of {joins.HOLDS} holds",
            figure=figure,
            ours=column(mine, name),
            peer=OFF,
            theirs=column(theirs, name),
            lost=0,  # a join without its whole map fails the run
            commands=[joins.COMMAND.replace("--json", f"--json {OFFER}")],
        )
    yield from _deliveries(plan, SMALL, "small changes")
    yield from _deliveries(plan, LARGE, "changes with 950 bytes of user_info")
    for holds in MAPS:
        yield _remade(plan, holds)


@contextmanager
def _on_and_off() -> Iterator[tuple[Ours, Ours]]:
    with Ours() as on, Ours(SEATWS_COMPRESSION__ENABLED="false") as off:
        on.options = off.options = [OFFER]
        yield on, off


def _deliveries(plan: Plan, traffic: Traffic, words: str) -> Iterator[Row]:
    traffic = traffic.scaled(plan)
    with _on_and_off() as (on, off):
        turns = in_turn(plan, traffic, on, off)
    if any(column(turns.ours, "deflated")) is not (LARGE.options == traffic.options):
        raise Failed(f"{words} should be deflated from {Compression().min_bytes} bytes on")
    for figure, name in (
        ("µs of CPU a delivery", "us_per_delivery"),
        ("bytes a delivery", "bytes_per_delivery"),
    ):
        # Without p99: the generator inflates on one core for all viewers, and would be measured.
        yield Row(
            case=f"{CASE}, 1,050 viewers, 100 changes/s, {words}",
            figure=figure,
            ours=column(turns.ours, name),
            peer=OFF,
            theirs=column(turns.theirs, name),
            lost=sum(map(lost_in, turns.ours)),
            their_lost=sum(map(lost_in, turns.theirs)),
            commands=[traffic.text(plan.seconds).replace("--json", f"--json {OFFER}")],
        )


def _remade(plan: Plan, holds: int) -> Row:
    """The frame with the map, made anew after each of some changes."""
    mirror, now = Mirror(), [0.0]
    for number in range(holds):
        seat_id = f"{chr(65 + number % 26)}{number // 26 + 1}"
        since_ms = START_MS + number * 997
        client_id, user_info = f"user_{number * 7919 % holds}", b'{"name":"Ana %d"}' % number
        mirror.holds[seat_id] = hold_of(
            "funcion_123", seat_id, client_id, since_ms, since_ms + 300_000, user_info
        )
    frames = SnapshotFrames(
        "funcion_123", mirror, Compression().min_bytes, lambda: now[0], lambda: START_MS
    )
    plain: list[float] = []
    deflated: list[float] = []
    for _ in range(plan.repeats):
        for took, deflates in ((plain, False), (deflated, True)):
            took.append(_one(frames, list(mirror.holds), now, deflates))
    ratio = len(frames.frame(False)) / len(frames.frame(True))
    return Row(
        case=f"a map of {holds:,} holds, made anew after a change",
        figure="µs a frame",
        ours=deflated,
        peer="plain",
        theirs=plain,
        beside=f"{len(frames.frame(False)):,} bytes become 1/{ratio:.1f}",
    )


def _one(frames: SnapshotFrames, seats: list[str], now: list[float], deflates: bool) -> float:
    """Median µs of some changes, each of another seat."""
    times = []
    for number in range(REMAKES + len(seats) // 20):
        now[0] += 1.0
        frames.seat_changed(seats[number % len(seats)])
        began = time.perf_counter()
        frames.frame(deflates)
        times.append((time.perf_counter() - began) * 1e6)
    return median(times[-REMAKES:])
