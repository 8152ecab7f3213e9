"""Somebody else in the room, who must notice nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.harness import Client, Instance, unique


@contextlib.asynccontextmanager
async def watched_room(server: Instance) -> AsyncIterator[str]:
    """A room with a viewer, who must not notice what happens inside the block.

    Afterwards her connection stands, the room's next event is the one that is next for her, and
    she was sent nothing but what she asked for.
    """
    room = unique("room")
    async with Client.connect(server.url) as witness:
        await witness.join(room)
        assert (await witness.select(room, "W1"))["rev"] == 1
        yield room
        assert (await witness.select(room, "W2"))["rev"] == 2
        await witness.ask(type="ping")
        heard = [message["type"] for message in witness.received]
        expected = ["room_joined", "current_selections", "seat_selected", "seat_selected", "pong"]
        assert heard == expected, witness.received
