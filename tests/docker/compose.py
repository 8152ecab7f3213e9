"""Compose as a person at a terminal uses it: a command, and what became of it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.harness import ROOT

PROJECT = "seatws_test"
"""So that an installation from the same directory keeps its containers and its data."""
PATIENCE_S = 900.0
"""Longer than any command takes, the download of images included."""
LIMIT_S = 120.0
"""Longer than anything takes that is waited for."""
LOOK_S = 0.1
"""Between two looks at whether something is so: each costs a process."""
BASE = "docker-compose.yml"


class Failed(AssertionError):
    """Something did not do what it must."""


def say(text: str) -> None:
    """A line for who watches."""
    print(text, flush=True)  # noqa: T201  # that is what it is for


def check(is_so: object, what: str) -> None:
    """Say that something is so.

    Raises:
        Failed: It is not.
    """
    if not is_so:
        raise Failed(f"not so: {what}")
    say(f"    ok: {what}")


def wait_for(is_so: Callable[[], object], what: str) -> None:
    """Look again and again until something is so.

    Raises:
        Failed: It does not come to be so.
    """
    end = time.monotonic() + LIMIT_S
    while not is_so():
        if time.monotonic() > end:
            raise Failed(f"not so after {LIMIT_S:g} s: {what}")
        time.sleep(LOOK_S)
    say(f"    ok: {what}")


class Compose:
    """One of the two Composes, with a project of its own.

    Args:
        words: How it is called: `docker-compose`, or `docker compose`.
    """

    def __init__(self, *words: str) -> None:
        self.words = list(words)
        self.environment = os.environ | {"COMPOSE_PROJECT_NAME": PROJECT}

    def __str__(self) -> str:
        return shlex.join(self.words)

    @contextlib.contextmanager
    def on(self, *files: str, **environment: str) -> Iterator[None]:
        """With more files than the usual one. At the end nothing of it is left, nor its data."""
        before = self.environment
        self.environment = before | {"COMPOSE_FILE": os.pathsep.join([BASE, *files])} | environment
        try:
            yield
        finally:
            self.clean_up()
            self.environment = before

    def __call__(self, *arguments: str) -> str:
        """Run a command to its end. Returns what it printed.

        Raises:
            Failed: Its exit code is not 0.
        """
        return self.run([*self.words, *arguments])

    def run(self, command: Sequence[str]) -> str:
        """As a call, but any program, in the project's environment."""
        say(f"  $ {shlex.join(command)}")
        began = time.monotonic()
        ended = self._run(command, stderr=subprocess.STDOUT)
        if ended.returncode:
            raise Failed(f"{shlex.join(command)}: exit code {ended.returncode}\n{ended.stdout}")
        say(f"    done in {time.monotonic() - began:.1f} s")
        return ended.stdout

    def quietly(self, *command: str) -> str:
        """Run a command that nobody needs to see. Returns what it printed, whatever came of it."""
        return self._run(command, stderr=subprocess.DEVNULL).stdout

    @contextlib.contextmanager
    def following(self, command: str) -> Iterator[Following]:
        """A command that goes on until Ctrl-C, which comes at the end."""
        say(f"  $ {command}")
        following = Following(shlex.split(command), self.environment)
        try:
            yield following
        except Failed:
            say(f"    it printed: {following.text.strip()[-600:]}")
            raise
        finally:
            following.interrupt()

    def ids(self, service: str) -> list[str]:
        """The containers of a service that run."""
        return self.quietly(*self.words, "ps", "-q", service).split()

    def healthy(self, service: str, count: int) -> list[str]:
        """Wait until a service has so many containers, all of them healthy. Returns their ids."""
        found: list[str] = []

        def are_healthy() -> bool:
            found[:] = self.ids(service)
            states = [inspect(one)["State"].get("Health", {}).get("Status") for one in found]
            return states == ["healthy"] * count

        wait_for(are_healthy, f"{count} of {service}, healthy")
        return found

    def clean_up(self) -> None:
        """Take away everything of the project: containers, networks, images that it built, data."""
        self("down", "--volumes", "--remove-orphans")

    def _run(self, command: Sequence[str], stderr: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


class Following:
    """A process that prints until it is interrupted."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._printed = bytearray()
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C of ours is ours alone
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)

    @property
    def text(self) -> str:
        """What it has printed."""
        while more := self._output.read():
            self._printed += more
        return self._printed.decode(errors="replace")

    def shows(self, what: str) -> None:
        """Wait until it has printed something."""
        wait_for(lambda: what in self.text, f"it shows {what!r}")

    def interrupt(self) -> None:
        """Ctrl-C, and wait for its end."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)

        def has_ended() -> bool:
            assert self.text is not None  # or the pipe fills up, and it never ends
            return self._process.poll() is not None

        wait_for(has_ended, "Ctrl-C ends it")


class ContainerRedis:
    """A Redis that nobody but its container's own redis-cli can reach.

    Args:
        container: Its id.
    """

    def __init__(self, container: str) -> None:
        self._container = container

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """What tests need of a client to look into it."""
        yield self

    def hgetall(self, key: str) -> dict[str, str]:
        """HGETALL."""
        found: dict[str, str] = json.loads(self.ask("--json", "HGETALL", key))
        return found

    def ask(self, *words: str) -> str:
        """What redis-cli answers; in a cluster, the node that has the key."""
        return docker("exec", self._container, "redis-cli", "-c", *words).strip()


def docker(*arguments: str) -> str:
    """Run the engine's own client. Returns what it printed.

    Raises:
        Failed: Its exit code is not 0.
    """
    ended = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Failed(f"docker {shlex.join(arguments)}: {ended.stderr.strip()}")
    return ended.stdout


def inspect(container: str) -> dict[str, Any]:
    """All that the engine knows of a container."""
    found: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return found


def composes() -> list[Compose]:
    """Those that are installed."""
    known = [Compose("docker-compose"), Compose("docker", "compose")]
    return [
        one for one in known if shutil.which(one.words[0]) and one.quietly(*one.words, "version")
    ]


def has_image(name: str) -> bool:
    """Whether an image is here, or can be had."""
    for command in (["image", "inspect", name], ["pull", "--quiet", name]):
        with contextlib.suppress(Failed):
            docker(*command)
            return True
    return False
