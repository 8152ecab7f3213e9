"""Programs of others: `curl` for HTTP, the `websockets` package, and two instances that agree."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
from websockets.typing import Subprotocol

from tests.conftest import Starter
from tests.harness import LIMIT_S, Client, Instance, Valkey, unique

JSON = "application/json"
PROBLEM = "application/problem+json"
SIX_FIELDS = {"client_id", "seat_id", "room_id", "user_info", "timestamp", "expires_at"}


@dataclass
class Answer:
    """What curl got."""

    status: int
    headers: dict[str, str]
    body: str
    took_s: float

    @property
    def json(self) -> Any:
        """The body, which must say that it is JSON, or a problem in JSON."""
        assert self.headers["content-type"] in (JSON, PROBLEM)
        return json.loads(self.body)


def curl(url: str, *options: str) -> Answer:
    """Ask with curl, as from a shell."""
    return answer_of(curl_in_the_background(url, *options))


def curl_in_the_background(url: str, *options: str) -> subprocess.Popen[str]:
    """As `curl ... &`."""
    report = "\n%{time_total}"
    return subprocess.Popen(
        ["curl", "-sS", "-i", "-m", str(LIMIT_S), "-w", report, *options, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer_of(running: subprocess.Popen[str]) -> Answer:
    """Wait for what it gets."""
    output, errors = running.communicate(timeout=2 * LIMIT_S)
    assert running.returncode == 0, errors
    head, body = output.split("\n\n", 1)
    body, _, took_s = body.rpartition("\n")
    status, *lines = head.splitlines()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(status.split()[1]), headers, body, float(took_s))


def put(url: str, client_id: str, **user_info: str) -> Answer:
    """Ask for a seat."""
    body = json.dumps({"client_id": client_id, "user_info": user_info})
    return curl(url, "-X", "PUT", "-H", f"Content-Type: {JSON}", "-d", body)


# ---------------------------------------------------------------- curl


def test_curl_reads_health_and_stats(server: Instance) -> None:
    """The guide's two addresses, without an option."""
    health = curl(f"{server.http}/health")
    assert health.status == 200
    assert health.json["status"] == "healthy"
    assert health.json["service"] == "websocket"
    assert health.json["redis_connected"] is True
    stats = curl(f"{server.http}/stats")
    assert stats.status == 200
    assert {"active_connections", "active_rooms", "temporary_selections"} <= stats.json.keys()


def test_curl_holds_a_seat_and_gives_it_back(server: Instance) -> None:
    """PUT and DELETE from a shell: 201, 200, 409, 409, 204, and a map that is true in between."""
    room = unique("room")
    map_url = f"{server.http}/room/{room}/selections"
    seat_url = f"{map_url}/A1"
    taken = put(seat_url, "ann", name="Ann Ñandú")
    assert taken.status == 201
    assert taken.json.keys() == SIX_FIELDS
    assert taken.json["user_info"] == {"name": "Ann Ñandú"}
    assert curl(map_url).json == {"room_id": room, "selections": [taken.json], "count": 1}

    again = put(seat_url, "ann", name="Other")
    assert (again.status, again.json) == (200, taken.json)
    refused = put(seat_url, "bob")
    assert (refused.status, refused.json["code"]) == (409, "seat_taken")
    assert refused.json["conflicts"] == [{"seat_id": "A1", "expires_at": taken.json["expires_at"]}]
    not_hers = curl(f"{seat_url}?client_id=bob", "-X", "DELETE")
    assert (not_hers.status, not_hers.json["code"]) == (409, "not_holder")
    released = curl(f"{seat_url}?client_id=ann", "-X", "DELETE")
    assert (released.status, released.body) == (204, "")
    assert curl(map_url).json == {"room_id": room, "selections": [], "count": 0}


def test_curl_does_not_load_a_map_twice(server: Instance, tmp_path: Path) -> None:
    """With curl's own `--etag-save` and `--etag-compare`: 304 until something changes."""
    map_url = f"{server.http}/room/{unique('room')}/selections"
    put(f"{map_url}/A1", "ann")
    tag = tmp_path / "tag"
    first = curl(map_url, "--etag-save", str(tag))
    assert first.status == 200
    assert tag.read_text().strip() == first.headers["etag"]
    same = curl(map_url, "--etag-compare", str(tag))
    assert (same.status, same.body) == (304, "")
    assert same.headers["etag"] == first.headers["etag"]
    put(f"{map_url}/A2", "ann")
    other = curl(map_url, "--etag-compare", str(tag))
    assert (other.status, other.json["count"]) == (200, 2)
    assert other.headers["etag"] != first.headers["etag"]


