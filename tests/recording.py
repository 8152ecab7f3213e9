"""Rooms in this process: viewers without a socket, and another instance without a process."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from seatws.frames import text_frame
from seatws.messages import Message as Sent
from seatws.messages import encode
from seatws.rooms.peer import Viewer
from seatws.store.holds import APPLY
from seatws.store.keys import room_keys
from tests.harness import LIMIT_S, Message, Valkey, unique
from tests.raw import inflated

PLAIN = 0x81
"""The first byte of a whole text message (RFC 6455 5.2)."""
DEFLATED = 0xC1
"""The same, deflated (RFC 7692 6)."""


class RecordingPeer:
    """A `Peer` that keeps what it is sent, and replays it as a client would.

    In each room, every `rev` must be the one after the last that was seen there: `problems` says
    where it was not. Deflated frames it takes only if it `deflates`.
    """

    def __init__(self, client_id: str | None = None, *, deflates: bool = False) -> None:
        self.client_id = client_id or unique("peer")
        self.viewers: dict[str, Viewer] = {}
        self.deflates = deflates
        self.unsent = 0
        self.is_behind = False
        self.sent: list[bytes] = []
        """What each call brought: the very objects."""
        self.received: list[Message] = []
        self.maps: dict[str, dict[str, str]] = {}
        """Room, seat, holder."""
        self.revs: dict[str, int] = {}
        """Room, and the rev that its map is of."""
        self.problems: list[str] = []
        self._stirred = asyncio.Event()

    def send(self, frames: bytes) -> None:
        self.sent.append(frames)
        assert self.deflates or DEFLATED not in first_bytes(frames)
        for message in messages_in(frames):
            self.received.append(message)
            self._replay(message)
        self._stirred.set()

    def send_snapshot(self, frames: bytes) -> None:
        self.send(frames)

    def tell(self, message: Sent) -> None:
        self.send(text_frame(encode(message)))

    def kinds(self, room_id: str | None = None) -> list[str]:
        """The types of what it got, in order; of one room or of all."""
        return [
            message["type"]
            for message in self.received
            if room_id in (None, message.get("room_id"))
        ]

    def answers_to(self, request_id: str) -> list[Message]:
        """What came back for a request."""
        return [message for message in self.received if message.get("request_id") == request_id]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait, from message to message, until something is so."""
        async with asyncio.timeout(LIMIT_S):
            while not is_so():
                self._stirred.clear()
                await self._stirred.wait()
        assert not self.problems

    async def heard(self, kind: str, count: int = 1) -> Message:
        """Wait for the first, second, ... message of a type."""

        def so_far() -> list[Message]:
            return [message for message in self.received if message["type"] == kind]

        await self.until(lambda: len(so_far()) >= count)
        return so_far()[count - 1]

    async def answered(self, request_id: str) -> Message:
        """Wait for a request's answer."""
        await self.until(lambda: bool(self.answers_to(request_id)))
        return self.answers_to(request_id)[0]

    def _replay(self, message: Message) -> None:
        room = message.get("room_id", "")
        match message["type"]:
            case "current_selections":
                selections = message["selections"]
                self.maps[room] = {hold["seat_id"]: hold["client_id"] for hold in selections}
                self.revs[room] = message["rev"]
            case "room_left":
                self.maps.pop(room, None)
                self.revs.pop(room, None)
            case "seat_selected" | "seat_released" if room in self.maps:
                if "rev" in message:
                    if message["rev"] != self.revs[room] + 1:
                        self.problems.append(f"{message} after rev {self.revs[room]}")
                    self.revs[room] = message["rev"]
                if message["type"] == "seat_selected":
                    self.maps[room][message["seat_id"]] = message["client_id"]
                else:
                    self.maps[room].pop(message["seat_id"], None)


def messages_in(frames: bytes) -> Iterator[Message]:
    """What a server's frames say; each is a whole text message, perhaps deflated."""
    for first, payload in split(frames):
        assert first in (PLAIN, DEFLATED)
        yield json.loads(inflated(payload) if first == DEFLATED else payload)


def first_bytes(frames: bytes) -> list[int]:
    """Of each frame."""
    return [first for first, _ in split(frames)]


def split(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Each frame's first byte and its payload (RFC 6455 5.2)."""
    while frames:
        first, length = frames[:2]
        end_of_head = {126: 4, 127: 10}.get(length, 2)
        if end_of_head > 2:
            length = int.from_bytes(frames[2:end_of_head])
        end = end_of_head + length
        yield first, frames[end_of_head:end]
        frames = frames[end:]


class Deflations(list[int]):
    """How many bytes each deflater of this process was given, from now on; they work as ever."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        real = zlib.compressobj
        counts = self

        class Counted:
            def __init__(self, *settings: Any) -> None:
                self.deflater = real(*settings)
                self.flush = self.deflater.flush
                self.place = len(counts)
                counts.append(0)

            def compress(self, data: bytes) -> bytes:
                counts[self.place] += len(data)
                return self.deflater.compress(data)

        patch.setattr(zlib, "compressobj", Counted)


class Elsewhere:
    """Another instance, as far as one room knows it: it runs the script, and publishes when told.

    Args:
        valkey: Where the room is.
        room_id: Which.
    """

    ORIGIN = b"elsewher"  # as long as an instance's

    def __init__(self, valkey: Valkey, room_id: str) -> None:
        self.redis: Any = redis.Redis(unix_socket_path=str(valkey.socket), protocol=2)
        self.keys = room_keys("seatws", room_id)

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.close()

    def select(
        self,
        seat_id: str,
        client_id: str = "somebody",
        *,
        hold_ms: int = 300_000,
        told: bool = True,
    ) -> bytes:
        """Hold a seat; the event, which the others hear of if `told`."""
        return self._apply("select", client_id, "{}", 1, seat_id, hold_ms=hold_ms, told=told)

    def release(self, seat_id: str, client_id: str = "somebody", *, told: bool = True) -> bytes:
        """End a hold; the event."""
        return self._apply("release", client_id, seat_id, hold_ms=0, told=told)

    def publish(self, event: bytes) -> None:
        """Tell the others."""
        self.redis.publish(self.keys.channel, self.ORIGIN + event)

    def forget(self) -> None:
        """Lose the room's data, as a Redis without persistence does."""
        self.redis.delete(*self.keys[:4])

    def rev(self) -> int:
        """The room's, in Redis."""
        return int(self.redis.execute_command("HGET", self.keys.meta, "rev") or 0)

    def now_ms(self) -> int:
        """Redis's clock."""
        seconds, microseconds = self.redis.execute_command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    def listeners(self) -> int:
        """How many instances are subscribed to the room."""
        return int(self.redis.execute_command("PUBSUB", "NUMSUB", self.keys.channel)[1])

    def _apply(self, *operation: str | int, hold_ms: int, told: bool) -> bytes:
        channel = self.keys.channel if told else self.keys.channel + ":nowhere"
        rules = ("PUBLISH", channel, self.ORIGIN, hold_ms, 0, 3_600_000, unique("epoch"))
        answer = self.redis.execute_command("EVAL", APPLY, 4, *self.keys[:4], *rules, *operation)
        event: bytes = answer[0]
        assert event, "nothing changed"
        return event
