"""Keeps one engine alive: starts its process, notices that it died or hangs, and starts another one.

Owns the current process and the rules around it: how long it may make no progress, how long to wait before the next
try, and when to stop trying. Before a process has served, the first error that another try cannot fix is final, so that
the person who started the server sees it. Once one has served, only a checkpoint that cannot be read is final.
Everything else (no memory, no process available) may be temporary, so it is tried again until it works, at growing
intervals. A machine that cannot be reached is always waited for.

The owner gets messages, deaths and giving up, in that order, and nothing after `stop`. The supervisor knows nothing
about requests, except for the ids that a dead process was working on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from antiphon.config import EngineConfig
from antiphon.engine.fleet.launching import EngineEnd, Launcher, LaunchError, RunningEngine
from antiphon.engine.fleet.process import LocalLauncher
from antiphon.engine.wire import Fatal, FatalKind, FromEngine, Message, Ready, Shutdown, WireError
from antiphon.errors import AntiphonError, CheckpointError, ConfigError, EngineDied, NotEnoughMemory
from antiphon.grammar import Vocabulary

logger = logging.getLogger(__name__)

_LOADING_PATIENCE = 120.0  # seconds without any progress while loading; a cold disk may be that slow
_MAX_LOADING_DEATHS = 3  # in a row, before any engine has served
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0  # seconds before another engine is started
_HEALTHY_AFTER = 30.0  # seconds an engine must have served for its death to count as the first again
_STOP_GRACE = 1.0  # seconds from the message to the signal


@dataclass(frozen=True, slots=True)
class EngineDeath:
    """How a process ended."""

    reason: str  # for the log
    summary: str  # the same for clients: no details of what failed inside
    working_on: frozenset[str]  # ids of the requests that it was working on; any of them may be the cause
    final_error: AntiphonError | None = None  # why another process would fail too, if that is known
    is_wanted: bool = False  # it was ended in order to start another one
    is_away: bool = False  # it was not started, since its machine cannot be reached


_REPLACED = EngineDeath("it was restarted on request", "it is being restarted", frozenset(), is_wanted=True)


class EngineOwner(Protocol):
    """The object that the supervisor works for."""

    @property
    def has_work(self) -> bool:
        """Whether the engine has something to do. If it makes no progress then, it hangs."""
        ...

    def engine_said(self, message: FromEngine) -> None: ...

    def engine_died(self, death: EngineDeath) -> None:
        """All requests that the process had are lost to it; another process will be started."""
        ...

    def engine_given_up(self, error: AntiphonError) -> None:
        """No other process will be started."""
        ...


class Supervisor:
    """Runs one process after the other for its owner."""

    def __init__(
        self,
        config: EngineConfig,
        hang_timeout: Callable[[], float],
        owner: EngineOwner,
        vocabulary: Vocabulary | None = None,
        name: str = "the engine",
        launcher: Launcher | None = None,
    ) -> None:
        """`hang_timeout`: seconds without progress, which may change while the engine runs; `name`: for the log.

        `launcher`: where to start it; None: on this machine.
        """
        self._name = name
        self._config = config
        self._vocabulary = vocabulary
        self._hang_timeout = hang_timeout
        self._owner = owner
        self._launcher: Launcher = launcher or LocalLauncher()
        self._engine: RunningEngine | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._fatal: Fatal | None = None  # why the current process ends, as it said or as we decided
        self._ready_at: float | None = None  # when the current engine became ready
        self._has_served = False  # whether any engine became ready
        self._is_replacing = False  # the current engine was killed to start another one
        self._loading_deaths = 0  # in a row
        self._last_reason = ""  # of the latest death
        self._quick_deaths = 0  # in a row

    @property
    def pid(self) -> int | None:
        return self._engine.pid if self._engine else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="engine-supervisor")

    def send(self, message: Message) -> None:
        """Send a message to the current process. Call this only between a Ready and the next death."""
        assert self._engine is not None
        self._engine.send(message)

    def replace_process(self) -> None:
        """Kill a ready engine and start another one at once. Its owner sees a death that no request has caused.

        Without a ready engine, this does nothing: another one is on its way.
        """
        if self._engine and self._ready_at:
            self._is_replacing = True
            self._engine.kill()

    async def stop(self) -> None:
        """End the process: by message, then by signal. Nothing is left behind. Idempotent."""
        self._stopping.set()
        if self._task is None:
            return
        if self._engine:
            self._engine.send(Shutdown())
        await asyncio.wait({self._task}, timeout=_STOP_GRACE)
        if self._engine:
            self._engine.kill()
        else:
            self._task.cancel()  # an engine that is still being started; it ends with its socket
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._keep_alive()
        except Exception:
            logger.exception("the supervisor failed")  # a bug of ours; nobody may wait forever because of it
            self._owner.engine_given_up(EngineDied("The supervisor of the engine failed; the log says how."))

    async def _keep_alive(self) -> None:
        """Run processes until stopped, or until another try makes no sense."""
        while not self._stopping.is_set():
            death = await self._one_engine()
            if self._stopping.is_set():
                return
            if self._is_replacing:
                self._is_replacing = False
                self._owner.engine_died(_REPLACED)
                continue
            if error := self._final_error(death):
                if self._has_served:  # else `wait_ready` raises it
                    logger.error("%s died and is given up: %s", self._name, error.message)
                self._owner.engine_given_up(error)
                return
            self._log(death)
            self._owner.engine_died(death)
            await self._pause()

    async def _one_engine(self) -> EngineDeath:
        """Run one process; returns how it ended."""
        self._fatal = self._ready_at = None
        try:
            engine = await self._launcher.start(self._config, self._vocabulary)
        except LaunchError as error:
            return EngineDeath(str(error), str(error), frozenset(), is_away=error.is_away)
        except AntiphonError as error:
            return EngineDeath(
                error.message, "it could not be started, and the server's log says why", frozenset(), error
            )
        self._engine = engine
        watch = asyncio.create_task(self._watch(engine), name="engine-watch")
        try:
            await self._listen(engine)
        finally:
            watch.cancel()
            engine.kill()
            end = await engine.wait()
            self._engine = None
        return _death(self._fatal, end)

    async def _listen(self, engine: RunningEngine) -> None:
        if self._stopping.is_set():  # since the start
            return
        try:
            async for message in engine.messages():
                if isinstance(message, Fatal):
                    self._fatal = message
                elif isinstance(message, Ready):
                    self._ready_at = time.monotonic()
                    self._has_served = True
                if not self._stopping.is_set():
                    self._owner.engine_said(message)
        except WireError as error:
            self._fatal = Fatal(FatalKind.INTERNAL, f"it broke the protocol: {error}")

    async def _watch(self, engine: RunningEngine) -> None:
        """Kill a process whose counter does not change while there is work; its death is handled like any other."""
        last, still = engine.progress, 0.0
        while still < (self._hang_timeout() if self._ready_at else _LOADING_PATIENCE):
            interval = self._hang_timeout() / 20
            slept = await _sleep(interval)
            if engine.progress != last or (self._ready_at and not self._owner.has_work):
                last, still = engine.progress, 0.0
            else:
                # Only time counts in which this process and the engine could both run. A remote one tells it later.
                still = max(0.0, still + min(slept, 2 * interval) - engine.starved_seconds())
        self._fatal = Fatal(FatalKind.HUNG, f"it made no progress for {still:.1f} seconds")
        engine.kill()

    def _log(self, death: EngineDeath) -> None:
        if not death.is_away:
            logger.warning("%s died: %s", self._name, death.reason)
        elif death.reason != self._last_reason:  # else it was said before, and is still so
            logger.warning("%s cannot be started: %s; this is tried until it works", self._name, death.reason)
        self._last_reason = death.reason

    def _final_error(self, death: EngineDeath) -> AntiphonError | None:
        """Why no other process should be tried; None: one should."""
        if isinstance(death.final_error, CheckpointError):
            return death.final_error
        if self._has_served or death.is_away:
            return None
        self._loading_deaths += 1
        if death.final_error or self._loading_deaths < _MAX_LOADING_DEATHS:
            return death.final_error
        return EngineDied(
            f"The engine died {self._loading_deaths} times in a row while loading, the last time: {death.reason}"
        )

    async def _pause(self) -> None:
        """Wait longer after each quick death, so that a broken machine is not busy with starting processes."""
        if self._ready_at and time.monotonic() - self._ready_at > _HEALTHY_AFTER:
            self._quick_deaths = 0
        delay = min(_FIRST_DELAY * 2**self._quick_deaths, _LONGEST_DELAY)
        self._quick_deaths += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)


async def _sleep(seconds: float) -> float:
    """Sleep; returns how long it took."""
    started = time.monotonic()
    await asyncio.sleep(seconds)
    return time.monotonic() - started


def _death(fatal: Fatal | None, end: EngineEnd) -> EngineDeath:
    if fatal is None:
        reason = end.reason or _describe(end.status)
        return EngineDeath(reason, reason, end.working_on)
    summary = fatal.message
    final_error: AntiphonError | None = None
    match fatal.kind:
        case FatalKind.CHECKPOINT:
            summary, final_error = "its model cannot be served", CheckpointError(fatal.message)
        case FatalKind.CONFIG:
            final_error = ConfigError(fatal.message)
        case FatalKind.MEMORY:
            summary, final_error = "there was not enough memory for it", NotEnoughMemory(fatal.message)
        case FatalKind.INTERNAL:
            summary = "it failed, and the server's log says how"
    return EngineDeath(fatal.message, summary, end.working_on, final_error)


def _describe(status: int | None) -> str:
    if status is None:
        return "it ended, and nothing is known of how"
    if status == -signal.SIGBUS:  # sent by the kernel when a mapped page cannot be read
        return "it was killed (SIGBUS): a part of a model file could not be read; it was cut short, or its disk failed"
    if status == -signal.SIGKILL:
        return "it was killed (SIGKILL); if nobody did that, the system was out of memory"
    return f"it was killed by signal {-status}" if status < 0 else f"it exited with status {status}"
