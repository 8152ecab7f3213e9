"""The alerts: rules that promtool takes, scenarios in which each fires, or must not."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.programs import program

PROMETHEUS = ROOT / "conf/prometheus"
RULES = (PROMETHEUS / "alerts.yml").read_text()
SCENARIOS = sorted((ROOT / "tests/prometheus").glob("*_test.yml"))
NAMES = sorted({*re.findall(r"^ +- alert: (\w+)$", RULES, re.MULTILINE)})


def promtool(*arguments: str | Path) -> None:
    """Run promtool; what it finds wrong is what the test fails with."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    """Every expression and every template can be read."""
    promtool("check", "rules", PROMETHEUS / "alerts.yml")


def test_prometheus_takes_the_example_configuration() -> None:
    """And finds the rules from there."""
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("scenarios", SCENARIOS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_else_not(scenarios: Path) -> None:
    """Trouble fires the right alert at the right time; ordinary days fire none."""
    promtool("test", "rules", scenarios)


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_seen_firing(name: str) -> None:
    """With its whole text: an alert that no scenario fires may never do so."""
    fires = rf"- alertname: {name}\n +eval_time: \w+\n +exp_alerts:\n +- exp_labels:"
    assert any(re.search(fires, path.read_text()) for path in SCENARIOS)


def test_each_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    """Two severities; a summary, a description and a runbook, one section an alert."""
    rules = re.split(r"^ +- alert: ", RULES, flags=re.MULTILINE)[1:]
    assert len(rules) >= 15
    for rule in rules:
        name = rule.split()[0]
        assert re.search(r"\n +severity: (page|ticket)\n", rule), name
        assert "\n          summary: " in rule, name
        assert "\n          description: " in rule, name
        link = f'"{{{{ $externalLabels.runbooks }}}}docs/operations.md#{name.lower()}"'
        assert f"runbook_url: {link}" in rule, name


def test_runbooks_are_linked_to_where_the_operator_keeps_them(tmp_path: Path) -> None:
    """With the external label that the example configuration explains."""
    base = "https://git.example.com/cinema/seatws/blob/main/"
    assert f"runbooks: {base}" in (PROMETHEUS / "prometheus.yml").read_text()
    scenario = tmp_path / "linked_test.yml"
    scenario.write_text(
        f"rule_files: [{PROMETHEUS / 'alerts.yml'}]\n"
        "evaluation_interval: 15s\n"
        "tests:\n"
        "  - interval: 15s\n"
        f"    external_labels: {{runbooks: '{base}'}}\n"
        "    alert_rule_test:\n"
        "      - alertname: SeatwsDown\n"
        "        eval_time: 2m\n"
        "        exp_alerts:\n"
        "          - exp_labels: {severity: page}\n"
        "            exp_annotations:\n"
        '              summary: "Most instances are down, visitors can\'t choose seats"\n'
        "              description: Only 0 instances answer Prometheus, fewer than half of those "
        "it knows.\n"
        f"              runbook_url: {base}docs/operations.md#seatwsdown\n"
    )
    promtool("test", "rules", scenario)
