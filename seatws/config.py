"""`conf/seatws.toml` and the environment, read once into one frozen, checked `Config`.

A setting is one field of one section: its type, its default, its `Rule` (range, and the words for
who misses it) and its meaning stand together, each once. `load` checks the file and the environment
by these rules and reports all problems at once, a line each:

    SEATWS_HOLDS__SECONDS: expected a whole number from 5 to 3600, got "5m"; 300 is five minutes

`redis.url` may hold a password: no error and no `repr` shows it.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec

from seatws.errors import ConfigError, UnreadableFileError
from seatws.redis_url import split_redis_url
from seatws.rules import (
    FLAG,
    Rule,
    advice,
    limit,
    mismatch,
    number,
    one_line,
    one_of,
    text,
    texts,
    whole,
)
from seatws.toml_file import read_toml

FILE_NAME = "seatws.toml"
ENV_PREFIX = "SEATWS_"
EMBEDDED = "embedded"


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    if ":" not in value:
        return re.fullmatch(r"[A-Za-z0-9._-]+", value) is not None
    try:  # a colon is IPv6's, or a port that has a key of its own
        ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return True


# Rules with a lambda stand here, not in the annotations: `get_type_hints` evaluates those as text,
# where a lambda does not see this module's names.

_LISTEN = Rule(
    "an IP address or host name of this machine, without a port",
    '"127.0.0.1" is this machine only, "0.0.0.0" every network',
    _is_address,
)

_LISTEN_OR_EMPTY = Rule(
    'an IP address or host name of this machine, without a port, or ""',
    '"" is the server\'s own address',
    lambda value: value == "" or _is_address(value),
)

# As a browser sends it: anything else would be accepted here and then match no page, ever.
_ORIGINS = texts(
    r"\*|(?!https://[^/]*:443$|http://[^/]*:80$)[a-z][a-z0-9+.-]*://"
    r"(\[[0-9a-f:.]+\]|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*)(:[1-9][0-9]{0,4})?",
    'a list of "*", "scheme://host[:port]" or "scheme://*.domain[:port]"',
    'for example ["https://example.com", "https://*.example.com:8443"]: lower case, no path,'
    " no closing slash, no default port",
)

_REDIS_URL = Rule(
    "embedded or a redis://, unix://, redis+sentinel:// or redis+cluster:// URL, rediss with TLS",
    "for example redis://:password@127.0.0.1:6379/0, unix:///run/redis.sock,"
    " redis+sentinel://host1:26379,host2:26379/mymaster or"
    " redis+cluster://host1:6379,host2:6379, with any of"
    " @ / ? # [ ] % in the password percent-encoded (%40 for @)",
    lambda value: (
        isinstance(value, str) and (value == EMBEDDED or split_redis_url(value) is not None)
    ),
    secret=True,
)

_REDIS_WAIT = number(0.1, 2.5, "2.0 leaves time to answer a client within the promised 3 s")

_ALL_OR_SOME = Rule(
    '"*" alone, or a list of keys',
    'take "*" out, or leave it alone: ["*"] shares every key',
    lambda keys: keys == ["*"] or "*" not in keys,
)


class Section(msgspec.Struct, frozen=True):
    """Base of the sections."""

    def conflict(self) -> tuple[str, str] | None:
        """Say which key disagrees with another one of this section, and how; None if none does."""
        return None


class Server(Section, frozen=True, kw_only=True):
    """Where the server listens, who may connect from a page, how it goes down."""

    address: Annotated[str, _LISTEN] = "127.0.0.1"
    """Address to listen on."""

    port: Annotated[int, whole(0, 65535, "8001 is the usual one", zero="any free port")] = 8001
    """TCP port to listen on. 0: any free one, which is only told in the log."""

    allowed_origins: Annotated[tuple[str, ...], _ORIGINS] = ("*",)
    """Pages that may connect, as their Origin header has them. `*`: every page; empty: none."""

    xheaders: Annotated[bool, FLAG] = False
    """Believe X-Forwarded-For and its kin. Only behind a proxy that sets them."""

    drain_seconds: Annotated[float, number(0, 300, "10 suits most")] = 10.0
    """Seconds over which the connections are closed on the way down. 0: all at once."""


class Redis(Section, frozen=True, kw_only=True):
    """Where the truth is kept."""

    url: Annotated[str, _REDIS_URL] = EMBEDDED
    """`embedded`, or the URL of a Redis. May hold a password: show `redacted_url` instead."""

    connect_timeout_seconds: Annotated[float, _REDIS_WAIT] = 2.0
    """Seconds to wait for a connection to Redis."""

    timeout_seconds: Annotated[float, _REDIS_WAIT] = 2.0
    """Seconds to wait for an answer of Redis."""

    replicas_ack: Annotated[int, whole(0, 5, "1 outlives the loss of a primary", zero="none")] = 0
    """Replicas that must have a change before it is answered. 0: none."""

    prefix: Annotated[
        str,
        text(
            r"[A-Za-z0-9._:-]{1,32}",
            "1 to 32 of A-Z a-z 0-9 . _ : -",
            'for example "seatws" or "cinema:test"; no braces, they mark the room',
        ),
    ] = "seatws"
    """What every key and channel in Redis begins with, a colon apart."""

    data_dir: Annotated[
        str, text(r"[^\0]+", "the path of a directory", '"data" is one in the working directory')
    ] = "data"
    """Where the embedded server keeps its data, relative to the working directory."""

    @property
    def redacted_url(self) -> str:
        """The URL for logs and errors: `***` for user and password, no options but `db`."""
        if self.url == EMBEDDED:
            return self.url
        parts = split_redis_url(self.url)
        return "***" if parts is None else parts.redacted

    def __repr__(self) -> str:
        """As any struct's, with the redacted URL."""
        shown = msgspec.structs.asdict(self) | {"url": self.redacted_url}
        return f"Redis({', '.join(f'{key}={value!r}' for key, value in shown.items())})"


