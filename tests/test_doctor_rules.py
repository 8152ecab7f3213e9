"""What the doctor makes of what servers and machines say of themselves: rules without I/O."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from seatws.app import BACKLOG
from seatws.config import Config, Limits, Redis, Server
from seatws.doctor import machine, server_rules, topology
from seatws.doctor.finding import Finding
from seatws.redis_url import split_redis_url
from seatws.store.health import parse_info

GOOD = {
    "redis_version": "7.2.4",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "used_memory": "1048576",
    "maxmemory": "104857600",
    "total_system_memory": "1073741824",
    "connected_clients": "5",
    "maxclients": "10000",
    "role": "master",
}


def levels(found: Iterable[Finding]) -> list[str]:
    return [one.level for one in found]


# ---------------------------------------------------------------- a server of Redis


def test_info_is_read_as_it_comes() -> None:
    """Sections, empty values, colons in values."""
    text = "# Server\r\nredis_version:7.2.4\r\nexecutable:/a:b\r\nempty:\r\n\r\n# Memory\r\n"
    assert parse_info(text) == {
        "redis_version": "7.2.4",
        "executable": "/a:b",
        "empty": "",
    }


def test_a_good_server_is_good() -> None:
    """One line for each thing that was looked at, and what it is."""
    found = [
        *server_rules.health(GOOD, 0.1, is_cluster=False),
        *server_rules.persistence(GOOD, "everysec"),
        *server_rules.replication(GOOD, 0),
        server_rules.memory(GOOD),
        server_rules.clients(GOOD),
        server_rules.latency([0.001] * 20),
        *server_rules.clock(0.1),
    ]
    assert [one.what for one in found] == [
        "Redis 7.2.4, never drops a hold (maxmemory-policy noeviction)",
        "append-only file, a power cut loses a second",
        "a primary without replicas: while it is away no seat can be held",
        "1 MiB used, 1% of maxmemory",
        "5 connections, 10000 at the most",
        "median 1.0 ms, at most 1.0 ms in 20",
        "0.100 s ahead of this machine's",
    ]
    assert set(levels(found)) == {"ok"}
    assert not any(one.fix for one in found)


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({"redis_version": "6.0.16"}, "problem", "6.0.16 is too old"),
        ({"maxmemory_policy": "allkeys-lru"}, "problem", "maxmemory-policy allkeys-lru"),
        ({"aof_enabled": "0"}, "warning", "appendonly off"),
        ({"aof_last_write_status": "err"}, "warning", "can't write to its disk"),
    ],
)
def test_what_an_instance_says_at_its_start_is_said_here(
    changed: dict[str, str], level: str, words: str
) -> None:
    """A refusal is a problem, a warning a warning; the fix stands apart."""
    found = list(server_rules.health(GOOD | changed, 0.0, is_cluster=False))
    (one,) = (one for one in found if one.level != "ok")
    assert one.level == level
    assert words in one.what
    assert one.fix


def test_a_clock_that_is_off_is_told_once() -> None:
    """By the rule of the start, and then not again as a figure."""
    found = [*server_rules.health(GOOD, -90.0, is_cluster=False), *server_rules.clock(-90.0)]
    (one,) = (one for one in found if "clock" in one.what)
    assert one.level == "warning"
    assert "90 s behind this machine's" in one.what


@pytest.mark.parametrize(
    ("fsync", "level", "words"),
    [
        ("always", "ok", "append-only file, a power cut loses nothing"),
        ("everysec", "ok", "append-only file, a power cut loses a second"),
        (None, "ok", "append-only file"),
        ("no", "warning", "a power cut forgets the holds of half a minute"),
    ],
)
def test_what_a_power_cut_leaves(fsync: str | None, level: str, words: str) -> None:
    """As far as it can be known."""
    (found,) = server_rules.persistence(GOOD, fsync)
    assert (found.level, found.what.endswith(words)) == (level, True)


def replicas(*states: str) -> dict[str, str]:
    return GOOD | {
        f"slave{number}": f"ip=127.0.0.1,port=1,state={state},offset=1"
        for number, state in enumerate(states)
    }


@pytest.mark.parametrize(
    ("info", "wanted", "level", "words"),
    [
        (replicas("online,lag=0", "online,lag=1"), 2, "ok", "a primary, 2 replicas in touch"),
        (replicas("online,lag=0"), 2, "problem", "1 replicas in touch, and redis.replicas_ack"),
        (replicas("online,lag=60"), 1, "problem", "0 replicas in touch, and redis.replicas_ack"),
        (replicas("online,lag=0", "online,lag=60"), 1, "warning", "1 of 2 replicas are behind"),
        (replicas("wait_bgsave,lag=0"), 0, "warning", "1 of 1 replicas are behind"),
        ({"role": "slave", "master_link_status": "up"}, 2, "ok", "a replica, in touch"),
        ({"role": "slave", "master_link_status": "down"}, 0, "warning", "has lost its primary"),
    ],
)
def test_who_has_a_copy(info: dict[str, str], wanted: int, level: str, words: str) -> None:
    """And whether there are as many as each change has to wait for."""
    (found,) = server_rules.replication(info, wanted)
    assert found.level == level
    assert words in found.what
    assert bool(found.fix) == (level != "ok")


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({}, "ok", "1% of maxmemory"),
        ({"used_memory": "90000000"}, "warning", "86% of maxmemory"),
        ({"maxmemory": "0"}, "ok", "0% of the memory of its machine"),
        ({"maxmemory": "0", "used_memory": "1000000000"}, "warning", "93% of the memory of its"),
        ({"maxmemory": "0", "total_system_memory": "0"}, "ok", "1 MiB used"),
    ],
)
def test_how_full_it_is(changed: dict[str, str], level: str, words: str) -> None:
    """Measured at what it may use."""
    found = server_rules.memory(GOOD | changed)
    assert found.level == level
    assert words in found.what


@pytest.mark.parametrize(
    ("round_trips_ms", "level"),
    [([1] * 20, "ok"), ([1] * 19 + [99], "ok"), ([1] * 19 + [150], "warning"), ([15], "warning")],
)
def test_how_far_away_it_is(round_trips_ms: list[float], level: str) -> None:
    """A click is to feel immediate, and one stall is worth a look."""
    assert server_rules.latency([ms / 1000 for ms in round_trips_ms]).level == level


def test_connections_that_run_out_are_told() -> None:
    """Before it refuses them."""
    assert server_rules.clients(GOOD | {"connected_clients": "9000"}).level == "warning"


# ---------------------------------------------------------------- a cluster

SOUND = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"
NODES = """
a1 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-8191
a2 127.0.0.1:7002@17002 master - 0 0 2 connected 8192-16383
b1 127.0.0.1:7003@17003 slave a1 0 0 1 connected
b2 127.0.0.1:7004@17004 slave a2 0 0 2 connected
"""


@pytest.mark.parametrize(
    ("info", "nodes", "said"),
    [
        (SOUND, NODES, {"ok": "its state is ok"}),
        (
            SOUND.replace("ok", "fail").replace("16384", "8192"),
            NODES,
            {"problem": "its state is fail, 8192 of 16384 slots are assigned"},
        ),
        (
            SOUND,
            NODES.replace("slave a2", "slave,fail a2"),
            {"ok": "its state", "warning": "127.0.0.1:7004 is lost (slave,fail)"},
        ),
        (
            SOUND,
            NODES.replace("slave a2", "slave a1"),
            {"ok": "its state", "warning": "127.0.0.1:7002 has rooms and no replica"},
        ),
        (SOUND, f"{NODES}c 127.0.0.1:7005@17005 master - 0 0 3 connected\n", {"ok": "its state"}),
    ],
    ids=["sound", "slots without a server", "a lost replica", "no replica", "one without slots"],
)
def test_what_a_server_thinks_of_its_cluster(info: str, nodes: str, said: dict[str, str]) -> None:
    """State, lost servers, primaries without a replica; one without rooms needs none."""
    lines = [line.split() for line in nodes.strip().splitlines()]
    found = list(topology.cluster_state(info, lines))
    told = {one.level: one.what for one in found if "replica" not in one.what or len(said) > 1}
    assert told.keys() == said.keys()
    for level, words in said.items():
        assert words in told[level]  # type: ignore[index]  # one of its words


def test_who_is_in_a_cluster() -> None:
    """Primaries with their slots; replicas, those too that SLOTS leaves out; not the lost ones."""
    ranges = [
        [0, 8191, ["127.0.0.1", 7001, "a1", []], ["seats.example", 7003, "b1", []]],
        [8192, 16383, ["", 7002, "a2", []]],
    ]
    nodes = f"{NODES}b3 127.0.0.1:7005@17005 slave,fail a2 0 0 2 disconnected\n"
    seen = topology.Seen(
        ("127.0.0.9", 7002), ranges, SOUND, [line.split() for line in nodes.strip().splitlines()]
    )
    url = split_redis_url("redis+cluster://:secret@127.0.0.9:7002")
    assert url is not None
    servers = list(topology.servers_in(seen, url, Redis()))
    assert [(server.name, server.is_replica, len(server.slots or ())) for server in servers] == [
        ("Redis 127.0.0.1:7001", False, 8192),
        ("Redis 127.0.0.9:7002", False, 8192),
        ("Redis seats.example:7003", True, 0),
        ("Redis 127.0.0.1:7004", True, 0),
    ]
    assert [server.has("foo") for server in servers] == [False, True, False, False]  # slot 12182


# ---------------------------------------------------------------- the machine


def config(connections: int) -> Config:
    return Config(limits=Limits(connections=connections))


@pytest.mark.parametrize(
    ("connections", "soft", "hard", "level", "words"),
    [
        (20_000, 65_536, 65_536, "ok", "at most 65536, for 20000 connections 20100"),
        (20_000, resource.RLIM_INFINITY, resource.RLIM_INFINITY, "ok", "at most any number"),
        (20_000, 1024, 1_048_576, "warning", "so some 924 connections"),
        (0, 1024, 1024, "warning", "not the 20000"),
        (900, 1024, 1024, "ok", "for 900 connections 1000"),
    ],
)
def test_open_files(connections: int, soft: int, hard: int, level: str, words: str) -> None:
    """One a connection, and some for the rest; a hard limit that is in the way is told."""
    found = machine.open_files(config(connections), (soft, hard))
    assert found.level == level
    assert words in found.what
    if level == "warning":
        assert "ulimit -n 20100" in found.fix
        assert ("hard limit" in found.fix) == (hard < 20_100)


def test_the_backlog() -> None:
    """What the kernel allows, beside what the server asks for."""
    assert machine.backlog(BACKLOG).level == "ok"
    found = machine.backlog(128)
    assert found.level == "warning"
    assert f"sysctl net.core.somaxconn={BACKLOG}" in found.fix


def test_memory() -> None:
    """Enough for all connections that the settings allow, or not."""
    assert machine.memory(config(20_000), 1 << 30).level == "ok"
    found = machine.memory(config(100_000), 1 << 30)
    assert found.level == "warning"
    assert found.what == "1024 MiB to be had, 100000 connections take some 1076"


def test_memory_is_the_container_s_where_there_is_one(tmp_path: Path) -> None:
    """Of either version of cgroups; `max` is no limit."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9999 kB\nMemAvailable:   8192 kB\nBuffers: 1 kB\n")
    cgroup = tmp_path / "cgroup"
    (cgroup / "memory").mkdir(parents=True)
    assert machine.available_bytes(meminfo, cgroup) == 8192 * 1024
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("1024\n")
    assert machine.available_bytes(meminfo, cgroup) == 8192 * 1024
    (cgroup / "memory.max").write_text("3072\n")
    assert machine.available_bytes(meminfo, cgroup) == 2048
    (cgroup / "memory.max").unlink()
    (cgroup / "memory/memory.limit_in_bytes").write_text("4096\n")
    (cgroup / "memory/memory.usage_in_bytes").write_text("5000\n")
    assert machine.available_bytes(meminfo, cgroup) == 0


