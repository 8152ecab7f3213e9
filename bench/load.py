"""Drives `wsload`, the load generator in C that is built at its first use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from bench.processes import Failed, Server
from bench.servers import CACHE

SOURCES: Final = Path(__file__).resolve().parent / "wsload"
CLOSED: Final = 3
MISSED: Final = 4
REFUSED: Final = 5
EXIT: Final = {
    1: "wsload could not run",
    2: "not all joined",
    CLOSED: "the server closed a connection",
    MISSED: "events were missed, came twice or out of order",
    REFUSED: "the server answered with an error",
}

Report = dict[str, float]
"""What one phase of a run brought: its figures by name."""


def lost_in(report: Report) -> int:
    """How many messages of a round were missed, came twice or out of order, or were refused."""
    return int(sum(report[name] for name in ("missed", "extra", "gaps", "resyncs", "errors")))


def wsload() -> str:
    """The program's path.

    Raises:
        Failed: There is no C compiler, or it can't build it.
    """
    sources = sorted(SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    program = CACHE / f"wsload-{digest[:12]}"
    if not program.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise Failed("there is no C compiler: install gcc")
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = CACHE / f"{program.name}.{os.getpid()}"
        command = [compiler, "-O2", "-o", str(fresh), str(SOURCES / "wsload.c")]
        for more in (["-DWITH_ZLIB", "-lz"], []):  # without zlib all works but `--deflate`
            built = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
            if not built.returncode:
                break
        else:
            raise Failed(f"{compiler} could not build wsload: {built.stderr[-600:]}")
        fresh.rename(program)
    return str(program)


def words_of(
    target: Server,
    viewers: int,
    selectors: int = 0,
    rate: float = 0,
    seconds: float = 0,
    rooms: int = 1,
    options: Sequence[str] = (),
) -> list[str]:
    """The command line of a load, without the program."""
    words = [viewers, selectors, f"{rate:g}", f"{seconds:g}", target.pid, "seed", rooms]
    head = ["--json", *target.options, *options, "127.0.0.1", str(target.port)]
    return head + [str(word) for word in words]


class Load:
    """Connections that stay, for rounds of load in turn with another server's.

    Args:
        words: wsload's arguments, with `--step` among them.

    Raises:
        Failed: Not all joined, or not all got the whole map.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._child = subprocess.Popen(
            [wsload(), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.joined = self.next()
            """The report on the joins."""
            if self.joined["incomplete_snapshots"]:
                raise Failed(f"{self.joined['incomplete_snapshots']:.0f} maps were not whole")
        except BaseException:
            self.stop()
            raise

    def next(self) -> Report:
        """The next report."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise _failed(self._child.wait())
        report: Report = json.loads(line)
        return report

    def round(self, rate: float, seconds: float) -> Report:
        """Some seconds of load. `lost_in` says whether all came."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{rate:g} {seconds:g}\n")
        self._child.stdin.flush()
        return self.next()

    def leave(self) -> None:
        """Close all connections.

        Raises:
            Failed: The server had closed one. Lost messages were in the rounds' reports.
        """
        assert self._child.stdin is not None
        self._child.stdin.close()
        code = self._child.wait()
        if code not in (0, MISSED, REFUSED):
            raise _failed(code)

    def stop(self) -> None:
        """End without a word."""
        self._child.terminate()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def run(words: Sequence[str]) -> dict[str, Report]:
    """One whole run: its reports by phase (`join`, `idle`, `run`).

    Raises:
        Failed: What `EXIT` says.
    """
    done = subprocess.run([wsload(), *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise _failed(done.returncode)
    return {report["phase"]: report for report in map(json.loads, done.stdout.splitlines())}


def _failed(code: int) -> Failed:
    return Failed(EXIT.get(code, f"wsload ended with {code}"))