def test_curl_waits_for_a_change(server: Instance) -> None:
    """`?wait=`: 304 when the seconds pass, the new map as soon as there is one."""
    map_url = f"{server.http}/room/{unique('room')}/selections"
    known = curl(map_url).headers["etag"]
    nothing = curl(f"{map_url}?wait=1", "-H", f"If-None-Match: {known}")
    assert nothing.status == 304
    assert nothing.took_s >= 1
    waiting = curl_in_the_background(f"{map_url}?wait=25", "-H", f"If-None-Match: {known}")
    put(f"{map_url}/A1", "ann")
    changed = answer_of(waiting)
    assert (changed.status, changed.json["count"]) == (200, 1)
    assert changed.headers["etag"] != known
    assert changed.took_s < 20


# ---------------------------------------------------------------- websockets


@pytest.mark.parametrize("compression", ["deflate", None], ids=["compressed", "plain"])
@pytest.mark.parametrize("offered", [["seatws.v1"], None], ids=["subprotocol", "none"])
@pytest.mark.gen_test(timeout=60)
async def test_a_library_speaks_the_guides_protocol(
    compression: str | None, offered: list[Subprotocol] | None, server: Instance
) -> None:
    """With and without compression and subprotocol, every message of the guide."""
    room = unique("room")
    options: dict[str, Any] = {"compression": compression, "subprotocols": offered}
    async with (
        Client.connect(server.url, **options) as ann,
        Client.connect(server.url, **options) as bob,
    ):
        assert ann.socket.subprotocol == (offered and offered[0])
        assert bool(ann.socket.protocol.extensions) is (compression is not None)
        await ann.join(room)
        await bob.join(room)
        info = {"name": "Ann", "note": "x" * 900}
        assert (await ann.select(room, "A1", user_info=info))["client_id"] == ann.client_id
        news = await bob.heard(lambda message: message["type"] == "seat_selected")
        assert news["user_info"] == info
        assert (await bob.select(room, "A1"))["code"] == "seat_taken"
        assert (await ann.release(room, "A1"))["type"] == "seat_released"
        await bob.heard(lambda message: message["type"] == "seat_released")
        assert re.fullmatch(r"\d{4}-.*T.*\.\d{3}Z", (await bob.ask(type="ping"))["timestamp"])
        assert (await bob.ask(type="leave_room", room_id=room))["type"] == "room_left"


def test_a_blocking_client_works_as_well(server: Instance) -> None:
    """The package's `sync` client, in the thread of whoever calls it."""
    room = unique("room")
    with websockets.sync.client.connect(f"{server.url}/ws/ann") as client:
        client.send(json.dumps({"type": "join_room", "room_id": room}))
        kinds = [json.loads(client.recv(LIMIT_S))["type"] for _ in range(2)]
        assert kinds == ["room_joined", "current_selections"]


# ---------------------------------------------------------------- two instances


@pytest.mark.gen_test(timeout=60)
async def test_two_processes_on_one_redis_show_the_same_room(
    valkey: Valkey, start: Starter
) -> None:
    """Whatever is done on one, by WebSocket or by curl, is seen on the other, by either."""
    one, two = start(valkey.url), start(valkey.url)
    assert one.port != two.port
    room = unique("room")
    path = f"room/{room}/selections"
    async with Client.connect(one.url) as ann, Client.connect(two.url) as bob:
        await ann.join(room)
        await bob.join(room)
        await ann.select(room, "A1")
        await bob.select(room, "B1")
        by_curl = await asyncio.to_thread(put, f"{two.http}/{path}/C1", "cleo")
        assert by_curl.status == 201
        expected = {"A1": ann.client_id, "B1": bob.client_id, "C1": "cleo"}
        await ann.until(lambda: ann.maps[room] == expected)
        await bob.until(lambda: bob.maps[room] == expected)
        for server in (one, two):
            shown = (await asyncio.to_thread(curl, f"{server.http}/{path}")).json["selections"]
            assert {each["seat_id"]: each["client_id"] for each in shown} == expected
        assert (await bob.select(room, "A1"))["code"] == "seat_taken"
        refused = await asyncio.to_thread(put, f"{one.http}/{path}/B1", "cleo")
        assert refused.json["code"] == "seat_taken"
