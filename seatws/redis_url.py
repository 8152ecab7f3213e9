"""URLs of Redis, taken apart: one server, a primary behind Sentinels, a cluster.

    redis://user:password@host:port/db                 rediss:// with TLS
    unix:///path?db=0
    redis+sentinel://password@host:port,host:port/name/db
    redis+cluster://password@host:port,host:port

Options stand in the query, as redis-py takes them for one server (`?ssl_ca_certs=ca.pem`). The
own user and password of Sentinels stand there, too: `sentinel_username`, `sentinel_password`.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

Address = tuple[str, int]
"""Host (an IPv6 address without brackets) and port."""

Kind = Literal["server", "sentinel", "cluster"]

_PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}

_URL = re.compile(
    r"(?P<scheme>redis|rediss)(?:\+(?P<kind>sentinel|cluster))?://"
    r"(?:(?P<credentials>[^/?#]*)@)?(?P<hosts>[^/?#@]+)"
    r"(?P<path>/[^?#@]*)?(?:\?(?P<query>[^#@]*))?"
)
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>\d+))?"
)
_PATHS = {
    "server": re.compile(r"(?P<database>/\d*)?"),
    "sentinel": re.compile(r"/(?P<name>[A-Za-z0-9._-]+)(?P<database>/\d*)?"),
    "cluster": re.compile(r"(/0?)?(?P<database>)"),  # a cluster has database 0 alone
}
_OF_SENTINELS = "sentinel_"


class RedisUrl(NamedTuple):
    """Where Redis is. May hold a password: show `redacted` instead."""

    kind: Kind
    scheme: str
    """`redis`, `rediss` or `unix`."""
    credentials: str
    """`user:password` as in the URL, percent-encoded; `""` without."""
    hosts: str
    """The addresses, as they stand in the URL."""
    addresses: tuple[Address, ...]
    """The server; or Sentinels, or some of a cluster's servers, to ask for the others."""
    name: str
    """What the Sentinels call the primary."""
    path: str
    """A socket's, or `/` and the number of a database; `""` for the default."""
    query: str

    def of_server(self, address: Address) -> str:
        """The URL of one server, as redis-py reads it."""
        credentials = f"{self.credentials}@" if self.credentials else ""
        return f"{self.scheme}://{credentials}{shown(address)}{self.path}{self._query(False)}"

    def of_sentinel(self, address: Address) -> str:
        """The URL of one Sentinel."""
        given = dict(parse_qsl(self.query))
        user, password = (given.get(_OF_SENTINELS + key, "") for key in ("username", "password"))
        credentials = f"{_quoted(user)}:{_quoted(password)}@" if password else ""
        return f"{self.scheme}://{credentials}{shown(address)}{self._query(False)}"

    @property
    def redacted(self) -> str:
        """For logs and errors: `***` for user and password, no options but `db`."""
        kind = "" if self.kind == "server" else f"+{self.kind}"
        name = f"/{self.name}" if self.name else ""
        database = re.search(r"(?:^|&)(db=\d+)(?:&|$)", self.query)
        return (
            f"{self.scheme}{kind}://{'***@' if self.credentials else ''}"
            f"{self.hosts}{name}{self.path}"
            f"{f'?{database[1]}' if database else ''}"
        )

    def _query(self, of_sentinels: bool) -> str:
        options = [
            (key, value)
            for key, value in parse_qsl(self.query, keep_blank_values=True)
            if key.startswith(_OF_SENTINELS) is of_sentinels
        ]
        return f"?{urlencode(options)}" if options else ""


def shown(address: Address) -> str:
    """`host:port`, with brackets about an IPv6 host."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_redis_url(url: str) -> RedisUrl | None:
    """Take a URL apart; None if it is not clearly one.

    Strict, since a password with a bare `/`, `?` or `#` in it moves the parts about, and its
    beginning would pass for a host or a port.
    """
    if url.startswith("unix://"):
        return _split_unix_url(url)
    found = _URL.fullmatch(url)
    if found is None:
        return None
    kind: Kind = found["kind"] or "server"  # type: ignore[assignment]  # the pattern has no other
    path = _PATHS[kind].fullmatch(found["path"] or "")
    hosts = found["hosts"].split(",")
    addresses = [_address_of(text, _PORTS[kind]) for text in hosts]
    known = tuple(address for address in addresses if address is not None)
    if path is None or len(known) != len(hosts) or (kind == "server" and len(known) > 1):
        return None
    try:
        urlsplit(f"redis://{found['credentials'] or ''}@host")
    except ValueError:  # a bare bracket, or a letter that normalises to one of / ? # @
        return None
    return RedisUrl(
        kind=kind,
        scheme=found["scheme"],
        credentials=found["credentials"] or "",
        hosts=found["hosts"],
        addresses=known,
        name=path["name"] if kind == "sentinel" else "",
        path=path["database"] or "",
        query=found["query"] or "",
    )


def _split_unix_url(url: str) -> RedisUrl | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    credentials, _, host = parts.netloc.rpartition("@")
    if host or len(parts.path) < 2 or "#" in url or "@" in parts.path + parts.query:
        return None
    return RedisUrl("server", "unix", credentials, "", (), "", parts.path, parts.query)


def _address_of(text: str, default_port: int) -> Address | None:
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"] or default_port) if found else 0
    if found is None or not 0 < port < 65536:
        return None
    return found["v6"] or found["host"], port


def _quoted(text: str) -> str:
    return urlencode({"": text})[1:].replace("+", "%20")
