"""Redis Clusters for the tests: formed, broken, resharded and looked into."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.crc import key_slot

from tests.harness import LIMIT_S, unique, wait_until
from tests.nodes import OPEN, Access, Node, start_all
from tests.ports import free_port

SLOTS = 16_384
NOTICED_MS = 1000
"""After so long without a sign of life, a node is taken for dead (`cluster-node-timeout`)."""


class Known(NamedTuple):
    """What a node knows of another, or of itself: a line of CLUSTER NODES."""

    node_id: str
    port: int
    flags: frozenset[str]
    primary_id: str
    epoch: int
    slots: list[range]

    def owns(self, slot: int) -> bool:
        """Whether the slot is its."""
        return any(slot in part for part in self.slots)


class Cluster:
    """Primaries with a replica each.

    Args:
        directory: For the nodes' directories.
        access: What one must have to be let in.
        primaries: How many.
        program: The server to run.
        settings: Of every node, underscores for dashes.
    """

    def __init__(
        self,
        directory: Path,
        access: Access = OPEN,
        *,
        primaries: int = 3,
        program: str | None = None,
        **settings: str,
    ) -> None:
        self.directory = directory
        self.access = access
        self._program = program
        self._settings = {name.replace("_", "-"): value for name, value in settings.items()}
        self._primaries = primaries
        self.nodes = [self._new_node() for _ in range(2 * primaries)]

    # ------------------------------------------------------------ the whole

    def start(self) -> None:
        """Start all, and form the cluster."""
        start_all(self.nodes)
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        share = SLOTS / self._primaries
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for other in self.nodes[:number]:
                self._introduce(node, other)
        for number, node in enumerate(primaries):
            first, last = round(number * share), round((number + 1) * share) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        wait_until(lambda: all(len(known(node)) == len(self.nodes) for node in self.nodes))
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.ask("CLUSTER", "REPLICATE", node_id(primary))
        self.until_well()

    def mend(self) -> None:
        """Start those again that were killed or paused, and wait until all is well."""
        for node in self.nodes:
            if node.is_paused:
                node.resume()
        start_all(node for node in self.nodes if not node.runs)
        self.until_well()

    def stop(self) -> None:
        """End all, whatever their state."""
        for node in self.nodes:
            node.stop()

    def until_well(self) -> None:
        """Wait until every node that runs has it that all is well, and every replica is fed."""
        try:
            wait_until(lambda: not any(self._illness_of(node) for node in self.running))
        except AssertionError:
            illnesses = {node.port: self._illness_of(node) for node in self.running}
            raise AssertionError(f"the cluster does not get well: {illnesses}") from None

    def _illness_of(self, node: Node) -> str:
        """What a node finds is not well."""
        try:
            state = str(node.ask("CLUSTER", "INFO")).split()[0]
            view, replication = known(node).values(), node.info("replication")
        except redis.RedisError as exc:
            return str(exc)
        runs = {other.port: other.runs for other in self.nodes}
        believed = {one.port: not one.flags & {"fail", "fail?"} for one in view}
        owners = {one.port for one in view if one.slots}
        if state != "cluster_state:ok":
            return str(state)
        if believed != runs:
            return f"alive are {believed}"
        if owners != {other.port for other in self.primaries}:
            return f"owners are {owners}"
        return "" if replication.get("master_link_status", "up") == "up" else str(replication)

    # ------------------------------------------------------------ who is who

    @property
    def running(self) -> list[Node]:
        """The nodes that are neither killed nor paused."""
        return [node for node in self.nodes if node.runs]

    @property
    def primaries(self) -> list[Node]:
        """The nodes that own slots, as they have it themselves."""
        return [node for node in self.running if itself(node).slots]

    def replicas_of(self, primary: Node) -> list[Node]:
        """The running nodes that follow this one, as they have it themselves."""
        its_id = node_id(primary)
        return [node for node in self.running if itself(node).primary_id == its_id]

    def owner(self, slot: int) -> Node:
        """Who serves a slot; the last one to get it where two believe so.

        Raises:
            LookupError: Nobody, at the moment.
        """
        claims = []
        for node in self.running:
            with contextlib.suppress(redis.RedisError):
                claim = itself(node)
                if claim.owns(slot) and "master" in claim.flags:
                    claims.append((claim.epoch, node.port, node))
        if not claims:
            raise LookupError(f"nobody serves slot {slot}")
        return max(claims)[2]

    def owner_of(self, room_id: str) -> Node:
        """Who serves a room."""
        return self.owner(slot_of(room_id))

    def rooms_by_primary(self, each: int) -> dict[Node, list[str]]:
        """New rooms, so many on each primary."""
        rooms: dict[Node, list[str]] = {node: [] for node in self.primaries}
        while any(len(found) < each for found in rooms.values()):
            found = rooms[self.owner_of(room := unique("room"))]
            if len(found) < each:
                found.append(room)
        return rooms

    def url(self, *seeds: Node) -> str:
        """For an instance; without seeds, by all nodes."""
        hosts = ",".join(node.at for node in seeds or self.nodes)
        access = self.access
        return f"{access.scheme('+cluster')}://{access.userinfo}{hosts}{access.query}"

    def of(self, room_id: str) -> RoomView:
        """For looking into a room, wherever it is."""
        return RoomView(self, room_id)

    # ------------------------------------------------------------ what may happen to it

    def fail_over(self, primary: Node) -> Node:
        """Let a replica take a living primary's place, nothing being lost. Returns it."""
        (replica, *_) = self.replicas_of(primary)
        replica.ask("CLUSTER", "FAILOVER")
        wait_until(lambda: replica.role == "master" and primary.role == "slave")
        return replica

    def until_replaced(self, slot: int, dead: Node) -> Node:
        """Wait until another node serves a dead one's slot, and returns it."""

        def is_replaced() -> bool:
            with contextlib.suppress(LookupError):
                node = self.owner(slot)
                return node is not dead and "cluster_state:ok" in node.ask("CLUSTER", "INFO")
            return False

        wait_until(is_replaced)
        return self.owner(slot)

    def move_slots(self, slots: Sequence[int], target: Node) -> None:
        """Move slots with their keys, one slot and one key after the other."""
        first = Move(self, slots[0], target)
        for slot in slots:
            first.of(slot).run()

    def move_slots_at_once(self, first: int, last: int, target: Node) -> None:
        """Move slots of one primary with all their keys in one atomic step (Valkey 9)."""
        source = self.owner(first)
        where = ("SLOTSRANGE", first, last, "NODE", node_id(target))
        source.ask("CLUSTER", "MIGRATESLOTS", *where)
        wait_until(lambda: self.owner(first) is target and self.owner(last) is target)

    def add(self, primary: Node | None = None) -> Node:
        """Add a node: a replica of a primary, or a primary without slots."""
        node = self._new_node()
        node.start()
        for other in self.running:
            self._introduce(node, other)
        self.nodes.append(node)
        wait_until(lambda: all(len(known(each)) == len(self.nodes) for each in self.running))
        if primary is not None:
            node.ask("CLUSTER", "REPLICATE", node_id(primary))
        self.until_well()
        return node

    def remove(self, node: Node) -> None:
        """Take a node out that serves no slot, and end it."""
        its_id = node_id(node)
        assert not itself(node).slots
        self.nodes.remove(node)
        node.stop()
        for other in self.running:
            other.ask("CLUSTER", "FORGET", its_id)

    def _introduce(self, node: Node, other: Node) -> None:
        bus_port = other.ask("CONFIG", "GET", "cluster-port")[1]
        node.ask("CLUSTER", "MEET", "127.0.0.1", other.port, bus_port)

    def _new_node(self) -> Node:
        settings = {
            "cluster-enabled": "yes",
            "cluster-port": str(free_port()),
            "cluster-node-timeout": str(NOTICED_MS),
            "cluster-require-full-coverage": "no",  # or the loss of one shard stops all, a while
            "repl-diskless-sync-delay": "0",
            "appendonly": "yes",
            "appendfsync": "always",
            **self.access.data_settings(),
            **({"tls-cluster": "yes"} if self.access.is_tls else {}),
            **self._settings,
        }
        directory = self.directory / unique("n")
        return Node(directory, settings.items(), self.access, program=self._program)


