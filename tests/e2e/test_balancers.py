"""Three instances behind a real nginx and a real HAProxy, as shipped: what the guide promises."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import websockets.asyncio.client
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tornado.ioloop import IOLoop

from seatws import app, config
from seatws.web.http import LONGEST_WAIT_S
from tests.balancers import (
    BALANCERS,
    Balancer,
    HAProxy,
    Nginx,
    Site,
    connections_of,
    three_instances,
)
from tests.fetch import fetch, json_of, problem_of
from tests.harness import LIMIT_S, ROOT, Client, Instance, Valkey, unique, wait_until_async

MOST = 4
"""Connections that one address may have to one instance here."""
SETTINGS = config.load(ROOT / "conf", {})


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """With a path short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="seatws-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def instances(valkey: Valkey, directory: Path) -> Iterator[list[Instance]]:
    """Three, for all tests here."""
    limits = {"SEATWS_LIMITS__CONNECTIONS_PER_ADDRESS": str(MOST)}
    started = three_instances(directory, valkey.url, SEATWS_LOG__LEVEL="debug", **limits)
    yield started
    for instance in started:
        instance.stop()


@pytest.fixture(scope="module")
def site(
    balancer_kind: type[Balancer], instances: list[Instance], directory: Path
) -> Iterator[Site]:
    """A balancer before them, for all tests here that don't change it."""
    yield from started(balancer_kind(directory, instances), instances)


@pytest.fixture
def own_site(
    balancer_kind: type[Balancer], instances: list[Instance], directory: Path
) -> Iterator[Site]:
    """A balancer that the test may change."""
    yield from started(balancer_kind(directory, instances), instances)


def started(balancer: Balancer, instances: list[Instance]) -> Iterator[Site]:
    """A balancer while it runs."""
    balancer.start()
    yield Site(balancer, instances)
    balancer.stop()


@pytest.fixture(autouse=True)
def alone(instances: list[Instance], io_loop: IOLoop) -> Iterator[None]:
    """At the end of a test, wait until nobody of it is connected any more."""

    async def until_all_are_gone() -> None:
        while any(await connections_of(instances)):
            pass

    yield
    io_loop.run_sync(until_all_are_gone, timeout=LIMIT_S)


class Visitors:
    """Clients from an address each, all of them connected until the end."""

    def __init__(self, url: str) -> None:
        self.clients: list[Client] = []
        self._url = url
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._stack.aclose()

    async def one_more(self) -> Client:
        """Connect one."""
        address = f"127.0.1.{len(self.clients) + 1}"
        client = Client.connect(self._url, local_addr=(address, 0))
        self.clients.append(await self._stack.enter_async_context(client))
        return self.clients[-1]


