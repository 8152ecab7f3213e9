"""What the server counts. Plain numbers on the way of a frame; Prometheus text when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

import seatws


class Counts:
    """Everything counted since the start. Labels come from the server's own code, so few."""

    def __init__(self) -> None:
        self.connections_opened = 0
        self.closes: Counter[int] = Counter()
        """By close code."""
        self.messages: Counter[str] = Counter()
        """What clients sent, by type."""
        self.refusals: Counter[str] = Counter()
        """Errors answered, by code."""
        self.rooms_read: Counter[str] = Counter()
        """Snapshots read, by cause."""
        self.slow_viewers = 0
        self.mass_disconnections = 0

    def room_read(self, cause: str) -> None:
        """Count a snapshot."""
        self.rooms_read[cause] += 1

    def viewer_fell_behind(self) -> None:
        """Count a viewer that gets no changes until it has read what it was sent."""
        self.slow_viewers += 1


Gauges = Callable[[], dict[str, tuple[str, float]]]
"""What is now: each metric's name, its meaning and its value."""


class Metrics:
    """Puts counts into Prometheus's text format.

    Args:
        counts: What was counted.
        gauges: Asked at each scrape for what is now.
    """

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The answer to a scrape, Prometheus text format 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        counts = self._counts
        for name, (meaning, value) in self._gauges().items():
            yield GaugeMetricFamily(name, meaning, value)
        yield CounterMetricFamily(
            "seatws_connections_opened", "WebSocket connections accepted", counts.connections_opened
        )
        yield CounterMetricFamily(
            "seatws_slow_viewers", "Times a viewer fell behind", counts.slow_viewers
        )
        tallies: list[tuple[str, str, str, Counter[str] | Counter[int]]] = [
            ("seatws_closes", "WebSocket connections closed", "code", counts.closes),
            ("seatws_messages", "Messages from clients", "type", counts.messages),
            ("seatws_refusals", "Errors answered to clients", "code", counts.refusals),
            ("seatws_rooms_read", "Snapshots read from Redis", "cause", counts.rooms_read),
        ]
        for name, meaning, label, tally in tallies:
            family = CounterMetricFamily(name, meaning, labels=[label])
            for key, count in tally.items():
                family.add_metric([str(key)], count)
            yield family
        build = GaugeMetricFamily("seatws_build", "The version that runs", labels=["version"])
        build.add_metric([seatws.__version__], 1)
        yield build
