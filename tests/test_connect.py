"""Getting to a Redis: by every kind of URL, on both kinds of loop, past what goes wrong there."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import inspect
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis.asyncio
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from seatws.config import Config, Redis
from seatws.errors import SeatwsError, StoreError
from seatws.store import connect
from seatws.store.feed import Feed
from seatws.store.servers import ServerAt
from seatws.store.topology import topology_of
from tests.harness import Valkey, unique, wait_until_async
from tests.ports import free_port
from tests.stores import PATIENT, Ear, FakeRedis, Shape, answer_to, ok, opened, short
from tests.stores import own_shape as own_shape
from tests.stores import shape as shape

SECRET = "hemme@lig/42"
IN_URL = "hemme%40lig%2F42"

pytestmark = pytest.mark.usefixtures("io_loop")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Everything here on each kind of loop: their transports differ."""
    return request.param  # type: ignore[no-any-return]


async def works(url: str) -> None:
    """Holds can be made through this URL, and heard of by a feed that has it, too."""
    room, ear = unique("room"), Ear()
    feed = Feed(Config(), topology_of(Config(), url), "another1", ear)
    async with opened(url) as store:
        await feed.open()
        try:
            await answer_to(lambda done: feed.subscribe(room, done))
            info = b'{"x":"%s"}' % (b"x" * 1000)
            seats = [f"S{number}" for number in range(500)]
            answers = [store.select(room, f"c{seat}", seat, user_info=info) for seat in seats]
            assert {short(answer)[0] for answer in await asyncio.gather(*answers)} == {"ok"}
            await ear.until(lambda: ear.revs(room) == list(range(1, 501)))
            assert set((await store.snapshot(room)).holds) == set(seats)
            assert ear.events == store.ear.events
        finally:
            await feed.close()


SOON = Config(redis=Redis(connect_timeout_seconds=0.5))


async def fails(url: str, config: Config = PATIENT) -> str:
    """Opening this URL fails in words that an operator can read; returns them."""
    with pytest.raises(StoreError) as caught:
        async with opened(url, config):
            pass
    said = str(caught.value)
    assert said
    assert "\n" not in said
    return said


# ---------------------------------------------------------------- redis-py


@pytest.mark.gen_test(timeout=60)
async def test_private_names_of_redis_py_are_still_there(shape: Shape) -> None:
    """connect.py takes the connection over by names that redis-py may change in any version."""
    used = set(re.findall(r"connection\.(_\w+)", inspect.getsource(connect)))
    assert used == {"_writer", "_close"}
    pool: redis.asyncio.ConnectionPool = redis.asyncio.ConnectionPool.from_url(shape.url)
    connection: redis.asyncio.Connection = pool.make_connection()  # type: ignore[no-untyped-call]
    assert connection._writer is None
    await connection.connect()  # type: ignore[no-untyped-call]
    assert isinstance(connection._writer, asyncio.StreamWriter)
    transport = connection._writer.transport
    connection._close()
    assert transport.is_closing()
    assert connection._writer is None


OPTIONS = [
    "?db=3",
    "?protocol=3",
    "?client_name=x",
    "?socket_timeout=9",
    "?health_check_interval=1",
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.gen_test(timeout=60)
async def test_options_in_the_url_do_no_harm(shape: Shape, options: str) -> None:
    """Those that redis-py knows and that mean something here."""
    await works(shape.url + options)


@pytest.mark.parametrize("options", ["?decode_responses=true", "?colour=red", "?db=99"])
@pytest.mark.gen_test(timeout=60)
async def test_option_that_is_not_for_us_is_no_traceback(shape: Shape, options: str) -> None:
    """It does no harm, or is refused in words: it is the operator's, or a newer redis-py's."""
    with contextlib.suppress(SeatwsError):
        await works(shape.url + options)


# ---------------------------------------------------------------- redis:// and rediss://


@pytest.fixture
def tcp_valkey(short_path: Path) -> Iterator[tuple[Valkey, int]]:
    """A Valkey that also listens on a port."""
    port = free_port()
    server = Valkey(short_path, port=str(port))
    server.start()
    yield server, port
    server.stop()


@pytest.mark.gen_test(timeout=60)
async def test_tcp_and_its_database_number(tcp_valkey: tuple[Valkey, int]) -> None:
    """Holds are in the database that the URL names, and there alone."""
    server, port = tcp_valkey
    await works(f"redis://127.0.0.1:{port}")
    room = unique("room")
    async with opened(f"redis://localhost:{port}/5") as store:
        assert short(await store.select(room, "ann", "A1")) == ok(("A1", 1))
    with server.client() as client:
        assert not client.keys(f"*{room}*")
        client.select(5)
        assert len(client.keys(f"*{room}*")) == 4


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For `localhost`, signed by itself; the key is in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "seatws test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem)
    )
    return path