def test_an_address_of_another_machine_is_none_to_listen_on() -> None:
    """Told with the keys to change."""
    settings = Config(server=Server(address="192.0.2.1", port=8001))
    (found,) = machine.ports(settings)
    assert found.level == "problem"
    assert "server.address" in found.fix


def test_looking_at_a_port_does_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be had right after; what has it and is silent is not waited for long."""
    monkeypatch.setattr(machine, "ASK_S", 0.1)
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    settings = Config(server=Server(address="127.0.0.1", port=port))
    (found,) = machine.ports(settings)
    assert found == Finding("ok", "port", f"127.0.0.1:{port} is free: no instance runs there")
    with socket.create_server(("127.0.0.1", port)):
        (found,) = machine.ports(settings)
        assert found.level == "problem"


def test_a_place_for_data(tmp_path: Path) -> None:
    """There already, to be made, or not to be made."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"x" * (1 << 20))
    (found,) = machine.data_directory(tmp_path / "data")
    assert (found.level, found.what[:20]) == ("ok", "1.0 MiB of data, " + found.what[17:20])
    (found,) = machine.data_directory(tmp_path / "not" / "yet")
    assert found.what.startswith("not there yet, and can be made")
    assert not (tmp_path / "not").exists()
    (found,) = machine.data_directory(tmp_path / "data" / "file" / "below")
    assert found.level == "problem"
    assert "redis.data_dir" in found.fix
