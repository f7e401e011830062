"""The listening socket: what happens when there is no descriptor for a connection, and when a peer has vanished.

Owns the options of the socket, which its connections inherit, and how many connections the limit on open files allows.
This module knows neither HTTP nor the application.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import resource
import socket
import time
from typing import Any

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_SECONDS = 0.5  # less than the second after which asyncio tries again
OTHER_FILES = 256  # besides connections: the engine, the renderer, connections that are being refused
_SILENT_SECONDS = 60.0  # between two messages about that
_NUM_PROBES = 4  # of an idle connection, within the network time-out

logger = logging.getLogger(__name__)


class Listener(socket.socket):
    """A socket that accepts nothing for a while after the system had no descriptor or memory for a connection.

    asyncio logs that, pauses for a second and meanwhile, in the same turn of its loop, tries again as many times as its
    backlog allows, logging and pausing each time. That would take most of the event loop's time.
    """

    _paused_until = 0.0

    def accept(self) -> tuple[socket.socket, Any]:
        if time.monotonic() < self._paused_until:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
            raise


class ExhaustionLog:
    """An event loop's exception handler that says once a minute, in one line, that there is no descriptor left."""

    def __init__(self) -> None:
        self._silent_until = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "socket" not in context or not isinstance(error, OSError) or error.errno not in _EXHAUSTED:
            loop.default_exception_handler(context)
        elif time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + _SILENT_SECONDS
            logger.warning("new connections wait, because the system has no resources for them: %s", error.strerror)


def notice_vanished_peers(listener: socket.socket, seconds: float) -> None:
    """Close each connection of this socket whose peer answers nothing for about `seconds`, also while it is idle.

    A machine that lost its power or its network sends no end of its connections. A client that waits for a whole answer
    is sent nothing either, so the kernel must ask whether it is still there. Sources: tcp(7), RFC 5482.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    interval = max(1, math.floor(seconds / _NUM_PROBES))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, interval)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _NUM_PROBES - 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, math.ceil(1000 * seconds))


def allow_open_files(connections: int) -> None:
    """Raise this process's limit on open files, as far as permitted, to allow this many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def allowed_connections(wanted: int) -> int:
    """`wanted`, or as many connections as the limit on open files leaves room for; then a warning says so.

    At least half of the limit is for connections.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft - OTHER_FILES, soft // 2)
    if soft == resource.RLIM_INFINITY or wanted <= most:
        return wanted
    logger.warning(
        "this process may not open enough files for --max-connections %d, so %d are allowed; ulimit -n or LimitNOFILE= "
        "raises the limit",
        wanted,
        most,
    )
    return most