@pytest.mark.gen_test(timeout=60)
async def test_the_scenario_of_the_guide(site: Site) -> None:
    """Connect, join, select, be told of others, release, ping; over more than one instance."""
    room = unique("room")
    async with Visitors(site.balancer.url) as visitors:
        while sum(count > 0 for count in await site.connections()) < 2:
            assert (await (await visitors.one_more()).join(room))["selections"] == []
        ann, *others = visitors.clients
        selected = await ann.select(room, "A12", user_info={"name": "Ann"})
        assert selected["type"] == "seat_selected"
        for other in others:
            told = await other.heard(lambda message: message["type"] == "seat_selected")
            assert (told["client_id"], told["user_info"]) == (ann.client_id, {"name": "Ann"})
            assert (await other.select(room, "A12"))["code"] == "seat_taken"
        assert (await ann.release(room, "A12"))["type"] == "seat_released"
        for other in others:
            told = await other.heard(lambda message: message["type"] == "seat_released")
            assert told["seat_id"] == "A12"
        for client in visitors.clients:
            assert (await client.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_the_addresses_of_the_guide(site: Site) -> None:
    """By HTTP, with what a browser needs, and errors in the server's own words."""
    room, http = unique("room"), site.balancer.http
    seats = f"{http}/room/{room}/selections"
    assert json_of(await fetch(f"{http}/health"))["status"] == "healthy"
    assert json_of(await fetch(f"{http}/stats"))["active_connections"] == 0
    held = await fetch(f"{seats}/A1", "PUT", {"client_id": "ann", "user_info": {"name": "Ann"}})
    assert json_of(held, 201)["seat_id"] == "A1"
    problem_of(await fetch(f"{seats}/A1", "PUT", {"client_id": "bob"}), 409, "seat_taken")
    shown = await fetch(seats, Origin="https://example.com")
    assert json_of(shown)["count"] == 1
    assert shown.headers["Access-Control-Allow-Origin"] == "*"
    assert (await fetch(seats, If_None_Match=shown.headers["ETag"])).code == 304
    assert (await fetch(f"{seats}/A1?client_id=ann", "DELETE")).code == 204
    problem_of(await fetch(f"{seats}/A%2F1", "PUT", {"client_id": "ann"}), 400, "invalid_message")
    problem_of(await fetch(f"{http}/nowhere"), 404, "not_found")
    problem_of(await fetch(f"{http}/ws/ann"), 426, "invalid_message")
    big = await fetch(f"{seats}/A1", "PUT", b'{"client_id": "' + b"x" * 20_000)
    problem_of(big, 413, "invalid_message")
    assert b"<html" in (await fetch(f"{http}/")).body


@pytest.mark.gen_test(timeout=60)
async def test_figures_stay_inside(site: Site) -> None:
    """Prometheus asks each instance; the world asks in vain."""
    assert (await fetch(f"{site.balancer.http}/metrics")).code == 404
    for instance in site.instances:
        assert (await fetch(f"{instance.http}/metrics")).code == 200


@pytest.mark.gen_test(timeout=60)
async def test_who_polls_needs_no_instance_of_its_own(site: Site) -> None:
    """Each request may go elsewhere: all know what one told. A change comes at once."""
    room = unique("room")
    url = f"{site.balancer.http}/room/{room}/selections"
    await fetch(f"{url}/A1", "PUT", {"client_id": "ann"})
    line = f"/room/{room}/selections 304"
    tag = (await fetch(url)).headers["ETag"]

    def serve() -> int:
        return sum(line in instance.log for instance in site.instances)

    async with asyncio.timeout(30):
        while serve() < len(site.instances):
            assert (await fetch(f"{url}?wait=0.01", If_None_Match=tag)).code == 304
    waiting = [asyncio.ensure_future(fetch(f"{url}?wait=25", If_None_Match=tag)) for _ in range(6)]
    await asyncio.gather(*(fetch(f"{site.balancer.http}/health") for _ in range(20)))
    assert not any(one.done() for one in waiting)
    await fetch(f"{url}/A2", "PUT", {"client_id": "bob"})
    assert {json_of(one)["count"] for one in await asyncio.gather(*waiting)} == {2}


FORGED = (
    {"X-Real-IP": "127.0.0.77"},
    {"X-Forwarded-For": "127.0.0.77"},
    {"X-Forwarded-For": "127.0.0.77, 127.0.0.77", "X-Real-IP": "127.0.0.77, 127.0.0.77"},
    {"x-real-ip": "127.0.0.77", "X_Real_IP": "127.0.0.77", "Forwarded": "for=127.0.0.77"},
)


@pytest.mark.gen_test(timeout=60)
async def test_the_clients_address_is_the_clients_own(site: Site) -> None:
    """Limits by address hold through the balancer: nobody gets around them as somebody else, and
    nobody uses up somebody else's."""
    most = MOST * len(site.instances)

    def connect(
        address: str, headers: dict[str, str]
    ) -> contextlib.AbstractAsyncContextManager[Client]:
        local = (address, 0)
        return Client.connect(site.balancer.url, local_addr=local, additional_headers=headers)

    async with contextlib.AsyncExitStack() as stack:
        answers = []
        for number in range(most + 1):
            forged = FORGED[number % len(FORGED)]
            client = await stack.enter_async_context(connect("127.0.0.66", forged))
            if await is_let_in(client):
                answers.append("let in")
            else:
                answers.append(str(client.socket.close_code))
        assert "4429" in answers
        assert answers.count("let in") >= MOST
        for _ in range(MOST):  # as many as may be on one instance, if it comes to that
            client = await stack.enter_async_context(connect("127.0.0.77", {}))
            assert await is_let_in(client)


async def is_let_in(client: Client) -> bool:
    """Whether it gets an answer, rather than being closed."""
    with contextlib.suppress(Exception):
        await client.send(type="ping")
    await wait_until_async(lambda: bool(client.received))
    if client.received[0]["type"] == "pong":
        return True
    await client.closed()
    return False


@pytest.mark.gen_test(timeout=60)
async def test_tokens_and_client_ids_stay_out_of_its_log(site: Site) -> None:
    """What is asked for is logged, without its query; a client's id may be an e-mail address."""
    room, secret, client_id = unique("room"), unique("hush"), unique("ann") + "@example.com"
    await fetch(f"{site.balancer.http}/room/{room}/selections?access_token={secret}")
    async with websockets.asyncio.client.connect(
        f"{site.balancer.url}/ws/{client_id}?access_token={secret}"
    ):
        pass
    await wait_until_async(lambda: room in site.balancer.log and "/ws/-" in site.balancer.log)
    assert secret not in site.balancer.log
    assert client_id not in site.balancer.log


@pytest.mark.gen_test(timeout=60)
async def test_an_instance_is_taken_out_by_hand(own_site: Site) -> None:
    """Its viewers stay, and who comes goes to the others."""
    async with Visitors(own_site.balancer.url) as visitors:
        while not all(await own_site.connections()):
            await visitors.one_more()
        before = await own_site.connections()
        await asyncio.to_thread(own_site.balancer.take_out, 0)
        for _ in range(8):
            await visitors.one_more()
        assert (await own_site.connections())[0] == before[0]
        assert sum(await own_site.connections()) == sum(before) + 8
        for client in visitors.clients:
            assert (await client.ask(type="ping"))["type"] == "pong"


@pytest.mark.gen_test(timeout=60)
async def test_tls_is_one_comment_away(
    balancer_kind: type[Balancer], instances: list[Instance], directory: Path
) -> None:
    """With what is commented out in use there is wss://, and http:// only sends there."""
    trusted = make_certificate(directory)
    balancer = balancer_kind(directory, instances, directory)
    assert "warn" not in balancer.check().lower()
    balancer.start()
    try:
        context = ssl.create_default_context(cafile=trusted)
        url = f"wss://localhost:{balancer.tls_port}"
        async with Client.connect(url, ssl=context) as client:
            assert (await client.join(unique("room")))["selections"] == []
        sent_on = await fetch(f"{balancer.http}/health?a=b")
        assert sent_on.code == 308
        assert re.fullmatch(r"https://127.0.0.1(:\d+)?/health\?a=b", sent_on.headers["Location"])
    finally:
        balancer.stop()


def make_certificate(directory: Path) -> Path:
    """For localhost, under the names that the configurations use; what to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (directory / "fullchain.pem").write_bytes(certificate)
    (directory / "privkey.pem").write_bytes(private)
    (directory / "seatws.pem").write_bytes(certificate + private)
    return directory / "fullchain.pem"


def seconds_of(pattern: str, conf: str) -> list[float]:
    """The times that a configuration gives there."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    found = re.findall(rf"^\s*{pattern}\s+(\d+)(ms|s|m|h)\b", conf, re.MULTILINE)
    assert found, pattern
    return [int(count) * units[unit] for count, unit in found]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Nginx, ["proxy_read_timeout", "proxy_send_timeout"]),
        (HAProxy, ["timeout tunnel", "timeout client", "timeout server"]),
    ],
    ids=[kind.name for kind in BALANCERS],
)
def test_they_stand_the_longest_silence(kind: type[Balancer], settings: list[str]) -> None:
    """Of a WebSocket between two heartbeats, and of a request that waits for a change."""
    heartbeat = SETTINGS.heartbeat
    silence_s = max(heartbeat.interval_seconds + heartbeat.timeout_seconds, LONGEST_WAIT_S)
    for setting in settings:
        (seconds,) = seconds_of(setting, kind.shipped.read_text())
        assert seconds >= silence_s + 10


def test_the_instances_never_hang_up_first() -> None:
    """nginx keeps an idle connection for less long than they do. (HAProxy does for 5 s.)"""
    kept_s = min(seconds_of("keepalive_timeout", Nginx.shipped.read_text()))
    assert kept_s < app.IDLE_S


def test_the_shipped_configuration_is_good(
    balancer_kind: type[Balancer], instances: list[Instance], directory: Path
) -> None:
    """It has nothing to warn of."""
    said = balancer_kind(directory, instances).check().lower()
    assert "warn" not in said
    assert "alert" not in said