class Holds(Section, frozen=True, kw_only=True):
    """How long a seat is held, and how many by one client."""

    seconds: Annotated[int, whole(5, 3600, "300 is five minutes")] = 300
    """Seconds from a selection to its end."""

    max_seats_per_client: Annotated[int, limit(10_000, "10 is a large family")] = 10
    """Seats of one room that one client may hold at a time. 0: no limit."""

    keep_seconds: Annotated[int, whole(1, 86_400, "3600 is one hour")] = 3600
    """Seconds that an idle room's keys stay in Redis after its last deadline."""


class Limits(Section, frozen=True, kw_only=True):
    """What one client may ask of the server."""

    message_bytes: Annotated[int, whole(1024, 1_048_576, "16384 is 16 KiB")] = 16_384
    """Bytes of one frame from a client, after inflating."""

    messages_per_second: Annotated[int, limit(100_000, "50 is far more than a person clicks")] = 50
    """Messages a second from one connection, on average. 0: no limit, and `burst` means nothing."""

    burst: Annotated[int, whole(1, 100_000, "100 lets a page join and select all at once")] = 100
    """Messages from one connection that may come at once, after a silence."""

    rooms_per_connection: Annotated[int, limit(1000, "10 is usual")] = 10
    """Rooms that one connection may be in. 0: no limit."""

    connections: Annotated[int, limit(1_000_000, "20000 suits one process")] = 20_000
    """Connections to this process; more are closed with 1013. 0: no limit."""

    connections_per_address: Annotated[
        int, limit(1_000_000, "50 suits a site without large offices")
    ] = 0
    """Connections to this process from one client address. 0: no limit."""

    failed_sign_ins_per_minute: Annotated[
        int, limit(10_000, "30 lets a few visitors of one address mistake themselves")
    ] = 30
    """Bad tokens from one client address that are answered as such; over it 4429, HTTP 429. Good
    ones still pass. 0: no limit."""

    user_info_bytes: Annotated[int, whole(2, 65_536, "1024 is 1 KiB")] = 1024
    """Bytes of one `user_info`, as JSON. Less than `message_bytes`."""

    unsent_bytes: Annotated[int, whole(16_384, 67_108_864, "262144 is 256 KiB")] = 262_144
    """Bytes unsent to one viewer above which it gets no more changes until it has read them."""

    slow_seconds: Annotated[int, whole(1, 3600, "30 is half a minute")] = 30
    """Seconds above `unsent_bytes` after which a viewer is closed with 4440."""

    def conflict(self) -> tuple[str, str] | None:
        """A `user_info` travels inside a message."""
        if self.user_info_bytes < self.message_bytes:
            return None
        return "user_info_bytes", mismatch(
            f"less than limits.message_bytes ({self.message_bytes})",
            str(self.user_info_bytes),
            "lower it, or raise limits.message_bytes",
        )


