"""A fleet in simulated time: the product's client, router, admission, scheduler and block pools over modelled engines.

Everything that decides is the product's own code: `EngineClient` with its admission, fleet, placement and prefix
indexes, and for each engine an `EngineLoop` with its scheduler, budget and block pool. Replaced are the engine's
process and socket, by a queue of messages (`SimulatedEngine`), the model, by a step model that tells how long a step
takes (`ModelledRunner`), and the clock (`virtual_time`). The front computes in no time; what it really costs on this
machine is measured beside it (`FrontCosts`).

Import this module only after `virtual_time.install`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from fleet_steps import StepModel
from virtual_time import Clock

from antiphon.config import EngineConfig, ServerConfig
from antiphon.engine.client import NO_TERMS, EngineClient
from antiphon.engine.fleet.engine_handle import EngineHandle
from antiphon.engine.fleet.supervisor import EngineDeath
from antiphon.engine.requests.stream import TokenStream
from antiphon.engine.requests.unfinished import Unfinished
from antiphon.engine.wire import AddRequest, Connection, FromEngine, Message, Ready, StepReport, ToEngine
from antiphon.engine.worker.loop import EngineLoop
from antiphon.grammar import Vocabulary
from antiphon.request import Arrival, GenerateRequest, Terms
from antiphon.step import SampledToken, StepPlan, StepResult

EOS = 0
_VOCABULARY = 1 << 16


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """What one simulated engine has."""

    kv_cache_tokens: int = 65_536
    context_length: int = 8_192
    block_size: int = 32
    max_num_sequences: int = 64
    max_batch_tokens: int = 512
    target_step_seconds: float = 0.25
    restart_seconds: float = 5.0  # from a death until its next process takes requests

    def config(self) -> EngineConfig:
        return EngineConfig(
            model="simulated",
            engines=1,
            max_num_sequences=self.max_num_sequences,
            max_batch_tokens=self.max_batch_tokens,
            target_step_seconds=self.target_step_seconds,
            memory_bytes=1,
            speculation="off",  # tokens that come from their position are no text
        )


class ModelledRunner:
    """A Runner that takes simulated time, and whose tokens come from their position.

    A request's seed says how many tokens its answer has, the end-of-sequence token included, which neither the
    scheduler nor the admission knows; 0: until its limit.
    """

    vocab_size = _VOCABULARY
    eos_token_ids: tuple[int, ...] = (EOS,)

    def __init__(self, sizes: EngineSizes, model: StepModel, clock: Clock) -> None:
        self.block_size = sizes.block_size
        self.num_blocks = sizes.kv_cache_tokens // sizes.block_size
        self.context_length = sizes.context_length
        self._model = model
        self._clock = clock
        self.found: dict[int, int] = {}  # tokens of each sequence that were in the prefix cache when it began

    def execute(self, plan: StepPlan) -> StepResult:
        tokens = pairs = 0
        sampled: list[SampledToken] = []
        for sequence in plan.sequences:
            count, before = len(sequence.token_ids), sequence.num_computed_tokens
            self.found.setdefault(sequence.sequence_id, before)
            tokens += count
            pairs += count * before + count * (count + 1) // 2
            for spec in sequence.samples:
                length, position = spec.sampling.seed, spec.position
                token_id = EOS if length and position >= length - 1 else 1 + (position * 7919 + length) % 50_000
                sampled.append(SampledToken(sequence.sequence_id, token_id))
        self._clock.ahead += self._model.seconds(tokens, len(sampled), pairs)
        return StepResult(sampled)

    def device_memory(self) -> None:
        """There is none but the machine's."""

    def describe(self) -> dict[str, str | int | float]:
        return {"runner": "modelled"}

    def close(self) -> None: ...


class _Mailbox:
    """The engine's end of a connection that exists in memory only."""

    def __init__(self) -> None:
        self.inbox: list[ToEngine] = []
        self.outbox: list[FromEngine] = []

    def send(self, message: Message) -> None:
        self.outbox.append(cast(FromEngine, message))

    def receive(self, *, wait: bool, or_until: object = None) -> Iterator[ToEngine]:
        received, self.inbox = self.inbox, []
        yield from received


class _NoProgress:
    """Nobody looks whether a simulated engine hangs."""

    def __init__(self) -> None:
        self.working_on: tuple[str, ...] = ()

    def bump(self) -> None: ...

    def work_on(self, request_ids: Iterable[str]) -> None:
        self.working_on = tuple(request_ids) or self.working_on


