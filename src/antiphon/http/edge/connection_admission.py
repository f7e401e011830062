"""Limits the number of connections, and decides which one to close when there are too many.

Connections count from the moment they are accepted, also while they negotiate TLS. If all places are taken, a new
connection takes the place of the one that has been idle, or has not completed its request, for the longest time. If all
connections are being answered, a few spare connections are accepted, to answer health checks and to refuse other
requests with an error. This module does not know HTTP.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from antiphon.metrics import ConnectionFigures

_SPARE_CONNECTIONS = 64  # above the limit
_HANDSHAKE_SECONDS = 10.0  # for negotiating TLS, or the network time-out if that is shorter


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one server."""

    max_connections: int
    timeout: float  # seconds for a head, for a body, and for a reader to take what waits for it


class Evictable(asyncio.Protocol):
    """A connection that can be closed to make room."""

    def evict(self) -> None:
        """Close the connection now."""
        raise NotImplementedError


class Entrance(Enum):
    """What a new connection gets."""

    PLACE = "an ordinary place"
    SPARE = "a spare place: its requests are refused with an error, except health checks"
    NONE = "no place"


class Wait(Enum):
    """What a connection that may be closed is waiting for. Those of the first kind are closed first."""

    HEAD = "a request, or the rest of its head, or of a TLS handshake"
    BODY = "the rest of a body"


class ConnectionAdmission:
    """Every connection of one server."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self.num_accepted = self.num_refused = self.num_evicted = 0  # since the server started
        self._spare: dict[Evictable, bool] = {}  # connection → whether its place is a spare one
        # Waiting connections, the longest waiting first. A dict keeps the order of insertion.
        self._waiting: dict[tuple[bool, Wait], dict[Evictable, None]] = {
            (is_spare, wait): {} for is_spare in (False, True) for wait in Wait
        }

    def __len__(self) -> int:
        return len(self._spare)

    @property
    def figures(self) -> ConnectionFigures:
        """For the metrics."""
        return ConnectionFigures(len(self), self.max_connections, self.num_accepted, self.num_refused, self.num_evicted)

    def enter(self, newcomer: Evictable) -> Entrance:
        """Count an accepted connection, if there is a place for it. It is then waiting for a head."""
        num_spare = sum(self._spare.values()) if len(self) >= self.max_connections else 0
        entrance = Entrance.PLACE
        if len(self) - num_spare >= self.max_connections and not self._evict_oldest(is_spare=False):
            entrance = Entrance.SPARE
            self.num_refused += 1
            if num_spare >= _SPARE_CONNECTIONS and not self._evict_oldest(is_spare=True):
                return Entrance.NONE
        else:
            self.num_accepted += 1
        self._spare[newcomer] = entrance is Entrance.SPARE
        self.waits(newcomer, Wait.HEAD)
        return entrance

    def replace(self, connection: Evictable, successor: Evictable) -> None:
        """Transfer a connection's place, if it still has one, to another object for the same connection."""
        is_spare = self._spare.get(connection)
        if is_spare is not None:
            self.leave(connection)
            self._spare[successor] = is_spare
            self.waits(successor, Wait.HEAD)

    def waits(self, connection: Evictable, wait: Wait | None) -> None:
        """Set what a connection is waiting for; None: it must not be closed to make room."""
        is_spare = self._spare.get(connection)
        if is_spare is None:  # it has left
            return
        self._forget_wait(connection, is_spare)
        if wait is not None:
            self._waiting[is_spare, wait][connection] = None

    def end_handshakes(self) -> None:
        """Close every connection that is still negotiating TLS."""
        for connection in [each for each in self._spare if isinstance(each, Handshake)]:
            self.leave(connection)
            connection.evict()

    def leave(self, connection: Evictable) -> None:
        """Remove a connection. Has no effect if it was not admitted, or was removed before."""
        is_spare = self._spare.pop(connection, None)
        if is_spare is not None:
            self._forget_wait(connection, is_spare)

    def _evict_oldest(self, *, is_spare: bool) -> bool:
        """Close the connection that may be closed first; return whether there was one."""
        for wait in Wait:
            oldest = next(iter(self._waiting[is_spare, wait]), None)
            if oldest is not None:
                self.leave(oldest)
                oldest.evict()
                self.num_evicted += 1
                return True
        return False

    def _forget_wait(self, connection: Evictable, is_spare: bool) -> None:
        for wait in Wait:
            self._waiting[is_spare, wait].pop(connection, None)


class Handshake(Evictable):
    """A connection that is negotiating TLS; afterwards the protocol that `create` makes takes over."""

    def __init__(
        self,
        admission: ConnectionAdmission,
        context: ssl.SSLContext,
        timeout: float,
        create: Callable[[Entrance], Evictable],
    ) -> None:
        """`timeout` is the maximum in seconds; the handshake also has its own time-out."""
        self._admission = admission
        self._context = context
        self._timeout = min(timeout, _HANDSHAKE_SECONDS)
        self._create = create
        self._entrance = Entrance.NONE
        self._received: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._transport is not None:  # asyncio calls this again over TLS, in some versions
            return
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._entrance = self._admission.enter(self)
        if self._entrance is Entrance.NONE:
            transport.abort()
            return
        self._task = asyncio.get_running_loop().create_task(self._negotiate(transport))

    def data_received(self, data: bytes) -> None:
        """What comes over TLS before the other protocol has taken over."""
        self._received.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._admission.leave(self)

    def evict(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    async def _negotiate(self, transport: asyncio.Transport) -> None:
        try:
            secure = await asyncio.get_running_loop().start_tls(
                transport, self, self._context, server_side=True, ssl_handshake_timeout=self._timeout
            )
        except OSError:  # not TLS, too late, or gone
            secure = None
        if secure is None or secure.is_closing():
            self._admission.leave(self)
            transport.abort()
            return
        protocol = self._create(self._entrance)
        self._admission.replace(self, protocol)
        secure.set_protocol(protocol)
        protocol.connection_made(secure)
        for data in self._received:
            protocol.data_received(data)