class Privacy(Section, frozen=True, kw_only=True):
    """What viewers learn of each other."""

    shared_user_info: Annotated[
        tuple[str, ...],
        texts(
            r"(?s).+",
            "a list of the keys to share",
            'for example ["name"]; ["*"] shares all, [] nothing',
        ),
        _ALL_OR_SOME,
    ] = ("*",)
    """Keys of `user_info` that leave the server. `*`, alone: all of them; empty: none."""


class Heartbeat(Section, frozen=True, kw_only=True):
    """How dead connections are found."""

    interval_seconds: Annotated[
        float, number(1, 3600, "25 stays under the 60 s of most proxies", zero="off")
    ] = 25.0
    """Seconds from one ping to the next. 0: no pings."""

    timeout_seconds: Annotated[float, number(0.1, 3600, "20 suits slow phones")] = 20.0
    """Seconds to wait for the pong. At most `interval_seconds`, unless that is 0."""

    def conflict(self) -> tuple[str, str] | None:
        """A pong is waited for until the next ping at the longest."""
        if self.interval_seconds == 0 or self.timeout_seconds <= self.interval_seconds:
            return None
        return "timeout_seconds", mismatch(
            f"at most heartbeat.interval_seconds ({self.interval_seconds:g})",
            f"{self.timeout_seconds:g}",
            "lower it, or raise heartbeat.interval_seconds",
        )


class Metrics(Section, frozen=True, kw_only=True):
    """Where Prometheus reads."""

    enabled: Annotated[bool, FLAG] = True
    """Whether `/metrics` is served."""

    address: Annotated[str, _LISTEN_OR_EMPTY] = ""
    """Address of the metrics' own port. Empty: `server.address`."""

    port: Annotated[
        int, whole(0, 65535, "9101 is free on most machines", zero="the server's own")
    ] = 0
    """TCP port of the metrics. 0: the server's own address and port."""

    def conflict(self) -> tuple[str, str] | None:
        """An address without a port would be ignored, and the metrics open to everyone."""
        if not self.address or self.port:
            return None
        return "port", mismatch(
            "a port of its own, as metrics.address is set",
            str(self.port),
            "set it (9101 is free on most machines), or leave metrics.address empty",
        )


class Compression(Section, frozen=True, kw_only=True):
    """What is deflated for clients that offer permessage-deflate."""

    enabled: Annotated[bool, FLAG] = True
    """Whether their offer is taken up."""

    min_bytes: Annotated[int, whole(64, 1_048_576, "1024 is a bit less than a packet")] = 1024
    """Bytes of the shortest message that is deflated."""


Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]


class Log(Section, frozen=True, kw_only=True):
    """What is written to stdout."""

    level: Annotated[Level, one_of(Level)] = "info"
    """The least that is logged."""

    format: Annotated[Format, one_of(Format)] = "text"
    """Lines for people, or one JSON object a line for machines."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that `seatws.toml` says. `Config()` is what the shipped file says."""

    server: Server = Server()
    redis: Redis = Redis()
    holds: Holds = Holds()
    limits: Limits = Limits()
    privacy: Privacy = Privacy()
    heartbeat: Heartbeat = Heartbeat()
    metrics: Metrics = Metrics()
    compression: Compression = Compression()
    log: Log = Log()


def load(directory: Path, environ: Mapping[str, str]) -> Config:
    """Read `seatws.toml` of a directory; a `SEATWS_<SECTION>__<KEY>` variable wins over the file.

    A setting found in neither has its default.

    Raises:
        ConfigError: With every problem of the file and of the environment, file first.
    """
    file = directory / FILE_NAME
    values: dict[str, dict[str, Any]] = {section: {} for section in _RULES}
    places: dict[str, str] = {}
    problems: list[str] = []
    spoilt: set[str] = set()
    for found in chain(_in_file(file), _in_environment(environ)):
        if found.problem is None:
            values[found.section][found.key] = found.value
            places[f"{found.section}.{found.key}"] = found.place
        else:
            problems.append(f"{found.place}: {found.problem}")
            spoilt.add(found.section)

    config = msgspec.convert(values, Config)
    for section in _RULES:
        # Where a value is missing because it was wrong, its default would disagree for nothing.
        if spoilt.isdisjoint({section, _ANY_SECTION}):
            conflict = getattr(config, section).conflict()
            if conflict is not None:
                setting = f"{section}.{conflict[0]}"
                problems.append(f"{places.get(setting, f'{file}: {setting}')}: {conflict[1]}")
    if problems:
        raise ConfigError(*map(one_line, problems))
    return config