@contextlib.asynccontextmanager
async def tls_before(valkey: Valkey, certificate: Path) -> AsyncIterator[int]:
    """Ends TLS in front of a Valkey, which has none itself; the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    serving: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        behind, to_behind = await asyncio.open_unix_connection(valkey.socket)
        await asyncio.gather(copy(reader, to_behind), copy(behind, writer), return_exceptions=True)
        serving.discard(task)

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*serving)


@pytest.mark.gen_test(timeout=60)
async def test_tls_with_a_certificate_that_is_trusted(valkey: Valkey, certificate: Path) -> None:
    """Works as without, large replies and all, and comes back after a cut."""
    async with tls_before(valkey, certificate) as port:
        url = f"rediss://localhost:{port}?ssl_ca_certs={certificate}"
        await works(url)
        async with opened(url) as store:
            valkey.cut()
            await store.ear.until_state("store up")
            assert short(await store.select(unique("room"), "ann", "A1")) == ok(("A1", 1))


@pytest.mark.gen_test(timeout=60)
async def test_tls_with_a_certificate_that_is_not_trusted_is_refused(
    valkey: Valkey, certificate: Path
) -> None:
    """Nobody knows who signed it, or it is another server's."""
    async with tls_before(valkey, certificate) as port:
        assert "certificate" in await fails(f"rediss://localhost:{port}")
        other_name = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"
        assert "certificate" in await fails(other_name)


@pytest.mark.gen_test(timeout=60)
async def test_tls_asked_of_a_server_that_has_none_is_an_error(
    tcp_valkey: tuple[Valkey, int], valkey: Valkey, certificate: Path
) -> None:
    """And the other way about: an error in time, nothing that hangs."""
    await fails(f"rediss://localhost:{tcp_valkey[1]}", SOON)
    async with tls_before(valkey, certificate) as port:
        await fails(f"redis://localhost:{port}", SOON)


# ---------------------------------------------------------------- who may


@pytest.fixture
def guarded(own_valkey: Valkey, own_shape: Shape) -> Shape:
    """A Redis with a password, and a user `shop` who has the same one."""
    user = ["shop", "on", f">{SECRET}", "~seatws:*", "&seatws:*", "+@all"]
    own_shape.redis.execute_command("ACL", "SETUSER", *user)
    own_shape.redis.config_set("requirepass", SECRET)
    return own_shape


@pytest.mark.parametrize("user", ["", "default", "shop"])
@pytest.mark.gen_test(timeout=60)
async def test_right_password_opens(guarded: Shape, user: str) -> None:
    """With a user's name or without, its special characters percent-encoded."""
    await works(guarded.url.replace("unix://", f"unix://{user}:{IN_URL}@"))


WRONG = {
    "none": "",
    "another": f"shop:{IN_URL}x@",
    "of nobody": f"nobody:{IN_URL}@",
    "of the default user": f":x{IN_URL}@",
}


