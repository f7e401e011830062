"""One front's connection to a host, and the one engine that it is for.

Owns the engine from Begin to Ended. Passes on the engine's messages in both directions without reading them, waits when
the receiver is slow, and shows the front that the engine makes progress. Whatever ends the session ends the engine: the
engine itself, a word of the front, the end of the connection, a silent front, or the end of this host.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from antiphon import __version__
from antiphon.config import EngineConfig
from antiphon.engine.fleet.launching import EngineEnd
from antiphon.engine.fleet.process import EngineProcess
from antiphon.engine.remote.channel import Channel, Frame, Kind
from antiphon.engine.remote.messages import (
    Begin,
    Control,
    Ended,
    Heartbeat,
    Kill,
    Welcome,
    decode_from_front,
    encode_control,
)
from antiphon.engine.wire import Fatal, FatalKind, Loading, Message, WireError, encode_payload
from antiphon.engine_host.models import Models
from antiphon.errors import AntiphonError, HubUnreachable, NotEnoughMemory

logger = logging.getLogger(__name__)

_BEGIN_SECONDS = 30.0  # a front that only wants to know what the host is leaves before
_FASTEST_HEARTBEAT, _SLOWEST_HEARTBEAT = 0.02, 5.0  # seconds


class Room(Protocol):
    """The machine, as a session sees it."""

    def free_memory(self) -> int:
        """Bytes that another engine may use."""
        ...

    async def gpu_memory(self) -> dict[str, int]:
        """Bytes that are free on each GPU without an engine, by its name."""
        ...

    async def take(self, session: Session, config: EngineConfig) -> EngineConfig:
        """Reserve memory, and cores or a GPU; returns the settings on this machine.

        Raises NotEnoughMemory, or ConfigError if there is no such GPU.
        """
        ...

    def give_back(self, session: Session) -> None: ...


class Session:
    """Serves one front until its engine has ended. `pid`: the engine's process, while there is one."""

    def __init__(self, channel: Channel, models: Models, room: Room, front_patience: float, peer: str) -> None:
        """`front_patience`: seconds after which a silent front counts as dead; `peer`: its address, for the log."""
        self.pid: int | None = None
        self._channel = channel
        self._models = models
        self._room = room
        self._front_patience = front_patience
        self._peer = peer
        self._engine: EngineProcess | None = None
        self._prepared = 0  # grows while the model is being prepared

    async def run(self) -> None:
        """Serve the front. Raises WireError if it breaks the protocol; nothing is left behind."""
        self._say(Welcome(__version__, self._room.free_memory(), await self._room.gpu_memory()))
        frames = self._channel.frames()
        begin = await _begin(frames)
        if begin is None:
            return
        logger.info("%s: an engine is being started", self._peer)
        end = EngineEnd(None, frozenset(), "its host is being stopped")
        try:
            end = await self._run_engine(begin, frames)
        finally:
            self._room.give_back(self)
            with suppress(WireError):
                self._say(Ended(end.status, sorted(end.working_on), end.reason))
            await self._channel.close()
            logger.info("%s: the engine has ended", self._peer)

    async def _run_engine(self, begin: Begin, frames: AsyncIterator[Frame]) -> EngineEnd:
        """Run the engine until it ends or something ends it; returns how it ended."""
        tasks = [
            asyncio.create_task(self._read_front(frames), name="front-to-engine"),
            asyncio.create_task(self._show_progress(begin.heartbeat_seconds), name="engine-heartbeats"),
            asyncio.create_task(self._watch_front(), name="front-watch"),
            asyncio.create_task(self._serve_engine(begin), name="engine-to-front"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            end = await self._end_engine()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionResetError | BrokenPipeError):
                raise result
        return end

    async def _end_engine(self) -> EngineEnd:
        engine, self._engine, self.pid = self._engine, None, None
        if engine is None:
            return EngineEnd(None, frozenset(), "it could not be started on its host")
        engine.kill()
        return await engine.wait()

    # --- the engine

    async def _serve_engine(self, begin: Begin) -> None:
        """Start the engine, and pass its messages on until it is gone."""
        try:
            async with self._preparing():
                prepared = await self._models.prepare(begin.config, begin.digests)
            try:
                config = await self._room.take(self, prepared.config)
                self._engine = await EngineProcess.start(config, begin.vocabulary)
                self.pid = self._engine.pid
            finally:
                prepared.close()
        except AntiphonError as error:
            self._fail(_kind_of(error), error.message)
            return
        except OSError as error:
            self._fail(FatalKind.INTERNAL, f"no process could be started for it on its host ({error.strerror})")
            return
        async for payload in self._engine.payloads():
            self._channel.send(Kind.ENGINE, payload)
            await self._channel.drain()

    @asynccontextmanager
    async def _preparing(self) -> AsyncIterator[None]:
        """Tell the front that loading continues; a download has time limits of its own."""
        self._pass_on(Loading(0.0, "finding the model on its host"))
        counting = asyncio.create_task(self._count())
        try:
            yield
        finally:
            counting.cancel()

    async def _count(self) -> None:
        while True:
            self._prepared += 1
            await asyncio.sleep(1.0)

    def _fail(self, kind: FatalKind, message: str) -> None:
        logger.error("%s: %s", self._peer, message)
        self._pass_on(Fatal(kind, message))

    async def _show_progress(self, interval: float) -> None:
        """Tell the front again and again how far the engine is."""
        interval = min(max(interval, _FASTEST_HEARTBEAT), _SLOWEST_HEARTBEAT)
        last = 0
        while True:
            engine = self._engine
            if self._channel.is_backed_up:
                pass  # a front that reads nothing gets no heartbeats either, which would only take memory
            elif engine is None:
                self._say(Heartbeat(self._prepared))
            else:
                progress = self._prepared + engine.progress
                starved = engine.starved_seconds() if progress == last else 0.0  # else nobody asks
                self._say(Heartbeat(progress, sorted(engine.working_on), starved))
                last = progress
            await asyncio.sleep(interval)

    # --- the front

    async def _read_front(self, frames: AsyncIterator[Frame]) -> None:
        """Pass the front's messages on, until it wants no engine any more or is gone."""
        async for kind, payload in frames:
            if kind is Kind.CONTROL:
                match decode_from_front(payload):
                    case Kill():
                        return
                    case Begin():
                        raise WireError("a connection is for one engine")
            elif self._engine is None:
                return  # all that it can say to an engine that is not there yet is Shutdown
            else:
                await self._engine.pass_on(payload)

    async def _watch_front(self) -> None:
        """Return when the front has been silent for too long: its machine or the network is gone."""
        received, silent = self._channel.num_received, 0.0
        interval = self._front_patience / 10
        while silent < self._front_patience:
            before = time.monotonic()
            await asyncio.sleep(interval)
            if self._channel.num_received != received:
                received, silent = self._channel.num_received, 0.0
            else:
                silent += min(time.monotonic() - before, 2 * interval)
        logger.warning("%s: silent for %.1f seconds, so its engine is stopped", self._peer, silent)

    def _say(self, message: Control) -> None:
        self._channel.send(Kind.CONTROL, encode_control(message))

    def _pass_on(self, message: Message) -> None:
        """Say something in the engine's place."""
        self._channel.send(Kind.ENGINE, encode_payload(message))


async def _begin(frames: AsyncIterator[Frame]) -> Begin | None:
    """The front's first message; None: it left."""
    try:
        async with asyncio.timeout(_BEGIN_SECONDS):
            kind, payload = await anext(frames)
    except (StopAsyncIteration, TimeoutError):
        return None
    message = decode_from_front(payload) if kind is Kind.CONTROL else None
    if not isinstance(message, Begin):
        raise WireError("the first message must be Begin")
    if message.version != __version__:  # the front has seen Welcome, and ends the connection by itself
        raise WireError(f"it runs Antiphon {message.version}, and this host {__version__}; use the same on both")
    return message


def _kind_of(error: AntiphonError) -> FatalKind:
    """Errors of this machine are not those of the model: once it has served, the front tries again."""
    if isinstance(error, NotEnoughMemory):
        return FatalKind.MEMORY
    return FatalKind.INTERNAL if isinstance(error, HubUnreachable) else FatalKind.CONFIG
