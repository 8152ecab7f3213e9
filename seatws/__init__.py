"""Seat holds for cinemas, live on every screen: Tornado in front, Redis as the only truth."""

__version__ = "0.1.0"
