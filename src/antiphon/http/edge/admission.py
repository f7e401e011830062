"""How many connections a server has, and which of them goes when there are too many.

Owns the count, from the moment a connection is accepted: one that is still negotiating TLS counts too. It promises that
whoever sends a request is let in as long as the server is not busy answering as many as it may have: a newcomer takes
the place of the connection that has been silent, or half-way through its request, for longest. Beyond that a few spare
connections are let in to be refused in words, or to ask whether the server lives. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_SPARE_CONNECTIONS = 64  # beyond the cap
_HANDSHAKE_SECONDS = 10.0  # for negotiating TLS; less where the network time-out is less


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one server grants."""

    max_connections: int
    timeout: float  # seconds for a head, for a body, and for a reader to take what waits for it


class Evictable(asyncio.Protocol):
    """A connection, as far as its place matters."""

    def evict(self) -> None:
        """Close the connection now."""
        raise NotImplementedError


class Entrance(Enum):
    """What a newcomer gets."""

    PLACE = "a place like any other"
    SPARE = "a spare place: refused in words, unless it asks whether the server lives"
    NONE = "no place"


class Wait(Enum):
    """What a connection waits for that can lose its place; the first kind loses it first."""

    HEAD = "a request, or the rest of its head, or of a TLS handshake"
    BODY = "the rest of a body"


class Admission:
    """Every connection of one server."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._spare: dict[Evictable, bool] = {}  # every connection, and whether its place is a spare one
        # Who waits, those who have waited longest first. A dict keeps the order in which its keys were put in.
        self._waiting: dict[tuple[bool, Wait], dict[Evictable, None]] = {
            (is_spare, wait): {} for is_spare in (False, True) for wait in Wait
        }

    def __len__(self) -> int:
        return len(self._spare)

    def enter(self, newcomer: Evictable) -> Entrance:
        """Count a connection that was accepted, if there is a place for it; it waits for a head."""
        num_spare = sum(self._spare.values()) if len(self) >= self._max_connections else 0
        entrance = Entrance.PLACE
        if len(self) - num_spare >= self._max_connections and not self._evict_oldest(is_spare=False):
            entrance = Entrance.SPARE
            if num_spare >= _SPARE_CONNECTIONS and not self._evict_oldest(is_spare=True):
                return Entrance.NONE
        self._spare[newcomer] = entrance is Entrance.SPARE
        self.waits(newcomer, Wait.HEAD)
        return entrance

    def replace(self, connection: Evictable, successor: Evictable) -> None:
        """Give a connection's place, if it still has one, to another object that stands for the same connection."""
        is_spare = self._spare.get(connection)
        if is_spare is not None:
            self.leave(connection)
            self._spare[successor] = is_spare
            self.waits(successor, Wait.HEAD)

    def waits(self, connection: Evictable, wait: Wait | None) -> None:
        """Note what a connection waits for from now on; None: for nothing that would cost it its place."""
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
        """Forget a connection; one that was never let in, or left already, changes nothing."""
        is_spare = self._spare.pop(connection, None)
        if is_spare is not None:
            self._forget_wait(connection, is_spare)

    def _evict_oldest(self, *, is_spare: bool) -> bool:
        """Whether there was a connection that could lose its place."""
        for wait in Wait:
            oldest = next(iter(self._waiting[is_spare, wait]), None)
            if oldest is not None:
                self.leave(oldest)
                oldest.evict()
                return True
        return False

    def _forget_wait(self, connection: Evictable, is_spare: bool) -> None:
        for wait in Wait:
            self._waiting[is_spare, wait].pop(connection, None)


class Handshake(Evictable):
    """A connection that is negotiating TLS; afterwards the protocol that `create` makes takes over."""

    def __init__(
        self,
        admission: Admission,
        context: ssl.SSLContext,
        timeout: float,
        create: Callable[[Entrance], Evictable],
    ) -> None:
        """`timeout` in seconds, at most; the handshake has a time-out of its own."""
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
