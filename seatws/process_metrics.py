"""The process's own metrics, by the names that all Prometheus clients give them.

prometheus_client's own collector counts open files by listing them: 70 ms with 19,000 connections,
in which nobody is served.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_PROC: Final = Path("/proc/self")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = resource.getpagesize()


class ProcessMetrics:
    """A collector for prometheus_client's registry; silent where there is no /proc.

    Args:
        connections: How many connections are open, for Linux before 6.2, where nothing else tells
            the number of open files without listing them: those that were open before come on top.
    """

    def __init__(self, connections: Callable[[], int]) -> None:
        self._connections = connections
        self._besides = len(list((_PROC / "fd").iterdir())) if _PROC.exists() else 0

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        if not _PROC.exists():
            return
        # From the third field on; the second, the name in parentheses, may hold spaces (proc(5)).
        stat = (_PROC / "stat").read_text().rpartition(")")[2].split()
        started = float(stat[19]) / _TICKS + _booted_at()
        for name, meaning, value in (
            ("virtual_memory_bytes", "Virtual memory size in bytes", float(stat[20])),
            ("resident_memory_bytes", "Resident memory size in bytes", float(stat[21]) * _PAGE),
            ("start_time_seconds", "Start time since the Unix epoch in seconds", started),
            ("open_fds", "Open file descriptors", float(self._open_fds())),
            ("max_fds", "Most open file descriptors", _max_fds()),
        ):
            yield GaugeMetricFamily(f"process_{name}", meaning, value)
        cpu_s = (float(stat[11]) + float(stat[12])) / _TICKS
        yield CounterMetricFamily("process_cpu_seconds", "User and system CPU seconds", cpu_s)

    def _open_fds(self) -> int:
        return (_PROC / "fd").stat().st_size or self._besides + self._connections()


def _booted_at() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def _max_fds() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)
