"""What a history obliges Redis to have, and not to have, whatever died meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tests.checker import Entry


class Promises(NamedTuple):
    """What was confirmed last, of each client and seat, and has not been put in question since."""

    held: dict[str, str]
    """Seat and holder."""
    free: set[tuple[str, str]]
    """Seat and who does not hold it any more."""


def promises(history: Sequence[Entry], room_id: str) -> Promises:
    """What clients were promised in a room.

    Who asks for something puts in question what was confirmed of that seat, until that is confirmed
    in its turn; news of a hold's end does so, too.
    """
    asked: dict[tuple[int, str], int] = {}
    in_question: dict[tuple[str, str], int] = {}
    """Seat and client, and where in the history it was put in question last."""
    answers: dict[tuple[str, str], tuple[int, str]] = {}
    """Where the latest request that was confirmed stands, and what was said."""
    for at, (connection, client, kind, message) in enumerate(history):
        if message.get("room_id") != room_id or "code" in message:
            continue
        request = connection, message.get("request_id", "")
        if kind == "asked":
            asked[request] = at
            for seat in message.get("seat_ids") or [message.get("seat_id", "")]:
                in_question[seat, client] = at
        elif request in asked and message["type"] in ("seat_selected", "seat_released"):
            hold = message["seat_id"], client
            answers[hold] = max(answers.get(hold, (-1, "")), (asked[request], message["type"]))
        elif message["type"] == "seat_released":
            in_question[message["seat_id"], message["client_id"]] = at
    sound = {hold: said for hold, (at, said) in answers.items() if in_question.get(hold, -1) <= at}
    return Promises(
        {seat: client for (seat, client), said in sound.items() if said == "seat_selected"},
        {hold for hold, said in sound.items() if said == "seat_released"},
    )
