"""One engine as the front holds it: its processes, its description, its figures, and the requests that it has.

Owns everything that the front knows of one engine. A handle outlives its processes: the supervisor replaces one that
dies, and the handle keeps its id. It passes each event to the accounts and ignores events of requests that were taken
from it (`Unfinished.wire_id`). It tells the fleet when the engine is ready, has died or was given up; the fleet decides
which requests it gets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from antiphon.config import EngineConfig
from antiphon.engine.admission.capacity import Capacity
from antiphon.engine.fleet.breaker import Breaker, BreakerSettings
from antiphon.engine.fleet.launching import Place
from antiphon.engine.fleet.owed import TokensOwed
from antiphon.engine.fleet.routing import PREFIX_BLOCK, PrefixIndex
from antiphon.engine.fleet.supervisor import EngineDeath
from antiphon.engine.fleet.totals import counted, total
from antiphon.engine.fleet.view import EngineGpu, EngineState, EngineView
from antiphon.engine.requests.accounts import Accounts
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.wire import (
    Abort,
    AddRequest,
    EngineStats,
    FromEngine,
    Loading,
    Message,
    Ready,
    ServedElsewhere,
    StepReport,
)
from antiphon.errors import AntiphonError, EngineDied, NotReady
from antiphon.grammar import Vocabulary
from antiphon.request import FinishReason, TokenEvent
from antiphon.step import DeviceMemory


class Supervising(Protocol):
    """Keeps the engine's process alive; a `Supervisor`, or a double in tests."""

    @property
    def pid(self) -> int | None: ...

    def start(self) -> None: ...

    def send(self, message: Message) -> None: ...

    def replace_process(self) -> None: ...

    async def stop(self) -> None: ...


class HandleOwner(Protocol):
    """The fleet, as an engine sees it."""

    def engine_ready(self, engine: EngineHandle) -> None:
        """It accepts requests now; it has none."""
        ...

    def engine_died(self, engine: EngineHandle) -> None:
        """Its process is gone, and its requests have no engine any more. Another process will be started."""
        ...

    def engine_given_up(self, engine: EngineHandle) -> None:
        """No other process will be started, and `error` says why. Its requests have no engine any more."""
        ...


@dataclass(slots=True)
class Generation:
    """Engines that serve the same model with the same settings."""

    number: int
    config: EngineConfig
    vocabulary: Vocabulary | None
    info: Ready | None = None  # what the first of them that was ready said of itself


