"""What Prometheus reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import seatws
from seatws.counts import NUMBERS, SECONDS, Counts, Histogram
from seatws.metrics import Metrics
from seatws.process_metrics import ProcessMetrics

Samples = dict[tuple[str, tuple[str, ...]], float]


def read(metrics: Metrics) -> Samples:
    """Every sample by name and label values, as Prometheus understands the text."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def counted() -> Counts:
    counts = Counts()
    counts.connections_opened = 7
    counts.closes[1000] += 3
    counts.closes[4440] += 1
    counts.messages["join_room"] += 5
    counts.refusals["seat_taken"] += 2
    counts.changes["selected"] += 4
    counts.resyncs["gap"] += 1
    counts.slow_viewers = 2
    counts.http_requests["/health", 200] += 6
    counts.flushed(viewers=30, changes=2, seconds=0.02)
    return counts


def test_everything_that_is_counted_is_there() -> None:
    """Each count under its name, with the label that tells its kinds apart."""
    samples = read(Metrics(counted(), dict))
    expected: Samples = {
        ("seatws_connections_opened_total", ()): 7,
        ("seatws_closes_total", ("1000",)): 3,
        ("seatws_closes_total", ("4440",)): 1,
        ("seatws_messages_total", ("join_room",)): 5,
        ("seatws_refusals_total", ("seat_taken",)): 2,
        ("seatws_holds_made_total", ()): 4,
        ("seatws_holds_expired_total", ()): 0,
        ("seatws_resyncs_total", ("gap",)): 1,
        ("seatws_slow_viewers_total", ()): 2,
        ("seatws_http_requests_total", ("/health", "200")): 6,
        ("seatws_deliveries_total", ()): 60,
        ("seatws_flush_viewers_bucket", ("20",)): 0,
        ("seatws_flush_viewers_bucket", ("50",)): 1,
        ("seatws_fanout_seconds_count", ()): 1,
        ("seatws_fanout_seconds_sum", ()): 0.02,
    }
    assert samples == samples | expected
    (build,) = (values for name, values in samples if name == "seatws_build_info")
    assert seatws.__version__ in build


def test_each_scrape_tells_what_is_now() -> None:
    """Gauges are asked anew, counts go on."""
    counts, now = Counts(), {"seatws_connections": ("WebSocket connections now", 1.0)}
    metrics = Metrics(counts, lambda: now)
    before = read(metrics)
    now["seatws_connections"] = ("WebSocket connections now", 5.0)
    counts.messages["ping"] += 1
    after = read(metrics)
    assert before[("seatws_connections", ())] == 1
    assert before[("seatws_messages_total", ("ping",))] == 0
    assert after[("seatws_connections", ())] == 5
    assert after[("seatws_messages_total", ("ping",))] == 1


def test_every_metric_has_a_meaning() -> None:
    """For who builds a dashboard from the text alone."""
    text = Metrics(counted(), lambda: {"seatws_rooms": ("Rooms with viewers", 2.0)}).text().decode()
    families = list(text_string_to_metric_families(text))
    assert len(families) >= 25
    assert all(family.documentation and family.type != "unknown" for family in families)
    assert {family.name.partition("_")[0] for family in families} == {
        "seatws",
        "process",
        "python",
    }


def test_two_servers_in_one_process_count_apart() -> None:
    """No global registry: tests, and programs that embed the server, stay apart."""
    one, two = Metrics(counted(), dict), Metrics(Counts(), dict)
    assert read(one)[("seatws_slow_viewers_total", ())] == 2
    assert read(two)[("seatws_slow_viewers_total", ())] == 0


@pytest.mark.parametrize("bounds", [SECONDS, NUMBERS], ids=["seconds", "numbers"])
def test_histogram_counts_a_value_in_the_bucket_whose_bound_it_does_not_exceed(
    bounds: tuple[float, ...],
) -> None:
    """As Prometheus has it (`le`): a bound itself is within, what is above the last is not lost."""
    histogram = Histogram(bounds)
    for bound in bounds:
        histogram.observe(bound)
    histogram.observe(bounds[-1] * 2)
    assert histogram.buckets == [1] * (len(bounds) + 1)
    assert histogram.total == pytest.approx(sum(bounds) + bounds[-1] * 2)


def test_process_metrics_are_those_of_this_process() -> None:
    """Open files to the last one: the alert before they run out depends on it."""
    collector = ProcessMetrics(lambda: 0)

    def value(name: str) -> float:
        (family,) = (family for family in collector.collect() if family.name == name)
        return float(family.samples[0].value)

    before = value("process_open_fds")
    with Path(os.devnull).open(), Path(os.devnull).open():
        assert value("process_open_fds") == before + 2
    assert value("process_resident_memory_bytes") > 10_000_000
    assert value("process_start_time_seconds") > 1_600_000_000
