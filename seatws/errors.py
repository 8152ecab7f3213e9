"""Every error raised on purpose, and every code a connection is closed with.

    SeatwsError              never raised itself
        ConfigError          a file, a variable or an argument is wrong; start-up only
        UnreadableFileError  a TOML file can't be used; whoever reads it makes a ConfigError of it
        PluginError          a plugin broke its contract; counts as a refusal
            NotReady         it can't tell yet, for want of keys; the same token may work later
        StoreError           Redis is away or late; the same request may work later
        ClientError          the peer's doing; goes back as {"type": "error", "code": ...}
            BadMessage       invalid_message
            SeatTaken        seat_taken
            NotHolder        not_holder
            LimitReached     limit_reached
            RateLimited      rate_limited
            Unauthenticated  unauthenticated; NoToken where none was shown
            NotAllowed       forbidden

`code` is a stable word for programs, the text is for people and safe to send back. Facts are
attributes. PROTOCOL section 4 is the list of codes; section 5 that of close codes.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Final


class SeatwsError(Exception):
    """Base of everything raised on purpose; catch this at an edge."""


class ConfigError(SeatwsError):
    """Configuration that cannot be used.

    Each problem is one line, made to be mended from the line alone: where, what was expected, what
    was found, and what to write instead.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UnreadableFileError(SeatwsError):
    """A file is not there or not TOML. The text says what is wrong and what to do, not where."""


class PluginError(SeatwsError):
    """A plugin failed, was late, or returned what the contract doesn't know."""


class NotReady(PluginError):
    """A plugin can't tell yet who is connecting. Answered 1013, HTTP 503: come back later."""


class StoreError(SeatwsError):
    """Redis is away, late, or answered nonsense.

    The command may or may not have been applied; a snapshot tells, and selecting again is safe.
    """

    code: ClassVar[str] = "store_unavailable"
    retryable: ClassVar[bool] = True


class ClientError(SeatwsError):
    """The peer asked for something that it does not get. Nothing was changed."""

    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def facts(self) -> dict[str, Any]:
        """What else goes into the answer, by PROTOCOL's field names."""
        return {}


class BadMessage(ClientError):
    """Not JSON, an unknown type, or a field missing, wrong or too large. The text names it."""

    code = "invalid_message"


class SeatTaken(ClientError):
    """Somebody else holds the seat.

    Args:
        conflicts: The seats in the way, each `{"seat_id": ..., "expires_at": RFC 3339}`.
    """

    code = "seat_taken"

    def __init__(self, conflicts: list[dict[str, str]]) -> None:
        seats = ", ".join(conflict["seat_id"] for conflict in conflicts)
        super().__init__(f"held by someone else: {seats}")
        self.conflicts = conflicts

    def facts(self) -> dict[str, Any]:
        """The seats in the way and until when."""
        return {"conflicts": self.conflicts}


class NotHolder(ClientError):
    """Releasing a seat that this client does not hold."""

    code = "not_holder"

    def __init__(self) -> None:
        super().__init__("this client does not hold the seat")


class LimitReached(ClientError):
    """More seats, or more rooms, than one client may have."""

    code = "limit_reached"


class RateLimited(ClientError):
    """Too many messages.

    Args:
        retry_after_ms: After so many milliseconds of silence the next message is taken.
    """

    code = "rate_limited"
    retryable = True

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__("too many messages, slow down")
        self.retry_after_ms = retry_after_ms

    def facts(self) -> dict[str, Any]:
        """How long to wait."""
        return {"retry_after_ms": self.retry_after_ms}


class Unauthenticated(ClientError):
    """No token yet, or it is bad, or it ended. Comes back with a new token."""

    code = "unauthenticated"


class NoToken(Unauthenticated):
    """No plugin knows what the client showed, if it showed anything."""


class NotAllowed(ClientError):
    """A plugin refused, or an identity is not the one it has to be.

    Args:
        reason: For the log alone; the client learns `forbidden` and no more. No secret, no claim.
    """

    code = "forbidden"

    def __init__(self, reason: str = "") -> None:
        super().__init__("not allowed")
        self.reason = reason


NO_CODE: Final = 1005
"""RFC 6455 7.4.1: stands for "no code was given" where codes are counted; never sent."""
CUT_OFF: Final = 1006
"""Likewise for a connection that ended without a close."""


ERROR_CODES: Final = (
    BadMessage.code,
    SeatTaken.code,
    NotHolder.code,
    LimitReached.code,
    RateLimited.code,
    Unauthenticated.code,
    NotAllowed.code,
    StoreError.code,
)
"""What an `error` may have as its code (PROTOCOL section 4)."""


class CloseCode(enum.IntEnum):
    """Why a connection is closed (PROTOCOL section 5; 1000-1013 are RFC 6455's and IANA's)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NOT_UTF8 = 1007
    TOO_BIG = 1009
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_FRAMES = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    TIMED_OUT = 4408
    RATE_LIMITED = 4429
    TOO_SLOW = 4440

    @property
    def come_back(self) -> bool:
        """Whether the same client may connect again as it is (4401 wants a new token first)."""
        return self in _COME_BACK


_COME_BACK = frozenset(
    {
        CloseCode.GOING_AWAY,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
        CloseCode.TIMED_OUT,
        CloseCode.RATE_LIMITED,
        CloseCode.TOO_SLOW,
    }
)
