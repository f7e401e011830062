"""How sequences sample is registered once: counts of known tokens grow with the sequence and give the same draws."""

from dataclasses import replace

import numpy as np
from logit_rows import LogitRows
from tiny_models import cpu_runner, scheduled, tiny_model

from antiphon.engine.worker.sequence import Sequence
from antiphon.ops.native_sampling import Samplings
from antiphon.ops.reference_sampler import sample_reference
from antiphon.request import GenerateRequest, SamplingParams
from antiphon.step import SampleSpec, StepPlan

PENALTIES = SamplingParams(
    temperature=0.8, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2, num_logprobs=3
)


class WatchedList(list[int]):
    """Counts the items that anybody reads out of it."""

    num_read = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        if isinstance(key, slice):
            self.num_read += len(found)
        return found

    def __iter__(self):
        self.num_read += len(self)
        return super().__iter__()


def test_a_step_reads_only_the_tokens_that_are_new() -> None:
    samplings, history = Samplings(), WatchedList(range(1000))
    for step in range(5):
        samplings.request(7, SampleSpec(PENALTIES, 0, step, history=history, num_prompt_tokens=900))
        history.append(step)
    assert history.num_read == 1000 + 4
    assert len(samplings) == 1


def test_counts_that_grow_are_those_of_the_whole_history() -> None:
    rng = np.random.default_rng(2)
    known = rng.integers(0, 40, 300).tolist()
    samplings, history = Samplings(), known[:100]
    while True:
        samplings.request(0, SampleSpec(PENALTIES, 0, 0, history=history, num_prompt_tokens=150))
        if len(history) == 300:
            break
        history += known[len(history) : len(history) + 1 + len(history) % 7]
    counted = samplings._registered[0].native.token_counts
    assert counted == {token: known[150:].count(token) for token in set(known)}


def test_growing_histories_draw_what_the_reference_draws(instruction_set: str) -> None:
    rng = np.random.default_rng(3)
    rows = LogitRows((2 * rng.standard_normal((3, 200))).astype(np.float32), instruction_set)
    histories = [rng.integers(0, 200, 20).tolist() for _ in range(3)]
    params = [replace(PENALTIES, seed=seed) for seed in range(3)]
    for step in range(40):
        specs = [
            SampleSpec(params[row], 0, step, history=history, num_prompt_tokens=15)
            for row, history in enumerate(histories)
        ]
        for row, drawn in enumerate(rows.draw(list(enumerate(specs)))):
            assert drawn.token_id == sample_reference(rows.logits[row], specs[row]).token_id
            histories[row].append(drawn.token_id)


def test_drafted_tokens_count_as_if_they_were_known_and_are_forgotten(instruction_set: str) -> None:
    """Each draw after a draft is that of the longer history, and the sequence's own counts stay what they were."""
    rng = np.random.default_rng(4)
    rows = LogitRows((2 * rng.standard_normal((6, 60))).astype(np.float32), instruction_set)
    history, drafted = rng.integers(0, 60, 40).tolist(), rng.integers(0, 60, 5).tolist()
    for num_prompt_tokens in (30, 40):
        specs = [
            SampleSpec(PENALTIES, 0, n, history=history, num_prompt_tokens=num_prompt_tokens, drafted=drafted[:n])
            for n in range(6)
        ]
        known = [replace(spec, history=[*history, *drafted[:n]], drafted=()) for n, spec in enumerate(specs)]
        for _ in range(2):  # the second time as the first
            drawn = rows.draw(list(enumerate(specs)))
            assert [each.token_id for each in drawn] == [
                sample_reference(rows.logits[n], spec).token_id for n, spec in enumerate(specs)
            ]
        for n, spec in enumerate(known):
            alone = rows.draw([(n, spec)])[0]
            assert (alone.token_id, alone.logprobs) == (drawn[n].token_id, drawn[n].logprobs)


def test_a_bias_of_one_step_replaces_the_sequences_own(instruction_set: str) -> None:
    rows = LogitRows(np.zeros((1, 100), np.float32), instruction_set)
    sampling = SamplingParams(temperature=0.0, logit_bias={5: 30.0, 6: 20.0})
    for bias, expected in (({}, 5), ({5: -30.0}, 6), ({5: 10.0, 9: 25.0}, 9), ({}, 5)):
        spec = SampleSpec(sampling, 0, 0, step_logit_bias=bias)
        assert rows.draw([(0, spec)])[0].token_id == expected == sample_reference(rows.logits[0], spec).token_id


def test_finished_sequences_are_forgotten_and_others_stay() -> None:
    runner = cpu_runner(tiny_model())
    specs = [SampleSpec(replace(PENALTIES, seed=id), 0, 0, history=[1, 2], num_prompt_tokens=1) for id in range(3)]
    runner.execute(StepPlan([scheduled([1], [id], id=id, sample=spec) for id, spec in enumerate(specs)]))
    assert len(runner._samplings) == 3
    runner.execute(StepPlan([scheduled([2], [1], id=1, start=1, sample=specs[1])], finished_sequence_ids=[0, 2, 99]))
    assert len(runner._samplings) == 1


def test_scoring_and_then_sampling_are_registered_one_after_the_other() -> None:
    """The scored tokens of a prompt are drawn by other rules than the answer after them."""
    request = GenerateRequest("a", [1, 2, 3], PENALTIES, num_scored_tokens=1)
    sequence, samplings = Sequence(0, request), Samplings()
    scoring, drawing = sequence.sample_specs(3, ())
    samplings.request(0, scoring)
    assert samplings._registered[0].native.token_counts == {}
    samplings.request(0, drawing)
    assert samplings._registered[0].native.token_counts == {1: 0, 2: 0, 3: 0}
