"""Programs from outside of Python (nginx, promtool, ...) for the tests that run the real ones.

A developer need not have them all: a test that needs one that is missing is skipped, and says so.
Where `SEATWS_TEST_EVERYTHING` is set, as it is in .ci/run, it fails instead.
"""

from __future__ import annotations

import os
import shutil

import pytest

EVERYTHING = "SEATWS_TEST_EVERYTHING"
"""Set, and not to "0": nothing may be skipped for want of a program."""

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where servers are; not everybody's PATH has it."""

_PACKAGES = {
    "promtool": "prometheus",
}
"""Debian's names where they are not the program's own."""


def program(name: str) -> str:
    """The path of a program. Without it the test that asks is skipped, or fails in .ci/run.

    Args:
        name: What one would type.
    """
    where = os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN])
    path = shutil.which(name, path=where)
    if path is not None:
        return path
    package = _PACKAGES.get(name, name)
    missing = f"{name} is not installed (Debian: apt-get install {package})"
    if os.environ.get(EVERYTHING, "0") not in ("", "0"):
        pytest.fail(f"{missing}, and {EVERYTHING} wants every test to run", pytrace=False)
    pytest.skip(missing)
