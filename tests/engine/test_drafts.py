"""Drafts: where guesses come from, how many are verified, and that they change nothing but the number of steps."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loads import EngineInMemory, ask, fake_config

from antiphon.engine.worker.accuracy import NUM_SLOTS, Draft, TokenTable, slots_of
from antiphon.engine.worker.drafting import MOST, Drafting
from antiphon.engine.worker.drafts import (
    BYTES_PER_TOKEN,
    MAX_OWN_TOKENS,
    MAX_RECENT_TOKENS,
    RUNS,
    Index,
    Memory,
    RecentAnswers,
)
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


def test_of_two_texts_with_the_same_run_the_one_with_the_longer_match_decides():
    memory = Memory()
    memory.finish(7, "", [9, 8, 7, 1, 2, 5, 5])
    assert guessed(memory, [3, 1, 2, 4, 4, 9, 8, 7, 1, 2], 1) == [5]
    memory.finish(0, "", [])
    assert guessed(memory, [9, 8, 7, 1, 2, 4, 4, 9, 8, 7, 1, 2], 1) == [4]


def test_a_text_that_repeats_itself_goes_on_beyond_its_end():
    assert guessed(Memory(), [1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]
    assert guessed(Memory(), [5, 5, 5], 3) == [5, 5, 5]


def test_without_a_run_that_was_seen_there_is_no_guess():
    assert guessed(Memory(), [1, 2, 3, 4]) == []
    assert guessed(Memory(), [1]) == []


@given(st.lists(st.integers(0, 5), max_size=400), st.integers(0, 400), st.integers(0, 400))
def test_an_index_is_the_same_whether_many_places_are_added_at_once_or_one_by_one(text, first, second):
    in_parts, one_by_one = Index(), Index()
    for end in sorted({min(first, len(text)), min(second, len(text)), len(text)}):
        in_parts.grow(text[:end])
    for end in range(len(text) + 1):
        one_by_one.grow(text[:end])
    assert in_parts.num_indexed == one_by_one.num_indexed == len(text)
    assert in_parts._slots == one_by_one._slots


def test_an_index_of_a_long_text_is_small_and_made_in_pieces():
    text, index = [number % 50_000 for number in range(100_000)], Index()
    calls = 0
    while index.num_indexed < len(text):
        before = index.num_indexed
        index.grow(text)
        calls += 1
        assert index.num_indexed - before <= 8192
        assert index.num_bytes <= (BYTES_PER_TOKEN - 4) * max(1000, index.num_indexed)
    assert calls == 13
    for run in RUNS:
        found = sum(index.find(text, text[:place], run) == place for place in range(90_000, 90_200))
        assert found > 150  # the others share their slot with a later place


def test_all_tables_together_take_at_most_ten_mebibytes():
    assert (MAX_OWN_TOKENS + MAX_RECENT_TOKENS) * BYTES_PER_TOKEN + TokenTable().num_bytes <= 10 << 20


def test_a_place_that_another_run_shares_is_not_taken_for_a_guess(monkeypatch):
    monkeypatch.setattr(Index, "_slot", lambda self, tokens, run: 5)
    assert guessed(Memory(), [1, 2, 3, 4, 5]) == []
    assert guessed(Memory(), [1, 1], 1) == [1]


def test_answers_to_others_are_drafted_from_only_under_the_same_salt():
    memory = Memory()
    memory.finish(7, "ann", [1, 2, 3, 4])
    assert guessed(memory, [9, 1, 2], salt="ann") == [3, 4]
    assert guessed(memory, [9, 1, 2], salt="bob") == []
    assert guessed(memory, [9, 1, 2]) == []


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_recent_answers_are_bounded_and_the_last_place_is_found(answers, text):
    recent, said = RecentAnswers(max_tokens=20), []
    for answer in answers:
        recent.add(answer)
        said += answer
        assert min(len(said), 10) <= recent.num_tokens <= 20
        assert list(recent.text.token_ids) == said[len(said) - recent.num_tokens :]
    kept = list(recent.text.token_ids)
    for run in RUNS:
        places = [end for end in range(run, len(kept)) if kept[end - run : end] == text[-run:] and len(text) >= run]
        place, length = recent.text.find(text, run)
        assert place in places[-1:] or not place  # 0 where its slot was taken by a run that came later
        assert not place or kept[place - length : place] == text[-length:]
        if places and run == SHORT:
            assert place  # so few runs share no slots


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(1, 60))
def test_however_a_text_grows_the_guess_is_that_of_the_whole(text, first):
    grown = Memory()
    for end in range(min(first, len(text)), len(text) + 1):
        guess = guessed(grown, text[:end])
    assert guess == guessed(Memory(), text)


def test_the_memory_for_running_texts_is_bounded_and_given_back():
    memory = Memory()
    for number in range(40):
        guess = memory.guess(number, "", [*range(4000), 1, 2])
        assert next(guess.token_ids, None) == (3 if number <= MAX_OWN_TOKENS // 4002 else None)
    assert memory.num_own_tokens < MAX_OWN_TOKENS + 4002
    for number in range(40):
        memory.finish(number, "", [])
    assert memory.num_own_tokens == 0


def test_a_long_answer_is_indexed_in_pieces_when_others_ask():
    memory = Memory()
    memory.finish(0, "", [*range(60_000), 1, 2])
    assert memory._recent[""].text.index.num_indexed == 8192
    for number in range(7):
        memory.guess(1, "", [7, 7])
        assert memory._recent[""].text.index.num_indexed == min(60_002, 8192 * (number + 2))
    assert guessed(memory, [59_000, 59_001], 1) == [59_002]


def learned(costs: dict[int, float]) -> Drafting:
    drafting = Drafting()
    for rows, seconds in costs.items():
        drafting.costs.observe(rows, seconds)
    return drafting


def test_drafts_are_verified_where_rows_cost_little_and_not_where_they_cost_as_much_as_a_step():
    draft = Draft(0, 8, [False] * MOST)
    cheap = learned({1: 1.0, 5: 1.05, 13: 1.1, 25: 1.2})
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


def test_a_guess_after_a_longer_run_is_believed_more():
    """What is learned of a token counts for all that have as much behind them, also within a draft."""
    drafting = learned({1: 1.0, 5: 1.4, 13: 2.2})
    for _ in range(60):
        drafting.observe(Draft(0, 1, [False]), 1, 0)
        drafting.observe(Draft(0, 8, [False] * 8), 8, 8)
    assert drafting.lengths([Draft(0, 1, [False] * MOST)], 1, 512) == [0]
    assert drafting.lengths([Draft(0, 8, [False] * 8)], 1, 512) == [8]


def test_what_was_right_or_wrong_after_the_same_words_is_believed_more_than_the_length_of_the_match():
    """Where a form is filled, labels are copied rightly and values wrongly; both have as much before them."""
    drafting, label, value = learned({1: 1.0, 5: 1.4, 13: 2.2}), [10, 11, 12, 13], [20, 21, 22, 23]
    for _ in range(40):
        for known, token_ids, num_right in (([1, 2], label, 4), ([3, 4], value, 0)):
            draft = Draft(0, 4, [False] * 4, slots_of("", known, token_ids))
            drafting.observe(draft, 4, num_right)
    assert drafting.lengths([Draft(1, 4, [False] * 4, slots_of("", [1, 2], label))], 1, 512) == [4]
    assert drafting.lengths([Draft(1, 4, [False] * 4, slots_of("", [3, 4], value))], 1, 512) == [0]


def test_slots_depend_on_the_token_the_two_before_it_and_the_salt():
    slots = slots_of("", [9, 1, 2], [3, 4, 5])
    assert slots == slots_of("", [8, 1, 2], [3, 4, 5])
    assert all(slot < NUM_SLOTS for slot in slots)
    assert slots[1:] == slots_of("", [7, 2, 3], [4, 5])
    assert slots[0] != slots_of("", [8, 2], [3])[0] != slots_of("", [2], [3])[0]
    assert slots != slots_of("ann", [9, 1, 2], [3, 4, 5])
    assert slots_of("", [1], []) == []


def test_one_slow_step_does_not_keep_its_number_of_rows_from_being_tried():
    costs = learned({1: 1.0, 2: 1.05, 3: 1.1, 5: 1.2}).costs
    costs.observe(4, 9.0)
    assert costs.predict(4) < 2
    for _ in range(20):
        costs.observe(4, 1.15)
    assert costs.predict(4) == pytest.approx(1.15, rel=0.05)


def test_a_number_of_rows_that_was_measured_while_the_machine_was_slow_is_tried_again_when_it_is_fast():
    """A throttled machine makes all steps slower; drafts are worth as much as before."""
    drafting = learned({})
    for speed, num_steps in ((2.0, 40), (1.0, 60)):
        for step in range(num_steps):
            rows = (1, 3, 5)[step % 3] if speed == 2.0 else 1
            drafting.costs.observe(rows, speed * (4.0 + rows))
    assert drafting.costs.predict(1) == pytest.approx(5.0, rel=0.05)
    assert drafting.costs.predict(3) == pytest.approx(7.0, rel=0.1)
    assert drafting.costs.predict(5) == pytest.approx(9.0, rel=0.1)


def test_costs_of_rows_that_were_not_measured_lie_on_a_line_through_the_others():
    costs = learned({}).costs
    for _ in range(20):
        for rows in (1, 3, 5, 9):
            costs.observe(rows, 4.0 + rows)
    assert costs.predict(7) == pytest.approx(11.0, rel=0.05)
    assert costs.predict(12) == pytest.approx(16.0, rel=0.05)


def test_the_seconds_that_drafts_save_and_cost_are_estimated():
    """Two sequences, a step of 1 s without drafts: three tokens more than usual in 1.5 s."""
    speculation = Speculation(512, drafting=learned({2: 1.0}))
    sequences = [Sequence(n, GenerateRequest(str(n), [1, 2, 3, 1, 2], SamplingParams(max_tokens=50))) for n in (0, 1)]
    speculation.plan(sequences, lambda sequence, wished: wished, (9,), 100)
    drafted = [len(speculation.of(sequence).token_ids) for sequence in sequences]
    assert all(drafted)
    speculation.observe_step(2 + sum(drafted), 1.5)
    assert speculation.counts.spent_seconds == pytest.approx(0.5, rel=0.1)
    for sequence, num_right in zip(sequences, (2, 1), strict=True):
        speculation.observe_draft(sequence, num_right)
    assert speculation.counts.saved_seconds == pytest.approx(1.5, rel=0.1)
    assert speculation.counts.num_drafted_tokens == sum(drafted)


def propose(sampling: SamplingParams, guess: list[int], *, context_length: int = 100, **fields: object) -> list[int]:
    sequence = Sequence(0, GenerateRequest("a", [1, 2, 3], sampling, **fields))  # type: ignore[arg-type]
    proposal = sequence.propose(iter(guess), len(guess), 8, (9,), context_length)
    assert len(proposal.specs) == len(proposal.token_ids)
    assert [spec.position for spec in proposal.specs] == list(range(1, len(proposal.specs) + 1))
    return proposal.token_ids


def test_a_draft_ends_before_the_sequence_would():
    assert propose(SamplingParams(max_tokens=50), [4, 5, 9, 6]) == [4, 5]
    assert propose(SamplingParams(max_tokens=50, ignore_eos=True), [4, 5, 9, 6]) == [4, 5, 9, 6]
    assert propose(SamplingParams(max_tokens=50, stop_token_ids=(5,)), [4, 5, 6]) == [4]
    assert propose(SamplingParams(max_tokens=3), [4, 5, 6, 7]) == [4, 5]
    assert propose(SamplingParams(max_tokens=50), [4, 5, 6, 7], context_length=5) == [4]


def test_with_penalties_the_drafted_tokens_before_a_draw_are_counted():
    sequence = Sequence(0, GenerateRequest("a", [1, 2, 3], SamplingParams(max_tokens=50, presence_penalty=0.5)))
    proposal = sequence.propose(iter([4, 5, 6]), 3, 8, (9,), 100)
    assert proposal.token_ids == [4, 5, 6]
    assert [(spec.history, spec.drafted) for spec in proposal.specs] == [
        ([1, 2, 3], (4,)),
        ([1, 2, 3], (4, 5)),
        ([1, 2, 3], (4, 5, 6)),
    ]


def test_scores_get_no_drafts():
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
