"""Drives `wsload`, the load generator in C that is built at its first use."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench.processes import Failed
from bench.servers import CACHE, Ours, Peer

SOURCES = Path(__file__).resolve().parent / "wsload"
EXIT = {
    1: "wsload could not run",
    2: "not all joined",
    3: "the server closed a connection",
    4: "events were missed, came twice or out of order",
    5: "the server answered with an error",
}

Report = dict[str, float]
"""What one phase of a run brought: its figures by name."""


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
        fresh = program.with_suffix(".new")
        subprocess.run([compiler, "-O2", "-o", fresh, SOURCES / "wsload.c"], check=True)
        fresh.rename(program)
    return str(program)


def command(
    target: Ours | Peer,
    viewers: int,
    selectors: int = 0,
    rate: float = 0,
    seconds: float = 0,
    rooms: int = 1,
    options: Sequence[str] = (),
) -> list[str]:
    """The command line of a load."""
    words = [viewers, selectors, rate, seconds, target.pid, "seed", rooms]
    head = [wsload(), "--json", *target.options, *options, "127.0.0.1", str(target.port)]
    return head + [str(word) for word in words]


class Load:
    """Connections that stay, for rounds of load in turn with another server's.

    Raises:
        Failed: Not all joined.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.joined = self.next()
        """The report on the joins."""

    def next(self) -> Report:
        """The next report."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            code = self._child.wait()
            raise Failed(EXIT.get(code, f"wsload ended with {code}"))
        report: Report = json.loads(line)
        return report

    def round(self, rate: float, seconds: float) -> Report:
        """Some seconds of load.

        Raises:
            Failed: A message was lost, came twice or out of order, or was refused.
        """
        assert self._child.stdin is not None
        self._child.stdin.write(f"{rate} {seconds}\n")
        self._child.stdin.flush()
        report = self.next()
        wrong = {
            name: report[name]
            for name in ("missed", "extra", "gaps", "resyncs", "errors")
            if report[name]
        }
        if wrong:
            raise Failed(f"not every message came once and in order: {wrong}")
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        self._child.terminate()
        self._child.wait()


def run(words: Sequence[str]) -> dict[str, Report]:
    """One whole run: its reports by phase (`join`, `idle`, `run`).

    Raises:
        Failed: What `EXIT` says.
    """
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Failed(EXIT.get(done.returncode, f"wsload ended with {done.returncode}"))
    return {report["phase"]: report for report in map(json.loads, done.stdout.splitlines())}
