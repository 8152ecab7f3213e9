"""Fixtures: a cluster of six with three instances on it, and the balancers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.balancers import BALANCERS, Balancer
from tests.clusters import Cluster
from tests.harness import Instance
from tests.programs import program


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """Started once. Tests ask for `cluster`, which is whole each time."""
    path = Path(tempfile.mkdtemp(prefix="seatws-"))
    cluster = Cluster(path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """Three primaries with a replica each, all of them alive, whatever the last test did."""
    shared_cluster.mend()
    return shared_cluster


@pytest.fixture(scope="session")
def shared_fleet(
    shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sequence[Instance]]:
    """Started once, and stopped and looked through once."""
    path = tmp_path_factory.mktemp("fleet")
    fleet = start_together([Instance(path, shared_cluster.url()) for _ in range(3)])
    yield fleet
    for instance in fleet:
        instance.stop()


@pytest.fixture
def fleet(cluster: Cluster, shared_fleet: Sequence[Instance]) -> Sequence[Instance]:
    """Three instances on `cluster`. Tests leave them running."""
    del cluster  # it is whole before anybody asks them for something
    return shared_fleet


def start_together(instances: Sequence[Instance]) -> Sequence[Instance]:
    """Start instances at once: most of a start is loading Python."""
    for instance in instances:
        instance.launch("--port", "0")
    for instance in instances:
        instance.started()
    return instances


@pytest.fixture(scope="module", params=BALANCERS, ids=lambda kind: str(kind.name))
def balancer_kind(request: pytest.FixtureRequest) -> type[Balancer]:
    """Which balancer; skipped where it is not installed."""
    kind: type[Balancer] = request.param
    program(kind.name)
    return kind
