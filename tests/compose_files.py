"""Compose's files and the Dockerfile, read for the tests that need no engine."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.harness import ROOT

BASE = "docker-compose.yml"
CLUSTER = "compose.cluster.yml"
MONITORING = "compose.monitoring.yml"
Service = dict[str, Any]


def compose(*files: str) -> dict[str, Any]:
    """What Compose makes of files, one over the other, as far as these need it."""
    found: dict[str, Any] = {"services": {}, "networks": {}, "volumes": {}}
    for file in files:
        read = yaml.safe_load((ROOT / file).read_text())
        for part, entries in found.items():
            for name, entry in (read.get(part) or {}).items():
                before = entries.get(name) or {}
                merged = {**before, **(entry or {})}
                for key in {"networks", "depends_on", "environment"} & {*before} & {*(entry or {})}:
                    merged[key] = {**as_table(before[key]), **as_table(entry[key])}
                entries[name] = merged
    return found


def as_table(entries: Any) -> dict[str, Any]:
    """What may be written as a list, as a table."""
    return entries if isinstance(entries, dict) else dict.fromkeys(entries)


def without_variables(text: str) -> str:
    """A text with the defaults of its `${NAME:-default}`."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


BASE_SERVICES: dict[str, Service] = compose(BASE)["services"]
CLUSTER_SERVICES: dict[str, Service] = compose(BASE, CLUSTER)["services"]
ALL: dict[str, Service] = compose(BASE, CLUSTER, MONITORING)["services"]
LASTING = sorted(name for name, service in ALL.items() if service["restart"] == "unless-stopped")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = DOCKERFILE.split("\nFROM ")[1:]
