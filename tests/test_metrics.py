"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

import seatws
from seatws.metrics import Counts, Metrics

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
    counts.room_read("gap")
    counts.viewer_fell_behind()
    counts.viewer_fell_behind()
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
        ("seatws_rooms_read_total", ("gap",)): 1,
        ("seatws_slow_viewers_total", ()): 2,
        ("seatws_build", (seatws.__version__,)): 1,
    }
    assert samples == samples | expected


def test_each_scrape_tells_what_is_now() -> None:
    """Gauges are asked anew, counts go on."""
    counts, now = Counts(), {"seatws_connections": ("WebSocket connections now", 1.0)}
    metrics = Metrics(counts, lambda: now)
    before = read(metrics)
    now["seatws_connections"] = ("WebSocket connections now", 5.0)
    counts.messages["ping"] += 1
    after = read(metrics)
    assert before[("seatws_connections", ())] == 1
    assert ("seatws_messages_total", ("ping",)) not in before
    assert after[("seatws_connections", ())] == 5
    assert after[("seatws_messages_total", ("ping",))] == 1


def test_every_metric_has_a_meaning() -> None:
    """For who builds a dashboard from the text alone."""
    text = Metrics(counted(), lambda: {"seatws_rooms": ("Rooms with viewers", 2.0)}).text().decode()
    families = list(text_string_to_metric_families(text))
    assert len(families) >= 8
    assert all(family.documentation and family.type != "unknown" for family in families)
    assert all(family.name.startswith("seatws_") for family in families)


def test_two_servers_in_one_process_count_apart() -> None:
    """No global registry: tests, and programs that embed the server, stay apart."""
    one, two = Metrics(counted(), dict), Metrics(Counts(), dict)
    assert read(one)[("seatws_slow_viewers_total", ())] == 2
    assert read(two)[("seatws_slow_viewers_total", ())] == 0
