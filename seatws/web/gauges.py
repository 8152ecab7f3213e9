"""What is now, for the metrics: asked at each scrape."""

from __future__ import annotations

from seatws.config import Config
from seatws.rooms.hub import Hub
from seatws.web.sockets import Sockets


def gauges(
    config: Config, hub: Hub, sockets: Sockets, *, is_draining: bool
) -> dict[str, tuple[str, float]]:
    """Each gauge's name, its meaning and its value now."""
    rooms = hub.rooms.values()
    shards, up = hub.shards, hub.shards_up
    return {
        "seatws_connections": ("WebSocket connections now", len(sockets)),
        "seatws_connections_limit": ("limits.connections; 0: no limit", config.limits.connections),
        "seatws_viewers": ("Viewers now", sum(room.viewers for room in rooms)),
        "seatws_viewers_behind": (
            "Viewers that must read before they get changes again",
            sum(room.viewers_behind for room in rooms),
        ),
        "seatws_rooms": ("Rooms with viewers here now", hub.active_rooms),
        "seatws_rooms_followed": ("Rooms that are kept true here now", len(rooms)),
        "seatws_holds": (
            "Holds in the rooms followed here now",
            sum(len(room.mirror.holds) for room in rooms),
        ),
        "seatws_redis_up": ("1 while every Redis needed can be reached", float(up == shards)),
        "seatws_redis_shards": ("Redis servers that share the rooms", shards),
        "seatws_redis_shards_up": ("Those of them that can be reached", up),
        "seatws_draining": ("1 while everybody is sent away", float(is_draining)),
    }
