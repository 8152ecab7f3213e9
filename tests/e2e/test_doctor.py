"""`python run.py doctor`, as a person runs it: what it finds, what it says to do, its exit code."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from seatws.doctor.rights import rights_for
from tests.clusters import Cluster
from tests.conftest import Starter
from tests.doctoring import Line, doctor
from tests.harness import Client, Instance, Valkey, conf_with, unique, wait_until
from tests.nodes import Access
from tests.sentinels import Sentinels

SECRET = "hunter2"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to run it in, which it must leave as it is."""
    return tmp_path_factory.mktemp("clean")


# ---------------------------------------------------------------- settings


def test_settings_that_can_t_be_used_end_it(tmp_path: Path) -> None:
    """As at the start of an instance: each problem on stderr, code 2, nothing else looked at."""
    conf = conf_with(tmp_path / "conf")
    (conf / "seatws.toml").write_text('[holds]\nseconds = "5m"\n')
    report = doctor(tmp_path, conf=conf)
    assert (report.code, report.out) == (2, "")
    assert "holds.seconds: expected a whole number" in report.errors


def test_a_plugin_that_can_t_be_used_ends_it(tmp_path: Path) -> None:
    """Plugins are loaded, as by --check."""
    report = doctor(tmp_path, conf=conf_with(tmp_path / "conf", 'use = "no.such"'))
    assert report.code == 2
    assert "no.such" in report.errors


def test_a_room_s_id_has_to_be_one(tmp_path: Path) -> None:
    """It is said what one is."""
    report = doctor(tmp_path, "--room", "a room")
    assert (report.code, report.out) == (2, "")
    assert "1 to 64 of" in report.errors


# ---------------------------------------------------------------- nothing runs yet


def test_before_the_first_start(clean: Path) -> None:
    """The embedded Redis is not started for it, and nothing is made."""
    report = doctor(clean)
    assert report.code == 0, report.out
    assert report.levels("port") == ["ok"]
    (data,) = report.said_of("redis.data_dir data")
    assert data.text.startswith("not there yet, and can be made")
    (redis,) = report.said_of("Redis")
    assert redis.text.startswith("the embedded one does not run now")
    assert list(clean.iterdir()) == []
    (_, open_mode) = report.said_of("settings")
    assert open_mode.level == "warning"
    assert open_mode.text.startswith("open mode")


