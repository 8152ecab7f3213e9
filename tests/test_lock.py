"""requirements.lock: exact versions of what requirements.txt asks for, and of what that needs."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compose_files import DOCKERFILE
from tests.harness import ROOT


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """The lock: a name, its exact version, its files' hashes."""
    text = re.sub(r"\\\n", "", (ROOT / "requirements.lock").read_text())
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            words, *hashes = line.split("--hash=")
            requirement = Requirement(words.strip())
            found[canonicalize_name(requirement.name)] = requirement, hashes
    return found


def required() -> list[Requirement]:
    """What requirements.txt asks for."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def version(requirement: Requirement) -> str:
    """The one version that a line of the lock allows."""
    (only,) = requirement.specifier
    assert only.operator == "=="
    assert "*" not in only.version
    return only.version


def test_the_lock_names_one_version_of_each_and_its_files() -> None:
    """Nothing else is installed."""
    for name, (requirement, hashes) in locked().items():
        assert version(requirement), name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", one) for one in hashes), name
        assert hashes, name


@pytest.mark.parametrize("requirement", required(), ids=lambda one: one.name)
def test_the_lock_satisfies_a_requirement_and_all_that_follows_from_it(
    requirement: Requirement,
) -> None:
    """Versions within what is asked, on the image's platform, down to the last dependency."""
    lock = locked()
    python = re.findall(r"^ARG PYTHON=(.*)", DOCKERFILE, re.MULTILINE)[0]
    platform = {
        "python_version": python,
        "python_full_version": f"{python}.99",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    pending = [(requirement, "requirements.txt")]
    seen: set[str] = set()
    while pending:
        wanted, by = pending.pop()
        name = canonicalize_name(wanted.name)
        assert name in lock, f"{by} needs {name}"
        found, _ = lock[name]
        assert wanted.specifier.contains(version(found), prereleases=True), f"{by}: {wanted}"
        assert found.marker is None or found.marker.evaluate(platform), name
        key = f"{name}{sorted(wanted.extras)}"
        if key in seen:
            continue
        seen.add(key)
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            extras = [*wanted.extras, ""]
            if needed.marker is None or any(
                needed.marker.evaluate({**platform, "extra": extra}) for extra in extras
            ):
                pending.append((needed, name))
