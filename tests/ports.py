"""Ports of the loopback for servers."""

from __future__ import annotations

import contextlib
import os
import random
import socket

_WORKERS = 16
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(12_000 + _WORKER % _WORKERS, 32_000, _WORKERS)
"""Below those that the kernel gives to clients (ip_local_port_range): the port of a server that was
killed must be there when it comes back, and a client that tries it must not meet itself. Tests that
run at the same time have different ones."""

_given: set[int] = set()


def free_port() -> int:
    """A port that is free, until its server listens and while that is dead."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
