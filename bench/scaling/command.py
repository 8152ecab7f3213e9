"""The command line of `bench/capacity`."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence

from bench.scaling import formulas, page, sizes, town
from bench.scaling.costs import RESULTS, Costs, measured
from bench.scaling.load import Loads, Wanted, first_limit, instances_for, placed, shards_for
from bench.scaling.town import Town

DESCRIPTION = """\
How many instances and Redis shards a town of viewers needs, and what gives out first.

    python bench/capacity --viewers 1000000 --rooms 5000
    python bench/capacity --viewers 100000 --rooms 1000 --instances 12 --shards 1

A simulation: it starts no server. It draws who looks at which room and lands on which instance,
and takes what that costs from what was measured (docs/scaling.md)."""
OPTIONS = {
    "viewers": "who look at the same time",
    "rooms": "showings that are looked at",
    "skew": "Zipf's exponent of the rooms' popularity; 0: all alike",
    "clicks_per_viewer": "selects a second of each viewer",
    "seats": "of a room: no more can be held",
    "held_s": "seconds that a seat is held, on average",
    "released": "share of holds that end by release, not by their deadline",
    "visit_s": "seconds that a viewer stays",
}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="bench/capacity",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Ends with 1 if nothing, or not what was given, carries it.",
    )
    for field in dataclasses.fields(Town):
        name = "--" + field.name.replace("_", "-")
        kind, default = type(field.default), field.default
        assert isinstance(default, int | float)
        text = f"{OPTIONS[field.name]} ({default:,g})" if kind is float else ""
        text = text or f"{OPTIONS[field.name]} ({default:,})"
        parser.add_argument(name, type=kind, default=default, metavar="N", help=text)
    parser.add_argument("--instances", type=int, metavar="N", help="so many, whether enough or not")
    parser.add_argument("--shards", type=int, metavar="N", help="so many Redis primaries likewise")
    parser.add_argument(
        "--by-room",
        type=float,
        default=0,
        metavar="X",
        help="a balancer that goes by the room's name, to the next instance where one has X times "
        "the mean of connections, as 1.25 (0: it takes any instance)",
    )
    parser.add_argument(
        "--connections", type=int, default=20_000, metavar="N", help="limits.connections (20,000)"
    )
    parser.add_argument(
        "--most", type=float, default=0.7, metavar="SHARE", help="of a core to be used (0.7)"
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="of a core, to those measured on (1)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the draw (1)")
    parser.add_argument("--costs", action="store_true", help="print what things cost, and end")
    parser.add_argument(
        "--measure", action="store_true", help="measure what things cost, and keep it"
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="write the tables of docs/scaling.md, from what was kept",
    )
    parser.add_argument(
        "--quick", action="store_true", help="with --measure: a first look, not kept"
    )
    given = parser.parse_args(words)
    _check(parser, given)
    return given


def _check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    for name in ("viewers", "rooms", "seats", "held_s", "visit_s", "connections", "speed"):
        if getattr(given, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: above 0")
    for name in ("instances", "shards"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name}: 1 or more")
    for name in ("released", "most"):
        if not 0 <= getattr(given, name) <= 1:
            parser.error(f"--{name}: from 0 to 1")
    if given.by_room and given.by_room <= 1:
        parser.error("--by-room: above 1, or 0")
    for name in ("skew", "clicks_per_viewer"):
        if getattr(given, name) < 0:
            parser.error(f"--{name.replace('_', '-')}: 0 or more")


def main(words: Sequence[str] | None = None) -> int:
    """Draw, compute, print. Returns the exit code."""
    given = arguments(words)
    if given.measure:
        from bench.scaling import measuring  # only this needs a compiler and servers

        command = shlex.join(["bench/capacity", *(sys.argv[1:] if words is None else words)])
        return measuring.run(command, is_quick=given.quick)
    if given.page:
        page.write()
        return 0
    costs = measured(RESULTS).on_cores(given.speed)
    if given.costs:
        for name, value in dataclasses.asdict(costs).items():
            print(f"{name:26} {value:10.3f}")
        return 0
    asked = Town(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Town)})
    wanted = Wanted(given.most, given.connections, given.by_room)
    return simulate(asked, costs, wanted, given)


def simulate(asked: Town, costs: Costs, wanted: Wanted, given: argparse.Namespace) -> int:
    """Print the table. Returns 1 if it is not carried."""
    drawn = town.draw(asked, given.seed)
    changes = math.fsum(room.changes for room in drawn.rooms)
    requests = math.fsum(room.requests for room in drawn.rooms)
    deliveries = math.fsum(room.changes * room.viewers for room in drawn.rooms)
    largest = max(room.viewers for room in drawn.rooms)
    print(
        f"{asked.viewers:,} viewers in {asked.rooms:,} rooms, the largest {largest:,} (seed "
        f"{given.seed}); a second:\n  {requests:,.0f} operations, {changes:,.0f} changes, "
        f"{deliveries:,.0f} deliveries, {asked.viewers / asked.visit_s:,.0f} joins"
    )
    loads: Loads | None
    if given.instances:
        loads = Loads(asked, drawn, placed(drawn, given.instances, wanted), 1, costs)
    else:
        loads = instances_for(asked, drawn, costs, wanted)
    if loads is None:
        _tell_of_the_wall(asked, costs, wanted, given.seed)
        return 1
    sharded = loads if given.shards else shards_for(loads, wanted)
    if given.shards:
        sharded = dataclasses.replace(loads, shards=given.shards)
    print_loads(sharded or loads, wanted)
    if sharded is None:
        print("One room is more than a Redis of its own carries: shards don't help.")
    return 0 if sharded is not None and _carries(sharded, wanted) else 1


def _carries(loads: Loads, wanted: Wanted) -> bool:
    crowded = max(each.connections for each in loads.on_instances)
    fullest = max(loads.fullest_instance.cpu, loads.fullest_shard.floor)
    return fullest <= wanted.most and crowded <= wanted.connections


def _tell_of_the_wall(asked: Town, costs: Costs, wanted: Wanted, seed: int) -> None:
    """No number of instances is enough: show what the most of them do."""
    drawn = town.draw(asked, seed)
    most = placed(drawn, wanted.most_instances, wanted)
    print_loads(Loads(asked, drawn, most, 1, costs), wanted)
    print(f"Not even {wanted.most_instances:,} instances carry it.")


def print_loads(loads: Loads, wanted: Wanted) -> None:
    """The means, the fullest ones, and what gives out first."""
    instances, shards = loads.on_instances, loads.on_shards
    top, shard = loads.fullest_instance, loads.fullest_shard
    print(
        f"\n{len(instances):,} instances, {len(shards):,} Redis "
        f"{'shards' if len(shards) > 1 else 'server'}, each core at most {wanted.most:.0%}\n"
    )

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    rows: list[tuple[str, float, float, str]] = [
        ("an instance: CPU", mean([each.cpu for each in instances]), top.cpu, "%")
    ]
    for number, (name, share) in enumerate(top.parts):
        rows.append((f"  {name}", mean([each.parts[number][1] for each in instances]), share, "%"))
    for name in ("connections", "rooms", "operations", "events", "deliveries"):
        unit = "" if name in {"connections", "rooms"} else "/s"
        values = [float(getattr(each, name)) for each in instances]
        rows.append((f"  {name}", mean(values), max(values), unit))
    rows += [
        ("  memory", mean([each.mib for each in instances]), max(e.mib for e in instances), "MiB"),
        ("  sent", mean([each.mbit for each in instances]), max(e.mbit for e in instances), "Mb/s"),
        ("a Redis: CPU", mean([each.floor for each in shards]), shard.floor, "%"),
    ]
    for name in ("calls_cpu", "events_cpu", "comparing_cpu"):
        values = [float(getattr(each, name)) for each in shards]
        rows.append((f"  {name.removesuffix('_cpu')}", mean(values), getattr(shard, name), "%"))
    for name, title, unit in (
        ("rooms", "rooms", ""),
        ("calls", "script calls", "/s"),
        ("events", "events × instances", "/s"),
        ("looks", "rooms compared", "/s"),
        ("turn_ms", "a turn of its loop", "ms"),
        ("mib", "memory", "MiB"),
    ):
        values = [float(getattr(each, name)) for each in shards]
        rows.append((f"  {title}", mean(values), max(values), unit))
    rows.append(("  its busiest room", math.nan, max(each.hottest for each in shards), "%"))
    print(f"{'':24}{'mean':>12}{'fullest':>12}")
    for title, middle, most, unit in rows:
        print(f"{title:24}{_number(middle, unit):>12}{_number(most, unit):>12} {unit}")
    print(f"\nGives out first: {first_limit(loads, wanted)}")
    joins = max(each.connections for each in instances)
    seconds = formulas.storm_s(joins, loads.costs.join_us, wanted.most)
    held = min(loads.town.seats, 200)
    whole, small = (
        joins / seconds * sizes.on_the_wire(sizes.whole_map(held, is_deflated=each)) * 8 / 1e6
        for each in (False, True)
    )
    print(
        f"All at once (a sale's start, a failover): {seconds:,.0f} s to let everyone in; with maps "
        f"of {held} holds {whole:,.0f} Mb/s from an instance, {small:,.0f} Mb/s deflated"
    )


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return ""
    if unit == "%":
        return f"{value * 100:,.1f}"
    return f"{value:,.2f}" if value < 10 and unit else f"{value:,.0f}"
