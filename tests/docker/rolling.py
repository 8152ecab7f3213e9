"""Replicas replaced and restarted while visitors select and release."""

from __future__ import annotations

import asyncio

from tests.docker.compose import Compose, ContainerRedis, check
from tests.docker.visitors import answers, judge, traffic_flows

LIMITS_OFF = "tests/docker/compose.traffic.yml"
AWAY_REPLACED_S = 2.0
"""The traffic's clients try again after 0.4 s at the latest; the rest is for coming in."""
AWAY_RESTARTED_S = 40.0
"""All replicas are away at once: for as long as they drain, and start."""


async def replaced(compose: Compose) -> None:
    """Three replicas, one after the other: nobody is refused, no hold is lost."""
    before = compose.healthy("websocket", 3)
    redis = ContainerRedis(*compose.ids("redis"))
    async with traffic_flows(may_be_shut=False, away_s=AWAY_REPLACED_S) as traffic:
        await asyncio.to_thread(compose.run, ["conf/docker/replace", *compose.words])
        await traffic.flows()
        await judge(traffic, redis)
        traffic.go_on()
        closed = traffic.history.closed()
    check(closed >= traffic.clients, f"every visitor has changed over ({closed} closed)")
    after = compose.healthy("websocket", 3)
    check(not {*before} & {*after}, "all three are new")


async def restarted(compose: Compose) -> None:
    """All at once, by the guide's command: everybody comes back, no hold is lost."""
    redis = ContainerRedis(*compose.ids("redis"))
    async with traffic_flows(may_be_shut=True, away_s=AWAY_RESTARTED_S) as traffic:
        await asyncio.to_thread(compose, "restart", "websocket")
        await asyncio.to_thread(answers)
        await traffic.flows()
        await judge(traffic, redis)
        traffic.go_on()
