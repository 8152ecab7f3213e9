"""The overlays: a Redis Cluster that makes itself, and Prometheus and Grafana."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
import urllib.request
from typing import Any

import yaml
from redis.crc import key_slot

from tests.docker.compose import (
    Compose,
    ContainerRedis,
    Failed,
    check,
    docker,
    has_image,
    say,
    wait_for,
)
from tests.docker.rolling import AWAY_REPLACED_S, LIMITS_OFF
from tests.docker.visitors import answers, holders, judge, put, scenario, traffic_flows
from tests.e2e.traffic import Traffic
from tests.harness import ROOT, unique
from tests.ports import free_port

CLUSTER = "compose.cluster.yml"
MONITORING = "compose.monitoring.yml"
NODES = ["redis", *(f"redis-{number}" for number in range(2, 7))]
AWAY_FAILOVER_S = 20.0
"""A node that is killed is given up after `cluster-node-timeout`; then a replica is voted for."""
PASSWORD = unique("password")


class Shards:
    """The cluster, as its own nodes see it."""

    def __init__(self, compose: Compose) -> None:
        self.containers = {node: compose.ids(node)[0] for node in NODES}

    def ask(self, node: str, *words: str) -> str:
        """What a node answers."""
        return docker("exec", self.containers[node], "redis-cli", *words).strip()

    def role(self, node: str) -> str:
        """`master`, `slave` or, of one that does not run, nothing."""
        try:
            return self.ask(node, "ROLE").split()[0]
        except Failed:
            return ""

    def owner(self, room: str) -> str:
        """The primary that serves a room."""
        slot = str(key_slot(room.encode()))
        for node in NODES:
            if self.role(node) == "master":
                served = self.ask(node, "CLUSTER", "NODES").splitlines()
                (own,) = [line for line in served if "myself" in line]
                if any(_is_in(slot, part) for part in own.split()[8:]):
                    return node
        raise Failed(f"no node serves slot {slot}")

    def replica_of(self, primary: str) -> str:
        """One of its replicas."""
        primary_id = self.ask(primary, "CLUSTER", "MYID")
        for node in NODES:
            if self.role(node) == "slave":
                lines = self.ask(node, "CLUSTER", "NODES").splitlines()
                (own,) = [line for line in lines if "myself" in line]
                if own.split()[3] == primary_id:
                    return node
        raise Failed(f"{primary} has no replica")

    def redis(self, *, but: str = "") -> ContainerRedis:
        """For looking into rooms, through any node but one."""
        return ContainerRedis(self.containers[next(node for node in NODES if node != but)])


def _is_in(slot: str, part: str) -> bool:
    first, _, last = part.partition("-")
    return first.isdigit() and int(first) <= int(slot) <= int(last or first)


async def cluster(compose: Compose) -> None:
    """It makes itself, carries rooms on every shard, and outlives failovers and `down`."""
    with compose.on(CLUSTER, LIMITS_OFF):
        compose("up", "-d", "--scale", "websocket=3")
        check("is whole" in compose("logs", "cluster"), "the cluster has made itself")
        compose.healthy("websocket", 3)
        answers()
        await scenario(3)
        rooms = [unique("funcion") for _ in range(24)]
        for room in rooms:
            assert put(room, "A1", "ann") == 201
        shards = Shards(compose)
        owners = {room: shards.owner(room) for room in rooms}
        check(len(set(owners.values())) == 3, f"rooms are on {sorted(set(owners.values()))}")

        async with traffic_flows(may_be_shut=False, away_s=AWAY_REPLACED_S) as traffic:
            await _planned_failover(shards, traffic)
        async with traffic_flows(may_be_shut=True, away_s=AWAY_FAILOVER_S) as traffic:
            await _killed_primary(compose, shards, traffic)

        compose("up", "-d", "--scale", "websocket=3")
        for node in NODES:
            compose.healthy(node, 1)
        compose("down")
        compose("up", "-d", "--scale", "websocket=3")
        compose.healthy("websocket", 3)
        wait_for(
            lambda: all(holders(room) == {"A1": "ann"} for room in rooms),
            "all holds have outlived `down` and `up`",
        )
        await scenario(3)


async def _planned_failover(shards: Shards, traffic: Traffic) -> None:
    def fail_over() -> None:
        primary = shards.owner(traffic.room_id)
        replica = shards.replica_of(primary)
        say(f"  $ redis-cli CLUSTER FAILOVER  (at {replica}, instead of {primary})")
        shards.ask(replica, "CLUSTER", "FAILOVER")
        wait_for(lambda: shards.role(replica) == "master", f"{replica} is the primary")

    await asyncio.to_thread(fail_over)
    await traffic.flows()
    await judge(traffic, shards.redis())
    traffic.go_on()


async def _killed_primary(compose: Compose, shards: Shards, traffic: Traffic) -> None:
    def kill() -> str:
        primary = shards.owner(traffic.room_id)
        replica = shards.replica_of(primary)
        # Unless told, an engine starts again what was killed, before a replica is voted for.
        docker("update", "--restart=no", shards.containers[primary])
        say(f"  $ docker kill {primary}")
        docker("kill", shards.containers[primary])
        wait_for(lambda: shards.role(replica) == "master", f"{replica} is the primary")
        return primary

    def bring_back(primary: str) -> None:
        docker("update", "--restart=unless-stopped", shards.containers[primary])
        docker("start", shards.containers[primary])
        compose.healthy(primary, 1)
        wait_for(lambda: shards.role(primary) == "slave", f"{primary} is back, as a replica")

    killed = await asyncio.to_thread(kill)
    await traffic.flows()
    # What had not reached the replica may be gone; that everybody sees the same is promised still.
    holds = await traffic.settle(shards.redis(but=killed))
    check(True, f"each viewer sees what the new primary has ({len(holds)} holds)")
    traffic.go_on()
    await asyncio.to_thread(bring_back, killed)


async def monitoring(compose: Compose) -> None:
    """Every replica is a target and up, our alerts are loaded, Grafana has our dashboards."""
    images = {
        name: service["image"]
        for name, service in yaml.safe_load((ROOT / MONITORING).read_text())["services"].items()
    }
    has = {name: await asyncio.to_thread(has_image, image) for name, image in images.items()}
    ports = {name: free_port() for name in images}
    environment = {
        "PROMETHEUS_PORT": f"127.0.0.1:{ports['prometheus']}",
        "GRAFANA_PORT": f"127.0.0.1:{ports['grafana']}",
        "GRAFANA_PASSWORD": PASSWORD,
    }
    with compose.on(MONITORING, **environment):
        running = ["websocket", *(name for name in images if has[name])]
        compose("up", "-d", "--scale", "websocket=3", *running)
        compose.healthy("websocket", 3)
        answers()
        await scenario(3)
        if has["prometheus"]:
            compose.healthy("prometheus", 1)
            _prometheus(f"http://127.0.0.1:{ports['prometheus']}")
        if has["grafana"]:
            compose.healthy("grafana", 1)
            _grafana(f"http://127.0.0.1:{ports['grafana']}")
    for name, image in images.items():
        if not has[name]:
            say(f"    NOT RUN: {name}. Its image {image} can't be pulled here.")


def _prometheus(url: str) -> None:
    def targets() -> list[str]:
        found = _json(f"{url}/api/v1/targets?state=active")["data"]["activeTargets"]
        return [one["health"] for one in found if one["labels"]["job"] == "seatws"]

    wait_for(lambda: targets() == ["up"] * 3, "Prometheus has three targets, all of them up")
    query = urllib.parse.quote('count(seatws_connections{job="seatws"})')

    def replicas_counted() -> str:
        result = _json(f"{url}/api/v1/query?query={query}")["data"]["result"]
        return str(result[0]["value"][1]) if result else ""

    wait_for(lambda: replicas_counted() == "3", "and the figures of all three")
    wanted = {
        rule["alert"]
        for group in yaml.safe_load((ROOT / "conf/prometheus/alerts.yml").read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }

    def loaded() -> dict[str, str]:
        groups = _json(f"{url}/api/v1/rules?type=alert")["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    wait_for(lambda: set(loaded().values()) == {"ok"}, "our alerts are evaluated without an error")
    check(set(loaded()) == wanted, f"all {len(wanted)} of them")
    alerts = _json(f"{url}/api/v1/alerts")["data"]["alerts"]
    firing = [one["labels"]["alertname"] for one in alerts if one["state"] == "firing"]
    check(firing == [], f"none fires: {firing}")


def _grafana(url: str) -> None:
    try:
        _json(f"{url}/api/search", user="admin:admin")
    except OSError as exc:
        check("401" in str(exc), "Grafana does not know admin:admin")
    else:
        raise Failed("Grafana lets admin:admin in")
    user = f"admin:{PASSWORD}"
    health = _json(f"{url}/api/datasources/uid/prometheus/health", user=user)
    check(health["status"] == "OK", "Grafana reads from Prometheus")
    wanted = {
        json.loads(file.read_text())["title"]
        for file in (ROOT / "conf/grafana/dashboards").iterdir()
    }
    found = {one["title"] for one in _json(f"{url}/api/search?type=dash-db", user=user)}
    check(found == wanted, f"and has these dashboards: {sorted(found)}")


def _json(url: str, user: str = "") -> Any:
    request = urllib.request.Request(url)
    if user:
        request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)
