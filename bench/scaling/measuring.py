"""`bench/capacity --measure`: what the model's costs are on this machine, round by round."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from bench import page
from bench.machine import machine, versions
from bench.processes import Failed, allow_many_files
from bench.results import spread
from bench.scaling import figures, instance_costs
from bench.scaling import page as scaling_page
from bench.scaling.costs import RESULTS
from bench.scaling.figures import Figures
from bench.scaling.redis_costs import RedisCosts
from bench.servers import WithRedis

ROUNDS: Final = 3
CALLS: Final = 20_000
SECONDS: Final = 4.0
TRIES: Final = 3


def run(command: str, *, is_quick: bool) -> int:
    """Measure, print, keep. Returns the exit code.

    Args:
        command: How it was called.
        is_quick: One short round with little load: that it runs, not what things cost.
    """
    allow_many_files()
    found = Figures(
        date=page.today(),
        machine=machine(),
        versions=versions(with_peers=False),
        command=command,
    )
    calls, seconds, scale = (1000, 0.5, 0.05) if is_quick else (CALLS, SECONDS, 1.0)
    parts: tuple[Callable[[], None], ...] = (
        lambda: _redis(found, calls),
        lambda: instance_costs.quiet(found, seconds, scale),
        lambda: instance_costs.events(found, seconds, scale),
        lambda: instance_costs.holds(found, scale),
    )
    failures = sum(not _try(part) for _ in range(1 if is_quick else ROUNDS) for part in parts)
    for name, values in found.values.items():
        print(f"{name:26} {spread(values)}")
    if not is_quick and not failures:
        print(f"kept in {figures.keep(found, RESULTS)}")
        scaling_page.write()
    return 1 if failures else 0


def _redis(found: Figures, calls: int) -> None:
    """On an empty server of its own."""
    with WithRedis("Redis") as server:
        costs = RedisCosts(server, calls)
        costs.measure(found)
        costs.close()


def _try(part: Callable[[], None]) -> bool:
    """Once more if it fails: a machine that others use may have kept a server from answering."""
    for _ in range(TRIES):
        try:
            part()
        except Failed as failed:
            print(f"{failed}", file=sys.stderr)
        else:
            return True
    return False
