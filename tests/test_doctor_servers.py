"""What the doctor says of a real Redis: how it is set, and what a user may do there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seatws.config import Redis
from seatws.doctor.finding import Finding
from seatws.doctor.rights import probes, rights_for
from seatws.doctor.servers import Server, open_at
from seatws.store.keys import room_keys
from tests.harness import ROOT, Valkey, unique, wait_until

PASSWORD = "hunter2"
RIGHTS = rights_for("seatws", is_cluster=False)


def look(url: str) -> dict[str, list[Finding]]:
    """What is said, by what it is about."""
    settings = Redis(url=url)
    server = Server("Redis", open_at(url, settings))
    said: dict[str, list[Finding]] = {}
    try:
        for found in server.findings(settings):
            said.setdefault(found.about.removeprefix("Redis: "), []).append(found)
    finally:
        server.client.close()
    return said


def problems(said: dict[str, list[Finding]]) -> list[Finding]:
    return [one for found in said.values() for one in found if one.level == "problem"]


@pytest.fixture(scope="module")
def redis_of_ours(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Valkey]:
    """One whose settings and users the tests here may change."""
    with tempfile.TemporaryDirectory(prefix="seatws-") as directory:
        server = Valkey(Path(directory))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def set_to(redis_of_ours: Valkey) -> Iterator[Callable[[dict[str, str]], None]]:
    """Gives that Redis other settings, for one test."""
    with redis_of_ours.client() as client:
        before: dict[str, str] = {}

        def set_it(settings: dict[str, str]) -> None:
            for name, value in settings.items():
                before.update(client.config_get(name))
                client.config_set(name, value)

        yield set_it
        for name, value in before.items():
            client.config_set(name, value)


@pytest.mark.parametrize(
    ("settings", "about", "level", "words"),
    [
        ({}, "fitness", "ok", "never drops a hold"),
        ({"maxmemory-policy": "volatile-ttl"}, "fitness", "problem", "may drop holds"),
        ({"appendonly": "no"}, "fitness", "warning", "appendonly off"),
        ({"appendfsync": "no"}, "persistence", "warning", "power cut forgets"),
        ({"maxmemory": "1kb"}, "memory", "warning", "of maxmemory"),
        ({"maxmemory": "1kb"}, "writing", "problem", "its memory is full"),
        ({"min-replicas-to-write": "1"}, "writing", "problem", "it has too few replicas"),
        ({"maxclients": "3"}, "clients", "ok", "2 connections, 3 at the most"),
        ({"maxclients": "2"}, "clients", "warning", "2 connections of 2 at the most"),
    ],
)
def test_how_it_is_set(
    redis_of_ours: Valkey,
    set_to: Callable[[dict[str, str]], None],
    settings: dict[str, str],
    about: str,
    level: str,
    words: str,
) -> None:
    """It is said what may be lost or is refused, and how to change it."""
    set_to(settings)
    (found,) = (one for one in look(redis_of_ours.url)[about] if words in one.what)
    assert found.level == level
    assert bool(found.fix) == (level != "ok")


def test_a_replica_where_a_primary_should_be(own_valkey: Valkey) -> None:
    """Nothing can be stored there, whatever else may be good."""
    with own_valkey.client() as client:
        client.replicaof("127.0.0.1", "1")
    said = look(own_valkey.url)
    assert [found.level for found in said["replication"]] == ["warning"]
    assert [found.what for found in said["writing"]] == ["it refuses every change: it is a replica"]


def test_a_disk_that_can_t_be_written_to(short_path: Path) -> None:
    """Redis refuses every change then; both are told."""
    server = Valkey(short_path, **{"save": "3600 1", "enable-protected-configs": "yes"})
    server.start()
    gone = short_path / "gone"
    gone.mkdir()
    try:
        with server.client() as client:
            client.config_set("dir", str(gone))
            gone.rmdir()
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        said = look(server.url)
    finally:
        server.stop()
    (warning,) = (found for found in said["fitness"] if found.level == "warning")
    assert "can't write to its disk" in warning.what
    assert [found.what for found in said["writing"]] == [
        "it refuses every change: it can't write to its disk"
    ]


def test_asking_changes_nothing(own_valkey: Valkey) -> None:
    """No key, no script, and no write that a replica or the append-only file would hear of."""
    with own_valkey.client() as client:
        before = client.info("replication")["master_repl_offset"], client.info("stats")
        look(own_valkey.url)
        after = client.info("replication")["master_repl_offset"], client.info("stats")
        assert before[0] == after[0]
        assert client.dbsize() == 0
        assert client.info("memory")["number_of_cached_scripts"] == 0
        assert client.info("persistence")["rdb_changes_since_last_save"] == 0


# ---------------------------------------------------------------- what a user may do


@pytest.fixture
def as_user(redis_of_ours: Valkey) -> Iterator[Callable[[str], str]]:
    """Makes a user with some rights, and the URL for it."""
    with redis_of_ours.client() as client:
        names = []

        def make(rules: str) -> str:
            names.append(unique("user"))
            words = ["on", f">{PASSWORD}", *rules.split()]
            client.execute_command("ACL", "SETUSER", names[-1], *words)
            return f"unix://{names[-1]}:{PASSWORD}@{redis_of_ours.socket}"

        yield make
        for name in names:
            client.acl_deluser(name)


def test_the_rights_that_are_named_are_enough(as_user: Callable[[str], str]) -> None:
    """With them all is well."""
    said = look(as_user(RIGHTS))
    assert problems(said) == []
    assert [found.level for found in said["rights"]] == ["ok"]


@pytest.mark.parametrize("command", sorted({*probes(room_keys("s", ""), is_cluster=False)}))
def test_a_command_that_is_missing_is_named(as_user: Callable[[str], str], command: str) -> None:
    """That one, and no other; with the words that give it."""
    said = look(as_user(f"{RIGHTS} -{command.lower().replace(' ', '|')}"))
    (found,) = problems(said)
    if command == "TIME":  # without it nothing more can be asked
        assert found.about == "Redis: reachable"
        assert "'time'" in found.what
    else:
        assert found.about == "Redis: rights"
        assert found.what.startswith(f"this user may not {command}, with keys and channels")
    assert f"`ACL SETUSER <user> {RIGHTS}` there" in found.fix


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (
            "~seatws:*",
            "HGET, HMGET, HGETALL, HSET, HDEL, ZADD, ZREM, ZRANGEBYSCORE, ZREVRANGE, PEXPIREAT, "
            "EVALSHA",
        ),
        ("&seatws:*", "PUBLISH, SUBSCRIBE"),
        ("+@write", "HSET, HDEL, ZADD, ZREM, PEXPIREAT"),
    ],
)
def test_what_needs_keys_or_channels_is_named_together(
    as_user: Callable[[str], str], missing: str, named: str
) -> None:
    """In one line."""
    (found,) = problems(look(as_user(RIGHTS.replace(missing, ""))))
    assert found.what.startswith(f"this user may not {named}, with keys and channels seatws:*")


@pytest.mark.parametrize("missing", ["+info", "+@connection"])
def test_who_may_not_even_ask_is_told_so(as_user: Callable[[str], str], missing: str) -> None:
    """And how to give what is missing."""
    (found,) = problems(look(as_user(RIGHTS.replace(missing, ""))))
    assert found.about == "Redis: reachable"
    assert "no permissions" in found.what
    assert RIGHTS in found.fix


def test_every_command_of_the_scripts_is_asked_after(valkey: Valkey) -> None:
    """Else one that a new script uses would be missing on the day it is needed."""
    with valkey.client() as client:
        commands = {str(name).upper() for name in client.command_list()}
    asked = probes(room_keys("seatws", ""), is_cluster=False)
    scripts = {file.stem: file for file in (ROOT / "seatws/store/lua").glob("*.lua")}
    del scripts["inspect"]  # the doctor's own
    for file in scripts.values():
        used = set(re.findall(r"'([A-Z]+)'", re.sub(r"--.*", "", file.read_text()))) & commands
        assert used
        assert used <= asked.keys()
