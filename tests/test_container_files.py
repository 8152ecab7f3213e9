"""The containers' files, as far as can be told without an engine; with one: tests/docker/run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from seatws import config
from tests.compose_files import (
    ALL,
    BASE,
    BASE_SERVICES,
    CLUSTER,
    DOCKERFILE,
    LASTING,
    MONITORING,
    STAGES,
    as_table,
    compose,
    without_variables,
)
from tests.docker import guide
from tests.harness import LIMIT_S, ROOT, Valkey, wait_until
from tests.ports import free_port

SETTLING_S = 12
"""How long the last visitors may take, after the drain, to answer that they go."""


# ------------------------------------------------------------------ the guide's commands


def test_every_command_of_the_guide_has_its_check_in_the_run_with_an_engine() -> None:
    """And the guide's words are there, not those of a newer Compose."""
    assert guide.commands() == sorted(guide.CHECKS)
    assert "docker-compose up -d --scale websocket=3" in guide.commands()


@pytest.mark.parametrize("command", [one for one in guide.commands() if "compose" in one])
def test_a_command_of_the_guide_names_services_that_there_are(command: str) -> None:
    """Whatever is no command, option or number is one."""
    words = command.replace("=", " ").split()[1:]
    commands = {"up", "logs", "restart", "ps"}
    services = [word for word in words if word not in commands and not re.match(r"-|\d", word)]
    assert {*services} <= {*BASE_SERVICES}


def test_the_server_brings_its_balancer_and_its_redis() -> None:
    """So that `up websocket` is enough; the balancer waits for nobody."""
    needs = BASE_SERVICES["websocket"]["depends_on"]
    assert {name: need["condition"] for name, need in needs.items()} == {
        "balancer": "service_started",
        "redis": "service_healthy",
    }
    assert "depends_on" not in BASE_SERVICES["balancer"]


@pytest.mark.parametrize("file", [BASE, CLUSTER, MONITORING])
def test_compose_of_either_version_takes_the_file(file: str) -> None:
    """No `version`, of which v2 warns; no name of a container, of which there can be but one."""
    read = yaml.safe_load((ROOT / file).read_text())
    assert {key for key in read if not key.startswith("x-")} <= {"services", "networks", "volumes"}
    assert all("container_name" not in service for service in read["services"].values())


# ------------------------------------------------------------------ what is open, what is kept


def test_the_balancer_alone_has_a_port_for_everybody() -> None:
    """8001; what watches over it is for this machine, and no Redis has any."""
    ports = {name: service["ports"] for name, service in ALL.items() if "ports" in service}
    assert {name: [without_variables(one) for one in given] for name, given in ports.items()} == {
        "balancer": ["8001:8001"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_only_replicas_reach_redis() -> None:
    """Its networks lead nowhere else, and neither the balancer nor Prometheus is on them."""
    known = compose(BASE, CLUSTER, MONITORING)
    inner = {name for name, network in known["networks"].items() if network.get("internal")}
    assert inner == {"store", "cluster"}
    for name, service in known["services"].items():
        on = {*as_table(service["networks"])}
        if name.startswith(("redis", "cluster")):
            assert on <= inner, name
        elif name != "websocket":
            assert not on & inner, name


@pytest.mark.parametrize("name", LASTING)
def test_a_service_can_do_no_more_than_it_needs(name: str) -> None:
    """It can't write but on its volumes, gains no privilege, and is not root."""
    service = ALL[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if "build" in service:
        users = re.findall(r"^USER (.*)", STAGES[-1], re.MULTILINE)
        assert [*users] == ["10001:10001"]
    else:
        assert str(service["user"]).partition(":")[0] not in {"", "0", "root"}


@pytest.mark.parametrize("name", LASTING)
def test_a_service_says_whether_it_is_well(name: str) -> None:
    """By a check of its own; the server's is in its image and needs no curl."""
    if "build" in ALL[name]:
        assert re.search(r"^HEALTHCHECK .*CMD \[\"python\"", STAGES[-1], re.MULTILINE)
    else:
        assert ALL[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", LASTING)
def test_a_log_does_not_fill_the_disk(name: str) -> None:
    """It is turned over."""
    assert {"max-size", "max-file"} <= {*ALL[name]["logging"]["options"]}


def test_nothing_kills_a_server_that_drains() -> None:
    """The signal reaches it, and it has the time."""
    settings = config.load(ROOT / "conf", {})
    grace = BASE_SERVICES["websocket"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= settings.server.drain_seconds + SETTLING_S
    assert re.findall(r"^ENTRYPOINT (.*)", DOCKERFILE, re.MULTILINE) == ['["python", "run.py"]']


def test_grafana_has_no_password_that_everybody_knows() -> None:
    """Without one of the operator's own, nothing starts."""
    given = ALL["grafana"]["environment"]
    assert given["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert given["GF_AUTH_ANONYMOUS_ENABLED"] == given["GF_USERS_ALLOW_SIGN_UP"] == "false"


def test_what_is_mounted_is_there() -> None:
    """An engine would make an empty directory of a file that is missing."""
    mounts = [one for service in ALL.values() for one in service.get("volumes", [])]
    sources = [source for source, *_ in (one.split(":") for one in mounts)]
    from_here = [ROOT / source for source in sources if source.startswith(".")]
    assert from_here
    assert [path for path in from_here if not path.exists()] == []
    named = {source for source in sources if not source.startswith(".")}
    assert named <= {*compose(BASE, CLUSTER, MONITORING)["volumes"]}


# ------------------------------------------------------------------ the image


def test_what_the_image_gets_is_enough_to_serve(tmp_path: Path, valkey: Valkey) -> None:
    """The server runs, page and client library too, from what .dockerignore lets through."""
    home = tmp_path / "srv"
    for pattern in re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.MULTILINE):
        found = [*ROOT.glob(pattern)]
        assert found, pattern
        for source in found:
            target = home / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    plugins = "import plugins.jwt_auth, plugins.room_permissions"
    subprocess.run([sys.executable, "-c", plugins], cwd=home, check=True)
    port = free_port()
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, "run.py", "--port", str(port), "--address", "127.0.0.1"],
        cwd=home,
        env=bare | {"SEATWS_REDIS__URL": valkey.url},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: status(port, "/health") == 200 or process.poll() is not None)
        assert process.poll() is None
        assert status(port, "/") == status(port, "/static/seat-selection-client.js") == 200
    finally:
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def status(port: int, path: str) -> int:
    """What a path is answered with; 0 if by nobody."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as answer:
            return int(answer.status)
    except OSError:
        return 0


def test_the_image_is_built_from_the_lock_alone() -> None:
    """In a stage of its own, hashes checked; and no line that not every builder understands."""
    assert len(STAGES) == 2
    assert "--require-hashes -r /requirements.lock" in STAGES[0]
    assert "requirements.txt" not in DOCKERFILE
    assert "pip " not in STAGES[1]
    assert "syntax=" not in DOCKERFILE
