"""Drafts: where guesses come from, how many are verified, and that they change nothing but the number of steps."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import EngineInMemory, ask, fake_config

from antiphon.engine.worker.drafting import MOST, Draft, Drafting
from antiphon.engine.worker.drafts import RUNS, Memory, RecentAnswers
from antiphon.engine.worker.sequence import Sequence
from antiphon.engine.worker.speculation import Speculation
from antiphon.request import GenerateRequest, SamplingParams, ThinkingLimit

SHORT = RUNS[-1]


def guessed(memory: Memory, text: list[int], count: int = 5, salt: str = "") -> list[int]:
    return list(islice(memory.guess(0, salt, text).token_ids, count))


def test_a_text_goes_on_as_it_did_after_the_same_words():
    assert guessed(Memory(), [1, 2, 3, 4, 5, 9, 1, 2], 3) == [3, 4, 5]


def test_the_last_of_several_places_decides_and_a_longer_run_before_it():
    assert guessed(Memory(), [1, 2, 3, 1, 2, 4, 1, 2], 1) == [4]
    assert guessed(Memory(), [7, 8, 1, 2, 3, 9, 9, 1, 2, 4, 7, 8, 1, 2], 1) == [3]


def test_a_text_that_repeats_itself_goes_on_beyond_its_end():
    assert guessed(Memory(), [1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]
    assert guessed(Memory(), [5, 5, 5], 3) == [5, 5, 5]


def test_without_a_run_that_was_seen_there_is_no_guess():
    assert guessed(Memory(), [1, 2, 3, 4]) == []
    assert guessed(Memory(), [1]) == []


def test_answers_to_others_are_drafted_from_only_under_the_same_salt():
    memory = Memory()
    memory.finish(7, "ann", [1, 2, 3, 4])
    assert guessed(memory, [9, 1, 2], salt="ann") == [3, 4]
    assert guessed(memory, [9, 1, 2], salt="bob") == []
    assert guessed(memory, [9, 1, 2]) == []


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_recent_answers_are_bounded_and_the_last_place_is_found(answers, text):
    recent, kept = RecentAnswers(max_tokens=20), []
    for answer in answers:
        recent.add(answer)
        kept.append(answer)
        while sum(map(len, kept)) > 20:
            kept.pop(0)
    assert recent.num_tokens == sum(map(len, kept)) <= 20
    for run in RUNS:
        places = [(each, end) for each in kept for end in range(run, len(each)) if each[end - run : end] == text[-run:]]
        found = recent.find(text, run) if len(text) >= run else None
        assert (found is not None) == bool(places and len(text) >= run)
        if found:
            assert (list(found[0]), found[1]) in places


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 60))
def test_however_a_text_grows_the_guess_is_that_of_the_whole(text, first):
    grown = Memory()
    for end in range(min(first, len(text)), len(text) + 1):
        guess = guessed(grown, text[:end])
    assert guess == guessed(Memory(), text)


def test_the_memory_for_running_texts_is_bounded_and_given_back():
    memory = Memory()
    for number in range(30):
        guess = memory.guess(number, "", [*range(4000), 1, 2])
        assert next(guess.token_ids, None) == (3 if number < 17 else None)
    assert memory.num_own_tokens < (1 << 16) + 4096
    for number in range(30):
        memory.finish(number, "", [])
    assert memory.num_own_tokens == 0


def learned(costs: dict[int, float]) -> Drafting:
    drafting = Drafting()
    for rows, seconds in costs.items():
        drafting.costs.observe(rows, seconds)
    return drafting


def test_drafts_are_verified_where_rows_cost_little_and_not_where_they_cost_as_much_as_a_step():
    draft = Draft(0, 8, [False] * MOST)
    cheap = learned({1: 1.0, 5: 1.05, 13: 1.1})
    assert 0 < cheap.lengths([draft], 1, 512)[0] < MOST  # before it is known how good guesses are
    for _ in range(30):
        cheap.observe(draft, MOST, MOST)
    assert cheap.lengths([draft], 1, 512) == [MOST]
    assert cheap.lengths([draft], 1, 8) == [7]
    dear = learned({rows: float(rows) for rows in range(1, 20)})
    assert dear.lengths([draft], 1, 512) == [0]
    assert not dear.may_pay(4)


def test_what_is_decided_is_verified_even_where_guesses_were_wrong():
    drafting = learned({1: 1.0, 2: 1.2, 3: 1.4, 4: 1.6, 5: 1.8})
    guess = Draft(0, 2, [False] * 4)
    for _ in range(30):
        drafting.observe(guess, 4, 0)
    assert drafting.lengths([guess], 1, 512) == [0]
    assert drafting.lengths([Draft(0, 2, [True] * 4)], 1, 512) == [4]


def test_of_several_drafts_the_likelier_tokens_are_verified():
    drafting = learned({rows: 1.0 + 0.2 * (rows > 6) * rows for rows in range(1, 12)})
    good, bad = Draft(0, 8, [False] * 4), Draft(1, 2, [False] * 4)
    for _ in range(30):
        drafting.observe(good, 4, 4)
        drafting.observe(bad, 4, 0)
    assert drafting.lengths([good, bad], 2, 512) == [4, 0]


def test_now_and_then_a_step_goes_without_drafts():
    drafting = learned({1: 1.0, 2: 1.0})
    paid = [drafting.may_pay(1) for _ in range(640)]
    assert 600 < sum(paid) < 640


def propose(sampling: SamplingParams, guess: list[int], *, context_length: int = 100, **fields: object) -> list[int]:
    sequence = Sequence(0, GenerateRequest("a", [1, 2, 3], sampling, **fields))  # type: ignore[arg-type]
    proposal = sequence.propose(iter(guess), 8, (9,), context_length)
    assert len(proposal.specs) == len(proposal.token_ids)
    assert [spec.position for spec in proposal.specs] == list(range(1, len(proposal.specs) + 1))
    return proposal.token_ids


def test_a_draft_ends_before_the_sequence_would():
    assert propose(SamplingParams(max_tokens=50), [4, 5, 9, 6]) == [4, 5]
    assert propose(SamplingParams(max_tokens=50, ignore_eos=True), [4, 5, 9, 6]) == [4, 5, 9, 6]
    assert propose(SamplingParams(max_tokens=50, stop_token_ids=(5,)), [4, 5, 6]) == [4]
    assert propose(SamplingParams(max_tokens=3), [4, 5, 6, 7]) == [4, 5]
    assert propose(SamplingParams(max_tokens=50), [4, 5, 6, 7], context_length=5) == [4]


def test_penalties_and_scores_get_no_drafts():
    assert propose(SamplingParams(max_tokens=50, presence_penalty=0.5), [4, 5]) == []
    assert propose(SamplingParams(max_tokens=50, num_logprobs=1), [4, 5], num_scored_tokens=2) == []


def test_the_end_of_a_thought_is_drafted_where_it_is_decided():
    limit = ThinkingLimit(0, (7, 8), ((8,),))
    assert propose(SamplingParams(max_tokens=50, thinking=limit), [4, 5]) == [7, 8]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_of_the_real_memory_are_verified_and_change_nothing(temperature):
    """The answer to a question asked twice is drafted from the first; with another seed, as far as it is the same."""
    requests = [
        ask(name, [5, 6, 7], max_tokens=40, temperature=temperature, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    speculation = Speculation(fake_config().max_batch_tokens)
    engine = EngineInMemory(speculation=lambda engine: speculation)
    for request in requests:
        before = len(engine.plans)
        engine.scheduler.add(request)
        while engine.scheduler.has_work:
            plan = engine.step()
            speculation.observe_step(plan.num_tokens, 1.0)
        if request.request_id == "b":
            assert len(engine.plans) - before < 20
        assert engine.answers.of(request.request_id) == engine.expected(request)
    assert 0 < speculation.counts.num_accepted_tokens <= speculation.counts.num_drafted_tokens
