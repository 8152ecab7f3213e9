"""Half load for twenty minutes: does memory stay flat, and does anything get slower?"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import page
from bench.load import Load, lost_in
from bench.machine import machine, versions
from bench.processes import allow_many_files, cpu_seconds, resident_mib
from bench.rounds import Traffic
from bench.servers import Ours

ROUND_S = 10.0
LARGE = Traffic(1000, 50, 50)
SMALL = Traffic(100, 100, 750, 200, ("--client-prefix", "small_", "--room-prefix", "small"))
SETTLED = 0.25
"""Of the time, before memory is judged: caches fill, and the allocator keeps what it once had."""
MOST_MIB_AN_HOUR = 6.0
"""More counts as growth. It is what the samples of twenty minutes waver by."""
MOST_LATER = 1.25
"""The same for p99: of the last quarter to the first one after settling."""

DESCRIPTION = """\
Half load for twenty minutes: does memory stay flat, and does anything get slower?

A room of 1,050 viewers with 50 changes a second, and 200 small rooms with 750. Every ten seconds
memory, CPU and p99 are noted; they are kept in bench/results/soak-DATE.json and drawn into
docs/performance. A soak of less than ten minutes is only printed."""

KEPT_FROM_MINUTES = 10
Sample = dict[str, float]


def main(words: Sequence[str] | None = None) -> int:
    """Load, sample, judge. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="bench/soak",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Ends with 1 if memory grew, p99 rose or a message was lost.",
    )
    parser.add_argument("--minutes", type=float, default=20, help="how long (20)")
    minutes = parser.parse_args(words).minutes
    allow_many_files()
    date, where = page.today(), machine()
    samples = sample(minutes)
    is_good, verdict = judge(samples, minutes)
    print(verdict)
    if minutes >= KEPT_FROM_MINUTES:
        soak = page.Soak(
            date=date,
            machine=where,
            versions=versions(with_peers=False),
            verdict=verdict,
            samples=samples,
        )
        print(f"kept in {page.keep(soak)}")
        page.write()
    return 0 if is_good else 1


def sample(minutes: float) -> list[Sample]:
    """What was seen, a sample every ten seconds."""
    samples: list[Sample] = []
    with (
        Ours() as ours,
        Load(LARGE.words(ours)) as large,
        Load(SMALL.words(ours)) as small,
        ThreadPoolExecutor() as pool,
    ):
        began = time.monotonic()
        while time.monotonic() < began + minutes * 60:
            at, cpu = time.monotonic(), cpu_seconds(ours.pid)
            rounds = [
                pool.submit(load.round, traffic.rate, ROUND_S)
                for load, traffic in ((large, LARGE), (small, SMALL))
            ]
            in_large, in_small = (each.result() for each in rounds)
            samples.append(
                {
                    "minute": (time.monotonic() - began) / 60,
                    "mib": resident_mib(ours.pid),
                    "cpu_percent": 100 * (cpu_seconds(ours.pid) - cpu) / (time.monotonic() - at),
                    "large_p99_ms": in_large["delivery_p99_ms"],
                    "small_p99_ms": in_small["delivery_p99_ms"],
                    "lost": lost_in(in_large) + lost_in(in_small),
                    "late": in_large["late"] + in_small["late"],
                }
            )
            print(", ".join(f"{key} {value:.4g}" for key, value in samples[-1].items()), flush=True)
        large.leave()
        small.leave()
    return samples


def judge(samples: Sequence[Sample], minutes: float) -> tuple[bool, str]:
    """Whether all stayed as it was, and the figures for it."""
    settled = [each for each in samples if each["minute"] > SETTLED * minutes]
    an_hour = 0.0
    if len(settled) > 1:
        slope, _ = statistics.linear_regression(
            [each["minute"] for each in settled], [each["mib"] for each in settled]
        )
        an_hour = slope * 60
    lost, late = (int(sum(each[name] for each in samples)) for name in ("lost", "late"))
    is_good = an_hour <= MOST_MIB_AN_HOUR and not lost
    parts = [f"memory {an_hour:+.2f} MiB an hour after the first quarter of {minutes:g} minutes"]
    for name in ("large", "small"):
        first, last = _quarters([each[f"{name}_p99_ms"] for each in settled])
        is_good = is_good and last <= MOST_LATER * first
        parts.append(
            f"p99 in the {name} rooms {first:.1f} ms in the first quarter after that and "
            f"{last:.1f} ms in the last"
        )
    parts.append(f"lost {lost}, late {late}")
    return is_good, f"{'Steady' if is_good else 'NOT STEADY'}: {'; '.join(parts)}."


def _quarters(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first and of the last quarter."""
    quarter = max(1, len(values) // 4)
    return statistics.median(values[:quarter]), statistics.median(values[-quarter:])
