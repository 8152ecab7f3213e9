"""What tests of the doctor share: running it, and reading what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.harness import LIMIT_S, ROOT


class Line(NamedTuple):
    """One finding, as it is printed."""

    level: str
    about: str
    text: str


class Report(NamedTuple):
    """What one run said."""

    code: int
    out: str
    errors: str

    @property
    def lines(self) -> list[Line]:
        """The findings; the last line counts them, and must be right."""
        *findings, total = self.out.splitlines()
        lines = [
            Line(level, *rest.lstrip().split(": ", 1))
            for level, _, rest in (line.partition(" ") for line in findings)
        ]
        counts = [
            sum(line.level == level for line in lines) for level in ("problem", "warning", "ok")
        ]
        assert total == "{} problems, {} warnings, {} fine".format(*counts)
        assert {line.level for line in lines} <= {"ok", "warning", "problem"}
        assert self.code == (1 if counts[0] else 0)
        return lines

    def said_of(self, about: str) -> list[Line]:
        """The lines that are about one thing: with its own name, or with a server's before it."""
        return [
            Line(line.level, line.about, line.text.removeprefix(f"{about}: "))
            for line in self.lines
            if line.about == about or line.text.startswith(f"{about}: ")
        ]

    def levels(self, about: str) -> list[str]:
        """How bad it is."""
        return [line.level for line in self.said_of(about)]


def doctor(cwd: Path, *arguments: str, conf: Path = ROOT / "conf", **settings: str) -> Report:
    """Run it.

    Args:
        cwd: Its working directory.
        arguments: After `doctor`.
        conf: Its conf directory.
        settings: Environment; the port is any free one if it is not given.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SEATWS_")}
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", "doctor", "--conf", conf, *arguments],
        cwd=cwd,
        env=ours | {"SEATWS_SERVER__PORT": "0"} | settings,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Report(done.returncode, done.stdout, done.stderr)
