"""docs/plugins.md: its example runs as it stands, and nothing of the contract is left out."""

from __future__ import annotations

import hmac
import re
import time
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from seatws.errors import ConfigError
from seatws.plugins import Action, ConnectRequest, Identity, Plugin
from seatws.settings import read_settings
from tests.conftest import Starter
from tests.harness import ROOT, Client, Valkey, conf_with, unique
from tests.sample_plugins.running import turned_away, types

GUIDE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
SECRETS = ("first-secret-" * 3, "second-secret-" * 3)


def fences(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def ticket(client_id: str, secret: str = SECRETS[0], seconds: float = 60) -> str:
    signed = f"{client_id}~{time.time() + seconds}"
    return f"{signed}~{hmac.new(secret.encode(), signed.encode(), 'sha256').hexdigest()}"


@pytest.mark.gen_test(timeout=60)
async def test_the_example_works(start: Starter, valkey: Valkey, tmp_path: Path) -> None:
    """As it stands in the guide, with its settings: sign-in, permissions, reload, errors."""
    (tmp_path / "tickets.py").write_text(fences("python")[0])
    conf = conf_with(tmp_path / "conf")
    table = fences("toml")[0].replace("plugins.tickets", "tickets")
    (conf / "plugins.toml").write_text(table)
    secret = conf / "tickets.secret"
    secret.write_text(SECRETS[0])
    server = start(valkey.url, conf=conf, PYTHONPATH=str(tmp_path))
    ann, vip = unique("ann"), unique("vip_bob")
    for name, query in ((ann, ""), (ann, f"?ticket={ticket(ann)}0"), (ann, "?ticket=a~b~%C3%B1")):
        assert (await turned_away(server, f"{name}{query}")).code == 4401
    assert (await turned_away(server, f"{ann}?ticket={ticket(vip)}")).code == 4403
    assert (await turned_away(server, f"{ann}?ticket={ticket(ann, seconds=-1)}")).code == 4401
    async with (
        Client.connect(server.url, f"{ann}?ticket={ticket(ann)}") as one,
        Client.connect(server.url, f"{vip}?ticket={ticket(vip)}") as two,
    ):
        await one.join(unique("room"))
        assert (await one.ask(type="join_room", room_id="funcion_gala"))["code"] == "forbidden"
        await two.join("funcion_gala")
        secret.write_text("short")
        log = await server.reload()
        assert "secret_file: shorter than 32 bytes; make a longer one" in log
        assert (await one.ask(type="ping"))["type"] == "pong"
        secret.write_text(SECRETS[1])
        assert "reloaded: plugins tickets" in await server.reload()
        for client in (one, two):
            assert await client.closed() == 4401
            assert types(client)[0] == "auth_ok"
    async with Client.connect(server.url, f"{ann}?ticket={ticket(ann, SECRETS[1])}") as one:
        await one.join(unique("room"))
    assert "ERROR" not in server.log.replace("ERROR seatws.web.gate: not reloaded", "")


def test_the_settings_of_the_guide_are_checked() -> None:
    """Its second example says what to write, and which keys go together."""
    scope: dict[str, object] = {"__name__": "guide"}
    exec(compile(fences("python")[1], "guide", "exec", dont_inherit=True), scope)
    kind = scope["Settings"]
    assert isinstance(kind, type)
    assert issubclass(kind, msgspec.Struct)
    read_settings(kind, {"ticket_hours": 5, "vip_rooms": ["gala"], "vip_hours": 12}, "here")
    for table, words in (
        ({"ticket_hours": 0}, "ticket_hours: expected a number from 1 to 48, got 0; 24 is a day"),
        ({"vip_hours": 12}, "vip_hours: expected none without vip_rooms, got one; take it out"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_settings(kind, table, "here")


def test_the_guide_names_the_whole_contract() -> None:
    """Every hook and attribute, every field of what they work with, every action and own key."""
    hooks = {name for name in vars(Plugin) if not name.startswith("_") or name == "__init__"}
    names = hooks | set(get_args(Action)) | {"use", "enabled", "deadline_seconds"}
    names |= {name for kind in (Identity, ConnectRequest) for name in kind.__struct_fields__}
    left_out = {name for name in names if not re.search(rf"`{name}\b", GUIDE)}
    assert not left_out
