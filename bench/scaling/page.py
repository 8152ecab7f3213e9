"""Writes the tables of docs/scaling.md: what was measured last, and towns of growing size."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from bench.results import spread
from bench.scaling import costs, figures, town
from bench.scaling.costs import RESULTS, Costs
from bench.scaling.load import Loads, Wanted, first_limit, instances_for, placed, shards_for
from bench.scaling.town import Town

PAGE: Final = RESULTS.parent.parent / "docs/scaling.md"

UNITS: Final = {"us": "µs", "kib": "KiB", "mib": "MiB", "bytes": "bytes"}
OF_RUN: Final = {
    "connection_us": "`bench/run idle`, less its 1,000 rooms' comparisons",
    "join_us": "`bench/run join`",
    "operation_low_us": "`bench/run small_rooms`",
    "operation_high_us": "`bench/run small_rooms`",
}
"""Costs that come from bench/run."""
FIGURES: Final = {
    "event_low_us": "instance_event_us",
    "event_high_us": "instance_event_ten_us",
    "send_us": "instance_send_us",
    "look_us": "instance_look_us",
    "instance_mib": "instance_empty_mib",
    "connection_kib": "instance_connection_kib",
    "room_kib": "instance_room_kib",
    "hold_kib": "instance_hold_kib",
}
"""The figures that others are, where the name is not the same."""


class Evening(NamedTuple):
    """A line of the table of towns."""

    town: Town
    wanted: Wanted
    instances: int | None = None
    """So many, whatever they need."""


BY_ROOM: Final = Wanted(by_room=1.25)
QUIET: Final = Town(viewers=1_000_000, rooms=10_000, clicks_per_viewer=0.001)
EVENINGS: Final = (
    Evening(Town(viewers=1000, rooms=20), Wanted()),
    Evening(Town(viewers=10_000, rooms=100), Wanted()),
    Evening(Town(viewers=100_000, rooms=1000), Wanted()),
    Evening(Town(viewers=100_000, rooms=1000), BY_ROOM),
    Evening(Town(viewers=300_000, rooms=2000), Wanted()),
    Evening(Town(viewers=300_000, rooms=2000), BY_ROOM),
    Evening(Town(), Wanted()),
    Evening(Town(), BY_ROOM),
    Evening(QUIET, Wanted()),
    Evening(QUIET, BY_ROOM),
)


def write(evenings: tuple[Evening, ...] = EVENINGS) -> None:
    """Put both tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    text = filled(text, "costs", costs_table())
    text = filled(text, "towns", towns_table(costs.measured(), evenings))
    PAGE.write_text(text, encoding="utf-8")


def filled(text: str, name: str, lines: Iterator[str]) -> str:
    """The page with a new table between the markers of that name, and all else as it is.

    Raises:
        ValueError: It has no such markers.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    table = "\n".join([begin, *lines, end])
    marked = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    text, found = marked.subn(lambda _: table, text)
    if found != 1:
        raise ValueError(f"there must be one {begin} … {end} in the page")
    return text


def costs_table() -> Iterator[str]:
    """Each cost, the spread of its rounds, its meaning and where it comes from."""
    own, now = figures.last(RESULTS), costs.measured()
    meanings = costs.meanings()
    yield "| cost | median | rounds | what it is | from |"
    yield "|---|---|---|---|---|"
    for name, value in dataclasses.asdict(now).items():
        unit = UNITS[name.rpartition("_")[2]]
        rounds, source = "", OF_RUN.get(name, "")
        if not source:
            rounds = spread(own.values.get(FIGURES.get(name, name), [value]))
            rounds = rounds.partition("(")[2].rstrip(")")
            source = "`bench/capacity --measure`"
        yield f"| `{name}` | {number(value)} {unit} | {rounds} | {meanings[name]} | {source} |"
    yield ""
    yield f"{own.date}, `{own.command}`; {own.machine}; {own.versions}."


def towns_table(cost: Costs, evenings: tuple[Evening, ...]) -> Iterator[str]:
    """What each town needs, and what its fullest instance and Redis then do."""
    yield (
        "| viewers, rooms | balancer | instances | Redis | changes/s | deliveries/s | events heard "
        "by an instance/s | comparisons in Redis/s | an instance: CPU (events, sending, comparing) "
        "| its memory | a Redis: CPU (calls, events, comparing) | all Redis's memory "
        "| gives out first |"
    )
    yield "|" + "---|" * 13
    for evening in evenings:
        yield _evening_line(evening, cost)


def _evening_line(evening: Evening, cost: Costs) -> str:
    asked, wanted = evening.town, evening.wanted
    drawn = town.draw(asked, seed=1)
    carried = instances_for(asked, drawn, cost, wanted)
    whole = shards_for(carried, wanted) if carried else None
    shown = whole or Loads(asked, drawn, placed(drawn, wanted.most_instances, wanted), 1, cost)
    instance, shard = shown.fullest_instance, shown.fullest_shard
    quiet = ", quiet" if asked.clicks_per_viewer < Town().clicks_per_viewer else ""
    cells = [
        f"{asked.viewers:,}, {asked.rooms:,}{quiet}",
        "by room" if wanted.by_room else "any",
        f"{len(shown.placed):,}" if carried else "not carried",
        f"{shown.shards:,}" if whole else "not carried",
        f"{math.fsum(room.changes for room in drawn.rooms):,.0f}",
        f"{math.fsum(room.changes * room.viewers for room in drawn.rooms):,.0f}",
        f"{instance.events:,.0f}",
        f"{math.fsum(each.looks for each in shown.on_shards):,.0f}",
        f"{instance.cpu:.0%} ({instance.events_cpu:.0%}, {instance.sending_cpu:.0%}, "
        f"{instance.comparing_cpu:.1%})",
        f"{instance.mib:,.0f} MiB",
        f"{shard.floor:.0%} ({shard.calls_cpu:.0%}, {shard.events_cpu:.0%}, "
        f"{shard.comparing_cpu:.1%})",
        f"{math.fsum(each.mib for each in shown.on_shards):,.0f} MiB",
        first_limit(shown, wanted),
    ]
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """A figure with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
