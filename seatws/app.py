"""Puts the parts together: start, serve, drain, stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

import seatws
from seatws import logs
from seatws.config import EMBEDDED, Config
from seatws.counts import Counts
from seatws.errors import ConfigError, StoreError
from seatws.loop_lag import LoopLag
from seatws.metrics import Metrics
from seatws.rooms.hub import Hub
from seatws.store.embedded import EmbeddedServer
from seatws.web.gate import Gate
from seatws.web.gauges import gauges
from seatws.web.handshake import SeatHandler
from seatws.web.http import (
    Api,
    HealthHandler,
    MetricsHandler,
    SelectionHandler,
    SelectionsHandler,
    StatsHandler,
)
from seatws.web.listener import Listener, Server
from seatws.web.origins import Origins
from seatws.web.page import CLIENT, STATIC, PageHandler
from seatws.web.problems import NotFoundHandler, ProblemHandler
from seatws.web.sockets import Sockets

log = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that the kernel keeps for us at the start of a sale, as far as it is allowed to."""
MAX_BODY_BYTES = 1_048_576
"""Over it Tornado refuses a request unread; over `limits.message_bytes` we do, and say so."""
IDLE_S = 75
"""How long an HTTP connection is kept for the next request: longer than proxies keep theirs."""
BODY_S = 30
"""How long a client may take to send a request's body."""
GC_THRESHOLDS = (5000, 5, 50)
"""New objects between collections: a join makes hundreds, of which few die in circles. Five young
generations and no more make a middle one, so that collecting it takes 10 ms in a storm of joins."""


