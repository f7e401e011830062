"""An engine on another machine, seen from the front: asks an engine host for one, and talks to it over the channel.

Owns the connection. Its end is the engine's end: the host kills the engine when the connection is lost, and the front
treats an engine whose host is silent as dead. The host's heartbeats carry what the front reads from shared memory where
an engine runs on this machine, so the supervisor's rules hold unchanged: an engine that makes no progress is replaced,
and a request that was being worked on when two engines died ends with an error.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from antiphon import __version__
from antiphon.config import EngineConfig
from antiphon.engine.fleet.launching import EngineEnd, LaunchError
from antiphon.engine.remote.address import HostAddress
from antiphon.engine.remote.channel import Channel, Frame, Kind
from antiphon.engine.remote.connecting import connect
from antiphon.engine.remote.handshake import HandshakeError
from antiphon.engine.remote.messages import (
    Begin,
    Ended,
    Heartbeat,
    Kill,
    Welcome,
    decode_from_host,
    encode_control,
)
from antiphon.engine.wire import FromEngine, Message, WireError, decoder_from_engine, encode_payload
from antiphon.errors import ConfigError
from antiphon.grammar import Vocabulary
from antiphon.model_digest import Digests, named_files

_HEARTBEATS = 10  # within the time after which a silent host counts as dead
_SLOWEST_HEARTBEAT = 1.0  # seconds
_END_PATIENCE = 3.0  # seconds for a host to say how its engine ended
_WELCOME_SECONDS = 25.0  # the host may ask its GPUs' driver first, which can take many seconds
_digests = Digests()


@dataclass(frozen=True, slots=True)
class HostAccess:
    """What it takes to use engine hosts."""

    secret: str
    tls: ssl.SSLContext | None  # how to check the certificates of hosts with `tls://` addresses
    patience: Callable[[], float]  # seconds after which a silent host counts as dead


class RemoteLauncher:
    """Starts engines on the machine of one engine host."""

    def __init__(self, host: HostAddress, access: HostAccess) -> None:
        self._host = host
        self._access = access

    @property
    def address(self) -> str:
        return str(self._host)

    async def start(self, config: EngineConfig, vocabulary: Vocabulary | None = None) -> RemoteEngine:
        """Connect to the host, and have it start an engine. Loading continues after this returns.

        Raises:
            LaunchError: the host cannot be reached at the moment.
            ConfigError: it has another version or another secret.
            CheckpointError: the model's files here cannot be read.
        """
        digests = await asyncio.to_thread(_digests_of, config)
        channel = await open_channel(self._host, self._access)
        try:
            frames = channel.frames()
            await _welcome(self._host, frames)
            interval = min(self._access.patience() / _HEARTBEATS, _SLOWEST_HEARTBEAT)
            # Files and CPUs are those of this machine.
            sent = replace(config, files=(), cpus=())
            channel.send(Kind.CONTROL, encode_control(Begin(__version__, sent, vocabulary, digests, interval)))
        except BaseException:
            channel.abort()
            raise
        return RemoteEngine(channel, frames, self._access.patience, interval)


async def host_welcome(host: HostAddress, access: HostAccess) -> Welcome:
    """What a host says of itself. Raises like `RemoteLauncher.start`."""
    channel = await open_channel(host, access)
    try:
        return await _welcome(host, channel.frames())
    finally:
        channel.abort()


async def open_channel(host: HostAddress, access: HostAccess) -> Channel:
    """An authenticated connection to a host. Raises LaunchError or ConfigError."""
    try:
        return await connect(host, access.secret, access.tls)
    except HandshakeError as error:
        raise ConfigError(f"{host}: {error}") from None
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"{host}: its certificate cannot be trusted: {error.verify_message}") from None
    except OSError as error:
        raise LaunchError(f"its machine cannot be reached ({_reason(error)})", is_away=True) from error


def _reason(error: OSError) -> str:
    """Why a connection failed, without the address, which is not for clients."""
    if error.errno is not None and error.errno > 0:  # asyncio puts the address in place of the system's words
        return os.strerror(error.errno)
    return error.strerror or str(error)


async def _welcome(host: HostAddress, frames: AsyncIterator[Frame]) -> Welcome:
    """The first message of a host. Raises LaunchError or ConfigError."""
    try:
        async with asyncio.timeout(_WELCOME_SECONDS):
            kind, payload = await anext(frames)
            message = decode_from_host(payload) if kind is Kind.CONTROL else None
    except (WireError, TimeoutError, StopAsyncIteration) as error:
        raise LaunchError("its machine does not answer as it should", is_away=True) from error
    if not isinstance(message, Welcome):
        raise LaunchError("its machine does not answer as it should", is_away=True)
    if message.version != __version__:
        raise ConfigError(
            f"{host}: it runs Antiphon {message.version}, and this server {__version__}; "
            "install the same version on both machines"
        )
    return message


def _digests_of(config: EngineConfig) -> dict[str, str]:
    return {name: _digests.of(file) for name, file in named_files(config.model, config.files).items()}


class RemoteEngine:
    """An engine on another machine (a `RunningEngine`)."""

    def __init__(
        self, channel: Channel, frames: AsyncIterator[Frame], patience: Callable[[], float], interval: float
    ) -> None:
        """`frames`: the channel's, of which the first was read; `interval`: seconds between heartbeats."""
        self._channel = channel
        self._frames = frames
        self._patience = patience
        self._interval = interval
        self._decoder = decoder_from_engine()
        self._progress = 0
        self._last_beat = 0  # the counter in the latest heartbeat
        self._starved = 0.0  # seconds, that nobody asked for yet
        self._working_on: frozenset[str] = frozenset()  # as of the latest heartbeat
        self._end: EngineEnd | None = None
        self._lost = "the connection to its host was lost"
        self._is_killed = False
        self._beating = asyncio.create_task(self._beat(), name="engine-heartbeats")

    @property
    def pid(self) -> int | None:
        return None

    @property
    def progress(self) -> int:
        return self._progress

    def starved_seconds(self) -> float:
        """As `RunningEngine` says."""
        seconds, self._starved = self._starved, 0.0
        return seconds

    def send(self, message: Message) -> None:
        """As `RunningEngine` says."""
        self._channel.send(Kind.ENGINE, encode_payload(message))

    async def messages(self) -> AsyncIterator[FromEngine]:
        """As `RunningEngine` says."""
        async for payload in self._payloads():
            yield self._decoder.decode(payload)

    async def _payloads(self) -> AsyncIterator[bytes]:
        """The engine's messages, encoded, until its host has said that it ended, or is gone."""
        async for kind, payload in self._frames:
            if kind is Kind.ENGINE:
                self._progress += 1
                yield payload
                continue
            match decode_from_host(payload):
                case Heartbeat(progress, working_on, starved):
                    self._starved += starved
                    self._progress += progress != self._last_beat
                    self._last_beat = progress
                    self._working_on = frozenset(working_on)
                case Ended(status, working_on, reason):
                    self._end = EngineEnd(status, frozenset(working_on), reason)
                    return

    async def _beat(self) -> None:
        """Show the host that this process is there, and give up the host when it is silent for too long."""
        heartbeat = encode_control(Heartbeat())
        received, silent = self._channel.num_received, 0.0
        while silent < self._patience():
            if not self._channel.is_backed_up:
                self._channel.send(Kind.CONTROL, heartbeat)
            before = time.monotonic()
            await asyncio.sleep(self._interval)
            if self._channel.num_received != received:
                received, silent = self._channel.num_received, 0.0
            else:
                # If this process was itself stopped for a while, that does not mean that the host is silent.
                silent += min(time.monotonic() - before, 2 * self._interval)
        self._lost = f"its host was silent for {silent:.1f} seconds"
        self._channel.abort()

    def kill(self) -> None:
        """As `RunningEngine` says. The connection stays for the host's word on how the engine ended."""
        if not self._is_killed and self._end is None:
            self._is_killed = True
            self._channel.send(Kind.CONTROL, encode_control(Kill()))

    async def wait(self) -> EngineEnd:
        """As `RunningEngine` says. A host that does not answer is not waited for: it kills the engine by itself."""
        with suppress(TimeoutError, WireError):
            async with asyncio.timeout(_END_PATIENCE):
                async for _ in self._payloads():
                    pass
        self._beating.cancel()
        await self._channel.close(patience=0.1)
        return self._end or EngineEnd(None, self._working_on, self._lost)
