"""What `bench/run` measures: a generator of results for each case, by the name it is called by."""

from __future__ import annotations

from typing import Final

from bench.cases.compression import compression
from bench.cases.fanout import fanout, flood
from bench.cases.growth import growth
from bench.cases.idle import idle
from bench.cases.joins import join, memory
from bench.cases.rooms import click, small_rooms
from bench.cases.signed import signed
from bench.cases.store import store
from bench.cases.storm import storm
from bench.rounds import Case

CASES: Final[dict[str, Case]] = {
    "fanout": fanout,
    "flood": flood,
    "small_rooms": small_rooms,
    "click": click,
    "join": join,
    "memory": memory,
    "storm": storm,
    "store": store,
    "idle": idle,
    "growth": growth,
    "signed": signed,
    "compression": compression,
}
