"""The Kubernetes manifests: valid by its schemas, at one with each other and with the server."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

import seatws
from seatws import config
from seatws.web.connection import CLOSE_S
from seatws.web.http import LONGEST_WAIT_S
from seatws.web.listener import LONGEST_ANSWER_S
from seatws.web.sockets import SWEEP_S
from tests.conftest import Starter
from tests.fetch import fetch
from tests.harness import ROOT, Valkey
from tests.ports import free_port

CONF = ROOT / "conf"
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())
KUSTOMIZATION = yaml.safe_load((CONF / "kustomization.yaml").read_text())
ADAPTER = CONF / "kubernetes/prometheus-adapter-values.yaml"
MANIFESTS = {
    manifest["kind"]: manifest
    for name in KUSTOMIZATION["resources"]
    for manifest in yaml.safe_load_all((CONF / name).read_text())
}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
LABELS = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]


def environment(**instead: str) -> dict[str, str]:
    """What the container is given, but with some values of our own."""
    given = {one["name"]: one.get("value", "") for one in CONTAINER["env"]}
    assert instead.keys() <= given.keys()
    return given | instead


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """What the ConfigMap puts into the container."""
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    (volume,) = POD["volumes"]
    assert volume["configMap"]["name"] == generated["name"]
    (mount,) = CONTAINER["volumeMounts"]
    assert (mount["name"], Path(mount["mountPath"]).name) == (volume["name"], "conf")
    there = tmp_path / "conf"
    there.mkdir()
    for name in generated["files"]:
        shutil.copy(CONF / name, there)
    return there


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", MANIFESTS)
def test_each_is_what_kubernetes_takes(kind: str, version: str) -> None:
    """By the schemas of an old, a middle and the newest version; no unknown field passes."""
    kubernetes_validate.validate(MANIFESTS[kind], version, strict=True)


def test_a_misspelt_field_is_noticed() -> None:
    """Else the test above would prove little."""
    (container,) = yaml.safe_load(yaml.safe_dump(POD))["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    spec = MANIFESTS["Deployment"]["spec"] | {"template": template}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(
            MANIFESTS["Deployment"] | {"spec": spec}, VERSIONS[0], strict=True
        )


def test_nothing_is_left_out() -> None:
    """Every manifest is applied, and one of each kind."""
    there = {f"kubernetes/{path.name}" for path in (CONF / "kubernetes").iterdir()}
    assert there - {f"kubernetes/{ADAPTER.name}"} == set(KUSTOMIZATION["resources"])
    assert len(MANIFESTS) == len(KUSTOMIZATION["resources"])


def test_kustomize_may_read_all_that_it_is_told_to() -> None:
    """It takes nothing from above the directory that it is started in."""
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    for name in (*KUSTOMIZATION["resources"], *generated["files"]):
        assert (CONF / name).resolve().is_relative_to(CONF.resolve())
    assert set(generated["files"]) == {path.name for path in CONF.glob("*.toml")}


def test_they_mean_the_same_instances() -> None:
    """What one names, the other has: labels, ports, the Service, the Deployment, the image."""
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == LABELS
    assert MANIFESTS["Service"]["spec"]["selector"] == LABELS
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        spec = MANIFESTS[kind]["spec"]
        assert (spec.get("selector") or spec["podSelector"])["matchLabels"] == LABELS
    for spread in POD["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == LABELS
    ports = {one["name"]: one["containerPort"] for one in CONTAINER["ports"]}
    assert environment()["SEATWS_SERVER__PORT"] == str(ports["http"])
    assert environment()["SEATWS_METRICS__PORT"] == str(ports["metrics"])
    annotations = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])
    (service_port,) = MANIFESTS["Service"]["spec"]["ports"]
    assert service_port["targetPort"] in ports
    (rule,) = MANIFESTS["Ingress"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    name = MANIFESTS["Service"]["metadata"]["name"]
    assert path["backend"]["service"] == {"name": name, "port": {"name": service_port["name"]}}
    assert MANIFESTS["Ingress"]["metadata"]["annotations"]["nginx.org/websocket-services"] == name
    allowed = [
        one["port"] for way in MANIFESTS["NetworkPolicy"]["spec"]["ingress"] for one in way["ports"]
    ]
    assert set(allowed) == set(ports)
    deployment = MANIFESTS["Deployment"]
    assert MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]  # applied again, it would undo the autoscaler's
    (image,) = KUSTOMIZATION["images"]
    assert (image["name"], image["newTag"]) == (CONTAINER["image"], seatws.__version__)


def test_there_is_time_to_drain() -> None:
    """preStop, the drain, and then the longest that clients and requests are waited for."""
    (command, wait) = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    drain_s = float(environment()["SEATWS_SERVER__DRAIN_SECONDS"])
    needed = float(wait) + drain_s + CLOSE_S + 2 * SWEEP_S + LONGEST_ANSWER_S
    assert POD["terminationGracePeriodSeconds"] >= needed + 2


def test_the_ingress_stands_the_longest_silence() -> None:
    """Between two heartbeats, and of a request that waits for a change."""
    settings = config.load(CONF, {})
    silence = settings.heartbeat.interval_seconds + settings.heartbeat.timeout_seconds
    annotations = MANIFESTS["Ingress"]["metadata"]["annotations"]
    for name in ("nginx.org/proxy-read-timeout", "haproxy.org/timeout-server"):
        seconds = int(annotations[name].removesuffix("s"))
        assert seconds > max(silence, LONGEST_WAIT_S)


def test_half_of_the_viewers_more_find_room() -> None:
    """When one of the fewest instances is gone, the others are not full."""
    spec = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
    (metric,) = spec["metrics"]
    average, least = int(metric["pods"]["target"]["averageValue"]), spec["minReplicas"]
    limit = config.load(CONF, {}).limits.connections
    assert average * least / (least - 1) < limit


@pytest.mark.gen_test(timeout=60)
async def test_the_server_starts_with_it_and_answers_its_probes(
    start: Starter, valkey: Valkey, conf: Path
) -> None:
    """With the container's settings and the ConfigMap's; the autoscaler finds its metric."""
    ports = {"http": 0, "metrics": free_port()}
    instead = {
        "SEATWS_SERVER__ADDRESS": "127.0.0.1",
        "SEATWS_METRICS__PORT": str(ports["metrics"]),
        "SEATWS_REDIS__URL": valkey.url,
        "SEATWS_SERVER__DRAIN_SECONDS": "0",
    }
    server = start(valkey.url, conf=conf, **environment(**instead))
    ports["http"] = server.port
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = CONTAINER[name]["httpGet"]
        assert (await fetch(f"http://127.0.0.1:{ports[probe['port']]}{probe['path']}")).code == 200
    scraped = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    url = f"http://127.0.0.1:{ports['metrics']}{scraped['prometheus.io/path']}"
    gauges = re.findall(r"^# TYPE (\S+) gauge$", (await fetch(url)).body.decode(), re.MULTILINE)
    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in gauges


def test_the_adapter_brings_the_metric_of_the_autoscaler() -> None:
    """Under its name, for each pod."""
    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert re.fullmatch(rule["name"]["matches"], name)
    assert rule["name"]["as"] == name
    for label in rule["resources"]["overrides"]:
        assert f'{label}!=""' in rule["seriesQuery"]


def test_what_redis_lacks_restarts_nobody() -> None:
    """Killing an instance brings no Redis back, and disconnects all its viewers."""
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] != "/health"
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/health"


def test_the_container_may_do_nothing_that_it_need_not() -> None:
    """Not root, nothing to write to, no capabilities, no token of the cluster's."""
    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] >= 10_000
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(mount["readOnly"] for mount in CONTAINER["volumeMounts"])