class App:
    """One instance of the server.

    Args:
        config: Checked settings.
        directory: Where they are from: plugins.toml is there, too.

    Raises:
        ConfigError: A plugin can't be loaded or is misconfigured.
    """

    def __init__(self, config: Config, directory: Path) -> None:
        self.config = config
        self.counts = Counts()
        self.gate = Gate(config, directory, self.counts)
        self._embedded: EmbeddedServer | None = None
        self._hub: Hub | None = None
        self._sockets: Sockets | None = None
        self._api: Api | None = None
        self._listeners: list[Listener] = []
        self._gate_stands = False
        self._lag: LoopLag | None = None
        self.port = 0
        """Where it listens, once it does."""

    async def start(self) -> None:
        """Connect to Redis and listen.

        Raises:
            ConfigError: A port is taken, or Redis can't be had or trusted; the text says what to
                do. Nothing is left behind.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def drain(self) -> None:
        """Accept nobody any more, send everybody away in `server.drain_seconds`."""
        # The first is for visitors. A port of the metrics' own goes on: one may watch the drain.
        visitors = self._listeners[:1]
        for listener in visitors:
            listener.close()
        if self._api is not None:
            self._api.is_draining.set()
        for listener in visitors:
            listener.let_go()
        if self._sockets is not None:
            await self._sockets.drain(self.config.server.drain_seconds)
        for listener in visitors:
            await listener.settle()

    async def stop(self) -> None:
        """End at once, in order. After `drain` nobody notices."""
        for listener in self._listeners:
            listener.close()
        if self._sockets is not None:
            await self._sockets.close()
        if self._lag is not None:
            self._lag.close()
        for listener in self._listeners:
            await listener.close_all_connections()
        if self._gate_stands:
            await self.gate.stop()
        if self._hub is not None:
            await self._hub.close()
        if self._embedded is not None:
            await self._embedded.stop()

    async def _start(self) -> None:
        config = self.config
        listening = _bind("server", config.server.address, config.server.port)
        self.port = listening[0].getsockname()[1]
        url = await self._redis_url()
        self._hub = hub = Hub(config, url, self.counts)
        try:
            await hub.open()
        except StoreError as exc:
            raise ConfigError(
                f"redis.url: can't use {config.redis.redacted_url}: {exc}; start that Redis, or "
                "set SEATWS_REDIS__URL to another one, or to `embedded`"
            ) from exc
        await self.gate.start()
        self._gate_stands = True
        self._sockets = sockets = Sockets(config, self.gate, hub, self.counts)
        metrics = Metrics(
            self.counts,
            lambda: gauges(config, hub, sockets, is_draining=api.is_draining.is_set()),
        )
        self._api = api = Api(config, self.gate, hub, sockets, metrics)
        origins = Origins(config.server.allowed_origins)
        with_api = {"api": api}
        metrics_route = (r"/metrics", MetricsHandler, with_api)
        metrics_apart = config.metrics.port != 0
        routes: list[tuple[Any, ...]] = [
            (r"/ws/([^/]*)", SeatHandler, {"sockets": sockets, "origins": origins}),
            (r"/health", HealthHandler, with_api),
            (r"/stats", StatsHandler, with_api),
            (r"/room/([^/]*)/selections", SelectionsHandler, with_api),
            (r"/room/([^/]*)/selections/([^/]*)", SelectionHandler, with_api),
            (r"/()", PageHandler, {"path": STATIC, "default_filename": "index.html"}),
            (r"/static/(seat-selection-client\.js)", PageHandler, {"path": CLIENT}),
            (r"/static/(.*)", PageHandler, {"path": STATIC}),
        ]
        if config.metrics.enabled and not metrics_apart:
            routes.append(metrics_route)
        self._listen(listening, routes, origins)
        if config.metrics.enabled and metrics_apart:
            address = config.metrics.address or config.server.address
            self._listen(_bind("metrics", address, config.metrics.port), [metrics_route], origins)
        sockets.start()
        self._lag = LoopLag(self.counts.loop_lag_s)
        # What stands now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    async def _redis_url(self) -> str:
        if self.config.redis.url != EMBEDDED:
            return self.config.redis.url
        self._embedded = EmbeddedServer(Path(self.config.redis.data_dir))
        try:
            await self._embedded.start()
        except StoreError as exc:
            raise ConfigError(f"redis.url: the embedded Redis does not start: {exc}") from exc
        return self._embedded.url

    def _listen(
        self, sockets: list[socket.socket], routes: Sequence[tuple[Any, ...]], origins: Origins
    ) -> None:
        application = Application(
            list(routes),
            default_handler_class=NotFoundHandler,
            log_function=self._answered_over_http,
            origins=origins,
        )
        server = Server(
            application,
            xheaders=self.config.server.xheaders,
            max_body_size=MAX_BODY_BYTES,
            idle_connection_timeout=IDLE_S,
            body_timeout=BODY_S,
        )
        self._listeners.append(Listener(server, sockets))

    def _answered_over_http(self, handler: RequestHandler) -> None:
        route = handler.route if isinstance(handler, ProblemHandler) else "other"
        self.counts.http_requests[route, handler.get_status()] += 1
        logs.log_request(handler)

    async def reload(self) -> None:
        """Read plugins.toml anew, and let nobody stay where they may no longer be."""
        if await self.gate.reload():
            self.warn_if_open()
            if self._sockets is not None:
                await self._sockets.look_at_permissions()

    def warn_if_open(self) -> None:
        """Say once that anyone can be anyone."""
        if not self.gate.needs_identity:
            log.warning("open mode: no plugin signs clients in, a client id is taken at its word")

    def describe(self) -> list[str]:
        """Where it listens, which Redis, which plugins: a line each, for a person."""
        config = self.config
        at = config.server.address
        if ":" in at:  # IPv6, in a URL
            at = f"[{at}]"
        redis = config.redis.redacted_url
        if config.redis.url == EMBEDDED:
            redis = f"embedded, its data in {config.redis.data_dir}/"
        return [
            f"seatws {seatws.__version__} listens on http://{at}:{self.port}",
            f"Redis: {redis}",
            f"Plugins: {', '.join(self.gate.names) or 'none'}",
        ]


def _bind(section: str, address: str, port: int) -> list[socket.socket]:
    """Open listening sockets.

    Raises:
        ConfigError: The port is taken, or not ours to take.
    """
    try:
        return bind_sockets(port, address or None, backlog=BACKLOG)
    except OSError as exc:
        key = f"{section}.port"
        if exc.errno == errno.EADDRINUSE:
            fix = f"another program does; stop it, or choose another {key}"
        elif exc.errno == errno.EACCES:
            fix = "ports below 1024 need privileges; choose 1024 or above"
        else:
            key = f"{section}.address"
            fix = f"{exc.strerror or exc}; choose an address of this machine, or 0.0.0.0 for all"
        raise ConfigError(f"{key}: can't listen on {address}:{port}: {fix}") from exc


async def serve(config: Config, directory: Path, announce: Callable[[App], None]) -> None:
    """Run an instance until SIGTERM or SIGINT, then drain it. A second signal ends it at once.

    SIGHUP reads the plugins' configuration and the log level anew; SIGUSR1 logs all there is, and
    at the next time again what `log.level` says.

    Args:
        config: Checked settings.
        directory: Where they are from.
        announce: Called when it listens.

    Raises:
        ConfigError: It can't start; the text says what to do.
    """
    app = App(config, directory)
    going = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()
    level = logs.LevelSwitch(config.log.level)
    loop = asyncio.get_running_loop()

    def go(name: str) -> None:
        if going.is_set():
            log.warning("%s again: ending at once", name)
            logging.shutdown()
            os._exit(1)
        log.info("%s: sending everybody away in %g s", name, config.server.drain_seconds)
        going.set()

    def reload() -> None:
        level.reload(directory)
        task = loop.create_task(app.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGUSR1, level.toggle)
    await app.start()
    try:
        for which in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(which, go, which.name)
        loop.add_signal_handler(signal.SIGHUP, reload)
        announce(app)
        app.warn_if_open()
        await going.wait()
        await app.drain()
    finally:
        await app.stop()
    log.info("stopped")
