"""Judges a room's history: what its clients asked and were told, and what Redis has at the end.

It knows the promises of the protocol and nothing of the server. Free of I/O and of clocks, so that
`test_checker.py` can show of every rule that it fails.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Message = dict[str, Any]

Rule = Literal[
    "disagreement",  # two clients were told different things of one rev
    "gap",  # a viewer was not told of a rev
    "told_twice",  # a viewer was told of a rev that it knew already
    "went_back",  # a viewer was given a map older than what it knew
    "double_hold",  # a seat was given away that somebody held
    "not_the_holder",  # a seat was released for somebody who did not hold it
    "false_snapshot",  # a map is not what the changes up to its rev make of the room
    "changed_unasked",  # what nobody was told of was not asked for by anybody either
    "unknown_hold",  # a client was promised a hold that the room never had
    "lost_hold",  # a client believes at the end that it holds a seat, and was told nothing else
    "wrong_refusal",  # `seat_taken`, though nobody else can have held the seat
    "miscounted_answers",  # a request was not answered once, or once a seat
    "unequal_to_redis",  # a viewer's map at the end is not what Redis has
]


class Entry(NamedTuple):
    """What one client did or learned. A history is a list of them, in the order of their happening.

    `asked` must stand before the request is sent, and `told` after the message has come: then what
    stands earlier did not happen later.
    """

    connection: int
    client_id: str
    kind: Literal["asked", "told", "closed"]
    message: Message


class Violation(NamedTuple):
    """A promise that was broken."""

    rule: Rule
    what: str


class Change(NamedTuple):
    """What a rev did, as told by an event or an answer."""

    kind: str
    """`selected`, or a release's reason."""
    seat: str
    client: str
    expires_at: str


class Held(NamedTuple):
    """A hold as a map shows it."""

    client: str
    expires_at: str


@dataclass
class _Hold:
    """A hold, and the rev that ended it."""

    seat: str
    held: Held
    ended: int | None = None


@dataclass
class _Life:
    """The room from its first rev, or from the loss of all its data, to the next such loss."""

    changes: dict[int, Change] = field(default_factory=dict)
    first_told: dict[int, int] = field(default_factory=dict)
    """Rev, and where in the history somebody first knew of it."""
    maps: dict[int, list[dict[str, Held]]] = field(default_factory=dict)
    """Rev, and the different maps that were sent of it; more than one is a lie."""
    holds: list[_Hold] = field(default_factory=list)
    has_unseen: bool = False
    """Whether there is a rev of which nobody was told."""

    @property
    def last(self) -> int:
        return max([0, *self.changes, *self.maps])


@dataclass
class _Request:
    at: int
    entry: Entry
    answers: list[tuple[int, Message]] = field(default_factory=list)

    @property
    def verb(self) -> str:
        return str(self.entry.message["type"]).partition("_")[0]

    @property
    def seats(self) -> list[str]:
        message = self.entry.message
        return sorted(message.get("seat_ids") or [message["seat_id"]])


@dataclass
class _View:
    """One connection's knowledge of the room; `rev` is None while it is not in it."""

    client_id: str
    life: int = 0
    rev: int | None = None
    by_rev: dict[str, str] = field(default_factory=dict)
    """The map of a client that takes what has a rev, and nothing else."""
    by_guide: dict[str, str] = field(default_factory=dict)
    """The map of a client that knows no revs and takes everything."""


def check(
    history: Sequence[Entry],
    room_id: str,
    redis: Mapping[str, str],
    lives: Sequence[str] = (),
    *,
    is_rollback: bool = False,
) -> list[Violation]:
    """Find every broken promise.

    Args:
        history: Of all clients that were ever in the room, or asked for something in it; no
            earlier than the room's first change.
        room_id: Other rooms' entries are passed over.
        redis: Seat and holder at the end, when nothing was under way any more. Connections without
            a `closed` are held against it.
        lives: When the room's data was lost, if it was: moments on Redis's clock as on the wire, at
            which no instance knew the old data any more and none the new.
        is_rollback: Not all data was lost then, but the latest changes, if any.
    """
    judge = _Judge(room_id, lives, is_rollback)
    for at, entry in enumerate(history):
        judge.read(at, entry)
    for life in judge.lives:
        judge.replay(life)
    judge.judge_answers()
    judge.compare(redis)
    return judge.found


