"""What a user of Redis may do: asked without doing it.

Redis looks at a user's rights first and at a command's arguments after. So each command is said
with arguments that it refuses: an answer other than NOPERM tells that it would be allowed, and
nothing is changed. `ACL DRYRUN` would say the same, to administrators of Redis 7 alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import redis
import redis.exceptions

from seatws.doctor.finding import Finding
from seatws.store.keys import RoomKeys, room_keys

_RIGHTS: Final = (
    "~{prefix}:* &{prefix}:* +@read +@write +@scripting +@pubsub +@connection +info +time +role "
    "+wait"
)
LISTEN_S: Final = 2.0
_NO_WRITES: Final = {
    "OOM": ("its memory is full", "give it more memory, or a higher maxmemory"),
    "MISCONF": ("it can't write to its disk", "look at its log: mostly the disk is full"),
    "READONLY": ("it is a replica", "let redis.url name the primary, or use redis+sentinel://"),
    "NOREPLICAS": ("it has too few replicas (min-replicas-to-write)", "bring them up"),
    "CLUSTERDOWN": ("the cluster is down", "see which of its servers are away"),
}
"""How answers begin where nothing can be stored, why, and what to do."""
_CODES: Final = {
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
}
_NO_NUMBER: Final = "no-number"


def may(client: redis.Redis, prefix: str, *, is_cluster: bool) -> Iterator[Finding]:
    """What of all that an instance needs the user may not do, or the server does not do for anyone.

    Args:
        client: A primary, as that user sees it.
        prefix: What all keys and channels begin with.
        is_cluster: Whether events go over sharded pub/sub.
    """
    keys = room_keys(prefix, "")  # no room has this id
    answers = {name: _answer(client, words) for name, words in probes(keys, is_cluster).items()}
    answers["SSUBSCRIBE" if is_cluster else "SUBSCRIBE"] = _listen(client, keys.channel, is_cluster)
    refused = [name for name, answer in answers.items() if answer.startswith("NOPERM")]
    if refused:
        yield Finding(
            "problem",
            "rights",
            f"this user may not {', '.join(refused)}, with keys and channels {prefix}:*",
            f"`ACL SETUSER <user> {rights_for(prefix, is_cluster=is_cluster)}` there",
        )
    else:
        yield Finding("ok", "rights", f"this user may do all that is needed with {prefix}:*")
    for word, (why, fix) in _NO_WRITES.items():
        if any(answer.startswith(word) for answer in answers.values()):
            yield Finding("problem", "writing", f"it refuses every change: {why}", fix)


def rights_for(prefix: str, *, is_cluster: bool) -> str:
    """What to give a user, in the words of ACL SETUSER."""
    return _RIGHTS.format(prefix=prefix) + " +cluster" * is_cluster


def probes(keys: RoomKeys, is_cluster: bool) -> dict[str, tuple[str | int, ...]]:
    """For each command that instances and their scripts use: how to say it in vain."""
    publish = "SPUBLISH" if is_cluster else "PUBLISH"
    return {
        "TIME": ("TIME",),
        "HGET": ("HGET", keys.holds, "none"),
        "HMGET": ("HMGET", keys.meta, "none"),
        "HGETALL": ("HGETALL", keys.holds),
        "HSET": ("HSET", keys.holds, "a", "b", "one too many"),
        "HDEL": ("HDEL", keys.holds, "none"),
        "ZADD": ("ZADD", keys.deadlines, _NO_NUMBER, "none"),
        "ZREM": ("ZREM", keys.deadlines, "none"),
        "ZRANGEBYSCORE": ("ZRANGEBYSCORE", keys.deadlines, _NO_NUMBER, _NO_NUMBER),
        "ZREVRANGE": ("ZREVRANGE", keys.deadlines, 0, 0),
        "PEXPIREAT": ("PEXPIREAT", keys.meta, _NO_NUMBER),
        "EVALSHA": ("EVALSHA", "none", 1, keys.meta),
        "SCRIPT LOAD": ("SCRIPT", "LOAD", "this is no script"),
        "WAIT": ("WAIT", 0, 0),
        "ROLE": ("ROLE",),
        publish: (publish, keys.channel, ""),  # nobody listens there
        **({"CLUSTER SLOTS": ("CLUSTER", "SLOTS")} if is_cluster else {}),
    }


def _answer(client: redis.Redis, words: tuple[str | int, ...]) -> str:
    """What a command is answered with: an error's text, its code in front; `""` for no error."""
    try:
        client.execute_command(*words)  # type: ignore[no-untyped-call]
    except redis.exceptions.ResponseError as exc:
        return _text(exc)
    return ""


def _listen(client: redis.Redis, channel: str, is_cluster: bool) -> str:
    with client.pubsub() as ear:  # type: ignore[no-untyped-call]
        try:
            (ear.ssubscribe if is_cluster else ear.subscribe)(channel)
            ear.get_message(timeout=LISTEN_S)
        except redis.exceptions.ResponseError as exc:
            return _text(exc)
    return ""


def _text(exc: redis.exceptions.ResponseError) -> str:
    """An error as Redis said it: redis-py takes the code off where it has a class for it."""
    code = next((code for kind, code in _CODES.items() if isinstance(exc, kind)), "")
    return f"{code} {exc}".lstrip()
