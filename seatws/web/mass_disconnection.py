"""When many connections are lost within seconds: a balancer died, a network broke.

One visitor who goes is nothing, and so is an audience that goes home after a sale: those say
goodbye, or go over minutes. This is about connections that ended against their visitors' will.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from seatws.errors import CUT_OFF, CloseCode

WINDOW_S: Final = 10.0
"""Losses within so long count together: a proxy's restart takes all it has within a second, a dead
network shows over a heartbeat's sweep."""
SHARE: Final = 0.2
"""Of the connections that stood when the window began, more than so many must be lost."""
AT_LEAST: Final = 20
"""And more than so many: on a quiet instance a few are a large share."""

LOST: Final = frozenset({CUT_OFF, *CloseCode}) - {
    CloseCode.NORMAL,
    CloseCode.GOING_AWAY,
    CloseCode.SERVICE_RESTART,
    CloseCode.TRY_AGAIN_LATER,
}
"""The codes that count: no close at all (1006), and each with which we throw a client out. Not
those with which visitors leave (1000, 1001, none, a page's own code), nor those of a drain."""


@dataclass(slots=True)
class _Moment:
    at: float
    stood: int
    """Connections then."""
    lost: Counter[int] = field(default_factory=Counter)
    """How many of those have been lost since, by code."""

    @property
    def shows_it(self) -> bool:
        """Whether that is too many."""
        return self.lost.total() > max(AT_LEAST, SHARE * self.stood)


@dataclass(frozen=True, slots=True)
class Begun:
    """A mass disconnection, as it is noticed; it may go on."""

    lost: Counter[int]
    """By code, of those that stood."""
    stood: int
    seconds: float
    """Within which they were lost."""


@dataclass(frozen=True, slots=True)
class Over:
    """It is over: for `WINDOW_S` nothing like it was seen."""

    lost: Counter[int]
    """By code, all of them."""
    seconds: float
    """From when it was noticed."""


class MassDisconnection:
    """Says once that one begins, and once that it is over. Moments are seconds of any one clock.

    A connection counts only if it stood when a window began: neither visitors who come and are
    turned away at once nor a client that can't stay connected make a mass of the few they are.
    """

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()
        """Where a window can begin, the oldest first."""
        self._noticed_at: float | None = None
        self._lost: Counter[int] = Counter()

    def closed(self, code: int, opened_at: float) -> None:
        """Note the end of a connection."""
        if code not in LOST:
            return
        for moment in self._moments:
            if opened_at <= moment.at:
                moment.lost[code] += 1
        if self._noticed_at is not None:
            self._lost[code] += 1

    def look(self, now: float, connections: int) -> Begun | Over | None:
        """Judge what has happened since the last looks; call it about once a second."""
        moments = self._moments
        # The last one stays, however late we are: between two looks much may have been lost.
        while len(moments) > 1 and moments[0].at < now - WINDOW_S:
            moments.popleft()
        # Of the windows with the most losses the shortest.
        worst = max(
            (moment for moment in moments if moment.shows_it),
            key=lambda moment: (moment.lost.total(), moment.at),
            default=None,
        )
        news: Begun | Over | None = None
        if worst is not None and self._noticed_at is None:
            self._noticed_at = now
            self._lost = worst.lost.copy()
            news = Begun(worst.lost.copy(), worst.stood, now - worst.at)
        elif worst is None and self._noticed_at is not None:
            news = Over(self._lost, now - self._noticed_at)
            self._noticed_at = None
        moments.append(_Moment(now, connections))
        return news


def by_code(lost: Counter[int]) -> str:
    """For people: `1006: 590, 4408: 10`."""
    return ", ".join(f"{code:d}: {count}" for code, count in lost.most_common())
