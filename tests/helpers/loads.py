"""Helpers of the engine's tests: requests, a fake engine without a process, and the answers that no load may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from grammars import matcher_of

from antiphon.config import EngineConfig, FakeSettings
from antiphon.engine.budget import StepBudget
from antiphon.engine.worker.accuracy import Draft
from antiphon.engine.worker.blocks import BlockPool
from antiphon.engine.worker.drafting import Drafting
from antiphon.engine.worker.drafts import Guess, Memory
from antiphon.engine.worker.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.worker.sequence import Sequence as Generated
from antiphon.engine.worker.speculation import Speculation
from antiphon.engine.worker.turns import FLEX_STEPS
from antiphon.grammar.matcher import Matcher
from antiphon.request import FinishReason, GenerateRequest, SamplingParams, ServiceTier, TokenEvent
from antiphon.runtime.fake import AheadFakeRunner, fake_token
from antiphon.step import StepPlan


@dataclass(frozen=True)
class Answer:
    """What a request must get, whatever else goes on."""

    token_ids: list[int]
    finish_reason: FinishReason


def expected_answer(request: GenerateRequest, settings: FakeSettings, context_length: int) -> Answer:
    """The answer by definition: no batch, no blocks, no cache; the tokens are those still to be sent."""
    eos = (settings.eos_token_id,) if settings.eos_token_id >= 0 else ()
    sequence = Generated(0, request, _matcher(request))
    while not (reason := sequence.finish_reason(eos, context_length)):
        if settings.fail_on in sequence.token_ids:
            reason = FinishReason.ERROR
            break
        assert sequence.look_ahead() is None
        spec = sequence.sample_specs(sequence.num_tokens, eos)[-1]
        sequence.take(fake_token(sequence.token_ids, spec, settings))
    return Answer(sequence.token_ids[len(request.prompt_token_ids) + len(request.output_token_ids) :], reason)


@dataclass
class Answers:
    """Collects events as a client would, and insists on their grammar: tokens, then exactly one end."""

    events: list[TokenEvent] = field(default_factory=list)
    token_ids: dict[str, list[int]] = field(default_factory=dict)
    ends: dict[str, TokenEvent] = field(default_factory=dict)

    def take(self, event: TokenEvent) -> None:
        assert event.request_id not in self.ends, "an event after the last"
        self.events.append(event)
        if event.token_id is not None:
            self.token_ids.setdefault(event.request_id, []).append(event.token_id)
        if event.finish_reason:
            self.ends[event.request_id] = event

    def of(self, request_id: str) -> Answer:
        reason = self.ends[request_id].finish_reason
        assert reason
        return Answer(self.token_ids.get(request_id, []), reason)


class EngineInMemory:
    """A scheduler and a fake runner, stepped by the test, with every step's invariants checked."""

    def __init__(
        self,
        *,
        flex_steps: int = FLEX_STEPS,
        speculation: Callable[[EngineInMemory], Speculation] | None = None,
        **settings: object,
    ) -> None:
        """`speculation` makes the drafts; without, there are none."""
        self.config = config = fake_config(**settings)
        self.runner = AheadFakeRunner(config)
        self.submitted: StepPlan | None = None  # ahead of the last step
        self.num_ahead = 0
        self.context_length = min(self.runner.context_length, self.runner.num_blocks * self.runner.block_size)
        self.pool = BlockPool(self.runner.num_blocks, self.runner.block_size, prefix_caching=config.prefix_caching)
        self.budget = StepBudget(config.max_batch_tokens, config.target_step_seconds)
        self.scheduler = Scheduler(
            self.pool,
            self.budget,
            SchedulerLimits(
                max_num_sequences=config.max_num_sequences,
                max_batch_tokens=config.max_batch_tokens,
                prefill_chunk=config.prefill_chunk,
                context_length=self.context_length,
                eos_token_ids=self.runner.eos_token_ids,
                flex_steps=flex_steps,
            ),
            speculation(self) if speculation else None,
            self.runner.may_be_pending,
        )
        self.answers = Answers()
        self.plans: list[StepPlan] = []
        self.finished: set[int] = set()  # sequences that the runner was told to forget

    def step(self) -> StepPlan:
        plan, self.submitted = self.submitted or self._submit(self.scheduler.schedule()), None
        if self.config.fake_settings.looks_ahead and (ahead := self.scheduler.schedule_ahead(plan)):
            self.submitted = self._submit(ahead)
            self.num_ahead += 1
        for event in self.scheduler.update(plan, self.runner.collect()):
            self.answers.take(event)
        self.scheduler.check()
        self.plans.append(plan)
        return plan

    def _submit(self, plan: StepPlan) -> StepPlan:
        self._check_plan(plan)
        self.runner.submit(plan)
        return plan

    def run(self, *requests: GenerateRequest) -> Answers:
        """Add requests and step until nothing is left."""
        for request in requests:
            self.scheduler.add(request, _matcher(request))
        while self.scheduler.has_work or self.submitted:
            assert self.step().sequences or not self.scheduler.has_work, "work, but nothing scheduled"
        assert self.pool.num_in_use == 0, "idle, but blocks are in use"
        return self.answers

    def expected(self, request: GenerateRequest) -> Answer:
        return expected_answer(request, self.config.fake_settings, self.context_length)

    def _check_plan(self, plan: StepPlan) -> None:
        assert plan.num_tokens <= self.config.max_batch_tokens
        assert len(plan.sequences) <= self.config.max_num_sequences
        if chunk := self.config.prefill_chunk:
            assert all(len(entry.token_ids) <= chunk for entry in plan.sequences if len(entry.samples) < 2)
        assert self.finished.isdisjoint(plan.finished_sequence_ids), "a sequence finishes twice"
        self.finished.update(plan.finished_sequence_ids)
        assert self.finished.isdisjoint(entry.sequence_id for entry in plan.sequences), "a finished sequence goes on"


