"""Configuration: what is taken, and what the refusal of everything else says."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
import traceback
from pathlib import Path
from typing import Any

import msgspec
import pytest

from seatws import config as config_module
from seatws.config import Config, Redis, load, override
from seatws.errors import ConfigError

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "conf"

DEFAULTS: dict[str, Any] = {
    f"{section}.{key}": getattr(getattr(Config(), section), key)
    for section in Config.__struct_fields__
    for key in getattr(Config(), section).__struct_fields__
}

# Every setting with another value than its default.
OTHERS: dict[str, Any] = {
    "server.address": "0.0.0.0",
    "server.port": 9000,
    "server.allowed_origins": ("https://example.com", "https://*.example.com:8443"),
    "server.xheaders": True,
    "server.drain_seconds": 0.5,
    "redis.url": "redis://127.0.0.1:6379/0",
    "redis.connect_timeout_seconds": 1.5,
    "redis.timeout_seconds": 0.5,
    "redis.replicas_ack": 2,
    "redis.prefix": "cinema:test",
    "redis.data_dir": "/var/lib/seatws",
    "holds.seconds": 5,
    "holds.max_seats_per_client": 0,
    "holds.keep_seconds": 1,
    "limits.message_bytes": 2048,
    "limits.messages_per_second": 0,
    "limits.burst": 1,
    "limits.rooms_per_connection": 3,
    "limits.connections": 0,
    "limits.connections_per_address": 50,
    "limits.failed_sign_ins_per_minute": 0,
    "limits.user_info_bytes": 512,
    "limits.unsent_bytes": 65_536,
    "limits.slow_seconds": 5,
    "privacy.shared_user_info": ("name", "initials"),
    "heartbeat.interval_seconds": 30.0,
    "heartbeat.timeout_seconds": 2.5,
    "metrics.enabled": False,
    "metrics.address": "::1",
    "metrics.port": 9101,
    "compression.enabled": False,
    "compression.min_bytes": 200,
    "log.level": "debug",
    "log.format": "json",
}

# Both ends are allowed.
RANGES: dict[str, tuple[float, float]] = {
    "server.port": (0, 65_535),
    "server.drain_seconds": (0, 300),
    "redis.connect_timeout_seconds": (0.1, 2.5),
    "redis.timeout_seconds": (0.1, 2.5),
    "redis.replicas_ack": (0, 5),
    "holds.seconds": (5, 3600),
    "holds.max_seats_per_client": (0, 10_000),
    "holds.keep_seconds": (1, 86_400),
    "limits.message_bytes": (1024, 1_048_576),
    "limits.messages_per_second": (0, 100_000),
    "limits.burst": (1, 100_000),
    "limits.rooms_per_connection": (0, 1000),
    "limits.connections": (0, 1_000_000),
    "limits.connections_per_address": (0, 1_000_000),
    "limits.failed_sign_ins_per_minute": (0, 10_000),
    "limits.user_info_bytes": (2, 65_536),
    "limits.unsent_bytes": (16_384, 67_108_864),
    "limits.slow_seconds": (1, 3600),
    "heartbeat.interval_seconds": (1, 3600),
    "heartbeat.timeout_seconds": (0.1, 3600),
    "metrics.port": (0, 65_535),
    "compression.min_bytes": (64, 1_048_576),
}

# What a setting at the end of its range needs of another one.
COMPANIONS: dict[str, str] = {
    "limits.message_bytes": "limits.user_info_bytes = 2",
    "limits.user_info_bytes": "limits.message_bytes = 1048576",
    "heartbeat.interval_seconds": "heartbeat.timeout_seconds = 0.1",
    "heartbeat.timeout_seconds": "heartbeat.interval_seconds = 3600",
    "metrics.address": "metrics.port = 9101",
}


def variable(setting: str) -> str:
    return "SEATWS_" + setting.replace(".", "__").upper()


def as_toml(value: object) -> str:
    return json.dumps(value)  # TOML's own form for all that settings are made of


def as_variable(setting: str, value: object) -> str:
    return str(value) if isinstance(DEFAULTS[setting], str) else as_toml(value)


def get(config: Config, setting: str) -> Any:
    section, key = setting.split(".")
    return getattr(getattr(config, section), key)


def write(directory: Path, text: str) -> Path:
    (directory / "seatws.toml").write_text(text, encoding="utf-8")
    return directory


def problems_of(directory: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(directory, environ)
    assert str(caught.value).splitlines() == list(caught.value.problems), "one line a problem"
    return [problem.replace(f"{directory}", "conf") for problem in caught.value.problems]


def problem_of(directory: Path, **environ: str) -> str:
    (problem,) = problems_of(directory, **environ)
    return problem


# What is shipped


def test_the_shipped_file_says_the_defaults() -> None:
    assert load(SHIPPED, {}) == Config()


def test_every_setting_is_in_the_shipped_file_and_nothing_else_is() -> None:
    tables = tomllib.loads((SHIPPED / "seatws.toml").read_text())
    assert [f"{section}.{key}" for section in tables for key in tables[section]] == list(DEFAULTS)


@pytest.mark.parametrize("setting", DEFAULTS)
def test_a_comment_above_each_shipped_setting_tells_its_range(setting: str) -> None:
    comment = shipped_comments()[setting]
    assert len(comment) > 20
    stated = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", comment)}
    wanted = set(RANGES.get(setting, ())) - {0}  # that 0 is the least goes without saying
    assert wanted <= stated


def shipped_comments() -> dict[str, str]:
    comments: dict[str, str] = {}
    section, comment = "", ""
    for line in (SHIPPED / "seatws.toml").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line.startswith("#"):
            comment += line.lstrip("#")
            continue
        elif line:
            comments[f"{section}.{line.split(' = ')[0]}"] = comment
        comment = ""
    return comments


def test_a_docstring_stands_under_every_setting() -> None:
    documented = set()
    for node in ast.parse(inspect.getsource(config_module)).body:
        if isinstance(node, ast.ClassDef):
            for field, below in zip(node.body, node.body[1:], strict=False):
                match field, below:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str())),
                    ):
                        documented.add(f"{node.name.lower()}.{name}")
    assert set(DEFAULTS) <= documented


def test_importing_it_brings_in_neither_tornado_nor_redis() -> None:
    script = "import sys, seatws.config; print({'tornado', 'redis'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# What is taken


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, ""), {}) == Config()


def test_a_file_from_an_editor_that_marks_utf8_is_read(tmp_path: Path) -> None:
    assert load(write(tmp_path, "\ufeff[holds]\r\nseconds = 5\r\n"), {}).holds.seconds == 5


def test_the_table_below_has_every_setting() -> None:
    assert list(OTHERS) == list(DEFAULTS)
    assert not [setting for setting in DEFAULTS if OTHERS[setting] == DEFAULTS[setting]]


@pytest.mark.parametrize("setting", DEFAULTS)
def test_the_file_sets_each_setting(tmp_path: Path, setting: str) -> None:
    text = f"{setting} = {as_toml(OTHERS[setting])}\n{COMPANIONS.get(setting, '')}"
    config = load(write(tmp_path, text), {})
    assert get(config, setting) == OTHERS[setting]
    assert type(get(config, setting)) is type(DEFAULTS[setting])


@pytest.mark.parametrize("setting", DEFAULTS)
def test_a_variable_wins_over_the_file_for_each_setting(tmp_path: Path, setting: str) -> None:
    text = f"{setting} = {as_toml(DEFAULTS[setting])}\n{COMPANIONS.get(setting, '')}"
    environ = {variable(setting): as_variable(setting, OTHERS[setting])}
    config = load(write(tmp_path, text), environ)
    assert get(config, setting) == OTHERS[setting]
    assert type(get(config, setting)) is type(DEFAULTS[setting])


def test_all_settings_can_be_set_at_once(tmp_path: Path) -> None:
    environ = {variable(setting): as_variable(setting, OTHERS[setting]) for setting in OTHERS}
    config = load(write(tmp_path, ""), environ)
    assert {setting: get(config, setting) for setting in OTHERS} == OTHERS


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    environ = {"SEATWS_JWT_SECRET": "x", "HOLDS__SECONDS": "x", "seatws_holds__seconds": "x"}
    assert load(write(tmp_path, ""), environ) == Config()


@pytest.mark.parametrize("end", [0, 1], ids=["lowest", "highest"])
@pytest.mark.parametrize("setting", RANGES)
def test_both_ends_of_a_range_are_allowed(tmp_path: Path, setting: str, end: int) -> None:
    value = RANGES[setting][end]
    text = f"{setting} = {value}\n{COMPANIONS.get(setting, '')}"
    assert get(load(write(tmp_path, text), {}), setting) == value


@pytest.mark.parametrize("end", [0, 1], ids=["below", "above"])
@pytest.mark.parametrize("setting", RANGES)
def test_what_lies_outside_a_range_is_refused(tmp_path: Path, setting: str, end: int) -> None:
    step = 0.05 if isinstance(DEFAULTS[setting], float) else 1
    value = RANGES[setting][end] + (-step, step)[end]
    in_file = problem_of(write(tmp_path, f"{setting} = {value}"))
    assert in_file.startswith(f"conf/seatws.toml: {setting}: expected ")
    assert f", got {as_toml(value)}; " in in_file
    in_variable = problem_of(write(tmp_path, ""), **{variable(setting): str(value)})
    assert in_variable == in_file.replace(f"conf/seatws.toml: {setting}", variable(setting))


def test_no_heartbeat_is_allowed_with_any_timeout(tmp_path: Path) -> None:
    text = "[heartbeat]\ninterval_seconds = 0\ntimeout_seconds = 20"
    assert load(write(tmp_path, text), {}).heartbeat.interval_seconds == 0


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "http://localhost",
        "http://localhost:5173",
        "https://cine.example.com",
        "https://*.example.com",
        "https://*.example.com:8443",
        "http://[::1]:8001",
        "capacitor://localhost",
    ],
)
def test_an_origin_as_browsers_send_it_is_allowed(tmp_path: Path, origin: str) -> None:
    config = load(write(tmp_path, f"server.allowed_origins = {as_toml([origin])}"), {})
    assert config.server.allowed_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "example.com",
        "//example.com",
        "https://",
        "https://example.com/",
        "https://example.com/app",
        "https://example.com?x",
        "https://example.com\n",
        "https://Example.com",
        "https://example.com:443",
        "http://example.com:80",
        "https://example.com:0",
        "https://*",
        "https://*.",
        "https://a.*.com",
        "https://*example.com",
        "*.example.com",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(tmp_path: Path, origin: str) -> None:
    text = f'server.allowed_origins = ["*", {as_toml(origin)}]'
    assert problem_of(write(tmp_path, text)) == (
        'conf/seatws.toml: server.allowed_origins: expected a list of "*", "scheme://host[:port]"'
        f' or "scheme://*.domain[:port]", got ["*", {as_toml(origin)}];'
        ' for example ["https://example.com", "https://*.example.com:8443"]: lower case,'
        " no path, no closing slash, no default port"
    )


@pytest.mark.parametrize(
    "address", ["::", "fe80::1%eth0", "localhost", "app-1.internal", "10.0.0.1"]
)
def test_an_address_may_be_a_name_or_a_number(tmp_path: Path, address: str) -> None:
    assert load(write(tmp_path, f'server.address = "{address}"'), {}).server.address == address


# What is refused, and how


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        pytest.param(
            "holds.seconds",
            '"5m"',
            'expected a whole number from 5 to 3600, got "5m"; 300 is five minutes',
            id="text for a number",
        ),
        pytest.param(
            "holds.keep_seconds",
            "true",
            "expected a whole number from 1 to 86400, got true; 3600 is one hour",
            id="truth for a number",
        ),
        pytest.param(
            "holds.seconds",
            "299.5",
            "expected a whole number from 5 to 3600, got 299.5; 300 is five minutes",
            id="fraction for a whole number",
        ),
        pytest.param(
            "holds.max_seats_per_client",
            "-1",
            "expected a whole number from 0 (no limit) to 10000, got -1; 10 is a large family",
            id="below no limit",
        ),
        pytest.param(
            "server.port",
            "2024-01-15",
            'expected a whole number from 0 (any free port) to 65535, got "2024-01-15";'
            " 8001 is the usual one",
            id="date for a number",
        ),
        pytest.param(
            "server.drain_seconds",
            "nan",
            "expected a number from 0 to 300, got NaN; 10 suits most",
            id="not a number",
        ),
        pytest.param(
            "server.drain_seconds",
            "inf",
            "expected a number from 0 to 300, got Infinity; 10 suits most",
            id="infinite",
        ),
        pytest.param(
            "server.drain_seconds",
            "false",
            "expected a number from 0 to 300, got false; 10 suits most",
            id="truth for a number with a fraction",
        ),
        pytest.param(
            "heartbeat.interval_seconds",
            "0.5",
            "expected 0 (off) or a number from 1 to 3600, got 0.5;"
            " 25 stays under the 60 s of most proxies",
            id="between off and the least",
        ),
        pytest.param(
            "server.xheaders",
            '"yes"',
            'expected true or false, got "yes"; write it in lower case, without quotes',
            id="text for truth",
        ),
        pytest.param(
            "metrics.enabled",
            "1",
            "expected true or false, got 1; write it in lower case, without quotes",
            id="number for truth",
        ),
        pytest.param(
            "log.level",
            '"INFO"',
            'expected one of "debug", "info", "warning", "error", got "INFO";'
            " write it in lower case",
            id="another word",
        ),
        pytest.param(
            "server.address",
            '"localhost:8001"',
            "expected an IP address or host name of this machine, without a port,"
            ' got "localhost:8001"; "127.0.0.1" is this machine only, "0.0.0.0" every network',
            id="address with a port",
        ),
        pytest.param(
            "server.address",
            '""',
            "expected an IP address or host name of this machine, without a port,"
            ' got ""; "127.0.0.1" is this machine only, "0.0.0.0" every network',
            id="empty address",
        ),
        pytest.param(
            "metrics.address",
            '"http://metrics"',
            'expected an IP address or host name of this machine, without a port, or "",'
            ' got "http://metrics"; "" is the server\'s own address',
            id="address with a scheme",
        ),
        pytest.param(
            "redis.prefix",
            '"{seatws}"',
            'expected 1 to 32 of A-Z a-z 0-9 . _ : -, got "{seatws}";'
            ' for example "seatws" or "cinema:test"; no braces, they mark the room',
            id="braces in the prefix",
        ),
        pytest.param(
            "redis.data_dir",
            '""',
            'expected the path of a directory, got ""; "data" is one in the working directory',
            id="no directory",
        ),
        pytest.param(
            "privacy.shared_user_info",
            '"name"',
            'expected a list of the keys to share, got "name";'
            ' for example ["name"]; ["*"] shares all, [] nothing',
            id="text for a list",
        ),
        pytest.param(
            "privacy.shared_user_info",
            '["name", 7]',
            'expected a list of the keys to share, got ["name", 7];'
            ' for example ["name"]; ["*"] shares all, [] nothing',
            id="number in a list of texts",
        ),
        pytest.param(
            "privacy.shared_user_info",
            '["name", "*"]',
            'expected "*" alone, or a list of keys, got ["name", "*"];'
            ' take "*" out, or leave it alone: ["*"] shares every key',
            id="star beside keys",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_what_to_write(
    tmp_path: Path, setting: str, value: str, says: str
) -> None:
    in_file = problem_of(write(tmp_path, f"{setting} = {value}"))
    assert in_file == f"conf/seatws.toml: {setting}: {says}"
    raw = as_variable(setting, tomllib.loads(f"x = {value}")["x"]) if value[0] == '"' else value
    in_variable = problem_of(write(tmp_path, ""), **{variable(setting): raw})
    assert in_variable == f"{variable(setting)}: {says}"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("SEATWS_HOLDS__SECONDS", "5m", '"5m"'),
        ("SEATWS_HOLDS__SECONDS", "", '""'),
        ("SEATWS_HOLDS__SECONDS", "300\nport = 1", r'"300\nport = 1"'),
        ("SEATWS_METRICS__ENABLED", "yes", '"yes"'),
        ("SEATWS_SERVER__ALLOWED_ORIGINS", "*", '"*"'),
        ("SEATWS_PRIVACY__SHARED_USER_INFO", "[name]", '"[name]"'),
    ],
    ids=["bare word", "empty", "two lines", "yes", "star", "list without quotes"],
)
def test_a_variable_that_is_not_toml_is_refused_as_the_text_it_is(
    tmp_path: Path, name: str, text: str, found: str
) -> None:
    problem = problem_of(write(tmp_path, ""), **{name: text})
    assert problem.startswith(f"{name}: expected ")
    assert f", got {found}; " in problem


def test_a_long_wrong_value_is_cut(tmp_path: Path) -> None:
    problem = problem_of(write(tmp_path, f'holds.seconds = "{"x" * 10_000}"'))
    assert len(problem) < 200
    assert f'got "{"x" * 59}...; 300 is' in problem


@pytest.mark.parametrize(
    "value", [f"0x{'f' * 5000}", "[" * 400 + "]" * 400, "[" * 5000], ids=["number", "list", "open"]
)
def test_a_monstrous_value_is_refused_like_any_other(tmp_path: Path, value: str) -> None:
    for problem in (
        problem_of(write(tmp_path, f"holds.seconds = {value}")),
        problem_of(write(tmp_path, ""), SEATWS_HOLDS__SECONDS=value),
    ):
        assert len(problem) < 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "[holds]\nsecnods = 5",
            "holds.secnods: no such setting; did you mean holds.seconds?",
            id="misspelt setting",
        ),
        pytest.param(
            "[holds]\nxyzzy = 5",
            "holds.xyzzy: no such setting; [holds] has seconds, max_seats_per_client, keep_seconds",
            id="unknown setting",
        ),
        pytest.param(
            '[holds]\n"a\\n\\u001b[2J" = 5',
            "holds.a\\n\\x1b[2J: no such setting;"
            " [holds] has seconds, max_seats_per_client, keep_seconds",
            id="setting with control characters",
        ),
        pytest.param(
            "[hold]\nseconds = 5",
            "hold: no such section; did you mean [holds]?",
            id="misspelt section",
        ),
        pytest.param(
            "[xyzzy]",
            "xyzzy: no such section; the sections are"
            " server, redis, holds, limits, privacy, heartbeat, metrics, compression, log",
            id="unknown section",
        ),
        pytest.param(
            "holds = 300",
            "holds: expected a section; write [holds] on a line, and its settings below",
            id="value for a section",
        ),
        pytest.param(
            "[[holds]]\nseconds = 5",
            "holds: expected a section; write [holds] on a line, and its settings below",
            id="list of sections",
        ),
    ],
)
def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert problem_of(write(tmp_path, text)) == f"conf/seatws.toml: {says}"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SEATWS_HOLDS__SECNODS", "did you mean SEATWS_HOLDS__SECONDS?"),
        ("SEATWS_HOLD__SECONDS", "did you mean SEATWS_HOLDS__SECONDS?"),
        ("SEATWS_holds__seconds", "did you mean SEATWS_HOLDS__SECONDS?"),
        ("SEATWS__HOLDS_SECONDS", "did you mean SEATWS_HOLDS__SECONDS?"),
        (
            "SEATWS_LOG__COLOUR",
            "write SEATWS_<SECTION>__<KEY>, the names of seatws.toml in upper case",
        ),
    ],
    ids=["misspelt key", "misspelt section", "lower case", "underscores", "like nothing"],
)
def test_an_unknown_variable_is_refused(tmp_path: Path, name: str, advice: str) -> None:
    problem = problem_of(write(tmp_path, ""), **{name: "5"})
    assert problem == f"{name}: no such setting; {advice}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "[limits]\nmessage_bytes = 1024\nuser_info_bytes = 1024",
            "limits.user_info_bytes: expected less than limits.message_bytes (1024), got 1024;"
            " lower it, or raise limits.message_bytes",
            id="user_info as large as a message",
        ),
        pytest.param(
            "[heartbeat]\ninterval_seconds = 10",
            "heartbeat.timeout_seconds: expected at most heartbeat.interval_seconds (10), got 20;"
            " lower it, or raise heartbeat.interval_seconds",
            id="timeout beyond the next ping",
        ),
        pytest.param(
            '[metrics]\naddress = "127.0.0.1"',
            "metrics.port: expected a port of its own, as metrics.address is set, got 0;"
            " set it (9101 is free on most machines), or leave metrics.address empty",
            id="metrics address without a port",
        ),
    ],
)
def test_settings_that_disagree_are_refused(tmp_path: Path, text: str, says: str) -> None:
    assert problem_of(write(tmp_path, text)) == f"conf/seatws.toml: {says}"


def test_a_variable_that_disagrees_is_named(tmp_path: Path) -> None:
    problem = problem_of(write(tmp_path, ""), SEATWS_HEARTBEAT__TIMEOUT_SECONDS="25.5")
    assert problem.startswith("SEATWS_HEARTBEAT__TIMEOUT_SECONDS: expected at most heartbeat.")
    assert "(25), got 25.5;" in problem


@pytest.mark.parametrize(
    "wrong",
    [
        "[heartbeat]\ninterval_seconds = 10\ntimeout_seconds = '5s'",
        "[heartbeat]\ninterval_seconds = 10\ntimeout_secs = 5",
        "heartbeat.interval_seconds = 10\nhartbeat.timeout_seconds = 5",
    ],
    ids=["wrong value", "misspelt setting", "misspelt section"],
)
def test_a_mistake_is_not_reported_again_as_a_disagreement(tmp_path: Path, wrong: str) -> None:
    assert "at most" not in problem_of(write(tmp_path, wrong))


def test_all_problems_of_file_and_environment_come_at_once(tmp_path: Path) -> None:
    text = (
        "[server]\nport = 70000\nprot = 1\n[hold]\n[holds]\nseconds = 1\n"
        "[limits]\nmessage_bytes = 1024\n[log]\nlevel = 'loud'"
    )
    problems = problems_of(
        write(tmp_path, text), SEATWS_LOG__FORMAT="xml", SEATWS_LOG__COLOUR="1", SEATWS_X="1"
    )
    assert [re.split(": (?:expected|no such)", problem)[0] for problem in problems] == [
        "conf/seatws.toml: server.port",
        "conf/seatws.toml: server.prot",
        "conf/seatws.toml: hold",
        "conf/seatws.toml: holds.seconds",
        "conf/seatws.toml: log.level",
        "SEATWS_LOG__COLOUR",
        "SEATWS_LOG__FORMAT",
    ]


def test_disagreements_come_along_with_problems_of_other_sections(tmp_path: Path) -> None:
    problems = problems_of(
        write(tmp_path, "limits.message_bytes = 1024\nheartbeat.timeout_seconds = 30"),
        SEATWS_HOLDS__SECONDS="1",
    )
    assert [problem.partition(": expected")[0] for problem in problems] == [
        "SEATWS_HOLDS__SECONDS",
        "conf/seatws.toml: limits.user_info_bytes",
        "conf/seatws.toml: heartbeat.timeout_seconds",
    ]


# The file itself


def test_a_missing_directory_is_named_with_what_to_do(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "nowhere") == (
        "conf: no such directory; start where conf/ is, or name it with --conf DIR"
    )


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    assert problem_of(tmp_path) == (
        "conf/seatws.toml: no such file; take conf/seatws.toml of the source, or begin with an"
        " empty one: every setting has a default"
    )


def test_a_file_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "seatws.toml").mkdir()
    assert problem_of(tmp_path) == (
        "conf/seatws.toml: cannot be read (Is a directory);"
        " make it a file that the server's user may read"
    )


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("[log]\nlevel = warning\n", "line 2", "Invalid value"),
        ("[log]\nlevel = 'info'\nlevel = 'info'\n", "line 3", "Cannot overwrite a value"),
        ("[log\n", "line 1", "Expected ']'"),
        (f"[holds]\nseconds = {'9' * 5000}\n", "", "Exceeds the limit"),
    ],
    ids=["no quotes", "twice", "no bracket", "number without end"],
)
def test_broken_toml_is_told_with_line_and_reason(
    tmp_path: Path, text: str, line: str, what: str
) -> None:
    problem = problem_of(write(tmp_path, text))
    assert problem.startswith(f"conf/seatws.toml: not valid TOML: {what}")
    assert line in problem
    assert problem.endswith('; text stands in quotes, as in level = "info"')


def test_a_file_in_another_encoding_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "seatws.toml").write_bytes("# señal".encode("latin-1"))
    assert problem_of(tmp_path) == ("conf/seatws.toml: not UTF-8 text at byte 4; save it as UTF-8")


def test_the_environment_is_checked_even_without_a_file(tmp_path: Path) -> None:
    file, environ = problems_of(tmp_path, SEATWS_HOLDS__SECONDS="1")
    assert "no such file" in file
    assert environ.startswith("SEATWS_HOLDS__SECONDS: expected")


# The Redis URL, and what it hides


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("embedded", "embedded"),
        ("redis://localhost", "redis://localhost"),
        ("redis://10.0.0.1:6379/2", "redis://10.0.0.1:6379/2"),
        ("rediss://:hunter2@db:6380/0", "rediss://***@db:6380/0"),
        ("redis://ann:hunter2@[::1]:6379", "redis://***@[::1]:6379"),
        ("redis://ann:hunter2%40x@db?db=2&password=hunter2", "redis://***@db?db=2"),
        ("redis://ann:hunter2@x@db", "redis://***@db"),
        ("redis://db?password=hunter2", "redis://db"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("unix://:hunter2@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis+cluster://a:7000,b", "redis+cluster://a:7000,b"),
        ("redis+cluster://[::1]:7000,[::2]:7001/", "redis+cluster://[::1]:7000,[::2]:7001"),
        ("rediss+cluster://ann:hunter2@a,b?ssl_ca_certs=x", "rediss+cluster://***@a,b"),
        ("redis+sentinel://a,b:26380/main", "redis+sentinel://a,b:26380/main"),
        ("rediss+sentinel://:hunter2@a/main/2", "rediss+sentinel://***@a/main/2"),
        ("redis+sentinel://a/main?sentinel_password=hunter2", "redis+sentinel://a/main"),
    ],
)
def test_a_redis_url_is_shown_without_its_password(tmp_path: Path, url: str, shown: str) -> None:
    config = load(write(tmp_path, ""), {"SEATWS_REDIS__URL": url})
    assert config.redis.url == url
    assert config.redis.redacted_url == shown
    assert f"Redis(url={shown!r}, connect_timeout_seconds=2.0, " in repr(config)
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.redis)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "Embedded hunter2",
        "http://:hunter2@db",
        "REDIS://:hunter2@db",
        "redis:hunter2@db",
        "redis://",
        "redis://:hunter2@",
        "redis://:hunter2@db:port",
        "redis://:hunter2@db:70000",
        "redis://:hunter2@db/name",
        "redis://:hunter2/@db:6379/0",
        "redis://ann:1234/hunter2@db:6379/0",
        "redis://ann:1234?hunter2@db:6379/0",
        "redis://ann:1234#hunter2@db:6379/0",
        "redis://ann:[hunter2@db",
        "redis://ann:hunter2\uff03@db",
        "unix://",
        "unix://run/hunter2.sock",
        "redis+cluster://",
        "redis+cluster://:hunter2@",
        "redis+cluster://:hunter2@a,,b",
        "redis+cluster://:hunter2@a:0",
        "redis+cluster://:hunter2@a/1",
        "redis+sentinel://:hunter2@a,b",
        "redis+sentinel://:hunter2@a,b/",
        "redis+sentinel://:hunter2@a,b/main/x",
        "redis+proxy://:hunter2@a",
        "redis://:hunter2@a,b",
    ],
)
def test_a_wrong_redis_url_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    for text, environ, place in (
        (f"redis.url = {as_toml(url)}", {}, "conf/seatws.toml: redis.url"),
        ("", {"SEATWS_REDIS__URL": url}, "SEATWS_REDIS__URL"),
    ):
        problem = problem_of(write(tmp_path, text), **environ)
        assert problem.startswith(f"{place}: expected embedded")
        assert "got a value not shown here (it may hold a password); " in problem
        assert "hunter2" not in problem
    assert "hunter2" not in repr(Redis(url=url))


@pytest.mark.parametrize(
    "text",
    [
        'redis = "redis://:hunter2@db"',
        'url = "redis://:hunter2@db"',
        '[redis]\nurll = "redis://:hunter2@db"',
        '[redis]\nurl = ["redis://:hunter2@db"]',
        '[redis]\nprefix = "redis://:hunter2@db"',
        "[redis]\nurl = redis://:hunter2@db",
        '[redis]\nurl = "redis://:hunter2@db',
        '[redis]\nurl = "redis://:"hunter2@db"',
        '[redis]\nurl "redis://:hunter2@db"',
        "redis://:hunter2@db",
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(tmp_path: Path, text: str) -> None:
    environ = {
        name: "redis://:hunter2@db"  # a traceback does not show this line
        for name in ("SEATWS_REDIS__URLS", "SEATWS_REDIS__PREFIX", "SEATWS_HOLDS__SECONDS")
    }
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), environ)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


# The command line


def test_the_command_line_has_the_last_word() -> None:
    config = override(Config(), address="0.0.0.0", port=0)
    assert (config.server.address, config.server.port) == ("0.0.0.0", 0)
    assert msgspec.structs.replace(config, server=Config().server) == Config()


def test_an_argument_that_is_not_given_changes_nothing() -> None:
    assert override(Config(), address=None, port=None) == Config()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        override(Config(), address="http://localhost", port=65_536)
    assert caught.value.problems == (
        "--address: expected an IP address or host name of this machine, without a port,"
        ' got "http://localhost"; "127.0.0.1" is this machine only, "0.0.0.0" every network',
        "--port: expected a whole number from 0 (any free port) to 65535, got 65536;"
        " 8001 is the usual one",
    )
