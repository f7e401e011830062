"""A real model's tokens and log-probabilities are the same bits with drafts and without, whatever the sampling."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from loads import RandomLengths
from tiny_models import cpu_runner, tiny_model

from antiphon.engine.budget import StepBudget
from antiphon.engine.worker.blocks import BlockPool
from antiphon.engine.worker.drafts import Guess, Memory
from antiphon.engine.worker.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.worker.speculation import Speculation
from antiphon.request import GenerateRequest, SamplingParams, TokenEvent
from antiphon.runtime.cpu import CpuRunner

Texts = dict[int, list[int]]


class Mostly(Memory):
    """Guesses what was said without drafts, and a wrong token now and then."""

    def __init__(self, texts: Texts, random: Random) -> None:
        super().__init__()
        self._texts = texts
        self._random = random

    def guess(self, sequence_id: int, salt: str, token_ids: Sequence[int]) -> Guess:
        right = self._texts[sequence_id][len(token_ids) :]
        return Guess(4, (token if self._random.random() < 0.8 else token ^ 1 for token in right))


def answers(
    runner: CpuRunner, requests: list[GenerateRequest], speculation: Speculation | None
) -> tuple[list[list[TokenEvent]], int]:
    """Each request's events, and the number of steps."""
    pool = BlockPool(runner.num_blocks, runner.block_size, prefix_caching=False)
    limits = SchedulerLimits(8, 160, 0, runner.context_length, runner.eos_token_ids)
    scheduler = Scheduler(pool, StepBudget(160, 0.0), limits, speculation)
    events: dict[str, list[TokenEvent]] = {request.request_id: [] for request in requests}
    for request in requests:
        scheduler.add(request)
    steps = 0
    while scheduler.has_work:
        plan = scheduler.schedule()
        for event in scheduler.update(plan, runner.execute(plan)):
            events[event.request_id].append(event)
        steps += 1
    return list(events.values()), steps


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(
    "penalties",
    [{}, {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2}],
    ids=["plain", "penalties"],
)
def test_the_same_bits_with_drafts_and_without(temperature, penalties):
    runner = cpu_runner(tiny_model())
    sampling = [
        SamplingParams(
            max_tokens=30, temperature=temperature, seed=n, num_logprobs=3, ignore_eos=True, top_k=20, **penalties
        )
        for n in range(3)
    ]
    requests = [GenerateRequest(f"r{n}", [5 + n, 6, 7, 8], each) for n, each in enumerate(sampling)]
    plain, num_plain = answers(runner, requests, None)
    texts = {
        n: [*request.prompt_token_ids, *(event.token_id for event in plain[n] if event.token_id is not None)]
        for n, request in enumerate(requests)
    }
    random = Random(1)  # noqa: S311  # a test's
    speculation = Speculation(160, Mostly(texts, random), RandomLengths(random))
    drafted, num_drafted = answers(cpu_runner(tiny_model()), requests, speculation)
    said = [[[(event.token_id, event.logprobs) for event in each] for each in side] for side in (plain, drafted)]
    assert said[0] == said[1]
    assert num_drafted < num_plain
    told = [(event.num_drafted_tokens, event.num_accepted_tokens) for each in drafted for event in each]
    counts = speculation.counts
    assert sum(drafted for drafted, _ in told) == counts.num_drafted_tokens > 0
    assert sum(accepted for _, accepted in told) == counts.num_accepted_tokens > 0
