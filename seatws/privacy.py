"""What of a visitor's `user_info` other visitors may see (`privacy.shared_user_info`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class UserInfoFilter:
    """Keeps the shared keys of a `user_info`.

    Args:
        shared: Keys, or `["*"]` for all of them.
    """

    def __init__(self, shared: Sequence[str]) -> None:
        self._shared = None if "*" in shared else frozenset(shared)

    def __call__(self, user_info: str) -> bytes:
        """The shared part of a JSON object, as JSON; `{}` if nothing is left."""
        if self._shared is None:
            return user_info.encode()
        if not self._shared:
            return b"{}"
        given = msgspec.json.decode(user_info, type=dict[str, msgspec.Raw])
        return msgspec.json.encode({key: given[key] for key in given if key in self._shared})