class Oracle(Memory):
    """Guesses what will come, and a wrong token now and then."""

    def __init__(self, engine: EngineInMemory, random: Random) -> None:
        super().__init__()
        self._engine = engine
        self._random = random
        self._texts: dict[int, list[int]] = {}

    def guess(self, sequence_id: int, salt: str, token_ids: Sequence[int]) -> Guess:
        if sequence_id not in self._texts:
            sequences = self._engine.scheduler._sequences.values()
            request = next(sequence.request for sequence in sequences if sequence.sequence_id == sequence_id)
            known = [*request.prompt_token_ids, *request.output_token_ids]
            self._texts[sequence_id] = known + self._engine.expected(request).token_ids
        right = self._texts[sequence_id][len(token_ids) :]
        return Guess(4, (token if self._random.random() < 0.8 else token ^ 1 for token in right))


class RandomLengths(Drafting):
    """Verifies any part of any draft."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def may_pay(self, num_sequences: int) -> bool:
        return True

    def lengths(self, drafts: Sequence[Draft], num_sequences: int, max_rows: int) -> list[int]:
        left = max_rows - num_sequences
        lengths = []
        for draft in drafts:
            lengths.append(self._random.randint(0, min(left, len(draft.is_decided))))
            left -= lengths[-1]
        return lengths


def oracle_drafts(seed: int) -> Callable[[EngineInMemory], Speculation]:
    """Drafts that are mostly right, of any lengths."""
    random = Random(seed)  # noqa: S311  # a test's
    return lambda engine: Speculation(engine.config.max_batch_tokens, Oracle(engine, random), RandomLengths(random))


def _matcher(request: GenerateRequest) -> Matcher | None:
    grammar = request.sampling.grammar
    return matcher_of(grammar) if grammar else None


def fake_config(**settings: object) -> EngineConfig:
    """An EngineConfig for the fake runner; whatever FakeSettings has a name for goes there."""
    fake = {name: settings.pop(name) for name in list(settings) if name in FakeSettings.__dataclass_fields__}
    return EngineConfig(model="fake", fake=True, fake_settings=FakeSettings(**fake), **settings)  # type: ignore[arg-type]


def ask(
    request_id: str,
    prompt: list[int],
    *,
    sent: list[int] | None = None,
    priority: int = 0,
    cache_salt: str = "",
    client: str = "",
    weight: int = 1,
    tier: ServiceTier = ServiceTier.DEFAULT,
    **sampling: object,
) -> GenerateRequest:
    """A request, greedy unless told otherwise."""
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": 8, **sampling})  # type: ignore[arg-type]
    return GenerateRequest(
        request_id,
        prompt,
        params,
        priority=priority,
        service_tier=tier,
        fairness_id=client,
        fairness_weight=weight,
        cache_salt=cache_salt,
        output_token_ids=sent or [],
    )
