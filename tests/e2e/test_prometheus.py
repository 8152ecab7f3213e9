"""A real Prometheus scrapes two real instances: every query that we ship means something to it."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.fetch import fetch
from tests.harness import (
    LIMIT_S,
    Client,
    Instance,
    Valkey,
    conf_with,
    unique,
)
from tests.ports import free_port
from tests.prometheus_server import Prometheus
from tests.queries import alert_queries, dashboard_queries, runbook_queries

TOKENS = 'use = "tests.sample_plugins.tokens"'


@pytest.fixture
def scraping(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Starts Prometheus for some instances; stops it at the end."""
    started: list[Prometheus] = []

    def start(*instances: Instance) -> Prometheus:
        targets = [instance.http.removeprefix("http://") for instance in instances]
        started.append(Prometheus(tmp_path, *targets))
        return started[0]

    yield start
    for prometheus in started:
        prometheus.stop()


async def until(prometheus: Prometheus, query: str) -> None:
    """Wait until a query has an answer."""
    async with asyncio.timeout(LIMIT_S):
        while not await prometheus.query(query):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)


async def visit(server: Instance) -> None:
    """All that a dashboard shows: people come, click, are refused, ask by HTTP; a hold ends."""
    ann, bob, room = unique("ann"), unique("bob"), unique("room")
    async with (
        Client.connect(server.url, ann, additional_headers=token_of(ann)) as one,
        Client.connect(server.url, bob, additional_headers=token_of(bob)) as two,
    ):
        await one.join(room)
        await two.join(room)
        await one.select(room, "A1")
        assert (await two.select(room, "A1"))["code"] == "seat_taken"
        await two.select(room, "A2")
        await two.release(room, "A2")
        await fetch(f"{server.http}/room/{room}/selections")
        await two.heard(lambda message: message.get("reason") == "expired")
    async with Client.connect(server.url, ann, additional_headers={"Authorization": "bad:"}) as bad:
        assert await bad.closed() == 4401


@pytest.mark.gen_test(timeout=LIMIT_S)
async def test_a_drain_can_be_watched_where_metrics_have_a_port_of_their_own(
    valkey: Valkey, start: Starter
) -> None:
    """Else the last that Prometheus learns of an instance is that it takes visitors."""
    port = free_port()
    metrics = f"http://127.0.0.1:{port}/metrics"
    drain = {"SEATWS_METRICS__PORT": str(port), "SEATWS_SERVER__DRAIN_SECONDS": "300"}
    instance = start(valkey.url, **drain)
    async with Client.connect(instance.url) as one, Client.connect(instance.url) as two:
        os.kill(instance.pid, signal.SIGTERM)
        async with asyncio.timeout(LIMIT_S):
            while b"seatws_draining 1.0\n" not in (await fetch(metrics)).body:
                pass
        with pytest.raises(ConnectionRefusedError):
            await fetch(f"{instance.http}/metrics")
        instance.terminate()
        await asyncio.gather(one.closed(), two.closed())


def token_of(client_id: str) -> dict[str, str]:
    return {"Authorization": f"Bearer good:{client_id}:never"}


@pytest.mark.gen_test(timeout=2 * LIMIT_S)
async def test_every_query_has_an_answer(
    valkey: Valkey, start: Starter, scraping: Callable[..., Prometheus], tmp_path: Path
) -> None:
    """The dashboard's have data; those of alerts and runbooks at least mean something."""
    conf = conf_with(tmp_path / "conf", TOKENS)
    instances = [start(valkey.url, conf=conf, SEATWS_HOLDS__SECONDS="5") for _ in range(2)]
    prometheus = scraping(*instances)
    # From here on, what happens is an increase.
    await until(prometheus, "count(count_over_time(seatws_connections[1m]) >= 1) == 2")
    await asyncio.gather(*map(visit, instances))
    # Everything was counted before it, and a rate needs two samples.
    await until(prometheus, "sum(seatws_holds_expired_total) == 2")
    await until(prometheus, 'count(increase(seatws_closes_total{code="4401"}[1m]) > 0) == 2')

    silent = []
    for place, query in dashboard_queries():
        values = [float(sample["value"][1]) for sample in await prometheus.query(query)]
        if not place.startswith("annotation") and (not values or any(map(math.isnan, values))):
            silent.append((place, query, values))
    assert silent == []
    for _, query in alert_queries():
        await prometheus.query(query)
    for query in runbook_queries():
        await prometheus.query(query)
    assert await prometheus.query('ALERTS{alertstate="firing"}') == []
