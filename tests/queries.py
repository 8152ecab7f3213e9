"""PromQL in the project's files: where it stands, and which metrics it names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.harness import ROOT

DASHBOARD = ROOT / "conf/grafana/dashboards/seatws.json"
ALERTS = ROOT / "conf/prometheus/alerts.yml"
OPERATIONS = ROOT / "docs/operations.md"
VARIABLES = {"$__rate_interval": "1m", "$instance": ".+"}
"""What Grafana puts in, with every instance chosen."""


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return board


def panels() -> list[dict[str, Any]]:
    """Its panels without the rows that they stand in."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Each query's place, and the query with the variables put in."""
    board = dashboard()
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", _filled_in(target["expr"])
    for annotation in board["annotations"]["list"]:
        yield f"annotation {annotation['name']}", _filled_in(annotation["expr"])


def runbook_queries() -> list[str]:
    """Those that the operator is told to ask."""
    return re.findall(r"^```promql\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)


def alert_queries() -> Iterator[tuple[str, str]]:
    """Each alert's name and severity, and its expression."""
    for rule in re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.MULTILINE)[1:]:
        expression = re.search(r"^ +expr: (?:\|\n)?(.*?)^ +(?:for|labels):", rule, re.M | re.S)
        severity = re.search(r"severity: (\w+)", rule)
        assert expression is not None
        assert severity is not None
        yield f"{rule.split()[0]} {severity[1]}", expression[1]


def metrics_in(query: str) -> set[str]:
    """The metrics that a query names."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|on|group_left|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\boffset \w+", "", bare)
    words = set(re.findall(r"(?<![\w.])[a-zA-Z_]\w*(?!\w|\s*\()", bare))
    return words - {"and", "or", "unless", "sum", "count", "min", "max", "on"}


class Documented(NamedTuple):
    """A line of the list of metrics in docs/operations.md."""

    kind: str
    labels: frozenset[str]


def documented_metrics() -> dict[str, Documented]:
    """The list of metrics, by name."""
    table = OPERATIONS.read_text().partition("<!-- metrics -->")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\| \S.*\|$", table, re.MULTILINE)
    assert len(rows) == table.strip().count("\n") - 1, "a line can't be read"
    return {
        name: Documented(kind, frozenset(re.findall(r"\w+", labels))) for name, kind, labels in rows
    }


def _filled_in(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def family_of(metric: str) -> str:
    """The name in a list of metrics: a histogram's series are one there."""
    return re.sub(r"_(bucket|count|sum)$", "", metric)


def write_as_rules(directory: Path, queries: Iterable[str]) -> Path:
    """A file of recording rules, one a query, for promtool to read; it gets it into `directory`."""
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    path = directory / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    return path
