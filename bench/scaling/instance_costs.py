"""What an instance pays, in CPU time and memory: for rooms, for events, for viewers."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

from bench.load import Load, lost_in, run, words_of
from bench.processes import Failed, cpu_seconds, resident_mib
from bench.rounds import Traffic
from bench.scaling.figures import Figures
from bench.servers import Ours

CROWD: Final = 4000
"""Connections, each in a room of its own or all in one."""
BUSY_ROOMS: Final = 100
RATE: Final = 1000
HIGH_RATE: Final = 4000
"""Changes a second that another instance makes in them; at the high one many are read at once."""
VIEWERS: Final = (1, 5)
"""In each of them: what five cost more than one is sending."""
HELD: Final = 200
"""Seats held in each of them, where memory is looked at."""
VIEWERS_AWAY: Final = ("--client-prefix", "away")


def measure(figures: Figures, seconds: float, scale: float = 1.0) -> None:
    """One round of every figure.

    Args:
        figures: Where they go.
        seconds: Of each load.
        scale: Of the number of connections and rooms, for a first look.
    """
    crowd = max(20, int(CROWD * scale))
    apart = _quiet(crowd, crowd, seconds)
    together = _quiet(crowd, 1, seconds)
    figures.add("instance_look_us", (apart.cpu - together.cpu) / (crowd - 1) * 2 * 1e6)
    figures.add("instance_room_kib", (apart.mib - together.mib) * 1024 / (crowd - 1))
    figures.add("instance_connection_kib", together.mib * 1024 / crowd)
    figures.add("instance_empty_mib", together.empty_mib)
    rooms = max(2, int(BUSY_ROOMS * scale))
    few, many = VIEWERS
    one = _event_us(few, rooms, RATE * scale, seconds)
    send = (_event_us(many, rooms, RATE * scale, seconds) - one) / (many - few)
    figures.add("instance_send_us", send)
    figures.add("instance_event_us", one - few * send)
    busy = _event_us(few, rooms, HIGH_RATE * scale, seconds)
    figures.add("instance_event_busy_us", busy - few * send)
    figures.add("instance_hold_kib", _hold_kib(rooms))


class _Quiet:
    """What connections that only live cost.

    Attributes:
        cpu: Share of a core.
        mib: Memory they brought.
        empty_mib: Memory before they came.
    """

    def __init__(self, cpu: float, mib: float, empty_mib: float) -> None:
        self.cpu, self.mib, self.empty_mib = cpu, mib, empty_mib


def _quiet(crowd: int, rooms: int, seconds: float) -> _Quiet:
    with Ours() as ours:
        before = resident_mib(ours.pid)
        with Load(words_of(ours, crowd, rooms=rooms, options=("--step",))) as load:
            cpu = _share_of_a_core(ours.pid, seconds)
            mib = resident_mib(ours.pid) - before
            load.leave()
    return _Quiet(cpu, mib, before)


def _share_of_a_core(pid: int, seconds: float) -> float:
    """Mean CPU of a process while nothing is done but wait."""
    began, cpu = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - cpu) / (time.monotonic() - began)


def _event_us(viewers: int, rooms: int, rate: float, seconds: float) -> float:
    """CPU µs of an event that another instance caused, with so many viewers here to be told."""
    with ExitStack() as stack:
        there = stack.enter_context(Ours())
        here = stack.enter_context(Ours(beside=there))
        away = words_of(here, viewers * rooms, rooms=rooms, options=("--step", *VIEWERS_AWAY))
        listening = stack.enter_context(Load(away))
        busy = stack.enter_context(Load(Traffic(0, rooms, rate, rooms).words(there)))
        busy.round(rate, 1)
        quiet = _share_of_a_core(here.pid, seconds)
        began, cpu = time.monotonic(), cpu_seconds(here.pid)
        report = busy.round(rate, seconds)
        spent = cpu_seconds(here.pid) - cpu - quiet * (time.monotonic() - began)
        if lost_in(report):
            raise Failed(f"{lost_in(report)} messages were lost")
        busy.leave()
        listening.leave()
    return spent / report["operations"] * 1e6


def _hold_kib(rooms: int) -> float:
    """Memory of a hold in the mirror of an instance that only follows."""
    grown = []
    for held in (0, HELD):
        with Ours() as there, Ours(beside=there) as here:
            if held:
                run(words_of(there, rooms, rooms=rooms, options=("--hold-seats", str(held))))
            before = resident_mib(here.pid)
            expected = ("--step", "--expect-seats", str(held)) if held else ("--step",)
            away = words_of(here, rooms, rooms=rooms, options=(*expected, *VIEWERS_AWAY))
            with Load(away) as load:
                grown.append(resident_mib(here.pid) - before)
                load.leave()
    return (grown[1] - grown[0]) * 1024 / (rooms * HELD)
