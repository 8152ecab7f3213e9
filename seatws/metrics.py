"""The metrics: what is counted and what is now, as Prometheus text (docs/operations.md)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import accumulate

import tornado
from prometheus_client import CollectorRegistry, PlatformCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

import seatws
from seatws.counts import Counts, Histogram
from seatws.process_metrics import ProcessMetrics

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
        self._registry.register(ProcessMetrics(self._connections))
        PlatformCollector(registry=self._registry)

    def text(self) -> bytes:
        """The answer to a scrape, Prometheus text format 0.0.4."""
        return generate_latest(self._registry)

    def _connections(self) -> int:
        return self._counts.connections_opened - self._counts.closes.total()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry at each scrape."""
        yield from (
            GaugeMetricFamily(name, meaning, value)
            for name, (meaning, value) in self._gauges().items()
        )
        yield from self._counters()
        yield from self._tallies()
        yield from self._histograms()
        build = GaugeMetricFamily(
            "seatws_build_info", "What runs here", labels=["version", "python", "tornado"]
        )
        build.add_metric([seatws.__version__, sys.version.split()[0], tornado.version], 1)
        yield build

    def _counters(self) -> Iterator[Metric]:
        counts = self._counts
        for name, meaning, value in (
            ("connections_opened", "Connections accepted", counts.connections_opened),
            (
                "mass_disconnections",
                "Times that many were lost at once",
                counts.mass_disconnections,
            ),
            ("joins", "Rooms joined", counts.joins),
            ("holds_made", "Holds made through this instance", counts.changes["selected"]),
            ("holds_released", "Holds given back through it", counts.changes["released"]),
            ("holds_expired", "Holds that it ended in time", counts.changes["expired"]),
            ("slow_viewers", "Times a viewer fell behind", counts.slow_viewers),
            ("deliveries", "Changes sent to viewers", counts.deliveries),
            ("redis_losses", "Connections to Redis lost", counts.redis_losses),
        ):
            yield CounterMetricFamily(f"seatws_{name}", meaning, value)

    def _tallies(self) -> Iterator[Metric]:
        counts = self._counts
        for name, meaning, label, tally in (
            ("closes", "Connections closed", "code", counts.closes),
            ("messages", "Messages from clients", "type", counts.messages),
            ("refusals", "Errors answered to clients", "code", counts.refusals),
            ("sign_ins", "Tokens looked at", "outcome", counts.sign_ins),
            ("resyncs", "Rooms read anew from Redis", "cause", counts.resyncs),
        ):
            family = CounterMetricFamily(f"seatws_{name}", meaning, labels=[label])
            for key, count in tally.items():
                family.add_metric([str(key or "other")], count)
            yield family
        requests = CounterMetricFamily(
            "seatws_http_requests", "HTTP requests answered", labels=["route", "status"]
        )
        for (route, status), count in counts.http_requests.items():
            requests.add_metric([route, str(status)], count)
        yield requests

    def _histograms(self) -> Iterator[Metric]:
        counts = self._counts
        for name, meaning, histogram in (
            ("answer_seconds", "From a request read to its answer sent", counts.answer_s),
            ("fanout_seconds", "From a change known to all viewers sent it", counts.fanout_s),
            ("expiry_lag_seconds", "From a deadline to its end known", counts.expiry_lag_s),
            ("flush_viewers", "Viewers that one flush serves", counts.flush_viewers),
            ("flush_changes", "Changes that go out together", counts.flush_changes),
            ("redis_round_trip_seconds", "Pipelines to Redis", counts.redis_round_trip_s),
            ("loop_lag_seconds", "How late timers come", counts.loop_lag_s),
        ):
            yield _family(f"seatws_{name}", meaning, histogram)


def _family(name: str, meaning: str, histogram: Histogram) -> Metric:
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.buckets), strict=True))
    return HistogramMetricFamily(name, meaning, buckets=buckets, sum_value=histogram.total)
