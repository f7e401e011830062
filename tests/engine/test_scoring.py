"""Prompts that are scored: an event for each token, then the answer that would have come without."""

from __future__ import annotations

from dataclasses import replace

import pytest
from loads import EngineInMemory, ask

from antiphon.engine.worker.sequence import Sequence
from antiphon.request import FinishReason, GenerateRequest

PROMPT = [*range(40, 60)]


def scored(request_id: str, prompt: list[int], num_scored: int | None = None, **sampling: object) -> GenerateRequest:
    request = ask(request_id, prompt, num_logprobs=2, **sampling)
    return replace(request, num_scored_tokens=len(prompt) - 1 if num_scored is None else num_scored)


@pytest.mark.parametrize("load", [{}, {"prefill_chunk": 3}, {"kv_cache_tokens": 32}, {"block_size": 1}], ids=str)
def test_scores_come_first_and_change_nothing_of_the_answer(load):
    engine = EngineInMemory(**({"block_size": 4} | load))
    fields = {"temperature": 0.6, "seed": 3, "repetition_penalty": 1.1, "max_tokens": 6}
    plain = ask("plain", PROMPT, **fields)
    answers = engine.run(scored("a", PROMPT, **fields), scored("b", PROMPT[:7], **fields), plain)
    for request_id, prompt in (("a", PROMPT), ("b", PROMPT[:7])):
        events = [event for event in answers.events if event.request_id == request_id]
        about_prompt = [event for event in events if event.is_prompt]
        assert events[: len(about_prompt)] == about_prompt
        assert all(event.token_id is None and len(event.logprobs.top_logprobs) == 2 for event in about_prompt)
        assert len(about_prompt) == len(prompt) - 1
        assert answers.of(request_id) == engine.expected(ask("x", prompt, **fields))
    assert answers.of("plain") == engine.expected(plain)


def test_a_prompt_is_scored_while_it_is_computed():
    """In as many steps as it takes without scores, and not once more after a preemption."""
    engine = EngineInMemory(block_size=4, prefill_chunk=8)
    engine.run(scored("a", PROMPT, max_tokens=2))
    assert [len(plan.sequences[0].token_ids) for plan in engine.plans] == [8, 8, 4, 1]
    assert [len(plan.sequences[0].samples) for plan in engine.plans] == [8, 8, 4, 1]


def test_only_what_comes_before_the_first_score_is_found_in_the_prefix_cache():
    engine = EngineInMemory(block_size=4)
    engine.run(ask("first", PROMPT, max_tokens=1))
    engine.run(scored("again", PROMPT, num_scored=10, max_tokens=1))
    again = [plan.sequences[0] for plan in engine.plans if len(plan.sequences[0].samples) > 1]
    assert [entry.num_computed_tokens for entry in again] == [8]  # two blocks: the third has the row before a score


def test_nothing_but_scores():
    engine = EngineInMemory(block_size=4)
    answers = engine.run(scored("a", PROMPT, max_tokens=0), scored("one", [7], max_tokens=0))
    for request_id, count in (("a", len(PROMPT) - 1), ("one", 0)):
        events = [event for event in answers.events if event.request_id == request_id]
        assert sum(event.is_prompt for event in events) == count
        assert answers.of(request_id).token_ids == []
        assert answers.of(request_id).finish_reason is FinishReason.LENGTH


def test_a_token_is_decided_whatever_the_request_forbids():
    request = scored("a", PROMPT, logit_bias={PROMPT[1]: -100.0}, stop_token_ids=(PROMPT[1],), min_tokens=1)
    spec = Sequence(0, request).sample_specs(1, (PROMPT[1],))[0]
    assert max(spec.logit_bias, key=spec.logit_bias.__getitem__) == PROMPT[1]
    assert spec.masked_token_ids == ()


def test_an_end_of_sequence_within_the_prompt_ends_nothing():
    engine = EngineInMemory(eos_token_id=PROMPT[3])
    answers = engine.run(scored("a", PROMPT, max_tokens=2))
    assert sum(event.is_prompt for event in answers.events) == len(PROMPT) - 1
    assert len(answers.of("a").token_ids) == 2


def test_a_row_that_fails_while_scoring_ends_the_request():
    engine = EngineInMemory(fail_on=PROMPT[5])
    answers = engine.run(scored("a", PROMPT))
    assert answers.of("a").finish_reason is FinishReason.ERROR
    assert not answers.events[-1].is_prompt
