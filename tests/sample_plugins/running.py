"""Instances with the sample plugins, and what tests of them share."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Client, Instance, Message, Valkey, conf_with
from tests.raw import End, RawSocket

TOKENS = 'use = "tests.sample_plugins.tokens"'
LISTS = 'use = "tests.sample_plugins.lists"'
SLOW = (
    'use = "tests.sample_plugins.slow"\ndeadline_seconds = 30\nfile = "go"\nlog_file = "slow.log"'
)

UNCOUNTED = {"SEATWS_LIMITS__FAILED_SIGN_INS_PER_MINUTE": "0"}
"""For instances that many tests share: bad tokens are told what they are, however many."""


def refusing(*lines: str) -> str:
    """A table that refuses `ACTION ROOM [CLIENT]`."""
    return f"{LISTS}\nrefuse = {list(lines)}"


def good(client_id: str, seconds: float | None = 3600, kind: str = "good") -> str:
    """A token; `seconds`: until it ends, None for never."""
    return f"{kind}:{client_id}:{'never' if seconds is None else time.time() + seconds}"


def bearer(token: str) -> dict[str, str]:
    """The header that carries it."""
    return {"Authorization": f"Bearer {token}"}


def subprotocol(token: str) -> str:
    """The subprotocol that carries it."""
    return f"bearer.{token.replace(':', '~')}"


def with_token(token: str) -> dict[str, Any]:
    """What makes `Client.connect` show it."""
    return {"additional_headers": bearer(token)}


def moment(token: str) -> str:
    """When a token ends, as it stands on the wire."""
    unix_ms = int(float(token.split(":")[2]) * 1000)
    ends = datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC)
    return ends.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def handshake(client_id: str, token: str) -> bytes:
    """A request for an upgrade, for who doesn't wait for the answer."""
    lines = [
        f"GET /ws/{client_id} HTTP/1.1",
        *("Host: localhost", "Connection: Upgrade", "Upgrade: websocket"),
        *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        f"Authorization: Bearer {token}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def turned_away(server: Instance, client_id: str, **headers: str) -> End:
    """Connect where one is not let in: the handshake succeeds, then comes the end."""
    async with RawSocket.open(server) as raw:
        await raw.shake_hands(f"/ws/{client_id}", **headers)
        assert raw.status == 101
        end = await raw.end()
        assert end.goodbye["code"] == end.code
        await raw.hang_up()
        return end


def types(client: Client) -> list[str]:
    """The types of all that it was sent."""
    return [message["type"] for message in client.received]


def without_id(answer: Message) -> Message:
    """An answer without its `request_id`, which it must have."""
    assert answer["request_id"]
    return {key: value for key, value in answer.items() if key != "request_id"}


@pytest.fixture(scope="module")
def signed(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance where all must sign in, by any source, and nobody may do a thing in rooms no*.

    Nor anybody but select, release and read in rooms mute*; nor eve* see the figures. A token has a
    second of grace, and its client a minute of warning.
    """
    yield from _instance(
        valkey,
        tmp_path_factory.mktemp("signed"),
        f"{TOKENS}\ngrace_seconds = 1\nwarn_seconds = 60\ndeadline_seconds = 0.5",
        refusing("* no*", "join mute*", "stats - eve*"),
    )


@pytest.fixture(scope="module")
def by_handshake(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance where all must sign in with the handshake."""
    directory = tmp_path_factory.mktemp("by_handshake")
    sources = 'sources = ["header", "subprotocol", "query"]'
    yield from _instance(valkey, directory, f"{TOKENS}\n{sources}\ndeadline_seconds = 0.5")


def _instance(valkey: Valkey, directory: Path, *plugins: str) -> Iterator[Instance]:
    conf = conf_with(directory / "conf", *plugins)
    instance = Instance(directory, valkey.url, conf=conf, **UNCOUNTED).start()
    yield instance
    instance.stop()
    assert "good:" not in instance.log
    assert "bad:" not in instance.log
