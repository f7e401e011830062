"""The engine's main loop: take messages from the front, schedule, execute and report, again and again.

Owns the scheduler, the block pool and the order of work within a step. The runner computes, and the connection
transports the messages. There is one report per step. An abort takes effect before the next step. With a runner that
looks ahead, the next step is planned and submitted while one runs, where that can be foreseen. Whenever the loop
becomes idle, it checks that no block or sequence is lost. Progress is recorded for each request that is taken and each
step that is computed, together with the requests that are being worked on. Errors are not caught here: if the engine
cannot trust its state, it exits, and the front starts another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from antiphon.config import EngineConfig
from antiphon.engine.budget import StepBudget
from antiphon.engine.wire import (
    Abort,
    AddRequest,
    Connection,
    EngineStats,
    Ready,
    ServedElsewhere,
    Shutdown,
    StepReport,
    ToEngine,
)
from antiphon.engine.worker.blocks import BlockPool
from antiphon.engine.worker.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.worker.speculation import Speculation, SpeculationCounts
from antiphon.engine.worker.versions import library_versions
from antiphon.request import GenerateRequest, RequestProgress
from antiphon.step import AheadRunner, DeviceMemory, Runner, StepByStep, StepPlan, StepResult

if TYPE_CHECKING:
    from antiphon.engine.worker.compilation import Compilation
    from antiphon.grammar.matcher import Matcher

_QUEUE_REPORTS_EVERY = 0.25  # seconds
_DEVICE_MEMORY_EVERY = 1.0  # seconds; asking a driver in every step would cost time


class LoopProgress(Protocol):
    """Records what the loop does; `progress.Progress` in an engine."""

    def bump(self) -> None: ...

    def work_on(self, request_ids: Iterable[str]) -> None: ...


class EngineLoop:
    """Serves one front with one runner, until it gets a Shutdown."""

    def __init__(
        self,
        config: EngineConfig,
        runner: Runner,
        connection: Connection,
        progress: LoopProgress,
        compilation: Compilation | None = None,
    ) -> None:
        """`compilation`: compiles grammars to matchers; without it, requests with a grammar are refused."""
        self._runner = runner
        self._connection = connection
        self._progress = progress
        self._compilation = compilation
        self._pool = BlockPool(runner.num_blocks, runner.block_size, prefix_caching=config.prefix_caching)
        self._budget = StepBudget(config.max_batch_tokens, config.target_step_seconds)
        self._limits = _limits(config, runner)
        drafts = config.speculation == "auto" and (not config.fake or config.fake_settings.drafts)
        self._speculation = Speculation(config.max_batch_tokens) if drafts else None
        self._steps: AheadRunner = runner if isinstance(runner, AheadRunner) else StepByStep(runner)
        self._scheduler = Scheduler(
            self._pool, self._budget, self._limits, self._speculation, self._steps.may_be_pending
        )
        self._submitted: StepPlan | None = None  # while the step before it was running
        self._step_began = 0.0  # time.perf_counter()
        self._step_number = 0
        self._step_seconds = 0.0
        self._cycle_seconds = 0.0
        self._busy_seconds = 0.0  # of all steps
        self._cycle_began = time.perf_counter()  # when the last step ended, or the first message came after idling
        self._queue_report_at = 0.0  # time.monotonic() of the next one
        self._device_memory = DeviceMemory(0, 0)
        self._device_memory_at = 0.0  # time.monotonic() of the next reading
        self._running = True

    def run(self) -> None:
        """Announce what is served, then step until Shutdown. Raises EOFError when the front has gone."""
        self._connection.send(self._announcement())
        while self._running:
            self.step()

    def step(self) -> None:
        """Take messages (waiting for one if there is nothing to do), finish one step and report it.

        The step was submitted now or, while the one before it ran, by the last call.
        """
        self._take_messages()
        if self._submitted:
            self._work_on(self._scheduler.planned)  # as before the messages were taken
        plan, begun, self._submitted = self._submitted or self._schedule(), self._scheduler.begun, None
        if self._steps.looks_ahead and (ahead := self._scheduler.schedule_ahead(plan)):
            self._steps.submit(ahead)
            self._submitted, self._scheduler.begun = ahead, []
        result = self._collect(plan)
        events = self._scheduler.update(plan, result)
        self._work_on(self._scheduler.planned if self._submitted else ())
        self._connection.send(StepReport(events, self._stats(plan), begun, self._request_progress()))

    def _schedule(self) -> StepPlan:
        """Plan a step and submit it, when none is running."""
        plan = self._scheduler.schedule()
        self._work_on(self._scheduler.planned)
        if plan.sequences:
            self._step_began = time.perf_counter()
            self._steps.submit(plan)
        return plan

    def _take_messages(self) -> None:
        idle = not self._scheduler.has_work and not self._submitted
        if idle:
            self._scheduler.check()
        for message in self._connection.receive(wait=idle, or_until=self._compilation):
            if idle:
                self._cycle_began, idle = time.perf_counter(), False
            self._take(message)
        if idle:  # a grammar has been compiled
            self._cycle_began = time.perf_counter()
        self._take_compiled()

    def _take(self, message: ToEngine) -> None:
        match message:
            case AddRequest(request) if request.sampling.grammar is None:
                self._add(request)
            case AddRequest(request):
                self._compile(request)
            case Abort(request_id):
                # The front has ended the request already, so nothing is reported if it is still being compiled.
                if self._compilation:
                    self._compilation.drop(request_id)
                self._scheduler.abort(request_id)
            case ServedElsewhere(clients):
                self._scheduler.charge_elsewhere(clients)
            case Shutdown():
                self._running = False
            case _:
                raise AssertionError(f"a running engine cannot get a {type(message).__name__}")

    def _add(self, request: GenerateRequest, matcher: Matcher | None = None) -> None:
        """Give a request to the scheduler. If an earlier engine began it, many tokens may have to be replayed."""
        self._work_on((request.request_id,))
        self._scheduler.add(request, matcher, self._progress.bump)
        self._work_on(())
        self._progress.bump()

    def _compile(self, request: GenerateRequest) -> None:
        if self._compilation:
            self._compilation.add(request)
        else:
            self._scheduler.refuse(request.request_id, "This engine has no vocabulary, so it cannot match grammars.")

    def _take_compiled(self) -> None:
        """Add the requests whose grammars have been compiled, as if they arrived now."""
        for request, matcher in self._compilation.take_ready() if self._compilation else ():
            if isinstance(matcher, str):
                self._scheduler.refuse(request.request_id, matcher)
            else:
                self._add(request, matcher)

    def _work_on(self, request_ids: Iterable[str]) -> None:
        """Record what may kill the engine now: these requests, and those whose grammars are being compiled."""
        compiling = self._compilation.request_ids if self._compilation else ()
        self._progress.work_on((*request_ids, *compiling))

    def _collect(self, plan: StepPlan) -> StepResult:
        """Wait for a step, and measure how long it took, from its beginning or the end of the one before it."""
        if not plan.sequences:
            return StepResult()
        result = self._steps.collect()
        ended = time.perf_counter()
        self._step_seconds, self._cycle_seconds = ended - self._step_began, ended - self._cycle_began
        self._busy_seconds += self._step_seconds
        self._cycle_began = self._step_began = ended
        self._step_number += 1
        self._learn(plan)
        self._progress.bump()
        return result

    def _learn(self, plan: StepPlan) -> None:
        """Learn what the step cost."""
        if self._speculation:
            self._speculation.observe_step(plan.num_tokens, self._cycle_seconds)
        if not (self._speculation and self._speculation.is_drafting):  # those rows cost less than a prompt's
            self._budget.observe(plan.num_tokens, self._step_seconds)

    def _request_progress(self) -> list[RequestProgress]:
        """The progress of the requests that report it: of prompts after each step, of the queue less often."""
        now, progress = time.monotonic(), self._scheduler.prompt_progress
        if now < self._queue_report_at:
            return progress
        self._queue_report_at = now + _QUEUE_REPORTS_EVERY
        return [*self._scheduler.queue_progress(), *progress]

    def _announcement(self) -> Ready:
        return Ready(
            runner=self._runner.describe(),
            num_blocks=self._runner.num_blocks,
            block_size=self._runner.block_size,
            vocab_size=self._runner.vocab_size,
            context_length=self._limits.context_length,
            versions=library_versions(),
            device_memory=self._runner.device_memory(),
        )

    def _read_device_memory(self) -> DeviceMemory:
        """The memory of the runner's GPU, at most a second old; zero without one."""
        if (now := time.monotonic()) >= self._device_memory_at:
            self._device_memory_at = now + _DEVICE_MEMORY_EVERY
            self._device_memory = self._runner.device_memory() or self._device_memory
        return self._device_memory

    def _stats(self, plan: StepPlan) -> EngineStats:
        counts = self._scheduler.counts
        drafts = self._speculation.counts if self._speculation else SpeculationCounts()
        memory = self._read_device_memory()
        return EngineStats(
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting,
            blocks_free=self._pool.num_free,
            blocks_cached=self._pool.num_cached,
            blocks_in_use=self._pool.num_in_use,
            blocks_total=self._pool.num_blocks,
            step=self._step_number,
            step_seconds=self._step_seconds,
            cycle_seconds=self._cycle_seconds,
            busy_seconds=self._busy_seconds,
            step_tokens=plan.num_tokens,
            num_computed_tokens=counts.num_computed_tokens,
            num_prefix_queries=self._scheduler.prefix.num_queries,
            num_prefix_hits=self._scheduler.prefix.num_hits,
            num_preemptions=counts.num_preemptions,
            num_drafted_tokens=drafts.num_drafted_tokens,
            num_accepted_tokens=drafts.num_accepted_tokens,
            device_used_bytes=memory.used,
            device_total_bytes=memory.total,
            draft_saved_seconds=drafts.saved_seconds,
            draft_spent_seconds=drafts.spent_seconds,
        )


def _limits(config: EngineConfig, runner: Runner) -> SchedulerLimits:
    """The scheduler's limits. A sequence may be as long as the model, the setting and the pool allow."""
    pool_tokens = runner.num_blocks * runner.block_size
    context_length = min(runner.context_length, config.context_length or runner.context_length, pool_tokens)
    return SchedulerLimits(
        max_num_sequences=config.max_num_sequences,
        max_batch_tokens=config.max_batch_tokens,
        prefill_chunk=config.prefill_chunk,
        context_length=context_length,
        eos_token_ids=runner.eos_token_ids,
    )
