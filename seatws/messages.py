"""What travels, as types: every frame of PROTOCOL sections 2 to 4, and nothing that acts on them.

A frame that is not one of the commands here, field by field, stops at `decode`.
"""

from __future__ import annotations

import datetime
import functools
import re
from typing import Annotated, Any, Final, get_args

import msgspec

from seatws.errors import BadMessage, ClientError, StoreError

CLIENT_ID = r"^[A-Za-z0-9._:@-]{1,64}\Z"
ROOM_ID = CLIENT_ID
SEAT_ID = r"^[A-Za-z0-9._:@-]{1,32}\Z"
MAX_SEATS_PER_REQUEST = 50

ClientId = Annotated[str, msgspec.Meta(pattern=CLIENT_ID)]
RoomId = Annotated[str, msgspec.Meta(pattern=ROOM_ID)]
SeatId = Annotated[str, msgspec.Meta(pattern=SEAT_ID)]
SeatIds = Annotated[list[SeatId], msgspec.Meta(min_length=1, max_length=MAX_SEATS_PER_REQUEST)]
RequestId = Annotated[str, msgspec.Meta(max_length=64)]

EMPTY_OBJECT = msgspec.Raw(b"{}")


class Message(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    """Base of every frame. The JSON key `type` says which one it is; unknown keys are ignored."""


# ---------------------------------------------------------------- client to server


class Command(Message, frozen=True, kw_only=True):
    """Base of what a client may ask for."""

    request_id: RequestId | None = None
    """The client's own word for this request; comes back in the answer."""


class JoinRoom(Command, frozen=True, kw_only=True, tag="join_room"):
    """Become a viewer. Answered by `RoomJoined` and `CurrentSelections`."""

    room_id: RoomId


class LeaveRoom(Command, frozen=True, kw_only=True, tag="leave_room"):
    """Stop being a viewer; holds stay. Answered by `RoomLeft`, joined or not."""

    room_id: RoomId


class SelectSeat(Command, frozen=True, kw_only=True, tag="select_seat"):
    """Ask for a seat. Answered by `SeatSelected` or `Error`."""

    room_id: RoomId
    seat_id: SeatId
    user_info: msgspec.Raw = EMPTY_OBJECT
    """A JSON object as compact text (`decode` sees to it), shown to the other viewers."""


class SelectSeats(Command, frozen=True, kw_only=True, tag="select_seats"):
    """Ask for several seats, all or none. Answered by one `SeatSelected` a seat, or one `Error`."""

    room_id: RoomId
    seat_ids: SeatIds
    user_info: msgspec.Raw = EMPTY_OBJECT


class ReleaseSeat(Command, frozen=True, kw_only=True, tag="release_seat"):
    """Give a seat back before its deadline. Answered by `SeatReleased` or `Error`."""

    room_id: RoomId
    seat_id: SeatId


class Ping(Command, frozen=True, kw_only=True, tag="ping"):
    """Ask for a sign of life. Answered by `Pong`."""


class Auth(Command, frozen=True, kw_only=True, tag="auth"):
    """Sign in, or renew: say who one is with a token. Answered by `AuthOk` or `Error`."""

    token: str

    def __repr__(self) -> str:
        """Nothing of the token."""
        return "Auth()"


AnyCommand = JoinRoom | LeaveRoom | SelectSeat | SelectSeats | ReleaseSeat | Ping | Auth
COMMAND_TYPES: Final = tuple(str(kind.__struct_config__.tag) for kind in get_args(AnyCommand))
"""The `type` of each."""


class PutHold(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `PUT /room/{room_id}/selections/{seat_id}`."""

    client_id: ClientId | None = None
    """May be left out by who is signed in."""
    user_info: msgspec.Raw = EMPTY_OBJECT


# ---------------------------------------------------------------- server to client


class Selection(msgspec.Struct, frozen=True):
    """One hold as clients see it: the guide's six fields. Times are RFC 3339, Redis's clock."""

    client_id: str
    seat_id: str
    room_id: str
    user_info: msgspec.Raw
    timestamp: str
    expires_at: str


class RoomJoined(Message, frozen=True, kw_only=True, tag="room_joined"):
    """The viewer will hear of every change from now on; a `CurrentSelections` follows at once."""

    room_id: str
    client_id: str
    request_id: str | None = None


class RoomLeft(Message, frozen=True, kw_only=True, tag="room_left"):
    """The viewer hears no more of the room."""

    room_id: str
    client_id: str
    reason: str | None = None
    """`forbidden` when the permission was taken away; None when it was asked for."""
    request_id: str | None = None


class CurrentSelections(Message, frozen=True, kw_only=True, tag="current_selections"):
    """The room's whole map as of `rev`; replaces what the viewer knew."""

    room_id: str
    selections: list[Selection]
    rev: int
    server_time: str


class SeatSelected(Message, frozen=True, kw_only=True, tag="seat_selected"):
    """A seat is held: the requester's answer (without `user_info`), or the news to the others."""

    seat_id: str
    room_id: str
    client_id: str
    user_info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    rev: int | msgspec.UnsetType = msgspec.UNSET
    """Unset in an answer that changed nothing, or whose change the viewer's map already holds."""
    expires_at: str
    request_id: str | None = None


class SeatReleased(Message, frozen=True, kw_only=True, tag="seat_released"):
    """A seat is free again."""

    seat_id: str
    room_id: str
    client_id: str
    rev: int | msgspec.UnsetType = msgspec.UNSET
    reason: str
    """`released` or `expired`."""
    request_id: str | None = None


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to `Ping`, with Redis's time."""

    timestamp: str
    request_id: str | None = None


class AuthOk(Message, frozen=True, kw_only=True, tag="auth_ok"):
    """The token is good. The first frame after a sign-in, and the answer to a renewal."""

    client_id: str
    expires_at: str | None
    """Of the token; null without expiry."""
    request_id: str | None = None


class AuthExpiring(Message, frozen=True, kw_only=True, tag="auth_expiring"):
    """The token ends soon. Once a token."""

    expires_at: str


class Error(Message, frozen=True, kw_only=True, tag="error", omit_defaults=False):
    """A request that was refused. Nothing was changed; `store_unavailable` promises nothing."""

    code: str
    message: str
    request: str | None
    """The `type` of the request, as far as it could be read."""
    retryable: bool
    room_id: str | msgspec.UnsetType = msgspec.UNSET
    seat_id: str | msgspec.UnsetType = msgspec.UNSET
    request_id: str | msgspec.UnsetType = msgspec.UNSET
    conflicts: list[dict[str, str]] | msgspec.UnsetType = msgspec.UNSET
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET


class Goodbye(Message, frozen=True, kw_only=True, tag="goodbye", omit_defaults=False):
    """The last words before the server closes; `code` is the close code that follows."""

    code: int
    reason: str
    reconnect: bool
    retry_after_ms: int


# ---------------------------------------------------------------- reading and writing

_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_loose_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_put_decoder = msgspec.json.Decoder(PutHold)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""A message, or a list or dict of them, as UTF-8 JSON."""

_ID_RULE = "of A-Z a-z 0-9 . _ : @ -"
_RULES = {
    "type": "one of join_room, leave_room, select_seat, select_seats, release_seat, ping, auth",
    "room_id": f"1 to 64 {_ID_RULE}",
    "client_id": f"1 to 64 {_ID_RULE}",
    "seat_id": f"1 to 32 {_ID_RULE}",
    "seat_ids": f"a list of 1 to {MAX_SEATS_PER_REQUEST} seats, each 1 to 32 {_ID_RULE}",
    "request_id": "a string of at most 64 characters",
}
_IDS = {"client_id": CLIENT_ID, "room_id": ROOM_ID, "seat_id": SEAT_ID}
_FACTS = {"room_id": ROOM_ID, "seat_id": SEAT_ID, "request_id": r"(?s)^.{0,64}\Z"}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Unreadable(BadMessage):
    """A frame that is no command.

    `request` and `known` are what could be read of it all the same, for the answer.
    """

    def __init__(self, text: str, frame: str | bytes) -> None:
        super().__init__(text)
        self.request, self.known = _read_loosely(frame)

    def facts(self) -> dict[str, Any]:
        """The ids of the frame that are legal in themselves."""
        return self.known


def decode(frame: str | bytes, user_info_bytes: int) -> AnyCommand:
    """Read one client frame.

    Args:
        frame: JSON text.
        user_info_bytes: The most that a `user_info` may take, encoded; 0: no limit.

    Raises:
        Unreadable: Not JSON, unknown `type`, or a field is missing or outside its rule. The text
            names the field and is safe to send back.
    """
    try:
        command = _decoder.decode(frame)
        if isinstance(command, SelectSeat | SelectSeats):
            _tidy_user_info(command, user_info_bytes)
            if isinstance(command, SelectSeats) and has_repeats(command.seat_ids):
                raise BadMessage("seat_ids: a seat stands twice in the list")
    except (msgspec.DecodeError, RecursionError, UnicodeError, BadMessage) as exc:
        raise Unreadable(_explain(exc), frame) from None
    return command


def decode_put(body: bytes, user_info_bytes: int) -> PutHold:
    """Read the body of a PUT, by the rules of `decode`.

    Raises:
        BadMessage: The text names the field and is safe to send back.
    """
    try:
        put = _put_decoder.decode(body)
        _tidy_user_info(put, user_info_bytes)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as exc:
        raise BadMessage(_explain(exc)) from None
    return put


def type_of(command: Command) -> str:
    """The `type` of a command, as it stands in the frame."""
    return str(command.__struct_config__.tag)


def wrong_id(name: str, value: str) -> str | None:
    """What is wrong with a `client_id`, `room_id` or `seat_id`, to follow its name; else None."""
    return None if re.match(_IDS[name], value) else f"must be {_RULES[name]}"


def has_repeats(seat_ids: list[str]) -> bool:
    """Whether a seat stands twice in the list."""
    return len(set(seat_ids)) != len(seat_ids)


def refusal(
    error: ClientError | StoreError,
    *,
    request: str | None,
    request_id: str | None = None,
    room_id: str | None = None,
    seat_id: str | None = None,
) -> Error:
    """The answer to a request that failed with `error`."""
    facts = error.facts() if isinstance(error, ClientError) else {}
    given = {"room_id": room_id, "seat_id": seat_id, "request_id": request_id}
    facts |= {name: value for name, value in given.items() if value is not None}
    return Error(
        code=error.code,
        message=str(error),
        request=request,
        retryable=error.retryable,
        **facts,
    )


def refusal_of(command: Command, error: ClientError | StoreError) -> Error:
    """The answer to a command that failed with `error`."""
    return refusal(
        error,
        request=type_of(command),
        request_id=command.request_id,
        room_id=getattr(command, "room_id", None),
        seat_id=getattr(command, "seat_id", None),
    )


_UNIX_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def rfc3339(unix_ms: int) -> str:
    """UTC with milliseconds and `Z`, as every time on the wire."""
    # Whole numbers all the way: a float of seconds would round some milliseconds down.
    seconds, milliseconds = divmod(unix_ms, 1000)
    return f"{_to_the_second(seconds)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=1024)  # nearly all times of a moment fall into few seconds
def _to_the_second(unix_s: int) -> str:
    return (_UNIX_EPOCH + datetime.timedelta(seconds=unix_s)).isoformat()[:-6]


def _tidy_user_info(holder: SelectSeat | SelectSeats | PutHold, limit: int) -> None:
    """Put `user_info` into compact form, or refuse it."""
    raw = holder.user_info
    if raw is EMPTY_OBJECT:
        return
    try:
        value = msgspec.json.decode(raw)
    except msgspec.ValidationError:  # the only one left: the frame as a whole was JSON
        raise BadMessage("user_info: a number in it is out of range") from None
    if not isinstance(value, dict):
        raise BadMessage("user_info: must be a JSON object")
    compact = encode(value)
    if limit and len(compact) > limit:
        raise BadMessage(f"user_info: must be at most {limit} bytes, is {len(compact)}")
    # Most are plain ASCII without a backslash, and then no control character can be inside.
    if not _is_plain(compact) and _has_control(value):
        raise BadMessage("user_info: must not hold control characters")
    msgspec.structs.force_setattr(holder, "user_info", msgspec.Raw(compact))


_is_plain = re.compile(rb"[ -\[\]-~]*").fullmatch


def _has_control(value: Any) -> bool:
    if isinstance(value, str):
        return _CONTROL.search(value) is not None
    if isinstance(value, dict):
        return any(_has_control(key) or _has_control(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_control, value))


_FIELD = re.compile(r"at `\$\.(\w+)[^`]*`\Z|field `(\w+)`\Z")


def _explain(exc: Exception) -> str:
    """The client's mistake in words of the protocol, without an echo of what was sent."""
    if isinstance(exc, BadMessage):
        return str(exc)
    if isinstance(exc, RecursionError):
        return "nested too deeply"
    if isinstance(exc, msgspec.ValidationError):
        text = str(exc)
        if found := _FIELD.search(text):
            field = found[1] or found[2]
            if "missing required" in text:
                return f"{field}: missing"
            return f"{field}: must be {_RULES.get(field, 'of another type')}"
        return "a message must be a JSON object"
    return "not valid JSON"


def _read_loosely(frame: str | bytes) -> tuple[str | None, dict[str, str]]:
    """The `type` and the legal ids of a frame that is no command, as far as they can be told."""
    try:
        raw = _loose_decoder.decode(frame)
        value = {name: msgspec.json.decode(raw[name]) for name in ("type", *_FACTS) if name in raw}
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None, {}
    kind = value.get("type")
    known = {
        name: value[name]
        for name, rule in _FACTS.items()
        if isinstance(value.get(name), str) and re.match(rule, value[name])
    }
    return (kind if isinstance(kind, str) and len(kind) <= 32 else None), known
