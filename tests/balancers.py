"""A real nginx and a real HAProxy before instances, with the configurations that are shipped.

Only addresses, ports and paths are put in place of the shipped ones, and what only root may say is
left out where somebody else runs the tests.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.fetch import fetch, json_of
from tests.harness import LIMIT_S, ROOT, Instance, Listening, unique, wait_until
from tests.ports import free_port
from tests.programs import program

SHIPPED_PORTS = (8001, 8002, 8003)
"""Where the shipped configurations expect the instances."""


class Balancer(Listening, ABC):
    """One of them, as a process of its own; clients use it as they would an instance.

    Args:
        directory: For its configuration, logs and sockets; its path must be short.
        instances: As many as the configuration has, in its order. Their ports must stand.
        certificate: A directory with a certificate and its key, as the configuration names them:
            what is commented out for TLS is then used.
    """

    name: ClassVar[str]
    shipped: ClassVar[Path]

    def __init__(
        self, directory: Path, instances: Sequence[Instance], certificate: Path | None = None
    ) -> None:
        self.directory = directory / unique(self.name)
        self.directory.mkdir(mode=0o755)
        directory.chmod(0o755)  # its workers are somebody else
        self.ports = [instance.port for instance in instances]
        self.port = free_port()
        self.tls_port = free_port() if certificate else 0
        self.conf = self.directory / self.shipped.name
        self.conf.write_text(self._adapted(self.shipped.read_text(), instances, certificate))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """All that it has written."""
        files = sorted(self.directory.glob("*.log"))
        return "".join(file.read_text(errors="replace") for file in files)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self.directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [program(self.name), *self._arguments()],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wait_until(self._listens)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(LIMIT_S)
            self._process = None

    def _said(self, arguments: list[str]) -> str:
        asked = [program(self.name), *arguments]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def _adapted(self, text: str, instances: Sequence[Instance], certificate: Path | None) -> str:
        assert len(instances) == len(SHIPPED_PORTS)
        if certificate:
            text = replaced(text, r"^( *)#(?=[^ \n#])", r"\1")  # "# " is prose, "#word" a setting
            text = replaced(text, r"/etc/ssl/seatws", str(certificate))
        for shipped, instance in zip(SHIPPED_PORTS, instances, strict=True):
            text = replaced(text, rf"\b127\.0\.0\.1:{shipped}\b", f"127.0.0.1:{instance.port}")
        return self._at_home(text)

    @abstractmethod
    def take_out(self, number: int) -> None:
        """As an operator does: send nobody new to this instance, and leave its viewers there."""

    @abstractmethod
    def check(self) -> str:
        """What it says of the configuration, which must be good."""

    @abstractmethod
    def _arguments(self) -> list[str]:
        """What starts it in the foreground."""

    @abstractmethod
    def _at_home(self, text: str) -> str:
        """The configuration with ports and paths of our own."""


class Nginx(Balancer):
    """nginx."""

    name = "nginx"
    shipped = ROOT / "conf/nginx/seatws.conf"

    def take_out(self, number: int) -> None:
        line = f"server 127.0.0.1:{self.ports[number]}"
        self.conf.write_text(replaced(self.conf.read_text(), line, f"{line} down"))
        assert self._process is not None
        before = self._workers()
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & self._listening())

    def check(self) -> str:
        return self._said(["-t", *self._its_own])

    @property
    def _its_own(self) -> list[str]:
        """What keeps it from the places of an installed one."""
        return ["-e", "stderr", "-p", f"{self.directory}", "-c", f"{self.conf}"]

    def _workers(self) -> set[int]:
        """Their process ids."""
        assert self._process is not None
        pid = self._process.pid
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def _listening(self) -> set[int]:
        """The workers that take connections; those that are shutting down say so in their name."""
        listening = set()
        for pid in self._workers():
            with contextlib.suppress(FileNotFoundError):  # it has gone meanwhile
                if b"shutting down" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    listening.add(pid)
        return listening

    def _arguments(self) -> list[str]:
        return [*self._its_own, "-g", "daemon off;"]

    def _at_home(self, text: str) -> str:
        text = replaced(text, r"/var/log/nginx/", f"{self.directory}/")
        text = replaced(text, r"/run/nginx\.pid", f"{self.directory}/nginx.pid")
        text = replaced(text, r"listen 80\b", f"listen 127.0.0.1:{self.port}")
        text = replaced(text, r"listen \[::\]:80 .*\n", "\n")
        if self.tls_port:
            text = replaced(text, r"listen 443\b", f"listen 127.0.0.1:{self.tls_port}")
            text = replaced(text, r"listen \[::\]:443 .*\n", "\n")
        if os.geteuid() != 0:
            text = replaced(text, r"^user .*\n", "")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {self.directory}/{kind};\n" for kind in kinds)
        return replaced(text, r"^http \{\n", f"http {{\n{paths}")


class HAProxy(Balancer):
    """HAProxy."""

    name = "haproxy"
    shipped = ROOT / "conf/haproxy/haproxy.cfg"
    names = ("one", "two", "three")

    def take_out(self, number: int) -> None:
        assert self.command(f"set server seatws/{self.names[number]} state drain").strip() == ""

    def has_none_left(self) -> bool:
        """Whether all instances have failed their health checks."""
        states = [line.split(",") for line in self.command("show stat").splitlines()]
        of_ours = [one[17] for one in states if one[0] == "seatws" and one[1] in self.names]
        assert len(of_ours) == len(self.names)
        return set(of_ours) == {"DOWN"}

    def check(self) -> str:
        return self._said(["-c", "-f", f"{self.conf}"])

    def _arguments(self) -> list[str]:
        return ["-db", "-f", f"{self.conf}"]

    def command(self, line: str) -> str:
        """Say something to its socket for operators; its answer."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(f"{self.directory}/seatws.sock")
            admin.sendall(f"{line}\n".encode())
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def _at_home(self, text: str) -> str:
        text = replaced(text, r"/run/haproxy/", f"{self.directory}/")
        text = replaced(text, r"/var/lib/haproxy$", f"{self.directory}")
        if os.geteuid() != 0:
            text = replaced(text, r"^ *(user|group|chroot) .*\n", "")
        text = replaced(text, r"bind :80,\[::\]:80 v6only", f"bind 127.0.0.1:{self.port}")
        if self.tls_port:
            there = f"bind 127.0.0.1:{self.tls_port}"
            text = replaced(text, r"bind :443,\[::\]:443 v6only", there)
        return text


@dataclass
class Site:
    """Instances, and a balancer before them."""

    balancer: Balancer
    instances: list[Instance]

    async def connections(self) -> list[int]:
        """How many WebSockets each instance has."""
        return await connections_of(self.instances)


async def connections_of(instances: Sequence[Instance]) -> list[int]:
    """How many WebSockets each has."""
    health = [json_of(await fetch(f"{one.http}/health")) for one in instances]
    return [one["active_connections"] for one in health]


def three_instances(directory: Path, redis_url: str, **settings: str) -> list[Instance]:
    """Started, and believing their balancer."""
    instances = [
        Instance(
            directory, redis_url, conf=ROOT / "conf", SEATWS_SERVER__XHEADERS="true", **settings
        )
        for _ in SHIPPED_PORTS
    ]
    with ThreadPoolExecutor() as together:
        return list(together.map(Instance.start, instances))


BALANCERS: tuple[type[Balancer], ...] = (Nginx, HAProxy)


def replaced(text: str, pattern: str, by: str) -> str:
    """The text with each match replaced; there must be one."""
    text, count = re.subn(pattern, by, text, flags=re.MULTILINE)
    assert count, f"the configuration has no {pattern}"
    return text