@pytest.mark.parametrize("credentials", WRONG.values(), ids=WRONG)
@pytest.mark.gen_test(timeout=60)
async def test_wrong_password_is_refused_and_not_shown(
    guarded: Shape, credentials: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The error says that it was refused; the password is in no error and no log, whole or not."""
    caplog.set_level(logging.DEBUG)
    said = await fails(guarded.url.replace("unix://", f"unix://{credentials}"))
    assert "password" in said.lower() or "auth" in said.lower()
    assert "lig" not in said
    assert "lig" not in caplog.text


@pytest.mark.gen_test(timeout=60)
async def test_password_is_not_shown_by_a_server_that_repeats_it(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Redis does where AUTH was renamed, and what only looks like Redis may do."""

    async def repeat(command: list[bytes], writer: asyncio.StreamWriter) -> bytes:
        return b"-ERR unknown command 'AUTH', with args beginning with: '%s'\r\n" % command[-1]

    caplog.set_level(logging.DEBUG)
    fake = FakeRedis(short_path / "s", AUTH=repeat)
    async with fake.running():
        said = await fails(fake.url.replace("unix://", f"unix://:{IN_URL}@"))
    assert "lig" not in said
    assert "lig" not in caplog.text


@pytest.mark.gen_test(timeout=60)
async def test_password_that_is_changed_keeps_us_out_until_it_is_back(
    guarded: Shape, caplog: pytest.LogCaptureFixture
) -> None:
    """Tried again and again, and neither the old one nor the new one is logged."""
    caplog.set_level(logging.DEBUG)
    async with opened(guarded.url.replace("unix://", f"unix://:{IN_URL}@")) as store:
        guarded.redis.config_set("requirepass", "another-lig")
        guarded.redis.client_kill_filter(_type="normal", skipme=True)
        await store.ear.until_state("store down")
        await wait_until_async(lambda: caplog.text.count("still away") >= 2)
        assert store.ear.states == ["store down"]
        guarded.redis.config_set("requirepass", SECRET)
        await store.ear.until_state("store up")
    assert "lig" not in caplog.text


# ---------------------------------------------------------------- what goes wrong on the way


@pytest.mark.gen_test(timeout=60)
async def test_nothing_at_the_address_is_an_error_at_once(short_path: Path) -> None:
    """One line, whatever the kind of address."""
    for url in (f"unix://{short_path}/nothing", f"redis://127.0.0.1:{free_port()}"):
        await fails(url)


@pytest.mark.gen_test(timeout=60)
async def test_server_that_accepts_and_says_nothing_is_given_up(
    own_valkey: Valkey, own_shape: Shape
) -> None:
    """All the steps of opening have `connect_timeout_seconds` together."""
    own_valkey.pause()
    began_at = time.monotonic()
    await fails(own_shape.url, SOON)
    assert time.monotonic() - began_at < 0.5 + 0.5


@pytest.mark.gen_test(timeout=60)
async def test_server_that_lets_us_in_and_puts_us_out_again_is_not_stormed(
    short_path: Path,
) -> None:
    """The pauses between attempts grow until a connection has stood for some time.

    As with a replica that refuses each command, or a user who may not subscribe: every attempt
    has all rooms read anew, and a line in the log.
    """
    ups: list[float] = []

    def up() -> None:
        ups.append(time.monotonic())
        link.abort()

    async with FakeRedis(short_path / "s").running() as fake:
        link = connect.KeptLink(
            ServerAt(fake.url),
            1.0,
            greet=connect.say_nothing,
            on_reply=lambda reply: None,
            on_up=up,
            on_down=lambda: None,
        )
        await link.open()
        await wait_until_async(lambda: len(ups) > 6)
        await link.close()
    assert ups[6] - ups[0] > 0.6


@pytest.mark.gen_test(timeout=60)
async def test_store_that_closes_while_it_tries_again_stops_trying(
    own_valkey: Valkey, own_shape: Shape
) -> None:
    """No task is left, and nobody is told of anything any more."""
    async with opened(own_shape.url) as store:
        own_valkey.kill()
        await store.ear.until_state("store down")
    assert asyncio.all_tasks() == {asyncio.current_task()}
    own_valkey.start()
    assert store.ear.states == ["store down"]
