"""Names in Redis. A room's all carry the hash tag `{room}`, so that they share a cluster slot."""

from __future__ import annotations

from typing import NamedTuple


class RoomKeys(NamedTuple):
    """A room's names, in the order of `apply.lua`'s KEYS."""

    holds: str
    deadlines: str
    owners: str
    meta: str
    channel: str


def room_keys(prefix: str, room_id: str) -> RoomKeys:
    """The keys and the channel of one room."""
    base = f"{prefix}:{{{room_id}}}:"
    return RoomKeys(
        holds=base + "holds",
        deadlines=base + "deadlines",
        owners=base + "owners",
        meta=base + "meta",
        channel=base + "events",
    )


def room_of_channel(prefix: str, channel: bytes) -> str:
    """The room whose events come on this channel."""
    return channel[len(prefix) + 2 : -len("}:events")].decode()