@dataclass(slots=True)
class FrontCosts:
    """Real processor time of this machine, in seconds, for what the front computes between clients and engines."""

    decisions: list[float] = field(default_factory=list)  # of each request: accept or refuse it, and choose an engine
    early: float = 0.0  # of the early check of the request that is decided next
    reports: float = 0.0  # of all steps' reports: events counted and delivered to the streams
    num_tokens: int = 0
    engines: float = 0.0  # of all engines' loops: scheduling, without the model
    num_steps: int = 0

    def figures(self) -> dict[str, float]:
        """Seconds of processor time: of a decision, of delivering a token, of scheduling a step."""
        decisions = sorted(self.decisions)
        return {
            "decision_mean": sum(decisions) / len(decisions),
            "decision_p50": decisions[len(decisions) // 2],
            "decision_p99": decisions[int(0.99 * len(decisions))],
            "token": self.reports / self.num_tokens,
            "step": self.engines / self.num_steps,
        }


class SimulatedEngine:
    """A supervisor whose process is an `EngineLoop` in this one; see `Supervising`."""

    def __init__(
        self,
        owner: EngineHandle,
        config: EngineConfig,
        sizes: EngineSizes,
        model: StepModel,
        clock: Clock,
        costs: FrontCosts,
    ) -> None:
        self.pid: int | None = None
        self.runner = ModelledRunner(sizes, model, clock)
        self.given: dict[str, int] = {}  # the number of each request, in the order in which the process got them
        self._owner = owner
        self._config = config
        self._sizes = sizes
        self._clock = clock
        self._costs = costs
        self._mailbox = _Mailbox()
        self._progress = _NoProgress()
        self._engine: EngineLoop | None = None
        self._is_stepping = False
        self._timer: asyncio.Handle | None = None

    @property
    def num_requests(self) -> int:
        return len(self._owner.requests)

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_soon(self._become_ready)

    def send(self, message: Message) -> None:
        if isinstance(message, AddRequest):  # the front's list grows with each token
            known = list(message.request.output_token_ids)
            message = AddRequest(replace(message.request, output_token_ids=known))
            self.given[message.request.request_id] = len(self.given)
        self._mailbox.inbox.append(cast(ToEngine, message))
        if not self._is_stepping:
            self._is_stepping = True
            self._timer = asyncio.get_running_loop().call_soon(self._step)

    def die(self) -> list[Unfinished]:
        """Lose everything, as after SIGKILL, and start again later; returns the requests that it had."""
        lost = list(self._owner.requests.values())
        working_on = frozenset(self._progress.working_on)
        self._end()
        self._owner.engine_died(EngineDeath("it was killed", "it was killed", working_on))
        self._timer = asyncio.get_running_loop().call_later(self._sizes.restart_seconds, self._become_ready)
        return lost

    def replace_process(self) -> None:
        self.die()

    async def stop(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._engine, self._is_stepping = None, False
        self.given.clear()
        self.runner.found.clear()
        self._mailbox.inbox.clear()
        self._mailbox.outbox.clear()

    def _become_ready(self) -> None:
        self._engine = EngineLoop(self._config, self.runner, cast(Connection, self._mailbox), self._progress)
        sizes = self._sizes
        length = min(sizes.context_length, sizes.kv_cache_tokens)
        ready = Ready(self.runner.describe(), self.runner.num_blocks, sizes.block_size, _VOCABULARY, length)
        self._owner.engine_said(ready)

    def _step(self) -> None:
        """Compute one step ahead of the clock; its report comes when the clock is there."""
        assert self._engine is not None
        self._clock.ahead = 0.0
        began = time.thread_time()
        self._engine.step()
        self._costs.engines += time.thread_time() - began
        self._costs.num_steps += 1
        seconds, self._clock.ahead = self._clock.ahead, 0.0
        self._timer = asyncio.get_running_loop().call_later(seconds, self._report)

    def _report(self) -> None:
        (report,), self._mailbox.outbox = self._mailbox.outbox, []
        assert isinstance(report, StepReport)
        began = time.thread_time()
        self._owner.engine_said(report)
        self._costs.reports += time.thread_time() - began
        self._costs.num_tokens += len(report.events)
        self._is_stepping = bool(self._mailbox.inbox or report.stats.running or report.stats.waiting)
        if self._is_stepping:
            self._step()


class SimulatedClient(EngineClient):
    """The front's client, with simulated engines."""

    def __init__(self, clock: Clock, model: StepModel, sizes: EngineSizes, settings: ServerConfig) -> None:
        self.clock = clock
        self.costs = FrontCosts()
        self.processes: dict[int, SimulatedEngine] = {}  # by the id of the engine
        self._model = model
        self._sizes = sizes
        super().__init__(sizes.config(), settings, free_memory=lambda: 1 << 60)

    def _supervise(self, config: EngineConfig, vocabulary: Vocabulary | None, engine: EngineHandle) -> SimulatedEngine:
        process = SimulatedEngine(engine, config, self._sizes, self._model, self.clock, self.costs)
        self.processes[engine.id] = process
        return process

    def num_found(self, wire_id: str) -> int | None:
        """Tokens of a request that the engine which got it last found in its prefix cache; None: it has not begun."""
        found = (
            each.runner.found.get(each.given[wire_id]) for each in self.processes.values() if wire_id in each.given
        )
        return next(found, None)

    async def start_engines(self, count: int) -> None:
        """Start so many engines, and wait until all of them take requests."""
        await self.start()
        await self.wait_ready()
        for _ in range(count - 1):
            await self.operations.add_engine()

    def check_early(self, arrival: Arrival, terms: Terms) -> None:
        began = time.thread_time()
        try:
            super().check_early(arrival, terms)
        finally:
            self.costs.early += time.thread_time() - began

    def generate_all(
        self,
        requests: Sequence[GenerateRequest],
        terms: Terms = NO_TERMS,
        *,
        generation: int | None = None,
    ) -> list[TokenStream]:
        began = time.thread_time()
        try:
            return super().generate_all(requests, terms, generation=generation)
        finally:
            self.costs.decisions.append(time.thread_time() - began + self.costs.early)
            self.costs.early = 0.0
