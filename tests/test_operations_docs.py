"""docs/operations.md: whole, and true of the server."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Starter
from tests.fetch import fetch
from tests.harness import LIMIT_S, ROOT, Client, Instance, Valkey, unique
from tests.queries import ALERTS, OPERATIONS, Documented, documented_metrics
from tests.test_docs import settings

TEXT = OPERATIONS.read_text()
RUNBOOKS = {
    section.split("\n")[0]: section
    for section in re.split(r"^### ", TEXT.partition("\n## Alerts\n")[2], flags=re.MULTILINE)[1:]
}
SEVERITIES = set(re.findall(r"- alert: (\w+)\n(?:.*\n)*?.* severity: (\w+)\n", ALERTS.read_text()))
LOG_LINES = re.findall(
    r"^\| `([^`]+)` \|", TEXT.partition("<!-- log lines -->")[2].partition("\n\n")[0], re.MULTILINE
)


# ---------------------------------------------------------------- metrics


@pytest.mark.gen_test(timeout=LIMIT_S)
async def test_the_list_of_metrics_is_that_of_a_real_server(server: Instance) -> None:
    """By name, type and labels: none is missing there, and none is invented."""
    room = unique("room")
    async with Client.connect(server.url) as client, Client.connect(server.url) as other:
        await client.join(room)
        await client.select(room, "A1")
        assert (await other.select(room, "A1"))["code"] == "seat_taken"
    await fetch(f"{server.http}/health")  # a request shows when it is answered
    families = text_string_to_metric_families((await fetch(f"{server.http}/metrics")).body.decode())
    served = {
        family.name + ("_total" if family.type == "counter" else ""): Documented(
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in families
    }
    assert served == documented_metrics()


@pytest.mark.gen_test(timeout=LIMIT_S)
async def test_what_alerts_compare_with_zero_is_there_from_the_start(start: Starter) -> None:
    """Prometheus counts an increase from a first sample: what appears with 500 has risen by 0."""
    text = (await fetch(f"{start('embedded').http}/metrics")).body.decode()
    for metric, label, values in re.findall(
        r'(seatws_\w+)\{(\w+)=~?"([^"]+)"\}', ALERTS.read_text()
    ):
        for value in values.replace("select_seats?", "select_seat|select_seats").split("|"):
            assert f'{metric}{{{label}="{value}"}} 0.0' in text, (metric, value)


@pytest.mark.gen_test(timeout=LIMIT_S)
async def test_the_causes_of_resyncs_are_those_that_are_explained(start: Starter) -> None:
    """All are there from the start, too: an alert looks for any but the ordinary one."""
    (row,) = re.findall(r"^\| `seatws_resyncs_total` .*$", TEXT, re.MULTILINE)
    explained = re.findall(r"`([a-z ]+)`(?=[:,])", row)
    text = (await fetch(f"{start('embedded').http}/metrics")).body.decode()
    served = re.findall(r'^seatws_resyncs_total\{cause="([^"]+)"\}', text, re.MULTILINE)
    assert sorted(served) == sorted(explained)


@pytest.mark.gen_test(timeout=LIMIT_S)
async def test_what_alerts_ask_of_a_histogram_is_below_its_last_bucket(server: Instance) -> None:
    """A quantile is never told to be above that, so the alert would never fire."""
    text = (await fetch(f"{server.http}/metrics")).body.decode()
    asked = re.findall(r"\((seatws_\w+)_bucket\[\w+\]\)\)\)\n +> ([\d.]+)", ALERTS.read_text())
    assert len(asked) >= 5
    for metric, threshold in asked:
        bounds = re.findall(rf'^{metric}_bucket\{{le="([\d.]+)"\}}', text, re.MULTILINE)
        assert max(map(float, bounds)) > float(threshold), metric
        assert float(threshold) in map(float, bounds), f"{metric}: not told exactly"


# ---------------------------------------------------------------- alerts


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    """Where `runbook_url` leads."""
    assert RUNBOOKS.keys() == {name for name, _ in SEVERITIES}


@pytest.mark.parametrize("name", RUNBOOKS)
def test_each_section_says_what_somebody_needs_who_was_woken(name: str) -> None:
    """How urgent it is, what visitors notice, where to look, what it is, what to do, until when."""
    section = RUNBOOKS[name]
    opening = section.split("\n\n")[1]
    said = {severity for severity in ("page", "ticket") if f"*{severity}*" in opening}
    assert said == {severity for alert, severity in SEVERITIES if alert == name}
    parts = re.findall(r"^\*\*([A-Z][\w ]+?):?\*\*", section, re.MULTILINE)
    assert parts == ["For visitors", "First look", "Mostly", "Do", "Over"]


# ---------------------------------------------------------------- the rest


@pytest.mark.parametrize("line", LOG_LINES)
def test_each_log_line_is_one_that_the_server_writes(line: str) -> None:
    """Its words are in the source."""
    sources = [path.read_text() for path in (ROOT / "seatws").rglob("*.py")]
    joined = [re.sub(r'"\s*\n\s*f?"', "", source) for source in sources]
    assert any(line in source for source in joined)


def test_each_setting_is_one_that_there_is() -> None:
    """Sections and keys in code."""
    sections = {name.split(".")[0] for name in settings()}
    named = re.findall(r"`([a-z]+\.[a-z_]+)`", TEXT)
    assert {name for name in named if name.split(".")[0] in sections} <= {*settings()}


def test_each_file_is_one_that_there_is() -> None:
    """In code, by its path from the repository's root."""
    named = set(
        re.findall(r"(?:conf|docs|tests)/[\w./-]+\.\w+|compose\.\w+\.yml|conf/docker/\w+", TEXT)
    )
    assert len(named) >= 8
    for name in named:
        assert (ROOT / name).exists(), name


@pytest.mark.gen_test(timeout=LIMIT_S)
async def test_the_user_for_redis_may_do_what_the_server_needs(
    own_valkey: Valkey, start: Starter
) -> None:
    """With the rights that are named, and no more, two instances start and hear of each other."""
    (line,) = re.findall(r"^ *ACL SETUSER (.*)$", TEXT, re.MULTILINE)
    with own_valkey.client() as redis:
        redis.execute_command("ACL", "SETUSER", *line.split())
        redis.execute_command("ACL", "SETUSER", "default", "off")
    url = own_valkey.url.replace("unix://", "unix://seatws:PASSWORD@")
    one, two = start(url), start(url)
    room = unique("room")
    async with Client.connect(one.url) as ann, Client.connect(two.url) as bob:
        await bob.join(room)
        assert (await ann.select(room, "A1"))["type"] == "seat_selected"
        await bob.until(lambda: bob.maps[room] == {"A1": ann.client_id})
        assert (await ann.release(room, "A1"))["type"] == "seat_released"
        await bob.until(lambda: bob.maps[room] == {})
    for instance in (one, two):
        assert "NOPERM" not in instance.log
        assert "ERROR" not in instance.log, instance.log