def test_a_port_that_something_else_has(clean: Path) -> None:
    """Whatever it is: silent, or a server of another kind; in either case not waited for long."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answers = threading.Thread(target=_answer_once, args=(taken,))
        answers.start()
        report = doctor(clean, SEATWS_SERVER__PORT=str(taken.getsockname()[1]))
        answers.join()
    (port,) = report.said_of("port")
    assert port.level == "problem"
    assert port.text.endswith("stop what has it, or choose another server.port or server.address")
    assert report.code == 1


def _answer_once(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(
            b'HTTP/1.0 200 OK\r\n\r\n{"service": "another", '
            b'"status": "healthy", "active_connections": 1}'
        )


# ---------------------------------------------------------------- an instance that runs


def beside(server: Instance, valkey: Valkey) -> dict[str, str]:
    """Settings that lead to an instance and to its Redis."""
    return {"SEATWS_REDIS__URL": valkey.url, "SEATWS_SERVER__PORT": str(server.port)}


@pytest.mark.gen_test(timeout=120)
async def test_beside_a_running_instance(
    start: Starter, own_valkey: Valkey, tmp_path: Path
) -> None:
    """It finds the instance, its Redis and its room; every viewer is left in peace."""
    server, room = start(own_valkey.url), unique("room")
    settings: dict[str, Any] = beside(server, own_valkey)
    async with Client.connect(server.url, "ann") as ann, Client.connect(server.url, "bob") as bob:
        await ann.join(room)
        await bob.select(room, "A1", user_info={"name": SECRET})
        await ann.until(lambda: ann.revs[room] == [1])
        before = len(ann.received)
        report = await asyncio.to_thread(doctor, tmp_path, "--room", room, **settings)
        assert report.code == 0, report.out
        (port,) = report.said_of("port")
        assert "an instance runs on 127.0.0.1" in port.text
        assert port.text.endswith("healthy, 2 connections")
        (found,) = report.said_of(f"room {room}")
        assert found.text.endswith("seats held: 1, rev 1, instances that follow: 1")
        assert len(ann.received) == before
        assert (await ann.select(room, "B1"))["rev"] == 2
        assert SECRET not in report.out
    (about,) = (line for line in report.lines if line.text.startswith(own_valkey.url))
    assert about.level == "ok"
    assert {line.level for line in report.lines if line.about == "Redis"} == {"ok"}
    for part in ("fitness", "persistence", "replication", "memory", "latency", "clock", "rights"):
        assert report.levels(part)[-1:] == ["ok"], part


def test_beside_an_instance_whose_redis_is_away(start: Starter, own_valkey: Valkey) -> None:
    """Both are told: the instance is unhealthy, and why."""
    server = start(own_valkey.url)
    own_valkey.kill()
    wait_until(lambda: "Redis is away" in server.log)
    settings: dict[str, Any] = beside(server, own_valkey)
    report = doctor(own_valkey.directory, "--room", "r", **settings)
    assert report.code == 1
    (port,) = report.said_of("port")
    assert (port.level, "unhealthy" in port.text) == ("problem", True)
    (reachable,) = report.said_of("reachable")
    assert "can't be used" in reachable.text
    (room,) = report.said_of("room r")
    assert (room.level, room.text.endswith("; see above")) == ("problem", True)


def test_the_embedded_redis_of_a_running_instance(
    start: Starter, tmp_path: Path, short_path: Path
) -> None:
    """Found by its directory, and asked like any other."""
    start("embedded", SEATWS_REDIS__DATA_DIR=str(short_path / "data"))
    report = doctor(tmp_path, SEATWS_REDIS__DATA_DIR=str(short_path / "data"))
    assert report.code == 0, report.out
    embedded = [line for line in report.lines if line.about == "Redis (embedded)"]
    assert len(embedded) >= 8
    assert {line.level for line in embedded} == {"ok"}
    (data,) = report.said_of(f"redis.data_dir {short_path / 'data'}")
    assert "MiB of data" in data.text


def test_damage_in_a_room(start: Starter, own_valkey: Valkey) -> None:
    """Each kind on a line, and code 1; a room that is sound beside it is sound."""
    room = unique("room")
    with own_valkey.client() as client:
        client.hset(f"seatws:{{{room}}}:owners", "ann", "1")
    report = doctor(own_valkey.directory, "--room", room, SEATWS_REDIS__URL=own_valkey.url)
    assert report.code == 1
    assert report.levels(f"room {room}") == ["problem"] * 3
    assert "DEL" in report.said_of(f"room {room}")[0].text
    report = doctor(own_valkey.directory, "--room", "other", SEATWS_REDIS__URL=own_valkey.url)
    assert report.levels("room other") == ["ok"]


# ---------------------------------------------------------------- a Redis that is guarded


@pytest.fixture
def guarded(own_valkey: Valkey) -> str:
    """The URL of a Redis, for a user with the rights that the doctor asks for and no more."""
    with own_valkey.client() as client:
        rules = rights_for("seatws", is_cluster=False).split()
        client.execute_command("ACL", "SETUSER", "seats", "on", f">{SECRET}", *rules)
    return f"unix://seats:{SECRET}@{own_valkey.socket}"


@pytest.mark.gen_test(timeout=60)
async def test_a_user_with_the_rights_that_it_names_has_enough(
    guarded: str, start: Starter, clean: Path
) -> None:
    """For an instance, too; the password is nowhere."""
    report = await asyncio.to_thread(doctor, clean, "--room", "r", SEATWS_REDIS__URL=guarded)
    assert report.levels("rights") == ["ok"], report.out
    assert report.levels("room r") == ["ok"]
    assert "unix://***@/" in report.out
    assert SECRET not in report.out + report.errors
    server, room = start(guarded), unique("room")
    async with Client.connect(server.url, "ann") as ann, Client.connect(server.url) as bob:
        await bob.join(room)
        await ann.select(room, "A1")
        await ann.release(room, "A1")
        await bob.until(lambda: bob.revs[room] == [1, 2])
    assert "NOPERM" not in server.log


def test_a_wrong_password(guarded: str, clean: Path) -> None:
    """It is told as such, and not told."""
    report = doctor(clean, SEATWS_REDIS__URL=guarded.replace(SECRET, f"{SECRET}2"))
    (line,) = report.said_of("reachable")
    assert line.text == (
        "can't be used: it refused the user or the password; put the right ones into "
        "SEATWS_REDIS__URL"
    )
    assert report.code == 1
    assert SECRET not in report.out + report.errors


def test_an_option_that_redis_py_does_not_take(valkey: Valkey, clean: Path) -> None:
    """Said in a line."""
    report = doctor(clean, SEATWS_REDIS__URL=f"{valkey.url}?colour=red")
    (line,) = (line for line in report.lines if line.level == "problem")
    assert "redis.url has an option that redis-py does not take" in line.text


# ---------------------------------------------------------------- several servers


def of_servers(lines: list[Line], part: str) -> dict[str, str]:
    """What was said of one thing, by server."""
    return {
        line.about: line.text.removeprefix(f"{part}: ")
        for line in lines
        if line.text.startswith(f"{part}: ")
    }


@pytest.mark.gen_test(timeout=120)
async def test_every_server_of_a_cluster(start: Starter, short_path: Path, clean: Path) -> None:
    """Primaries, replicas, the room wherever it is; then one that is lost."""
    cluster = Cluster(short_path, Access(password=SECRET))
    try:
        cluster.start()
        server = start(cluster.url())
        *_, (room,) = cluster.rooms_by_primary(1).values()  # not the first one's
        settings: dict[str, Any] = {"SEATWS_REDIS__URL": cluster.url()}
        async with Client.connect(server.url) as client:
            await client.join(room)
            await client.select(room, "A1")
            report = await asyncio.to_thread(doctor, clean, "--room", room, **settings)
        assert report.code == 0, report.out
        assert report.levels("cluster") == ["ok"]
        names = {f"Redis {node.at}" for node in cluster.nodes}
        assert of_servers(report.lines, "reachable").keys() == names
        roles = of_servers(report.lines, "replication").values()
        assert sum(role.startswith("a primary, 1 replicas") for role in roles) == 3
        assert sum(role.startswith("a replica, in touch") for role in roles) == 3
        assert len(of_servers(report.lines, "rights")) == 3, "only primaries are written to"
        (found,) = report.said_of(f"room {room}")
        assert found.text.endswith("seats held: 1, rev 1, instances that follow: 1")
        assert SECRET not in report.out

        lost = cluster.replicas_of(cluster.owner_of(room))[0]
        lost.kill()
        cluster.until_well()
        report = await asyncio.to_thread(doctor, clean, **settings)
        assert any(f"{lost.at} is lost" in line.text for line in report.said_of("cluster"))
        alone = cluster.owner_of(room)
        assert any(
            f"{alone.at} has rooms and no replica" in line.text
            for line in report.said_of("cluster")
        )
    finally:
        cluster.stop()


def test_every_server_behind_sentinels(short_path: Path, clean: Path) -> None:
    """Sentinels, primary, replicas; then too few Sentinels for a failover."""
    servers = Sentinels(short_path, Access(password=SECRET))
    try:
        servers.start()
        report = doctor(clean, "--room", "r", SEATWS_REDIS__URL=servers.url)
        assert report.code == 0, report.out
        named = [line.text for line in report.lines if line.about.startswith("Sentinel ")]
        assert named == [f"the primary is {servers.primary.at}"] * 3
        assert of_servers(report.lines, "reachable").keys() == {
            f"Redis {node.at}" for node in servers.servers
        }
        assert "a primary, 2 replicas in touch" in of_servers(report.lines, "replication").values()
        assert report.levels("room r") == ["ok"]

        wrong = servers.url.replace("/seats", "/chairs")
        report = doctor(clean, SEATWS_REDIS__URL=wrong)
        assert [line.level for line in report.lines if line.about.startswith("Sentinel ")] == [
            "problem"
        ] * 3
        assert "it watches no 'chairs'" in report.out

        for sentinel in servers.sentinels[:2]:
            sentinel.kill()
        left = servers.sentinels[2]
        wait_until(lambda: _has_no_quorum(left))
        report = doctor(clean, SEATWS_REDIS__URL=servers.url)
        assert report.code == 1
        assert "it does not reach enough other Sentinels" in report.out
        assert report.out.count("Connection refused") == 2
    finally:
        servers.stop()


def _has_no_quorum(sentinel: Any) -> bool:
    try:
        sentinel.ask("SENTINEL", "CKQUORUM", "seats")
    except Exception as exc:
        return "NOQUORUM" in str(exc)
    return False
