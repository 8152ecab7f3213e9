"""What is to be said of a Redis server by what it says of itself: rules, free of I/O.

Those by which an instance refuses a server, or warns of it, at its start are in store/health.py and
asked here, too. The others are for who looks closely.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from seatws.doctor.finding import Finding
from seatws.store.health import CLOCK_OFF_S, refusal_of, warnings_of

NEARLY_FULL: Final = 0.8
SLOW_S: Final = 0.01
"""A click waits for two round trips at the most; this much each is still not noticed."""
STALLS_S: Final = 0.1
REPLICA_LAG_S: Final = 10
"""Replicas report once a second."""

Info = Mapping[str, str]
"""Fields of INFO by name."""


def health(info: Info, ahead_s: float, *, is_cluster: bool) -> Iterator[Finding]:
    """What an instance itself says of the server at its start.

    Args:
        info: All of INFO.
        ahead_s: How far Redis's clock is ahead of this machine's.
        is_cluster: Whether it is one of a cluster.
    """
    refusal = refusal_of(dict(info), is_cluster=is_cluster)
    if refusal is not None:
        yield Finding("problem", "fitness", *_parted(refusal))
    else:
        policy = "never drops a hold (maxmemory-policy noeviction)"
        yield Finding("ok", "fitness", f"{_version(info)}, {policy}")
    # Replicas are counted more closely below.
    for warning in warnings_of(dict(info), ahead_s=ahead_s, replicas_ack=0):
        yield Finding("warning", "fitness", *_parted(warning))


def memory(info: Info) -> Finding:
    """How near it is to refusing writes. INFO memory."""
    used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
    total = limit or _number(info, "total_system_memory")
    if not total:
        return Finding("ok", "memory", f"{_mib(used)} used")
    whose = "maxmemory" if limit else "the memory of its machine"
    what = f"{_mib(used)} used, {used / total:.0%} of {whose}"
    if used < NEARLY_FULL * total:
        return Finding("ok", "memory", what)
    fix = "give it more memory" + " (and a higher maxmemory)" * bool(limit)
    fix += ": when it is used up every selection is refused"
    return Finding("warning", "memory", what, fix)


def persistence(info: Info, fsync: str | None) -> Iterator[Finding]:
    """What a power cut leaves, where there is an append-only file; `health` says if there is none.

    Args:
        info: INFO persistence.
        fsync: `appendfsync`, as CONFIG GET says; None if that may not be asked.
    """
    if info.get("aof_enabled") != "1":
        return
    if fsync == "no":
        what = "appendonly yes with appendfsync no: a power cut forgets the holds of half a minute"
        yield Finding("warning", "persistence", what, "set `appendfsync everysec` there")
        return
    cost = {"always": ", a power cut loses nothing", "everysec": ", a power cut loses a second"}
    yield Finding("ok", "persistence", f"append-only file{cost.get(fsync or '', '')}")


def replication(info: Info, replicas_ack: int) -> Iterator[Finding]:
    """Whether it may be written to, and who has a copy. INFO replication.

    Args:
        info: As the server tells it.
        replicas_ack: How many replicas must have a change before it is answered.
    """
    if info.get("role") == "slave":
        link = info.get("master_link_status", "down")
        if link == "up":
            yield Finding("ok", "replication", "a replica, in touch with its primary")
        else:
            yield Finding(
                "warning",
                "replication",
                f"a replica that has lost its primary (link {link})",
                "see why the two can't reach each other: it could not take over now",
            )
        return
    replicas = [text for key, text in info.items() if re.fullmatch(r"slave\d+", key)]
    good = sum(_is_in_touch(text) for text in replicas)
    if good < replicas_ack:
        yield Finding(
            "problem",
            "replication",
            f"{good} replicas in touch, and redis.replicas_ack wants {replicas_ack}: every change "
            "is answered store_unavailable",
            "bring replicas up, or lower redis.replicas_ack",
        )
    elif good < len(replicas):
        yield Finding(
            "warning",
            "replication",
            f"{len(replicas) - good} of {len(replicas)} replicas are behind or out of touch",
            "see why: they could not take over now",
        )
    elif good:
        yield Finding("ok", "replication", f"a primary, {good} replicas in touch")
    else:
        yield Finding(
            "ok", "replication", "a primary without replicas: while it is away no seat can be held"
        )


def clients(info: Info) -> Finding:
    """How near it is to refusing connections. INFO clients."""
    now, most = _number(info, "connected_clients"), _number(info, "maxclients")
    if most and now > NEARLY_FULL * most:
        return Finding(
            "warning", "clients", f"{now} connections of {most} at the most", "raise maxclients"
        )
    return Finding("ok", "clients", f"{now} connections" + (f", {most} at the most" * bool(most)))


def latency(round_trips_s: Sequence[float]) -> Finding:
    """How long an answer takes, from some commands one after the other, in seconds."""
    median, most = statistics.median(round_trips_s), max(round_trips_s)
    what = f"median {median * 1000:.1f} ms, at most {most * 1000:.1f} ms in {len(round_trips_s)}"
    if median > SLOW_S:
        fix = "run the server nearer to its Redis: each click waits for this"
    elif most > STALLS_S:
        fix = "look at its SLOWLOG and `LATENCY DOCTOR`, and at the network between"
    else:
        return Finding("ok", "latency", what)
    return Finding("warning", "latency", what, fix)


def clock(ahead_s: float) -> Iterator[Finding]:
    """How Redis's clock differs from this machine's; `health` says if that is much."""
    if abs(ahead_s) <= CLOCK_OFF_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        yield Finding("ok", "clock", f"{abs(ahead_s):.3f} s {way} this machine's")


def _parted(text: str) -> tuple[str, str]:
    """What is so, and what to do."""
    what, _, fix = text.partition("; ")
    return what, fix


def _is_in_touch(replica: str) -> bool:
    fields = dict(pair.split("=", 1) for pair in replica.split(",") if "=" in pair)
    lag = fields.get("lag", "0")
    return fields.get("state") == "online" and lag.isdigit() and int(lag) <= REPLICA_LAG_S


def _version(info: Info) -> str:
    valkey = info.get("valkey_version")
    redis = info.get("redis_version") or "of an unknown version"
    return f"Valkey {valkey}, as Redis {redis}" if valkey else f"Redis {redis}"


def _number(info: Info, field: str) -> int:
    text = info.get(field, "0")
    return int(text) if text.isdigit() else 0


def _mib(size: int) -> str:
    return f"{size / 1_048_576:.0f} MiB"