def override(config: Config, *, address: str | None, port: int | None) -> Config:
    """Give the command line's `--address` and `--port` the last word; None leaves a setting alone.

    Raises:
        ConfigError: By the same rules as in the file, with the argument named.
    """
    given = {
        key: value for key, value in (("address", address), ("port", port)) if value is not None
    }
    checked = {key: _problem("server", key, value) for key, value in given.items()}
    problems = [f"--{key}: {problem}" for key, problem in checked.items() if problem is not None]
    if problems:
        raise ConfigError(*problems)
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **given))


_DEFAULTS = Config()

_RULES: dict[str, dict[str, tuple[Rule, ...]]] = {
    section: {
        key: hint.__metadata__ for key, hint in get_type_hints(kind, include_extras=True).items()
    }
    for section, kind in get_type_hints(Config).items()
}

_VARIABLES = {
    f"{section}__{key}".upper(): (section, key) for section, keys in _RULES.items() for key in keys
}

_ANY_SECTION = ""
"""Where a problem could be any section's: a file that is not TOML, a section's name misspelt."""


class _Found(NamedTuple):
    """One thing found in the file or in the environment: a setting's value, or a problem."""

    place: str
    """What an error names: file and setting, or the variable."""
    section: str = _ANY_SECTION
    key: str = ""
    value: object = None
    problem: str | None = None


def _in_file(file: Path) -> Iterator[_Found]:
    if not file.parent.is_dir():
        problem = "no such directory; start where conf/ is, or name it with --conf DIR"
        yield _Found(str(file.parent), problem=problem)
        return
    missing = (
        "take conf/seatws.toml of the source, or begin with an empty one: every setting has a"
        " default"
    )
    try:
        tables = read_toml(file, missing=missing, example='level = "info"')
    except UnreadableFileError as exc:
        yield _Found(str(file), problem=str(exc))
        return
    for section, table in tables.items():
        yield from _in_table(str(file), section, table)


def _in_table(file: str, section: str, table: object) -> Iterator[_Found]:
    if section not in _RULES:
        fix = advice(section, _RULES, "[{}]", f"the sections are {', '.join(_RULES)}")
        yield _Found(f"{file}: {section}", problem=f"no such section; {fix}")
    elif not isinstance(table, dict):  # not shown: it may be the Redis URL
        problem = f"expected a section; write [{section}] on a line, and its settings below"
        yield _Found(f"{file}: {section}", section, problem=problem)
    else:
        known = _RULES[section]
        for key, value in table.items():
            place = f"{file}: {section}.{key}"
            if key in known:
                yield _Found(place, section, key, value, _problem(section, key, value))
            else:
                fix = advice(key, known, section + ".{}", f"[{section}] has {', '.join(known)}")
                yield _Found(place, section, problem=f"no such setting; {fix}")


def _in_environment(environ: Mapping[str, str]) -> Iterator[_Found]:
    for name, given in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX) or "__" not in name:
            continue  # not ours, or a plugin's secret
        variable = name.removeprefix(ENV_PREFIX)
        if variable in _VARIABLES:
            section, key = _VARIABLES[variable]
            is_text = isinstance(getattr(getattr(_DEFAULTS, section), key), str)
            value = given if is_text else _from_toml(given)
            yield _Found(name, section, key, value, _problem(section, key, value))
        else:
            otherwise = (
                f"write {ENV_PREFIX}<SECTION>__<KEY>, the names of {FILE_NAME} in upper case"
            )
            fix = advice(variable.upper(), _VARIABLES, ENV_PREFIX + "{}", otherwise)
            yield _Found(name, problem=f"no such setting; {fix}")


def _from_toml(given: str) -> object:
    """The value that a text is in TOML; the text itself if it is none (no setting takes that)."""
    try:
        table = tomllib.loads(f"value = {given}")
    except (ValueError, RecursionError):
        return given
    return table["value"] if len(table) == 1 else given  # more than one: the text had lines


def _problem(section: str, key: str, value: object) -> str | None:
    """What the first rule that a value breaks says."""
    problems = (rule.problem(value) for rule in _RULES[section][key])
    return next((problem for problem in problems if problem is not None), None)
