"""TLS and passwords with an ordinary Redis 7, in every shape, and what is said of wrong ones.

The bundled Valkey has no TLS; Debian's Redis has.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.certificates import Authority
from tests.clusters import Cluster, slot_of
from tests.conftest import Starter
from tests.e2e.shards import Load
from tests.e2e.traffic import seeded
from tests.harness import LIMIT_S, HasRooms, Instance, unique
from tests.nodes import Access, Node
from tests.programs import program
from tests.sentinels import Sentinels

PASSWORD = "hunter2-of-redis"


class Shape(NamedTuple):
    """A Redis of one shape, which lets in who trusts its authority and has the password."""

    url: str
    has: HasRooms | Cluster

    def rooms(self) -> list[str]:
        """New ones, one on each shard."""
        if isinstance(self.has, Cluster):
            return [room for (room,) in self.has.rooms_by_primary(1).values()]
        return [unique("room")]

    def of(self, room_id: str) -> HasRooms:
        """For looking into a room."""
        return self.has.of(room_id) if isinstance(self.has, Cluster) else self.has


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """For all of this module's servers."""
    path = Path(tempfile.mkdtemp(prefix="seatws-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def access(directory: Path) -> Access:
    """Who is let in."""
    authority = Authority(directory, "authority")
    certificate, key = authority.vouch("redis")
    return Access(PASSWORD, authority.certificate, certificate, key)


@pytest.fixture(scope="module")
def stranger(directory: Path) -> Path:
    """The certificate of an authority that vouches for nobody here."""
    return Authority(directory, "stranger").certificate


@pytest.fixture(scope="module")
def single(directory: Path, access: Access) -> Iterator[Shape]:
    """One server."""
    settings = access.data_settings() | {"appendonly": "yes"}
    redis_server = program("redis-server")
    node = Node(directory / "single", settings.items(), access, program=redis_server)
    node.start()
    yield Shape(node.url, node)
    node.stop()


@pytest.fixture(scope="module")
def sentinel(directory: Path, access: Access) -> Iterator[Shape]:
    """A primary, its replicas and Sentinels."""
    group = Sentinels(directory, access, program=program("redis-server"))
    try:
        group.start()
        yield Shape(group.url, group)
    finally:
        group.stop()


@pytest.fixture(scope="module")
def cluster(directory: Path, access: Access) -> Iterator[Shape]:
    """Six servers."""
    group = Cluster(directory, access, program=program("redis-server"))
    try:
        group.start()
        yield Shape(group.url(), group)
    finally:
        group.stop()


@pytest.fixture
def shape(request: pytest.FixtureRequest) -> Shape:
    """One of them."""
    found: Shape = request.getfixturevalue(request.param)
    return found


every_shape = pytest.mark.parametrize("shape", ["single", "sentinel", "cluster"], indirect=True)


@pytest.mark.gen_test(timeout=60)
@every_shape
async def test_holds_are_kept_behind_tls_and_a_password(shape: Shape, start: Starter) -> None:
    """Traffic over two instances breaks no promise, and the log has no secret."""
    instances = [start(shape.url), start(shape.url)]
    async with Load(shape.rooms(), instances, seeded(), shape.of) as load:
        for _ in range(5):
            await load.flows()
        await load.judge()
        load.assert_undisturbed()
    for instance in instances:
        assert PASSWORD not in instance.log


@pytest.mark.gen_test(timeout=60)
async def test_a_cluster_of_ordinary_redis_changes_under_traffic(
    cluster: Shape, start: Starter
) -> None:
    """A primary hands over and a slot moves, behind TLS: no promise is broken."""
    group = cluster.has
    assert isinstance(group, Cluster)
    instances = [start(cluster.url) for _ in range(2)]
    rooms = cluster.rooms()
    async with Load(rooms, instances, seeded(), cluster.of) as load:
        primary = group.primaries[0]
        await asyncio.to_thread(group.fail_over, primary)
        await load.is_right()
        await asyncio.to_thread(group.until_well)
        room = rooms[0]
        target = next(node for node in group.primaries if node is not group.owner_of(room))
        await asyncio.to_thread(group.move_slots, [slot_of(room)], target)
        await load.is_right()
        await load.judge()


Refuse = Callable[[str], str]


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    """Starts an instance that must not start with this URL, and returns what it says."""

    def start_and_read(url: str) -> str:
        instance = Instance(tmp_path, url)
        instance.launch("--port", "0")
        assert instance.process is not None
        assert instance.process.wait(LIMIT_S) == 2, instance.log
        assert "redis.url: can't use redis" in instance.log
        assert "Traceback" not in instance.log
        assert "hunter" not in instance.log
        return instance.log

    return start_and_read


@every_shape
def test_a_wrong_password_is_refused_in_plain_words(shape: Shape, refuse: Refuse) -> None:
    """At the start, and without the password."""
    said = refuse(shape.url.replace(PASSWORD, "hunter3-of-redis"))
    assert "it refused the user or the password" in said


def test_a_missing_password_is_refused_in_plain_words(single: Shape, refuse: Refuse) -> None:
    """The same."""
    assert "it refused the user or the password" in refuse(single.url.replace(f":{PASSWORD}@", ""))


@every_shape
def test_a_server_that_nobody_vouches_for_is_refused_in_plain_words(
    shape: Shape, access: Access, stranger: Path, refuse: Refuse
) -> None:
    """The word certificate is in the answer."""
    said = refuse(shape.url.replace(str(access.authority), str(stranger)))
    assert "certificate" in said


def test_a_plain_connection_to_tls_is_refused(cluster: Shape, refuse: Refuse) -> None:
    """Who forgets the second `s` is told what cannot be used."""
    refuse(cluster.url.replace("rediss", "redis").partition("?")[0])
