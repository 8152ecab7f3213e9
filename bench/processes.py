"""Servers as child processes: started on free ports, stopped with their parent, CPU counted."""

from __future__ import annotations

import ctypes
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

START_S = 30.0
STOP_S = 10.0

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A measurement could not be made; the text says why."""


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a child that ends with this process, however that one ends."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=log.parent,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )


def stop(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_mib(pid: int) -> float:
    """A process's memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def allow_many_files() -> None:
    """Raise the limit on open files as far as it goes; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Server:
    """A server that listens on `port`, with a folder of its own and perhaps a Redis.

    Used in a `with`: it ends there, and its folder goes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.pid = 0
        self.options: list[str] = []
        """For the load generator."""
        self.folder = Path(tempfile.mkdtemp(prefix="seatws-bench-"))
        self._children: list[subprocess.Popen[bytes]] = []

    def launch(
        self, command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
    ) -> int:
        """Start a process and wait until it listens on `port`; its pid.

        Raises:
            Failed: It ended, or is not ready in time.
        """
        log = self.folder / f"{len(self._children)}.log"
        child = start(command, log, environment)
        self._children.append(child)
        end = time.monotonic() + START_S
        while time.monotonic() < end and child.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return child.pid
        raise Failed(f"{self.name} does not listen on {port}: {log.read_text()[-600:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End its processes, the last one first, and remove its folder."""
        for child in reversed(self._children):
            stop(child)
        shutil.rmtree(self.folder, ignore_errors=True)