class Move:
    """A slot on its way from its owner to another primary, step by step as redis-cli goes."""

    def __init__(self, cluster: Cluster, slot: int, target: Node) -> None:
        self.slot = slot
        self.source = cluster.owner(slot)
        self.target = target
        self._source_id, self._target_id = node_id(self.source), node_id(target)
        self._others = [node for node in cluster.primaries if node not in (self.source, target)]
        password = cluster.access.password
        self._auth = ("AUTH", password) if password else ()

    def of(self, slot: int) -> Move:
        """The same with another slot."""
        move = copy.copy(self)
        move.slot = slot
        return move

    def run(self) -> None:
        """All steps."""
        self.begin()
        while keys := self.keys():
            self.carry(keys[0])
        self.finish()

    def begin(self) -> None:
        """From now on the source sends those who ask for a key that it has not to the target."""
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self._source_id)
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self._target_id)

    def keys(self) -> list[str]:
        """What is still at the source."""
        return sorted(self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, 1000))

    def carry(self, *keys: str) -> None:
        """Move keys, all in one step."""
        where = ("127.0.0.1", self.target.port, "", 0, int(LIMIT_S * 1000))
        self.source.ask("MIGRATE", *where, *self._auth, "KEYS", *keys)

    def finish(self) -> None:
        """The slot is the target's; all are told."""
        for node in (self.target, self.source, *self._others):
            try:
                node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self._target_id)
            except redis.ResponseError:
                # One that gave its last slot away becomes the target's replica by itself.
                if node is not self.source or node.role == "master":
                    raise


class RoomView:
    """A room of a cluster: stands where tests ask for a Redis to look into."""

    def __init__(self, cluster: Cluster, room_id: str) -> None:
        self._cluster = cluster
        self._room_id = room_id

    def client(self) -> Any:
        """A client of the primary that serves the room now."""
        return self._cluster.owner_of(self._room_id).client()


def slot_of(room_id: str) -> int:
    """The slot of a room's keys: of its name, which is their hash tag."""
    return key_slot(room_id.encode())


def known(node: Node) -> dict[str, Known]:
    """What a node knows, by id."""
    nodes = {}
    for line in node.ask("CLUSTER", "NODES").splitlines():
        its_id, address, flags, primary_id, _, _, epoch, _, *slots = line.split(" ")
        port = int(address.partition("@")[0].rpartition(":")[2])
        nodes[its_id] = Known(
            its_id,
            port,
            frozenset(flags.split(",")),
            primary_id,
            int(epoch),
            [_range(part) for part in slots if not part.startswith("[")],
        )
    return nodes


def itself(node: Node) -> Known:
    """What a node has of itself."""
    return next(one for one in known(node).values() if "myself" in one.flags)


def node_id(node: Node) -> str:
    """Its name in the cluster."""
    return str(node.ask("CLUSTER", "MYID"))


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)
