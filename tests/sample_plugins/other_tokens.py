"""Another plugin that signs clients in, by the same tokens."""

from __future__ import annotations

from tests.sample_plugins.tokens import Tokens


class OtherTokens(Tokens):
    """As `Tokens`, by another name."""
