"""`run.py token`: a token for trying things out, signed with the secret that is configured."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from seatws.errors import ConfigError
from seatws.messages import CLIENT_ID
from seatws.plugins import Plugin

LONGEST_MINUTES: Final = 366 * 24 * 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `token` takes; `claims_of` reads it."""
    parser.add_argument(
        "--sub", type=_client_id, required=True, metavar="NAME", help="the client id"
    )
    parser.add_argument(
        "--room",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a room, or a pattern of rooms, for the claim rooms; may be repeated",
    )
    parser.add_argument(
        "--minutes", type=_minutes, default=60.0, help="how long it is good for (default: 60)"
    )
    parser.add_argument(
        "--claim",
        action="append",
        default=[],
        type=_claim,
        metavar="NAME=VALUE",
        help="any other claim; the value as JSON, or else as text: --claim 'roles=[\"staff\"]'",
    )


def claims_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The claims that the arguments ask for.

    Raises:
        ConfigError: A claim is given twice.
    """
    claims: dict[str, Any] = {"sub": arguments.sub}
    if arguments.room:
        claims["rooms"] = arguments.room
    for name, value in arguments.claim:
        if name in claims:
            raise ConfigError(f"--claim {name}: it has a value already; give it once")
        claims[name] = value
    return claims


def make_token(plugins: Sequence[Plugin], claims: Mapping[str, Any], minutes: float) -> str:
    """Sign claims with the first plugin that has a method `sign(claims) -> str`.

    Issue time and expiry are added, and what the plugin's settings ask for: `issuer`, `audience`,
    and the client id under its `client_id_claim`. A claim that is given stands as it is.

    Raises:
        ConfigError: No plugin signs, or the one that does has public keys alone.
    """
    signer = next((plugin for plugin in plugins if hasattr(plugin, "sign")), None)
    if signer is None:
        raise ConfigError(
            "no plugin that is enabled can sign a token; enable plugins.jwt_auth with a secret in"
            " plugins.toml"
        )
    settings = signer.settings
    now = int(time.time())
    all_claims: dict[str, Any] = {"iat": now, "exp": now + round(minutes * 60)}
    for name, setting in (("iss", "issuer"), ("aud", "audience")):
        if (value := _first(getattr(settings, setting, None))) is not None:
            all_claims[name] = value
    if "sub" in claims:
        all_claims[getattr(settings, "client_id_claim", "sub")] = claims["sub"]
    token: str = signer.sign(all_claims | dict(claims))
    return token


def _first(setting: object) -> object:
    """The text, or the first of a list of them; None where nothing is checked."""
    value = setting[0] if isinstance(setting, list | tuple) and setting else setting
    return value if isinstance(value, str) and value != "*" else None


def _client_id(text: str) -> str:
    if re.fullmatch(CLIENT_ID, text) is None:
        raise argparse.ArgumentTypeError("expected 1 to 64 of A-Z a-z 0-9 . _ : @ -")
    return text


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0
    if not 0 < minutes <= LONGEST_MINUTES:  # nan, too
        raise argparse.ArgumentTypeError(f"expected a number up to {LONGEST_MINUTES}, a year")
    return minutes


def _claim(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    try:
        return name, json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return name, value


def _refuse(constant: str) -> None:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError(constant)
