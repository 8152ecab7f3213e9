"""What rooms need of a connection, whatever it is."""

from __future__ import annotations

from typing import Protocol

from seatws.messages import Message


class Peer(Protocol):
    """One client's connection, as rooms see it. All calls return at once."""

    @property
    def client_id(self) -> str:
        """Who owns what is selected here; several peers may share it."""

    @property
    def viewers(self) -> dict[str, Viewer]:
        """The rooms this peer has joined or is about to join, by room id. Kept by the hub."""

    @property
    def deflates(self) -> bool:
        """Whether it takes deflated frames."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read; 0 when all is with the network."""

    @property
    def is_behind(self) -> bool:
        """Whether so much is unsent that changes must not be added to it."""

    def send(self, frames: bytes) -> None:
        """Send one or more whole frames, after all that was sent before."""

    def send_snapshot(self, frames: bytes) -> None:
        """Send frames with a snapshot, which does not count against the limit on what is unsent."""

    def tell(self, message: Message) -> None:
        """Send one message to this peer alone."""


BEHIND = 0
"""A viewer's `next_rev` when only a snapshot helps it; revs begin at 1."""
AWAY = 1 << 62
"""A viewer's `next_rev` before it is in the room and after it left: nothing is due to it."""


class Viewer:
    """A peer in a room. What it has seen is one number: the next `rev` that it needs.

    `answers` are what it is owed for its own requests, each with the rev whose place it takes
    (0: with no place of its own, behind the one before it); None when there are none.
    """

    __slots__ = ("answers", "next_rev", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.next_rev = AWAY
        self.answers: list[tuple[int, Message, float]] | None = None
