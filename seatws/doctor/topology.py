"""From `redis.url` to every server behind it: one, those that Sentinels watch, or a cluster's."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import redis.exceptions

from seatws.config import EMBEDDED, Redis
from seatws.doctor import machine
from seatws.doctor.finding import Finding
from seatws.doctor.servers import Server, open_at, unusable
from seatws.redis_url import Address, RedisUrl, shown, split_redis_url
from seatws.store.cluster import SLOTS
from seatws.store.embedded import EmbeddedServer

Found = Generator[Finding, None, list[Server]]
"""Findings on the way to the servers."""

_LOST: Final = {"fail", "fail?", "noaddr"}
"""Flags of CLUSTER NODES."""


def find(settings: Redis) -> Found:
    """The servers, and what is to be said of how they are found.

    Raises:
        StoreError: The URL can't be used.
    """
    if settings.url == EMBEDDED:
        return (yield from _embedded(settings))
    yield Finding("ok", "Redis", settings.redacted_url)
    url = split_redis_url(settings.url)
    match url:
        case RedisUrl(kind="sentinel"):
            return (yield from _behind_sentinels(url, settings))
        case RedisUrl(kind="cluster"):
            return (yield from _in_cluster(url, settings))
    return [Server("Redis", open_at(settings.url, settings))]


def _embedded(settings: Redis) -> Found:
    """It is not started for this."""
    directory = Path(settings.data_dir)
    yield from machine.data_directory(directory)
    url = EmbeddedServer(directory).url
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(unquote(urlsplit(url).path))
        except (FileNotFoundError, ConnectionRefusedError):
            what = "the embedded one does not run now: it starts and ends with an instance"
            yield Finding("ok", "Redis", what)
            return []
        except OSError:
            pass  # there is something; asking it will tell
    return [Server("Redis (embedded)", open_at(url, settings))]


def _behind_sentinels(url: RedisUrl, settings: Redis) -> Found:
    primaries: dict[Address, str] = {}
    replicas: dict[Address, None] = {}
    for address in url.addresses:
        name = f"Sentinel {shown(address)}"
        with _asking(name, url.of_sentinel(address), settings) as sentinel:
            try:
                found = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.name)
                if found is None:
                    fix = "let redis.url end in the name that `SENTINEL MASTERS` tells"
                    yield Finding("problem", name, f"it watches no {url.name!r}", fix)
                    continue
                primary = _address(found)
                primaries[primary] = name
                replicas |= dict.fromkeys(_replicas(sentinel, url.name))
                yield Finding("ok", name, f"the primary is {shown(primary)}")
                yield from _quorum(sentinel, url.name)
            except (redis.exceptions.RedisError, OSError) as exc:
                yield unusable(exc, settings.prefix)._replace(about=name)
    if len(primaries) > 1:
        yield Finding(
            "problem",
            "Sentinels",
            f"they name different primaries: {', '.join(map(shown, primaries))}",
            "wait a few seconds and look again: during a failover that is so; if it stays, see "
            "which of them can't reach the others",
        )
    return [
        Server(
            f"Redis {shown(address)}",
            open_at(url.of_server(address), settings),
            is_replica=address not in primaries,
        )
        for address in [*primaries, *(one for one in replicas if one not in primaries)]
    ]


def _replicas(sentinel: Server, name: str) -> Iterator[Address]:
    for flat in sentinel.ask("SENTINEL", "REPLICAS", name):
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        yield fields["ip"], int(fields["port"])


def _quorum(sentinel: Server, name: str) -> Iterator[Finding]:
    try:
        sentinel.ask("SENTINEL", "CKQUORUM", name)
    except redis.exceptions.ResponseError as exc:
        if not str(exc).startswith("NOQUORUM"):
            raise
        yield Finding(
            "problem",
            sentinel.name,
            "it does not reach enough other Sentinels for a failover",
            "start them, or open the way between them: until then a lost primary stays lost",
        )


def _in_cluster(url: RedisUrl, settings: Redis) -> Found:
    silent: dict[Address, Finding] = {}
    servers: list[Server] = []
    for address in url.addresses:
        with _asking(f"Redis {shown(address)}", url.of_server(address), settings) as seed:
            try:
                seen = Seen(
                    address,
                    seed.ask("CLUSTER", "SLOTS"),
                    seed.ask("CLUSTER", "INFO"),
                    [line.split() for line in seed.ask("CLUSTER", "NODES").splitlines() if line],
                )
            except (redis.exceptions.RedisError, OSError) as exc:
                silent[address] = unusable(exc, settings.prefix)._replace(about=seed.name)
                continue
        yield from cluster_state(seen.info, seen.nodes)
        servers = list(servers_in(seen, url, settings))
        break
    names = {server.name for server in servers}
    yield from (found for found in silent.values() if found.about not in names)
    return servers


class Seen(NamedTuple):
    """What one server says of its cluster."""

    asked: Address
    ranges: list[Any]
    """CLUSTER SLOTS."""
    info: str
    nodes: list[list[str]]
    """CLUSTER NODES: the words of its lines."""


def cluster_state(info: str, nodes: list[list[str]]) -> Iterator[Finding]:
    """What one server thinks of its cluster: CLUSTER INFO, and the words of CLUSTER NODES."""
    fields = dict(line.split(":", 1) for line in info.split() if ":" in line)
    assigned = int(fields.get("cluster_slots_assigned", "0"))
    if fields.get("cluster_state") != "ok":
        yield Finding(
            "problem",
            "cluster",
            f"its state is {fields.get('cluster_state', 'unknown')}, {assigned} of {SLOTS} slots "
            "are assigned: rooms can't be changed",
            "bring back the servers that are away, or assign their slots (redis-cli --cluster fix)",
        )
    else:
        yield Finding("ok", "cluster", f"its state is ok, all {SLOTS} slots have a server")
    replicated = {line[3] for line in nodes if not _flags(line) & _LOST}
    for line in nodes:
        flags, where = _flags(line), line[1].partition("@")[0]
        if flags & _LOST:
            yield Finding(
                "warning",
                "cluster",
                f"{where} is lost ({line[2]})",
                "start it again, or take it out (redis-cli --cluster del-node)",
            )
        elif "master" in flags and line[8:] and line[0] not in replicated:
            yield Finding(
                "warning",
                "cluster",
                f"{where} has rooms and no replica",
                "give it one: while it is away its rooms can't be changed",
            )


def servers_in(seen: Seen, url: RedisUrl, settings: Redis) -> Iterator[Server]:
    """The cluster's primaries with their slots, then the replicas that are not lost."""
    slots: dict[Address, set[int]] = {}
    replicas: dict[Address, None] = {}
    known: set[str] = set()
    for first, last, *nodes in seen.ranges:
        known |= {node[2] for node in nodes}
        addresses = [_address(node, seen.asked) for node in nodes]
        slots.setdefault(addresses[0], set()).update(range(first, last + 1))
        replicas |= dict.fromkeys(addresses[1:])
    for line in seen.nodes:  # SLOTS has no replica that has got nothing yet
        if line[0] not in known and "slave" in _flags(line) and not _flags(line) & _LOST:
            host, _, port = line[1].partition("@")[0].rpartition(":")
            replicas[(host or seen.asked[0], int(port))] = None
    for address in [*slots, *(one for one in replicas if one not in slots)]:
        yield Server(
            f"Redis {shown(address)}",
            open_at(url.of_server(address), settings),
            is_cluster=True,
            is_replica=address not in slots,
            slots=frozenset(slots.get(address, ())),
        )


@contextlib.contextmanager
def _asking(name: str, url: str, settings: Redis) -> Iterator[Server]:
    server = Server(name, open_at(url, settings))
    try:
        yield server
    finally:
        server.client.close()


def _address(node: list[Any], asked: Address | None = None) -> Address:
    # A server that does not know its own address gives none: it is the one that was asked.
    host = node[0] or (asked[0] if asked else "")
    return str(host), int(node[1])


def _flags(line: list[str]) -> set[str]:
    return set(line[2].split(","))
