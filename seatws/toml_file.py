"""Reading one of the operator's TOML files, with a problem that can be mended from its line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from seatws.errors import UnreadableFileError


def read_toml(file: Path, *, missing: str, example: str) -> dict[str, Any]:
    """Read a file.

    Args:
        file: Which.
        missing: What to do if it is not there, to follow "no such file; ".
        example: A line of such a file with text in quotes: those are what is forgotten most.

    Raises:
        UnreadableFileError: It can't be used.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as exc:
        problem = f"not UTF-8 text at byte {exc.start}; save it as UTF-8"
    except (ValueError, RecursionError) as exc:  # not all that tomllib raises is TOMLDecodeError
        problem = f"not valid TOML: {exc}; text stands in quotes, as in {example}"
    except FileNotFoundError:
        problem = f"no such file; {missing}"
    except OSError as exc:
        problem = f"cannot be read ({exc.strerror}); make it a file that the server's user may read"
    raise UnreadableFileError(problem)
