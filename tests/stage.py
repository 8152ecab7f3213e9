"""A room without Redis: its truth, and a `Fanout` that is fed with its changes."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec

from seatws.counts import Counts
from seatws.errors import NotHolder
from seatws.frames import deflated, text_frame
from seatws.messages import (
    CurrentSelections,
    RoomJoined,
    RoomLeft,
    SeatReleased,
    SeatSelected,
    Selection,
    encode,
    refusal,
    rfc3339,
)
from seatws.rooms.fanout import Fanout
from seatws.rooms.peer import Viewer
from tests.recording import RecordingPeer

ROOM = "r"
TIME = rfc3339(0)
DEFLATE_FROM = 120
"""A seat that is taken is a large change here, one that is freed is not."""
NOBODY = msgspec.Raw(b"{}")
News = SeatSelected | SeatReleased


class Stage:
    """A room's truth and its `Fanout`, fed with changes as the room does it."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.holds: dict[str, str] = {}
        self.rev = 0
        self.counts = Counts()
        self.fanout = Fanout(
            loop or asyncio.get_running_loop(), self.snapshot, self.counts, DEFLATE_FROM
        )
        self._requests = itertools.count()

    def snapshot(self, deflates: bool) -> bytes:
        selections = [
            Selection(client, seat, ROOM, NOBODY, TIME, TIME) for seat, client in self.holds.items()
        ]
        whole = CurrentSelections(
            room_id=ROOM, selections=selections, rev=self.rev, server_time=TIME
        )
        frame = text_frame(encode(whole))
        return deflated(frame) if deflates and len(frame) >= DEFLATE_FROM else frame

    def join(self, peer: RecordingPeer | None = None) -> tuple[RecordingPeer, Viewer]:
        """A viewer comes in, or once more."""
        peer = peer or RecordingPeer()
        viewer = peer.viewers.setdefault(ROOM, Viewer(peer))
        joined = RoomJoined(room_id=ROOM, client_id=peer.client_id)
        self.fanout.join(viewer, text_frame(encode(joined)))
        return peer, viewer

    def leave(self, viewer: Viewer) -> None:
        del viewer.peer.viewers[ROOM]
        self.fanout.leave(viewer)
        viewer.peer.tell(RoomLeft(room_id=ROOM, client_id=viewer.peer.client_id))

    def news(self, *steps: tuple[str, str]) -> list[News]:
        """The next changes, each a seat and who does it: it is taken, or freed if it was."""
        holds, news = dict(self.holds), list[News]()
        for rev, (seat_id, client_id) in enumerate(steps, self.rev + 1):
            if holds.pop(seat_id, None):
                fields = _fields(seat_id, client_id, rev, reason="released")
                news.append(SeatReleased(**fields))
            else:
                holds[seat_id] = client_id
                fields = _fields(seat_id, client_id, rev, expires_at=TIME, user_info=NOBODY)
                news.append(SeatSelected(**fields))
        return news

    def learn(self, news: News) -> None:
        """The room's mirror has taken a change."""
        assert isinstance(news.rev, int)
        self.rev = news.rev
        if isinstance(news, SeatSelected):
            self.holds[news.seat_id] = news.client_id
        else:
            del self.holds[news.seat_id]

    def push(self, news: News) -> None:
        """The viewers shall hear of a change."""
        self.learn(news)
        self.fanout.push(text_frame(encode(news)))

    def change(self, seat_id: str, viewer: Viewer | None = None) -> str:
        """The room changes, by one of its viewers or somebody else; the `request_id` answered."""
        (news,) = self.news((seat_id, viewer.peer.client_id if viewer else "somebody"))
        self.push(news)
        return self.answer(viewer, news) if viewer else ""

    def answer(self, viewer: Viewer, news: News) -> str:
        """Answer the viewer whose change it was."""
        assert isinstance(news.rev, int)
        request_id = f"q{next(self._requests)}"
        answer = msgspec.structs.replace(news, request_id=request_id)
        if isinstance(answer, SeatSelected):
            answer = msgspec.structs.replace(answer, user_info=msgspec.UNSET)
        self.fanout.answer(viewer, news.rev, answer)
        return request_id

    def refuse(self, viewer: Viewer) -> str:
        """Answer a request that changed nothing."""
        request_id = f"q{next(self._requests)}"
        error = refusal(NotHolder(), request="release_seat", request_id=request_id)
        self.fanout.answer(viewer, 0, error)
        return request_id


def _fields(seat_id: str, client_id: str, rev: int, **others: Any) -> dict[str, Any]:
    return {"seat_id": seat_id, "room_id": ROOM, "client_id": client_id, "rev": rev} | others


def request_ids(peer: RecordingPeer) -> list[str]:
    return [message["request_id"] for message in peer.received if "request_id" in message]