class _Judge:
    def __init__(self, room_id: str, lives: Sequence[str], is_rollback: bool) -> None:
        self.found: list[Violation] = []
        self._is_rollback = is_rollback
        self.lives = [_Life() for _ in range(len(lives) + 1)]
        self._room_id = room_id
        self._began = lives
        self._views: dict[int, _View] = {}
        self._closed: set[int] = set()
        self._requests: dict[tuple[int, str], _Request] = {}
        self._outside: list[tuple[int, str, Message]] = []
        """Answers with a rev to clients that are not in the room."""

    def _blame(self, rule: Rule, what: str) -> None:
        self.found.append(Violation(rule, what))

    # ------------------------------------------------------------ reading the history

    def read(self, at: int, entry: Entry) -> None:
        message = entry.message
        view = self._views.setdefault(entry.connection, _View(entry.client_id))
        if entry.kind == "closed":
            self._closed.add(entry.connection)
            view.rev = None
        elif message.get("room_id") != self._room_id:
            return
        elif entry.kind == "asked":
            self._requests[entry.connection, message["request_id"]] = _Request(at, entry)
        else:
            request = self._requests.get((entry.connection, message.get("request_id", "")))
            if request is not None:
                request.answers.append((at, message))
            self._read_told(at, view, message)

    def _read_told(self, at: int, view: _View, message: Message) -> None:
        match message["type"]:
            case "current_selections":
                self._read_map(view, message)
            case "room_left":
                view.rev = None
            case "seat_selected" | "seat_released":
                if view.rev is None:
                    if "rev" in message:
                        self._outside.append((at, view.client_id, message))
                    return
                _apply(view.by_guide, message)
                if "rev" in message and self._is_next(view, message):
                    view.rev = message["rev"]
                    _apply(view.by_rev, message)
                    self._note(self.lives[view.life], at, message)

    def _read_map(self, view: _View, message: Message) -> None:
        rev, life = message["rev"], bisect.bisect_right(self._began, message["server_time"])
        if view.rev is not None and (life, rev) < (view.life, view.rev):
            self._blame("went_back", f"{view.client_id} knew rev {view.rev}, was sent {message}")
        holds = {
            hold["seat_id"]: Held(hold["client_id"], hold["expires_at"])
            for hold in message["selections"]
        }
        maps = self.lives[life].maps.setdefault(rev, [])
        if holds not in maps:
            maps.append(holds)
        view.life, view.rev = life, rev
        view.by_rev = {seat: held.client for seat, held in holds.items()}
        view.by_guide = dict(view.by_rev)

    def _is_next(self, view: _View, message: Message) -> bool:
        assert view.rev is not None
        if message["rev"] <= view.rev:
            self._blame("told_twice", f"{view.client_id} knew rev {view.rev}, was told {message}")
            return False
        if message["rev"] > view.rev + 1:
            self._blame("gap", f"{view.client_id} knew rev {view.rev}, was told {message}")
        return True

    def _note(self, life: _Life, at: int, message: Message) -> None:
        rev, change = message["rev"], _change_of(message)
        life.first_told.setdefault(rev, at)
        known = life.changes.setdefault(rev, change)
        if known != change:
            self._blame("disagreement", f"rev {rev} is {known} and {change}")

    # ------------------------------------------------------------ replaying the room

    def replay(self, life: _Life) -> None:
        """Go through all revs; where some are unseen, on from the next map."""
        state: dict[str, Held] | None = {}
        before: dict[str, Held] = {}
        excused: set[str] = set()
        left = self._left_for(life)
        for at, client_id, message in self._outside:
            self._vouch(life, at, client_id, message)
        for rev in range(life.last + 1):
            change = life.changes.get(rev)
            if change is None and rev > 0 and state is not None:
                life.has_unseen, before, state, excused = True, state, None, set()
            elif change is not None and state is None:
                excused.add(change.seat)
            elif change is not None and state is not None:
                self._take(life, state, rev, change)
            for shown in life.maps.get(rev, ()):
                if state is None:
                    known = {seat for seat, held in shown.items() if (seat, held) in left}
                    self._explain(before, shown, excused | known)
                    state, left = dict(shown), set()
                    life.holds += [_Hold(seat, held) for seat, held in shown.items()]
                elif state != shown:
                    self._blame("false_snapshot", f"rev {rev} is {state}, was sent as {shown}")

    def _left_for(self, life: _Life) -> set[tuple[str, Held]]:
        """With what a life may begin: a rollback leaves holds, and brings those back that ended."""
        if not self._is_rollback:
            return set()
        before = itertools.takewhile(lambda each: each is not life, self.lives)
        return {(hold.seat, hold.held) for each in before for hold in each.holds}

    def _vouch(self, life: _Life, at: int, client_id: str, message: Message) -> None:
        """Let an answer to somebody outside the room speak where the viewers are silent."""
        rev, change = message["rev"], _change_of(message)
        if rev in life.changes and life.changes[rev] == change:
            life.first_told[rev] = min(at, life.first_told[rev])
        elif len(self.lives) > 1:
            return  # it may be of another life
        elif rev in life.changes or rev > life.last:
            self._blame("unknown_hold", f"{client_id} was answered {message}")
        else:
            life.changes[rev], life.first_told[rev] = change, at

    def _take(self, life: _Life, state: dict[str, Held], rev: int, change: Change) -> None:
        held = state.get(change.seat)
        if change.kind == "selected":
            if held is not None:
                self._blame("double_hold", f"{change} at rev {rev}, but {held} has the seat")
                _end(life, change.seat, rev)
            state[change.seat] = Held(change.client, change.expires_at)
            life.holds.append(_Hold(change.seat, state[change.seat]))
            return
        if held is None or held.client != change.client:
            self._blame("not_the_holder", f"{change} at rev {rev}, but {held} has the seat")
        state.pop(change.seat, None)
        _end(life, change.seat, rev)

    def _explain(self, before: dict[str, Held], after: dict[str, Held], excused: set[str]) -> None:
        """Ask of each seat that changed unseen whether somebody had asked for it."""
        for seat in (before.keys() | after.keys()) - excused:
            was, now = before.get(seat), after.get(seat)
            ended = was is None or was == now or ("release", was.client, seat) in self._unseen
            begun = now is None or was == now or ("select", now.client, seat) in self._unseen
            if not (ended and begun):
                self._blame("changed_unasked", f"{seat} was {was}, is {now}")

    # ------------------------------------------------------------ answers

    def judge_answers(self) -> None:
        """Look at each request and what it was answered."""
        for request in self._seat_requests():
            connection, client_id, _, asked = request.entry
            answers = [message for _, message in request.answers]
            errors = [message for message in answers if message["type"] == "error"]
            seats = sorted(one["seat_id"] for one in answers if one["type"] != "error")
            is_whole = seats == ([] if errors else request.seats) and len(errors) <= 1
            is_cut_off = (
                connection in self._closed and not errors and set(seats) < set(request.seats)
            )
            if not (is_whole or is_cut_off):
                self._blame("miscounted_answers", f"{client_id} asked {asked}, got {answers}")
            for message in answers:
                if message["type"] == "seat_selected":
                    self._judge_promise(client_id, message)
            for _, message in request.answers:
                if message.get("code") == "seat_taken":
                    self._judge_refusal(request, message)

    def _judge_promise(self, client_id: str, message: Message) -> None:
        """An answer without a rev is of a hold that the room has had."""
        seat, held = message["seat_id"], Held(client_id, message["expires_at"])
        ended_unseen = self._has_unseen and ("release", client_id, seat) in self._unseen
        if "rev" in message or ended_unseen or len(self.lives) > 1:
            return
        if not any((hold.seat, hold.held) == (seat, held) for _, hold in self._holds()):
            self._blame("unknown_hold", f"{client_id} was answered {message}")

    def _judge_refusal(self, request: _Request, message: Message) -> None:
        """Somebody else had the seat, and nobody had been told of the end of that before."""
        for conflict in message["conflicts"]:
            had_it = any(
                hold.seat == conflict["seat_id"]
                and hold.held.expires_at == conflict["expires_at"]
                and hold.held.client != request.entry.client_id
                and (hold.ended is None or life.first_told[hold.ended] > request.at)
                for life, hold in self._holds()
            )
            if not (had_it or self._has_unseen):
                self._blame("wrong_refusal", f"{request.entry} got {message}")

    @functools.cached_property
    def _unseen(self) -> set[tuple[str, str, str]]:
        """What may have been done without anybody being told its rev: verb, client, seat."""
        return {
            (request.verb, request.entry.client_id, seat)
            for request in self._seat_requests()
            if _may_be_done_unseen(request)
            for seat in request.seats
        }

    @property
    def _has_unseen(self) -> bool:
        return len(self.lives) > 1 or any(life.has_unseen for life in self.lives)

    def _holds(self) -> Iterator[tuple[_Life, _Hold]]:
        return ((life, hold) for life in self.lives for hold in life.holds)

    def _seat_requests(self) -> Iterator[_Request]:
        return (one for one in self._requests.values() if one.verb in ("select", "release"))

    # ------------------------------------------------------------ the end

    def compare(self, redis: Mapping[str, str]) -> None:
        """Hold what viewers see at the end against what is so."""
        for view in self._views.values():
            if view.rev is None:
                continue
            for name, shown in (("map", view.by_rev), ("map without revs", view.by_guide)):
                for seat in sorted(shown.keys() | redis.keys()):
                    sees, has = shown.get(seat), redis.get(seat)
                    if sees == has:
                        continue
                    rule: Rule = "lost_hold" if sees == view.client_id else "unequal_to_redis"
                    what = f"{view.client_id}'s {name} has {seat}: {sees}, Redis {has}"
                    self._blame(rule, what)


def _apply(shown: dict[str, str], message: Message) -> None:
    if message["type"] == "seat_selected":
        shown[message["seat_id"]] = message["client_id"]
    else:
        shown.pop(message["seat_id"], None)


def _change_of(message: Message) -> Change:
    kind = "selected" if message["type"] == "seat_selected" else message["reason"]
    return Change(kind, message["seat_id"], message["client_id"], message.get("expires_at", ""))


def _end(life: _Life, seat: str, rev: int) -> None:
    for hold in reversed(life.holds):
        if hold.seat == seat:
            hold.ended = rev
            return


def _may_be_done_unseen(request: _Request) -> bool:
    """Whether it may have been done without anybody being told its rev."""
    return not request.answers or any(
        message.get("code") == "store_unavailable"
        if message["type"] == "error"
        else "rev" not in message
        for _, message in request.answers
    )
