"""What things cost, from what was measured last: `bench/capacity --measure` and `bench/run`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from bench.results import Occasion
from bench.scaling import figures
from bench.scaling.formulas import COMPARE_S, US

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
IDLE_CONNECTIONS, IDLE_ROOMS = 19_000, 1000
"""Of the case `idle` of bench/run (bench/cases/idle.py)."""


@dataclass(frozen=True)
class Costs:
    """Medians. Names end with the unit; µs are CPU."""

    connection_us: float
    """A second of an idle connection: its heartbeats, its share of the sweep."""
    join_us: float
    """Connect, handshake, a map of 200 holds."""
    operation_low_us: float
    """A request and its answer at 1,500 a second, telling the one viewer of its room included."""
    operation_high_us: float
    """The same at 10,000 a second."""
    event_low_us: float
    """A change that another instance made and that comes alone, before any viewer is told."""
    event_high_us: float
    """The same when ten come at once."""
    send_us: float
    """One viewer, one flush."""
    look_us: float
    """A room compared with Redis, the instance's share."""
    instance_mib: float
    """An instance before anyone has come."""
    connection_kib: float
    """A connection in a room that is there already; without the kernel's part."""
    room_kib: float
    """A room that is followed, without holds."""
    hold_kib: float
    """A hold in the mirror and in the map that is sent."""
    redis_call_us: float
    """A script call with one operation that changes something, many a turn of Redis's loop."""
    redis_operation_us: float
    """Each further operation in the same call."""
    redis_refused_us: float
    """A call whose one select is refused."""
    redis_nothing_due_us: float
    """A call that looks for ended holds and finds none."""
    redis_event_us: float
    """A change that is published, for each subscriber, apart from writing."""
    redis_write_us: float
    """Writing to one subscriber, once a turn of the loop."""
    redis_look_us: float
    """A room compared, Redis's share, where a hundred come together."""
    redis_look_alone_us: float
    """The same for one that comes alone."""
    redis_snapshot_us: float
    """An empty map."""
    redis_snapshot_hold_us: float
    """Each hold in a map."""
    redis_room_bytes: float
    """A room with data, without its holds."""
    redis_hold_bytes: float
    """A hold: its record, its deadline, its owner."""
    redis_subscription_bytes: float
    """A room that an instance follows."""

    def on_cores(self, speed: float) -> Costs:
        """The same where a core is so many times as fast."""
        faster = {
            field.name: getattr(self, field.name) / speed
            for field in dataclasses.fields(self)
            if field.name.endswith("_us")
        }
        return dataclasses.replace(self, **faster)


def meanings() -> dict[str, str]:
    """What each cost is: the texts under its name in `Costs`."""
    source = ast.parse(inspect.getsource(Costs)).body[0]
    assert isinstance(source, ast.ClassDef)
    found = {}
    for field, text in itertools.pairwise(source.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), field.target.id
            assert isinstance(text.value, ast.Constant), field.target.id
            found[field.target.id] = " ".join(str(text.value.value).split()).rstrip(".")
    return found


LOW_OPERATIONS, HIGH_OPERATIONS = 1500.0, 10_000.0
LOW_EVENTS, HIGH_EVENTS = 1000.0, 10_000.0
"""The rates at which they were measured; the higher one of events is that at which a loop whose
turns take a millisecond finds ten at each."""


def measured(results: Path = RESULTS) -> Costs:
    """From the newest files that are kept.

    Raises:
        FileNotFoundError: One of the two commands has left none.
        KeyError: A figure is not in them.
    """
    occasions = sorted(results.glob("[0-9]*.json"))
    if not occasions:
        raise FileNotFoundError(f"nothing of bench/run in {results}")
    occasion = msgspec.json.decode(occasions[-1].read_bytes(), type=Occasion)
    return costs_of(figures.last(results), occasion)


def costs_of(own: figures.Figures, occasion: Occasion) -> Costs:
    """The costs that these figures make."""
    of = {name: median(values) for name, values in own.values.items()}
    idle = _row(occasion, f"{IDLE_CONNECTIONS:,} idle", "% of a core") / 100
    compared = IDLE_ROOMS / COMPARE_S * of["instance_look_us"] * US
    return Costs(
        connection_us=(idle - compared) / IDLE_CONNECTIONS / US,
        join_us=_row(occasion, "join: ", "µs of CPU a join"),
        operation_low_us=_row(occasion, "200 small rooms, 1,500", "µs of CPU an operation"),
        operation_high_us=_row(occasion, "200 small rooms, 10,000", "µs of CPU an operation"),
        event_low_us=of["instance_event_us"],
        event_high_us=of["instance_event_ten_us"],
        send_us=of["instance_send_us"],
        look_us=of["instance_look_us"],
        instance_mib=of["instance_empty_mib"],
        connection_kib=of["instance_connection_kib"],
        room_kib=of["instance_room_kib"],
        hold_kib=of["instance_hold_kib"],
        redis_call_us=of["redis_call_us"],
        redis_operation_us=of["redis_operation_us"],
        redis_refused_us=of["redis_refused_us"],
        redis_nothing_due_us=of["redis_nothing_due_us"],
        redis_event_us=of["redis_event_us"],
        redis_write_us=max(0.0, of["redis_event_alone_us"] - of["redis_event_us"]),
        redis_look_us=of["redis_look_us"],
        redis_look_alone_us=of["redis_look_alone_us"],
        redis_snapshot_us=of["redis_snapshot_us"],
        redis_snapshot_hold_us=of["redis_snapshot_hold_us"],
        redis_room_bytes=of["redis_room_bytes"],
        redis_hold_bytes=of["redis_hold_bytes"],
        redis_subscription_bytes=of["redis_subscription_bytes"],
    )


def _row(occasion: Occasion, case: str, figure: str) -> float:
    for row in occasion.rows:
        if row.case.startswith(case) and row.figure == figure:
            return median(row.ours)
    raise KeyError(f"{occasion.date}: no figure {figure!r} of {case!r}")