class EngineHandle:
    """One engine.

    `info` is its description of itself (None until it is ready, kept while restarting), `stats` its state after its
    latest step, `capacity` what was measured of it, `breaker` whether it keeps failing, `loading` how far loading
    has come, `restarts` the number of its processes that died, `is_away` whether its machine cannot be reached,
    `trouble` how the last one died (a clause fit for clients; None once the next is ready), `error` why it was
    given up, `requests` what it has, by wire id, `prefixes` what it has probably computed.
    """

    def __init__(
        self,
        engine_id: int,
        generation: Generation,
        place: Place,
        owner: HandleOwner,
        accounts: Accounts,
        breaker: BreakerSettings,
    ) -> None:
        """`place`: where its processes run."""
        self.id = engine_id
        self.generation = generation.number
        self.place = place
        self.config = generation.config
        self.info: Ready | None = None
        self.stats = EngineStats()
        self.capacity = Capacity(generation.config)
        self.breaker = Breaker(breaker)
        self.loading: Loading | None = None
        self.restarts = 0
        self.trouble: str | None = None
        self.error: AntiphonError | None = None
        self.requests: dict[str, Unfinished] = {}
        self.prefixes = PrefixIndex(0)
        self.owed = TokensOwed()
        self.is_away = False
        self.is_connected = False  # its process is ready and takes requests
        self.is_drained = False  # gets no requests, on an operator's request
        self.is_retiring = False  # stops when its generation's requests have ended
        self.is_stopped = False
        self._fingerprint = ""  # of its process
        self._past = EngineStats()  # the counts of earlier processes
        self._settled = asyncio.Event()  # it is ready, or will not be
        self._owner = owner
        self._accounts = accounts
        self._supervisor: Supervising | None = None

    # --- what it is doing

    @property
    def state(self) -> EngineState:
        if self.is_stopped:
            return EngineState.STOPPED
        if self.error:
            return EngineState.FAILED
        if not self.is_connected:
            return EngineState.RESTARTING if self.info else EngineState.LOADING
        if self.is_drained and not self.requests:
            return EngineState.DRAINED
        return EngineState.DRAINING if self.is_drained or self.is_retiring else EngineState.READY

    @property
    def takes_requests(self) -> bool:
        """Whether requests of its generation may be given to it now."""
        return self.is_connected and not self.is_drained

    @property
    def retry_after(self) -> float | None:
        """Seconds after which it may take new requests again, if it keeps failing; None: it takes them."""
        return self.breaker.retry_after(is_ready=self.is_connected)

    @property
    def pid(self) -> int | None:
        return self._supervisor.pid if self._supervisor else None

    @property
    def has_work(self) -> bool:
        """Whether it has something to do. If it makes no progress then, it hangs."""
        return bool(self.requests)

    @property
    def lifetime_stats(self) -> EngineStats:
        """Its state now, with the counts of all its processes."""
        return total([self._past, self.stats])

    @property
    def threads(self) -> int | None:
        threads = self.info.runner.get("threads") if self.info else None
        return int(threads) if threads is not None else None

    @property
    def kv_cache_usage(self) -> float | None:
        """The share of the KV cache in use, 0 to 1."""
        return self.stats.blocks_in_use / self.info.num_blocks if self.info else None

    @property
    def gpu(self) -> EngineGpu | None:
        """The GPU that it uses; None if it uses none, or has no process that is ready."""
        if not (self.is_connected and self.info and self.info.device_memory):
            return None
        at_start, runner = self.info.device_memory, self.info.runner
        memory = at_start
        if self.stats.device_total_bytes:
            memory = DeviceMemory(self.stats.device_used_bytes, self.stats.device_total_bytes)
        address = self.place.launcher.address
        reserve = at_start.total - at_start.used
        if not address and self.config.memory_reserve:  # else no GPU was planned for, or that of another machine
            reserve = min(reserve, self.config.memory_reserve)  # the plan's GPU may have more memory than this one
        return EngineGpu(
            number=f"{address} {str(runner.get('device', '')).partition(':')[2]}".strip(),
            uuid=str(runner.get("device_uuid", "")),
            name=str(runner.get("device_name", "")),
            is_here=not address,
            generation=self.generation,
            planned=self.config.gpu_bytes,
            reserve=reserve,
            used=memory.used,
            total=memory.total,
        )

    def view(self, tokens_owed: float) -> EngineView:
        """A snapshot."""
        running = min(self.stats.running, len(self.requests))
        return EngineView(
            id=self.id,
            state=self.state,
            address=self.place.address or None,
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
            breaker=self.breaker.state,
            trouble=self.trouble,
            instruction_set=self.info.instruction_set or None if self.info else None,
            fingerprint=self.info.fingerprint or None if self.info else None,
            model_fingerprint=self.info.model_fingerprint or None if self.info else None,
            versions=self.info.versions if self.info else {},
        )

    # --- its life

    def start(self, supervisor: Supervising) -> None:
        """Start its first process."""
        self._supervisor = supervisor
        supervisor.start()

    async def wait_ready(self) -> None:
        """Wait until it takes requests. Raises why it will not, or EngineDied if its machine cannot be reached."""
        await self._settled.wait()
        if self.error:
            raise self.error
        if self.is_away:
            raise EngineDied(f"The engine could not be started: {self.trouble}.")
        if self.is_stopped:
            raise NotReady("The engine was stopped while it was loading.")

    def replace_process(self) -> None:
        """End its process and start another one, as if it had died; `wait_ready` then waits for that one."""
        assert not self.requests, "its requests have to be taken from it first"
        self._settled.clear()
        if self._supervisor and self.is_connected:
            self._supervisor.replace_process()
        self.is_connected = False

    async def stop(self) -> None:
        """End its process. Nothing is left behind; no event comes after this call began. Idempotent."""
        self.is_stopped, self.is_connected = True, False
        self._settled.set()
        if self._supervisor:
            await self._supervisor.stop()

    # --- its requests

    def add(self, unfinished: Unfinished) -> None:
        """Give it a request that no engine has; it must be connected."""
        assert self.is_connected, f"engine {self.id} takes no requests"
        assert self._supervisor is not None
        assert unfinished.engine_id is None, "another engine has the request"
        unfinished.engine_id = self.id
        unfinished.permit = self.breaker.begin()
        self.requests[unfinished.wire_id] = unfinished
        unfinished.stream.note_engine("given", self.id)
        if unfinished.fingerprint is None:  # no engine has computed a token of it
            unfinished.stream.system_fingerprint = self._fingerprint
        self.capacity.note_new_request()
        self._supervisor.send(AddRequest(unfinished.for_engine()))

    def withdraw(self, unfinished: Unfinished, *, is_answered: bool = False) -> None:
        """Take a request from it: it stops computing, and what it still says of the request is ignored.

        `is_answered`: because its reader has all that it needs.
        """
        if is_answered:
            self.breaker.succeeded(unfinished.permit)
        self.forget(unfinished)
        if self.is_connected and self._supervisor:
            self._supervisor.send(Abort(unfinished.wire_id))
        unfinished.num_withdrawals += 1

    def charge_elsewhere(self, clients: dict[str, float]) -> None:
        """Tell it of service that clients have had from other servers: weighted tokens, by fairness id."""
        if self.is_connected and self._supervisor:
            self._supervisor.send(ServedElsewhere(clients))

    def hand_over(self, unfinished: Unfinished, heir: Unfinished) -> None:
        """Let an equal request take the place of one that it has."""
        self.requests[unfinished.wire_id] = heir
        heir.take_place_of(unfinished)
        self.owed.clear()
        heir.stream.note_engine("given", self.id)

    def forget(self, unfinished: Unfinished) -> None:
        """Note that a request has ended, or that it is no longer this engine's."""
        del self.requests[unfinished.wire_id]
        self.breaker.abandoned(unfinished.permit)
        unfinished.engine_id, unfinished.is_computed = None, False
        self.owed.clear()
        self.capacity.forget_forecast()

    # --- what its supervisor calls

    def engine_said(self, message: FromEngine) -> None:
        match message:
            case StepReport():
                self._take_report(message)
            case Loading():
                self.loading = message
            case Ready():
                self.info, self.loading, self.trouble = message, None, None
                self._fingerprint = message.system_fingerprint
                if self.config.prefix_caching:
                    self.prefixes = PrefixIndex(message.num_blocks * message.block_size // PREFIX_BLOCK)
                self.is_connected, self.is_away = True, False
                self._settled.set()
                self._owner.engine_ready(self)

    def _take_report(self, report: StepReport) -> None:
        self.stats = report.stats
        self.capacity.observe(report.stats, report.events)
        self.owed.note_step(report.stats.step_tokens)
        for wire_id in report.begun:
            if unfinished := self.requests.get(wire_id):
                for reader in unfinished.readers:
                    reader.stream.note_begun(time.monotonic() - report.stats.step_seconds)
        for progress in report.progress:
            if unfinished := self.requests.get(progress.request_id):
                for reader in unfinished.readers:
                    reader.stream.push_progress(replace(progress, request_id=reader.request.request_id))
        for event in report.events:
            if unfinished := self.requests.get(event.request_id):  # else it was aborted, or is another engine's now
                if unfinished.fingerprint is not self._fingerprint:
                    self._note_fingerprint(unfinished)
                self._note_outcome(unfinished, event)
                self._accounts.deliver_to_all(unfinished, event)

    def _note_fingerprint(self, unfinished: Unfinished) -> None:
        """Note that from now on, tokens of the request come from this engine."""
        if unfinished.continues_inexactly(self._fingerprint):
            self._accounts.note_inexact(unfinished)
        for reader in unfinished.readers:
            reader.fingerprint = reader.stream.system_fingerprint = self._fingerprint

    def _note_outcome(self, unfinished: Unfinished, event: TokenEvent) -> None:
        """Tell the breaker what an event says of this engine. A grammar that fails says nothing of it."""
        if event.finish_reason is FinishReason.ERROR:
            if unfinished.request.sampling.grammar is None:
                self.breaker.failed(unfinished.permit)
        elif event.finish_reason or unfinished.permit.is_probe:
            self.breaker.succeeded(unfinished.permit)

    def engine_died(self, death: EngineDeath) -> None:
        self.trouble = death.summary
        if death.is_away:
            self.is_away = True
            self._settled.set()
        else:
            self.restarts += 1
            if not death.is_wanted:
                self.breaker.engine_failed()
        for unfinished in self._lose_all():
            if error := unfinished.note_death(death.working_on):
                self._accounts.fail_all(unfinished, error)
        self._owner.engine_died(self)

    def engine_given_up(self, error: AntiphonError) -> None:
        self.error = error
        self._lose_all()
        self._settled.set()
        self._owner.engine_given_up(self)

    def _lose_all(self) -> list[Unfinished]:
        """Note that its process is gone; returns the requests that it had, in the order in which it got them."""
        self.is_connected = False
        self._past = counted(self.lifetime_stats)
        self.stats, self.loading = EngineStats(), None
        self.prefixes.clear()
        lost = list(self.requests.values())
        for unfinished in lost:
            unfinished.stream.note_engine("died", self.id)
            self.forget(unfinished)
        return lost


Supervise = Callable[[EngineConfig, Vocabulary | None, EngineHandle], Supervising]
