"""An issuer of tokens for the tests: keys, tokens good and forged, and a real server of its keys.

The server runs on the test's own loop, so that a test which blocks the loop would stop it, too. It
can serve, rotate keys, lie, stall and die.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tornado.httputil import HTTPHeaders
from tornado.ioloop import IOLoop

from plugins.jwt_auth import JwtAuth
from seatws.plugins import ConnectRequest, Identity, NotAllowed, NotReady
from seatws.settings import read_settings
from tests.harness import LIMIT_S

ISSUER = "https://id.example.com/"
AUDIENCE = "seatws"
CANARY = "canary-4f1d"
"""Stands in every secret and every claim but the checked ones, and must stand nowhere else."""
SECRET = f"{CANARY}-secret-of-at-least-64-bytes-so-that-it-is-enough-for-each-hash"

Json = dict[str, Any]


def claims(**changes: Any) -> Json:
    """What a good token says; a change to `...` takes the claim out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ana",
        "exp": int(time.time()) + 3600,
        "iat": int(time.time()),
        "name": CANARY,
        "roles": [CANARY],
    }
    return without_left_out(good | changes)


def without_left_out(members: Json) -> Json:
    """What is `...` is left out."""
    return {name: value for name, value in members.items() if value is not ...}


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(header: Json | str | bytes, body: Any, sign: Callable[[bytes], bytes]) -> str:
    """A token of any header and claims, as JSON or as they stand, signed by any means."""
    parts = [
        part if isinstance(part, bytes) else str(part).encode()
        for part in (x if isinstance(x, str | bytes) else json.dumps(x) for x in (header, body))
    ]
    signed = ".".join(map(base64url, parts))
    return f"{signed}.{base64url(sign(signed.encode()))}"


@dataclass(frozen=True)
class SigningKey:
    """One key of the issuer: what it signs with, and what others check with."""

    algorithm: str
    private: Any
    kid: str = ""

    def sign(self, message: bytes) -> bytes:
        return jwt.get_algorithm_by_name(self.algorithm).sign(message, self.private)

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A good token, but for what is changed in its header and its claims."""
        head = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid or ..., **(header or {})}
        return forge(without_left_out(head), claims(**changes), self.sign)

    @property
    def pem(self) -> bytes:
        public = self.private.public_key()
        return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    @property
    def private_pem(self) -> bytes:
        return bytes(self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def jwk(self, **changes: Any) -> Json:
        """Its public half as an issuer publishes it; a change to `...` takes the member out."""
        implementation = jwt.get_algorithm_by_name(self.algorithm)
        jwk: Json = implementation.to_jwk(self.private.public_key(), as_dict=True)
        jwk |= {"kid": self.kid, "alg": self.algorithm, "use": "sig", **changes}
        return without_left_out(jwk)

    def in_file(self, directory: Path) -> Json:
        """A `[[plugin.keys]]` table, with the key in a file: the secret, or the public half."""
        is_secret = isinstance(self.private, bytes)
        file = directory / f"{self.algorithm}-{len(list(directory.iterdir()))}.key"
        file.write_bytes(self.private if is_secret else self.pem)
        kind = "secret_file" if is_secret else "public_key_file"
        return {"algorithms": [self.algorithm], kind: str(file), "id": self.kid}

    def named(self, kid: str) -> SigningKey:
        return SigningKey(self.algorithm, self.private, kid)


@functools.cache
def signing_key(algorithm: str, number: int = 0) -> SigningKey:
    """A key for an algorithm: the secret, or a new pair, made once for each number."""
    match algorithm[:2]:
        case "HS":
            return SigningKey(algorithm, SECRET.encode() + str(number or "").encode())
        case "RS" | "PS":
            # One pair for all six: to make one takes a tenth of a second or more.
            return SigningKey(algorithm, _rsa_pair(number))
        case "ES":
            curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
            return SigningKey(algorithm, ec.generate_private_key(curves[algorithm]))
        case _:
            ed = ed448.Ed448PrivateKey if number == 448 else ed25519.Ed25519PrivateKey
            return SigningKey(algorithm, ed.generate())


@functools.cache
def _rsa_pair(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def jwt_settings(*keys: Json, **settings: Any) -> Any:
    """The plugin's settings, as its table makes them; one that is `...` is left out of it."""
    table = {"issuer": ISSUER, "audience": AUDIENCE, "keys": list(keys), **settings}
    return read_settings(JwtAuth.Settings, without_left_out(table), "conf/plugins.toml: plugin 1")


def jwt_auth(*keys: Json, **settings: Any) -> JwtAuth:
    """The plugin with these settings."""
    return JwtAuth(jwt_settings(*keys, **settings))


def request(*headers: tuple[str, str], **others: Any) -> ConnectRequest:
    """A request with these headers, and whatever else is given."""
    found = HTTPHeaders()
    for name, value in headers:
        found.add(name, value)
    return ConnectRequest(client_id="ana", headers=found, **others)


def by_message(token: str) -> ConnectRequest:
    """A request that is an `auth` message."""
    return request(token=token)


