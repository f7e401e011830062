"""Runs uvicorn with our shutdown: drain on the first signal, stop at once on the second.

Owns the listening socket and the shutdown. After SIGTERM or SIGINT, running requests have `drain_timeout` seconds to
finish, new ones get 503, and `/health` and `/ready` still answer. A second signal stops everything at once. This module
does not know what the application serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from antiphon.api.context import Context
from antiphon.config import ServerConfig
from antiphon.engine.client import EngineClient
from antiphon.errors import ConfigError
from antiphon.http.certificate import Certificate, load_certificate
from antiphon.http.edge.connection_admission import ConnectionAdmission, ConnectionLimits, Handshake
from antiphon.http.edge.connections import MAX_HEAD_BYTES, LimitedProtocol
from antiphon.http.listening import (
    ExhaustionLog,
    Listener,
    allow_open_files,
    allowed_connections,
    notice_vanished_peers,
)
from antiphon.http.live import LiveApplication
from antiphon.http.loop_lag import LoopLag
from antiphon.http.peers import Peers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FLUSH_SECONDS = 5  # for answers that are complete but not sent yet when the drain ends

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one). Raises ConfigError if that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"--host {host!r} is not an address of this machine: {error.strerror}") from None
    # With its protocol named, asyncio switches off Nagle's delay, which would cost each answer some 40 ms.
    listener = Listener(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen()  # now the port is taken; connections wait until the server accepts them
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}. Choose another with --port, or --port 0 for any "
            "free one."
        ) from None
    return listener


def url_of(listener: socket.socket, *, secure: bool = False) -> str:
    """The URL of `listener` for clients on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared with, not bound to
        host = "127.0.0.1"
    scheme = "https" if secure else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class StopSignals:
    """Handles SIGINT, SIGTERM and SIGHUP inside the block, on the running loop.

    Enter it before the port is taken. Once clients can reach the port, the server may be stopped, and a signal without
    a handler would be lost if it is ignored by default, as for process 1 of a container or in a shell's background.
    Signals that arrive before there is a server are kept for it.

    SIGHUP asks to read the settings again, except when the terminal of the server was closed: then it stops the server,
    unless it was started to ignore that, as by `nohup`.
    """

    def __init__(self) -> None:
        self.interrupted = False  # SIGINT was received
        self._num_kept = 0
        self._stop: Callable[[], None] = self._keep
        self._reload: Callable[[], None] | None = None
        self._reload_kept = False
        self._ends_with_terminal = False

    def __enter__(self) -> StopSignals:
        self._loop = asyncio.get_running_loop()
        self._ends_with_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._handle, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (*_SIGNALS, signal.SIGHUP):
            self._loop.remove_signal_handler(number)

    def call(self, stop: Callable[[], None]) -> None:
        """Call `stop` for each signal from now on, and for each one received before."""
        self._stop = stop
        for _ in range(self._num_kept):
            stop()

    def call_to_reload(self, reload: Callable[[], None]) -> None:
        """Call `reload` for each SIGHUP from now on, and once if there were any before."""
        self._reload = reload
        if self._reload_kept:
            reload()

    def _handle(self, number: signal.Signals) -> None:
        self.interrupted |= number == signal.SIGINT
        self._stop()

    def _hang_up(self) -> None:
        if self._ends_with_terminal and not _has_terminal():
            self._stop()
        elif self._reload is not None:
            self._reload()
        else:
            self._reload_kept = True

    def _keep(self) -> None:
        self._num_kept += 1


def _has_terminal() -> bool:
    """Whether this process has a terminal that can be opened."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Server(uvicorn.Server):
    """One server on one socket, for one engine."""

    def __init__(self, app: FastAPI, engine: EngineClient, settings: ServerConfig) -> None:
        max_connections = allowed_connections(settings.max_connections)
        self._limits = ConnectionLimits(max_connections, settings.network_timeout)
        self._admission = ConnectionAdmission(max_connections)
        self._certificate = load_certificate(settings)
        self.live = LiveApplication(app)
        config = uvicorn.Config(
            self.live,
            http=cast(type[asyncio.Protocol], self._new_connection),
            ws="none",
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=cast(int, settings.keep_alive_timeout),  # it is handed to the event loop as it is
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_FLUSH_SECONDS,
        )
        super().__init__(config)
        self._engine = engine
        self._settings = settings
        self._draining: asyncio.Task[None] | None = None
        metrics = app.state.context.metrics
        metrics.watch_connections(lambda: self._admission.figures)
        metrics.watch_certificate(lambda: self._certificate and self._certificate.not_after)
        self._loop_lag = LoopLag(metrics.loop_lag.observe)
        self.peers = Peers(settings.peers, settings.peer_key, lambda: cast(Context, self.app.state.context))
        metrics.watch_peers(lambda: self.peers.reached)

    @property
    def app(self) -> FastAPI:
        """The application that answers requests now."""
        return self.live.current

    def apply(self, settings: ServerConfig, certificate: Certificate | None) -> None:
        """Take in what a reload changed, for new connections and handshakes. Open connections are not closed.

        A server with a certificate cannot change to plain HTTP, nor the other way round.
        """
        allow_open_files(settings.max_connections)
        self._settings = settings
        max_connections = allowed_connections(settings.max_connections)
        self._limits = ConnectionLimits(max_connections, settings.network_timeout)
        self._admission.max_connections = max_connections
        self.config.timeout_keep_alive = cast(int, settings.keep_alive_timeout)
        if self._certificate is not None and certificate is not None:
            self._certificate = certificate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Like uvicorn's, and also measure how late the event loop is."""
        asyncio.get_running_loop().set_exception_handler(ExhaustionLog())
        for listener in sockets or ():
            notice_vanished_peers(listener, self._settings.network_timeout)
        await super().startup(sockets)
        self._loop_lag.start()
        self.peers.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Like uvicorn's, and also close connections that are still negotiating TLS."""
        self._loop_lag.stop()
        await self.peers.stop()
        self._admission.end_handshakes()
        await super().shutdown(sockets)

    def _new_connection(self, **uvicorns: Any) -> asyncio.Protocol:  # noqa: ANN401  # handed on as they come
        if self._certificate is None:
            return LimitedProtocol(self._limits, self._admission, **uvicorns)
        create = partial(LimitedProtocol, self._limits, self._admission, **uvicorns)
        return Handshake(self._admission, self._certificate.context, self._limits.timeout, create)

    def begin_shutdown(self) -> None:
        """Drain, then stop. If called again, stop at once. Runs on the server's own event loop."""
        if self._draining is None:
            self._engine.begin_drain()  # now: a second signal may come before the task begins
            self._draining = asyncio.create_task(self._drain())
        else:
            logger.warning("stopping at once")
            self.force_exit = self.should_exit = True
            self._draining.cancel()

    async def _drain(self) -> None:
        seconds = self._settings.drain_timeout
        running = self._engine.counters.running
        logger.info("draining: %d running, at most %g s; a second signal stops at once", running, seconds)
        try:
            if not await self._engine.drain(seconds):
                logger.warning("some requests did not finish within %g s", seconds)
                await self._engine.stop()
        finally:
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's signal handling, which would begin too late and stop at once, by `StopSignals`."""
        yield
