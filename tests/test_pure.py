"""Which module may know which: what is pure stays pure, and imports point one way."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import seatws
from tests.harness import ROOT

PACKAGE = Path(seatws.__file__).parent
PURE = ("messages", "holds", "errors", "frames", "deflate", "privacy")
PURE_BUT_FOR_CONFIG = (
    "rooms.answers",
    "rooms.peer",
    "rooms.snapshots",
    "web.rate",
    "web.origins",
    "web.mass_disconnection",
)

# What may be imported by what stands below it. Modules of the package itself that are not named
# (config, metrics, logs, ...) make a layer of their own, above the pure ones.
LAYERS = ("pure", "plain", "store", "rooms", "web", "app", "doctor")


def names() -> list[str]:
    """Every module of the package, by its dotted name."""
    paths = (path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)


def layer_of(name: str) -> int:
    _, *rest = name.split(".")
    first = rest[0] if rest else "errors"  # the package itself imports nothing
    if first in PURE:
        return LAYERS.index("pure")
    return LAYERS.index(first) if first in LAYERS else LAYERS.index("plain")


def imports_of(name: str, *, to_run: bool = False) -> Iterator[str]:
    """The package's modules that a module imports; with `to_run`, those it can't be run without."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(file.read_text())
    nodes = tree.body if to_run else list(ast.walk(tree))
    known = set(names())
    for node in nodes:
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: write imports out in full"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [full if full in known else str(node.module) for full in inner]
        else:
            continue
        yield from (one for one in found if one.split(".")[0] == seatws.__name__)


def modules_after_import(name: str) -> set[str]:
    """What a fresh interpreter has loaded once it has imported a module."""
    code = f"import sys, {name}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.mark.parametrize("name", [*PURE, *PURE_BUT_FOR_CONFIG])
def test_a_pure_module_loads_neither_tornado_nor_redis(name: str) -> None:
    """Rules can be run, and read, without any I/O at hand."""
    loaded = {module.split(".")[0] for module in modules_after_import(f"seatws.{name}")}
    assert "seatws" in loaded
    assert loaded.isdisjoint({"tornado", "redis", "hiredis", "asyncio", "socket"})


def test_the_edge_does_load_tornado() -> None:
    """So that the test above can fail."""
    assert "tornado.web" in modules_after_import("seatws.web.problems")


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_imports_only_its_like(name: str) -> None:
    """And reads no clock: the time is handed in."""
    full = f"seatws.{name}"
    assert {one.split(".")[1] for one in imports_of(full)} <= set(PURE)
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not any(one.endswith((".now", ".utcnow", ".today")) for one in used)
    assert not any(
        isinstance(node, ast.Import) and node.names[0].name == "time" for node in tree.body
    )


@pytest.mark.parametrize("name", names())
def test_nothing_imports_upwards(name: str) -> None:
    """Pure modules, then store, rooms, web and app: each knows those before it alone."""
    upwards = [one for one in imports_of(name) if layer_of(one) > layer_of(name)]
    assert not upwards, f"{name} must not know of {upwards}"


def test_no_modules_need_each_other() -> None:
    """Else one of them can't be understood, or loaded, without the other."""
    graph = {name: set(imports_of(name, to_run=True)) - {name} for name in names()}
    graphlib.TopologicalSorter(graph).prepare()
