"""Tests of tests/programs.py: a missing program never passes for a green test in .ci/run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import EVERYTHING, program


@pytest.mark.parametrize("value", ["", "0"])
def test_a_developer_without_a_program_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERYTHING, value)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        program("no-such-program")


def test_where_everything_has_to_run_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERYTHING, "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        program("no-such-program")


def test_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERYTHING, "0")
    monkeypatch.setattr("tests.programs.SBIN", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(pytest.skip.Exception, match="apt-get install prometheus"):
        program("promtool")


def test_one_that_is_there_is_found_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in sbin, which not every PATH has."""
    there = tmp_path / "served"
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    monkeypatch.setattr("tests.programs.SBIN", (str(tmp_path),))
    assert program("served") == str(there)
