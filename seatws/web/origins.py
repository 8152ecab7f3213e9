"""Which web pages may use the server from a browser (`server.allowed_origins`)."""

from __future__ import annotations

from collections.abc import Sequence


class Origins:
    """A list of origins: `*`, exact ones, or `scheme://*.domain` for every subdomain.

    An origin is what a browser sends: scheme, host and port (RFC 6454 section 6.2).
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self.allows_all = "*" in allowed
        self._exact = frozenset(allowed)
        self.are_exact = not any("*" in origin for origin in allowed)
        """Whether every page that may use the server is named."""
        self._below = [tuple(origin.split("*", 1)) for origin in allowed if "://*." in origin]

    def names(self, origin: str) -> bool:
        """Whether this very origin is listed: only then may a page send cookies along."""
        return origin.lower() in self._exact - {"*"}

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin may connect and ask."""
        origin = origin.lower()
        if self.allows_all or origin in self._exact:
            return True
        return any(
            origin.startswith(scheme)
            and origin.endswith(domain)
            and len(origin) > len(scheme) + len(domain)
            for scheme, domain in self._below
        )
