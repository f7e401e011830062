"""One engine as the front holds it: its processes, its description, its figures, and the requests that it has.

Owns everything that the front knows of one engine. A handle outlives its processes: the supervisor replaces one that
dies, and the handle keeps its id. It passes each event to the accounts and ignores events of requests that were taken
from it (`Unfinished.wire_id`). It tells the fleet when the engine is ready, has computed a step, has died or was given
up; the fleet decides which requests it gets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from antiphon.config import EngineConfig
from antiphon.engine.accounts import Accounts
from antiphon.engine.capacity import Capacity
from antiphon.engine.supervisor import EngineDeath, EngineOwner
from antiphon.engine.unfinished import Unfinished
from antiphon.engine.view import EngineState, EngineView
from antiphon.engine.wire import Abort, AddRequest, EngineStats, FromEngine, Loading, Message, Ready, StepReport
from antiphon.errors import AntiphonError


class Supervising(Protocol):
    """Keeps the engine's process alive; a `Supervisor`, or a double in tests."""

    @property
    def pid(self) -> int | None: ...

    def start(self) -> None: ...

    def send(self, message: Message) -> None: ...

    async def stop(self) -> None: ...


Supervise = Callable[[EngineConfig, EngineOwner], Supervising]


class HandleOwner(Protocol):
    """The fleet, as an engine sees it."""

    def engine_ready(self, engine: EngineHandle) -> None:
        """It accepts requests now; it has none."""
        ...

    def engine_died(self, engine: EngineHandle) -> None:
        """Its process died; its requests have no engine any more. Another process will be started."""
        ...

    def engine_given_up(self, engine: EngineHandle) -> None:
        """No other process will be started, and `error` says why. Its requests have no engine any more."""
        ...


class EngineHandle:
    """One engine.

    `info` is its description of itself (None until it is ready, kept while restarting), `stats` its state after its
    latest step, `capacity` what was measured of it, `loading` how far loading has come, `restarts` the number of its
    processes that died, `trouble` how the last one died (a clause fit for clients; None once the next is ready),
    `error` why it was given up, `requests` what it has, by wire id.
    """

    def __init__(
        self,
        engine_id: int,
        generation: int,
        config: EngineConfig,
        owner: HandleOwner,
        accounts: Accounts,
        supervise: Supervise,
    ) -> None:
        self.id = engine_id
        self.generation = generation
        self.info: Ready | None = None
        self.stats = EngineStats()
        self.capacity = Capacity(config)
        self.loading: Loading | None = None
        self.restarts = 0
        self.trouble: str | None = None
        self.error: AntiphonError | None = None
        self.requests: dict[str, Unfinished] = {}
        self.is_connected = False  # its process is ready and takes requests
        self.is_stopped = False
        self._owner = owner
        self._accounts = accounts
        self._supervisor = supervise(config, self)

    # --- what it is doing

    @property
    def state(self) -> EngineState:
        if self.is_stopped:
            return EngineState.STOPPED
        if self.error:
            return EngineState.FAILED
        if self.is_connected:
            return EngineState.READY
        return EngineState.RESTARTING if self.info else EngineState.LOADING

    @property
    def pid(self) -> int | None:
        return self._supervisor.pid

    @property
    def has_work(self) -> bool:
        """Whether it owes anything, so that making no progress means something."""
        return bool(self.requests)

    @property
    def threads(self) -> int | None:
        threads = self.info.runner.get("threads") if self.info else None
        return int(threads) if threads is not None else None

    @property
    def kv_cache_usage(self) -> float | None:
        """The share of the KV cache in use, 0 to 1."""
        return self.stats.blocks_in_use / self.info.num_blocks if self.info else None

    def view(self, tokens_owed: float) -> EngineView:
        """A snapshot."""
        running = min(self.stats.running, len(self.requests))
        return EngineView(
            id=self.id,
            state=self.state,
            pid=self.pid,
            threads=self.threads,
            generation=self.generation,
            running=running,
            waiting=len(self.requests) - running,
            tokens_owed=tokens_owed,
            kv_cache_usage=self.kv_cache_usage,
            restarts=self.restarts,
            loading_fraction=self.loading.fraction if self.loading else None,
            loading_phase=self.loading.phase if self.loading else None,
            trouble=self.trouble,
        )

    # --- its life, and its requests

    def start(self) -> None:
        self._supervisor.start()

    async def stop(self) -> None:
        """End its process. Nothing is left behind; no event comes after this call began. Idempotent."""
        self.is_stopped, self.is_connected = True, False
        await self._supervisor.stop()

    def add(self, unfinished: Unfinished) -> None:
        """Give it a request that no engine has; it must be connected."""
        assert self.is_connected, f"engine {self.id} takes no requests"
        assert unfinished.engine_id is None, "another engine has the request"
        unfinished.engine_id = self.id
        self.requests[unfinished.wire_id] = unfinished
        self._supervisor.send(AddRequest(unfinished.for_engine()))

    def withdraw(self, unfinished: Unfinished) -> None:
        """Take a request from it: it stops computing, and what it still says of the request is ignored."""
        self.forget(unfinished)
        if self.is_connected:
            self._supervisor.send(Abort(unfinished.wire_id))
        unfinished.num_withdrawals += 1

    def forget(self, unfinished: Unfinished) -> None:
        """Note that a request has ended, or that it is no longer this engine's."""
        del self.requests[unfinished.wire_id]
        unfinished.engine_id = None

    # --- what its supervisor calls

    def engine_said(self, message: FromEngine) -> None:
        match message:
            case StepReport():
                self._take_report(message)
            case Loading():
                self.loading = message
            case Ready():
                self.info, self.loading, self.trouble = message, None, None
                self.is_connected = True
                self._owner.engine_ready(self)

    def _take_report(self, report: StepReport) -> None:
        self.stats = report.stats
        self.capacity.observe(report.stats, report.events)
        for wire_id in report.begun:
            if unfinished := self.requests.get(wire_id):
                unfinished.stream.note_begun(time.monotonic() - report.stats.step_seconds)
        for progress in report.progress:
            if unfinished := self.requests.get(progress.request_id):
                unfinished.stream.push_progress(replace(progress, request_id=unfinished.request.request_id))
        for event in report.events:
            if unfinished := self.requests.get(event.request_id):  # else it was aborted, or is another engine's now
                if unfinished.num_withdrawals:
                    event = replace(event, request_id=unfinished.request.request_id)
                self._accounts.deliver(unfinished, event)

    def engine_died(self, death: EngineDeath) -> None:
        self.restarts += 1
        self.trouble = death.summary
        for unfinished in self._lose_all():
            if error := unfinished.note_death(death.working_on):
                self._accounts.fail(unfinished, error)
        self._owner.engine_died(self)

    def engine_given_up(self, error: AntiphonError) -> None:
        self.error = error
        self._lose_all()
        self._owner.engine_given_up(self)

    def _lose_all(self) -> list[Unfinished]:
        """Note that its process is gone; returns the requests that it had, in the order in which it got them."""
        self.is_connected = False
        self.stats, self.loading = EngineStats(), None
        lost = list(self.requests.values())
        for unfinished in lost:
            self.forget(unfinished)
        return lost
