"""Figures that were measured for the model, kept with where and when."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Figures(msgspec.Struct, kw_only=True):
    """One run of `bench/capacity --measure`."""

    date: str
    """As in `2026-01-31 18:05 UTC`."""
    machine: str
    versions: str
    command: str
    values: dict[str, list[float]] = {}
    """By name, which ends with the unit: one value a round."""

    def add(self, name: str, value: float) -> None:
        """Take the figure of one more round."""
        self.values.setdefault(name, []).append(value)


def keep(figures: Figures, results: Path) -> Path:
    """Write them down, in a file of their own."""
    name = figures.date.removesuffix(" UTC").replace(":", "").replace(" ", "-")
    path = results / f"capacity-{name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")
    return path


def last(results: Path) -> Figures:
    """The newest ones.

    Raises:
        FileNotFoundError: Nothing was measured yet.
    """
    files = sorted(results.glob("capacity-*.json"))
    if not files:
        raise FileNotFoundError(f"no capacity-*.json in {results}: `bench/capacity --measure`")
    return msgspec.json.decode(files[-1].read_bytes(), type=Figures)
