"""What this machine gives an instance: the port, open files, the backlog, memory, a place for data.

Read where Linux tells it; what another system does not tell is not looked at.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from seatws.app import BACKLOG
from seatws.config import Config
from seatws.doctor.finding import Finding

ASK_S: Final = 3.0
OTHER_FILES: Final = 100
"""Besides connections: Redis, logs, libraries, requests over HTTP."""
SUPPOSED_CONNECTIONS: Final = 20_000
"""Where `limits.connections` sets no limit."""
BASE_BYTES: Final = 100 * 1_048_576
"""An instance without connections (docs/performance.md), and room for its rooms."""
CONNECTION_BYTES: Final = 10 * 1024
"""One connection: 2 KiB in the process, the rest the kernel's, for its socket."""
FREE_DISK_BYTES: Final = 100 * 1_048_576

_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")
_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def look_at(config: Config) -> Iterator[Finding]:
    """All that can be said of the machine."""
    yield from ports(config)
    yield open_files(config, resource.getrlimit(resource.RLIMIT_NOFILE))
    if _SOMAXCONN.exists():
        yield backlog(int(_SOMAXCONN.read_text()))
    if _MEMINFO.exists():
        yield memory(config, available_bytes(_MEMINFO, _CGROUP))


def ports(config: Config) -> Iterator[Finding]:
    """Whether they are free, or an instance of ours has them."""
    server, metrics = config.server, config.metrics
    yield _port("port", "server", server.address, server.port, "/health")
    if metrics.enabled and metrics.port:
        yield _port("metrics port", "metrics", metrics.address or server.address, metrics.port, "")


def open_files(config: Config, limits: tuple[int, int]) -> Finding:
    """Whether there may be as many connections as the settings allow.

    Args:
        config: The settings.
        limits: The soft and the hard one of RLIMIT_NOFILE; -1: none.
    """
    connections = config.limits.connections or SUPPOSED_CONNECTIONS
    soft, hard = (limit if limit != resource.RLIM_INFINITY else 1 << 62 for limit in limits)
    needed = connections + OTHER_FILES
    if soft >= needed:
        return Finding(
            "ok", "open files", f"at most {_limit(soft)}, for {connections} connections {needed}"
        )
    what = f"at most {soft} in a process, so some {max(0, soft - OTHER_FILES)} connections, not the"
    what += f" {connections} of limits.connections"
    fix = f"start it with `ulimit -n {needed}` (systemd: LimitNOFILE={needed}, Docker: --ulimit)"
    if hard < needed:
        fix += ", for which the hard limit has to be raised, too"
    return Finding("warning", "open files", what, f"{fix}, or lower limits.connections")


def backlog(somaxconn: int) -> Finding:
    """Whether the kernel keeps as many new connections as we ask for."""
    what = f"the kernel lets {somaxconn} new connections wait, the server asks for {BACKLOG}"
    if somaxconn >= BACKLOG:
        return Finding("ok", "backlog", what)
    fix = f"`sysctl net.core.somaxconn={BACKLOG}`: when a sale starts, the others are turned away"
    return Finding("warning", "backlog", what, fix)


def memory(config: Config, available: int) -> Finding:
    """Whether as many connections as the settings allow find room; in bytes."""
    connections = config.limits.connections or SUPPOSED_CONNECTIONS
    needed = BASE_BYTES + connections * CONNECTION_BYTES
    what = (
        f"{available // 1_048_576} MiB to be had, {connections} connections take some "
        f"{needed // 1_048_576}"
    )
    if available >= needed:
        return Finding("ok", "memory", what)
    return Finding("warning", "memory", what, "give it more memory, or lower limits.connections")


def available_bytes(meminfo: Path, cgroup: Path) -> int:
    """What a new process can have: of the machine, and of the container it would be in."""
    text = meminfo.read_text()
    found = int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            left = int((cgroup / limit).read_text()) - int((cgroup / used).read_text())
        except (OSError, ValueError):  # not this version of cgroups, or "max"
            continue
        found = min(found, max(0, left))
    return found


def data_directory(directory: Path) -> Iterator[Finding]:
    """Whether the embedded Redis can keep its data there."""
    about = f"redis.data_dir {directory}"
    existing = next(path for path in (directory, *directory.resolve().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "problem",
            about,
            f"{existing} can't be written to, or is no directory",
            "make it one that this user may write to, or choose another redis.data_dir",
        )
        return
    free = shutil.disk_usage(existing).free
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    what = f"{size / 1_048_576:.1f} MiB of data, {free // 1_048_576} MiB free on its disk"
    if not directory.exists():
        what = f"not there yet, and can be made; {free // 1_048_576} MiB free on its disk"
    if free < FREE_DISK_BYTES:
        fix = "make room: without it no seat can be held"
        yield Finding("warning", about, what, fix)
    else:
        yield Finding("ok", about, what)


def _port(about: str, section: str, address: str, port: int, health: str) -> Finding:
    at = f"{address}:{port}"
    if port == 0:
        return Finding("ok", about, f"{section}.port is 0: any free one")
    try:
        _bind(address, port)
    except PermissionError:
        fix = f"choose a {section}.port of 1024 or above"
        return Finding("problem", about, f"{at} needs privileges", fix)
    except OSError as exc:
        ours = _who_listens(address, port, health)
        if ours is not None:
            return ours._replace(about=about)
        return Finding(
            "problem",
            about,
            f"can't listen on {at}: {exc.strerror or exc}",
            f"stop what has it, or choose another {section}.port or {section}.address",
        )
    return Finding("ok", about, f"{at} is free: no instance runs there")


def _bind(address: str, port: int) -> None:
    """Take the address, and let go of it without listening: nobody notices.

    Raises:
        OSError: It can't be had.
    """
    found = socket.getaddrinfo(
        address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind(where)


def _who_listens(address: str, port: int, health: str) -> Finding | None:
    """What an instance of ours says there; None if it is none."""
    if not health:
        return _metrics_listen(address, port)
    try:
        status, body = _get(address, port, health)
        said = json.loads(body)
        if said["service"] != "websocket":
            return None
        what = f"an instance runs on {address}:{port}: {said['status']}"
        what += f", {int(said['active_connections'])} connections"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    if status == http.HTTPStatus.OK:
        return Finding("ok", "", what)
    return Finding("problem", "", what, "it can't reach its Redis: see what is said of that")


def _metrics_listen(address: str, port: int) -> Finding | None:
    try:
        _, body = _get(address, port, "/metrics")
    except (OSError, http.client.HTTPException):
        return None
    if b"seatws_connections" not in body:
        return None
    return Finding("ok", "", f"an instance shows its metrics on {address}:{port}")


def _get(address: str, port: int, path: str) -> tuple[int, bytes]:
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _limit(limit: int) -> str:
    return "any number" if limit >= 1 << 62 else str(limit)
