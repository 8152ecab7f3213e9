"""What a request is answered, given what became of it. Free of I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from seatws.errors import ClientError, LimitReached, NotHolder, SeatTaken
from seatws.holds import Outcome
from seatws.messages import (
    Message,
    ReleaseSeat,
    SeatReleased,
    SeatSelected,
    SelectSeat,
    SelectSeats,
    rfc3339,
)


def error_of(outcome: Outcome, max_seats: int) -> ClientError | None:
    """Why an operation was refused; None if it was not.

    Args:
        outcome: What the script said.
        max_seats: `holds.max_seats_per_client`, for the text.
    """
    match outcome.code:
        case "taken":
            return SeatTaken(
                [
                    {"seat_id": seat_id, "expires_at": rfc3339(deadline_ms)}
                    for seat_id, _, deadline_ms in outcome.seats
                ]
            )
        case "limit":
            return LimitReached(f"at most {max_seats} seats a client in one room")
        case "not_holder":
            return NotHolder()
        case "ok":
            return None


def answers_to(
    command: SelectSeat | SelectSeats | ReleaseSeat, client_id: str, outcome: Outcome
) -> Iterator[tuple[int, Message]]:
    """The answers to a request that was done, one a seat, each with the rev of its change.

    The rev is 0, and not in the answer, where the seat was the client's own already.
    """
    for seat_id, rev, deadline_ms in outcome.seats:
        if isinstance(command, ReleaseSeat):
            yield (
                rev,
                SeatReleased(
                    seat_id=seat_id,
                    room_id=command.room_id,
                    client_id=client_id,
                    rev=rev,
                    reason="released",
                    request_id=command.request_id,
                ),
            )
        else:
            yield (
                rev,
                SeatSelected(
                    seat_id=seat_id,
                    room_id=command.room_id,
                    client_id=client_id,
                    rev=rev or msgspec.UNSET,
                    expires_at=rfc3339(deadline_ms),
                    request_id=command.request_id,
                ),
            )