def sign_in(plugin: JwtAuth, token: str) -> Identity:
    """Sign in where nothing has to be fetched, so nothing may be awaited."""
    identity = plugin.authenticate(by_message(token))
    assert isinstance(identity, Identity)
    return identity


# ---------------------------------------------------------------- the server

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Answer = Callable[["IdentityProvider", Streams], Awaitable[None]]


class IdentityProvider:
    """Serves its keys over HTTP on this machine; `answer` says how.

    Args:
        keys: Whose public halves it serves.
    """

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = list(keys)
        self.answer: Answer = serve
        self.requests = 0
        self.gate = asyncio.Event()
        """For `wait_at_the_gate`."""
        self._hung_up = 0
        self._asked = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json"

    async def __aenter__(self) -> IdentityProvider:
        await self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def come_back(self) -> None:
        """Listen, where it listened before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Nobody listens there any more, and what was open is closed."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._server = None

    async def asked(self, times: int) -> None:
        """Wait until it has been asked so often."""
        async with asyncio.timeout(LIMIT_S), self._asked:
            await self._asked.wait_for(lambda: self.requests >= times)

    async def hung_up(self, times: int) -> None:
        """Wait until so many that asked have closed their connection without an answer."""
        async with asyncio.timeout(LIMIT_S), self._asked:
            await self._asked.wait_for(lambda: self._hung_up >= times)

    async def count_hang_up(self) -> None:
        async with self._asked:
            self._hung_up += 1
            self._asked.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            async with self._asked:
                self.requests += 1
                self._asked.notify_all()
            await self.answer(self, (reader, writer))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # it was cut off, or dies
        finally:
            self._open.discard(task)
            writer.close()


async def serve(provider: IdentityProvider, streams: Streams) -> None:
    """What it should do: its keys as a JWK Set."""
    await says({"keys": [key.jwk() for key in provider.keys]})(provider, streams)


def says(body: Any, status: str = "200 OK", *headers: str, length: bool = True) -> Answer:
    """Some answer, whatever it may be; without its length it ends with the connection."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(raw)}"] if length else [])]
    return says_raw("\r\n".join([*lines, "", ""]).encode() + raw)


def says_raw(raw: bytes) -> Answer:
    """These bytes, and the end."""

    async def answer(_: IdentityProvider, streams: Streams) -> None:
        streams[1].write(raw)

    return answer


async def wait_at_the_gate(provider: IdentityProvider, streams: Streams) -> None:
    """Serve once the gate is open."""
    await provider.gate.wait()
    await serve(provider, streams)


async def stall(provider: IdentityProvider, streams: Streams) -> None:
    """Take the request, and say nothing until the other side gives up."""
    await streams[0].read()
    await provider.count_hang_up()


async def drip(provider: IdentityProvider, streams: Streams) -> None:
    """A body that never ends, a byte at a time: no single read is ever late."""
    _, writer = streams
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


break_off = says_raw(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"keys":[')
"""Dies in the middle of the body."""


# ---------------------------------------------------------------- the plugin with a server

BOTH_LOOPS = ["asyncio", "uvloop"]


def loop_of(kind: str) -> Iterator[IOLoop]:
    """For an `io_loop` fixture: a loop of the kind; a task that stays on it fails the test."""
    loop = uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield IOLoop.current()
    left = asyncio.all_tasks(loop)
    if left:  # asking the resolver can't be broken off, but ends by itself
        _, left = loop.run_until_complete(asyncio.wait(left, timeout=5))
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()
    assert not left, left


def at(provider: IdentityProvider, **settings: Any) -> Json:
    """A `[[plugin.keys]]` table with its URL, and time enough for a slow machine."""
    url = {"jwks_url": provider.url, "timeout_seconds": LIMIT_S}
    return {"algorithms": ["RS256"], **url, **settings}


@asynccontextmanager
async def started(provider: IdentityProvider, **settings: Any) -> AsyncIterator[JwtAuth]:
    """The plugin with its URL, from `start` to `stop`."""
    plugin = jwt_auth(at(provider, **settings))
    plugin.start()
    try:
        yield plugin
    finally:
        await plugin.stop()


async def waits_and_signs_in(plugin: JwtAuth, token: str) -> Identity:
    """Sign in, whether or not something has to be fetched."""
    async with asyncio.timeout(LIMIT_S):
        answer = plugin.authenticate(by_message(token))
        identity = answer if answer is None or isinstance(answer, Identity) else await answer
    assert identity is not None
    return identity


async def is_refused(plugin: JwtAuth, token: str) -> None:
    """For good."""
    with pytest.raises(NotAllowed):
        await waits_and_signs_in(plugin, token)


async def is_put_off(plugin: JwtAuth, token: str) -> None:
    """For want of keys."""
    with pytest.raises(NotReady):
        await waits_and_signs_in(plugin, token)


class Hand:
    """A clock that is turned by hand: the one by which keys grow old."""

    def __init__(self, plugin: JwtAuth) -> None:
        self._now = plugin.monotonic()
        plugin.monotonic = lambda: self._now

    def turn(self, seconds: float) -> None:
        self._now += seconds
