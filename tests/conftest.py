"""Fixtures: one Valkey for the whole run, an instance of the server, a clean loop for each test."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tornado.ioloop import IOLoop

from tests.harness import ROOT, Instance, Valkey

# The same examples in every run: what fails by chance on one machine, others could not see.
settings.load_profile("ci")


@pytest.fixture
def new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a test's loop; a module that is tested on another kind has its own."""
    return asyncio.new_event_loop


@pytest.fixture
def io_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[IOLoop]:
    """A new loop for `gen_test`; whatever a test leaves running on it is ended and awaited.

    In place of pytest-tornado's own, which uses what newer Pythons deprecate.
    """
    loop = new_loop()
    asyncio.set_event_loop(loop)
    yield IOLoop.current()
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for a socket in it."""
    path = Path(tempfile.mkdtemp(prefix="seatws-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The Valkey that tests share. Each has its own rooms, and leaves it running."""
    path = Path(tempfile.mkdtemp(prefix="seatws-"))
    server = Valkey(path, appendfsync="no")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def own_valkey(short_path: Path) -> Iterator[Valkey]:
    """A Valkey that the test may kill and stop."""
    server = Valkey(short_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def server(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance that tests share, with limits that are out of the way."""
    instance = Instance(tmp_path_factory.mktemp("server"), valkey.url).start()
    yield instance
    instance.stop()


Starter = Callable[..., Instance]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts instances: `start(redis_url, SEATWS_HOLDS__SECONDS="5")`; stops them at the end."""
    started: list[Instance] = []

    def start_one(redis_url: str, *, conf: Path = ROOT / "conf", **settings: str) -> Instance:
        instance = Instance(tmp_path, redis_url, conf=conf, **settings)
        started.append(instance)
        return instance.start()

    yield start_one
    for instance in started:
        instance.stop()
