"""A primary, two replicas and three sentinels that watch over them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import redis

from tests.harness import unique, wait_until
from tests.nodes import OPEN, Access, Node, start_all

NAME = "seats"
"""What the sentinels call the primary and its replicas."""
NOTICED_MS = 2000
"""After so long without an answer, a server is taken for dead. Sentinels ask each second: if they
waited no longer than that, they would find a new primary dead before they have asked it at all."""


_DEAF = {"disconnected", "s_down"}
"""Flags of a sentinel that can't be asked for its vote."""


class Sentinels:
    """Servers of which one is the primary, and those that see to it that there is one.

    Args:
        directory: For their directories.
        access: What one must have to be let in, to servers and sentinels alike.
        program: The server to run.
        settings: Of the servers with data, underscores for dashes.
    """

    def __init__(
        self,
        directory: Path,
        access: Access = OPEN,
        *,
        program: str | None = None,
        **settings: str,
    ) -> None:
        self.access = access
        self._settings = {name.replace("_", "-"): value for name, value in settings.items()}
        self._directory = directory
        self._program = program
        first = self._new_server({})
        follow = {"replicaof": f"127.0.0.1 {first.port}"}
        self.servers = [first, self._new_server(follow), self._new_server(follow)]
        self.sentinels = [self._new_sentinel(first) for _ in range(3)]

    def start(self) -> None:
        """Start all, and wait until the sentinels know of each other and of the replicas."""
        start_all(self.servers)
        self._until_fed()
        start_all(self.sentinels)
        self.until_well()

    def stop(self) -> None:
        """End all, whatever their state."""
        for node in (*self.sentinels, *self.servers):
            node.stop()

    def demote_others(self) -> None:
        """What the sentinels do ten seconds after a failover: others that believe to be primaries
        become replicas."""
        for node in self.running:
            if node is not self.primary and node.role == "master":
                node.ask("CLIENT", "UNPAUSE")
                node.ask("REPLICAOF", "127.0.0.1", self.primary.port)
                node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                node.ask("CLIENT", "KILL", "TYPE", "pubsub")
        self.until_well()

    def until_well(self) -> None:
        """Wait until every sentinel that runs has it that all is well, and every replica is fed."""
        wait_until(lambda: all(self._sees_all_well(one) for one in self.sentinels if one.runs))
        self._until_fed()

    @property
    def running(self) -> list[Node]:
        """The servers that were not killed."""
        return [node for node in self.servers if node.runs]

    @property
    def primary(self) -> Node:
        """The server that the sentinels name."""
        (named,) = {self._named_by(one) for one in self.sentinels if one.runs}
        return named

    @property
    def replicas(self) -> list[Node]:
        """The other running servers."""
        return [node for node in self.running if node is not self.primary]

    @property
    def url(self) -> str:
        """For an instance."""
        hosts = ",".join(node.at for node in self.sentinels)
        access = self.access
        options = [access.query[1:]] * access.is_tls
        if access.password:  # the sentinels' own; they have the same here
            options.append(f"sentinel_password={access.password}")
        query = f"?{'&'.join(options)}" if options else ""
        return f"{access.scheme('+sentinel')}://{access.userinfo}{hosts}/{NAME}{query}"

    def client(self) -> Any:
        """A client of the primary: for looking into rooms."""
        return self.primary.client()

    def fail_over(self, *, coordinated: bool = False) -> Node:
        """Let a replica take the living primary's place. Returns it.

        Args:
            coordinated: The primary waits for the replica first, so that nothing is lost (Valkey).
        """
        before = self.primary
        self.sentinels[0].ask("SENTINEL", "FAILOVER", NAME, *["COORDINATED"] * coordinated)
        return self.until_replaced(before)

    def until_replaced(self, before: Node) -> Node:
        """Wait until the sentinels that run name another primary, which takes writes."""

        def is_replaced() -> bool:
            named = {self._named_by(one) for one in self.sentinels if one.runs}
            return before not in named and all(node.role == "master" for node in named)

        wait_until(is_replaced)
        return self.primary

    def _named_by(self, sentinel: Node) -> Node:
        _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(node for node in self.servers if node.port == int(port))

    def _sees_all_well(self, sentinel: Node) -> bool:
        primary = _fields(sentinel.ask("SENTINEL", "MASTER", NAME))
        others = [_fields(one) for one in sentinel.ask("SENTINEL", "SENTINELS", NAME)]
        connected = [one for one in others if not _DEAF & set(one["flags"].split(","))]
        replicas = [_fields(one) for one in sentinel.ask("SENTINEL", "REPLICAS", NAME)]
        alive = [one for one in replicas if one["flags"] == "slave"]
        return (
            primary["flags"] == "master"
            and len(connected) == sum(one.runs for one in self.sentinels) - 1
            and len(alive) == len(self.running) - 1
        )

    def _until_fed(self) -> None:
        def is_fed(node: Node) -> bool:
            with contextlib.suppress(redis.RedisError):
                return node.info("replication").get("master_link_status") == "up"
            return False

        wait_until(lambda: sum(map(is_fed, self.running)) == len(self.running) - 1)

    def _new_server(self, settings: dict[str, str]) -> Node:
        settings = {
            "appendonly": "yes",
            "appendfsync": "always",
            "repl-diskless-sync-delay": "0",
            **self.access.data_settings(),
            **settings,
            **self._settings,
        }
        directory = self._directory / unique("s")
        return Node(directory, settings.items(), self.access, program=self._program)

    def _new_sentinel(self, primary: Node) -> Node:
        settings = [
            *self.access.settings().items(),
            ("sentinel", f"monitor {NAME} 127.0.0.1 {primary.port} 2"),
            ("sentinel", f"down-after-milliseconds {NAME} {NOTICED_MS}"),
            ("sentinel", f"failover-timeout {NAME} 3000"),
            ("sentinel", f"parallel-syncs {NAME} 2"),
        ]
        if password := self.access.password:
            settings += [("requirepass", password), ("sentinel", f"auth-pass {NAME} {password}")]
        directory = self._directory / unique("w")
        return Node(directory, settings, self.access, program=self._program, is_sentinel=True)


def _fields(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
