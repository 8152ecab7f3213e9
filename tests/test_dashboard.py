"""The dashboard: what Grafana can read, from metrics that there are."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.programs import program
from tests.queries import (
    alert_queries,
    dashboard,
    dashboard_queries,
    documented_metrics,
    family_of,
    metrics_in,
    panels,
    runbook_queries,
    write_as_rules,
)

PROMETHEUS_OWN = {"up", "ALERTS"}
QUERIES = [*dashboard_queries(), *alert_queries(), *(("runbook", one) for one in runbook_queries())]


def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    """Of the dashboard and of the runbooks; the alerts have a test of their own."""
    rules = write_as_rules(tmp_path, (query for _, query in QUERIES))
    done = subprocess.run(
        [program("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("place", "query"), QUERIES)
def test_every_query_asks_for_metrics_that_there_are(place: str, query: str) -> None:
    """By the list of metrics, which a test compares with a real server."""
    asked = metrics_in(query)
    assert asked, place
    assert {family_of(metric) for metric in asked} <= documented_metrics().keys() | PROMETHEUS_OWN


def test_every_metric_of_ours_is_drawn_or_alerted_on() -> None:
    """What nobody would ever look at need not be counted."""
    drawn = {family_of(metric) for _, query in QUERIES for metric in metrics_in(query)}
    ours = {name for name in documented_metrics() if name.startswith("seatws_")}
    assert ours - drawn == set()


def test_every_query_is_of_the_instances_that_were_chosen() -> None:
    """But for those of all."""
    of_all = {'sum(up{job="seatws"})', 'count(up{job="seatws"})'}
    board = dashboard()
    for panel in panels():
        for target in panel["targets"]:
            assert 'instance=~"$instance"' in target["expr"] or target["expr"] in of_all
    assert [one["name"] for one in board["templating"]["list"]] == ["datasource", "instance"]


def test_grafana_finds_each_panel_in_its_place() -> None:
    """Ids are unique, nothing overlaps, everything asks the data source that was chosen."""
    board = dashboard()
    assert board["uid"] == "seatws"
    ids = Counter(panel["id"] for panel in board["panels"])
    assert ids.most_common(1)[0][1] == 1
    cells = Counter(cell for panel in board["panels"] for cell in _cells(panel["gridPos"]))
    assert cells.most_common(1)[0][1] == 1
    assert all(x < 24 for x, _ in cells)
    choice, instances = board["templating"]["list"]
    asking = [instances, *board["annotations"]["list"]]
    for panel in panels():
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted({*letters}), panel["title"]
        asking += [panel, *panel["targets"]]
    chosen = {"type": "prometheus", "uid": f"${{{choice['name']}}}"}
    assert all(one["datasource"] == chosen for one in asking)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_each_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """A title, a sentence, a unit, and a legend where there are several lines."""
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    if len(panel["targets"]) > 1:
        assert all(target["legendFormat"] for target in panel["targets"])


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    return [
        (x, y)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
