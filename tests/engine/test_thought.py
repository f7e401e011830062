"""Thoughts are closed where their budget says, softly and then firmly, the same under any load and after any death."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loads import EngineInMemory, ask
from property_tests import examples

from antiphon.engine.worker.thought import STRONGEST_NUDGE, Thought
from antiphon.ops.reference_sampler import sample_reference
from antiphon.request import FinishReason, GenerateRequest, SamplingParams, ThinkingLimit, ThoughtClosed
from antiphon.step import SampleSpec

OPEN, CLOSE, DOT, LINE = 201, 200, ord("."), ord("\n")
CLOSING = (LINE, CLOSE, LINE)


def limit(budget: int, **fields: object) -> ThinkingLimit:
    """A limit for an output that begins inside the thought."""
    given = {"closing_token_ids": CLOSING, "end_token_ids": ((CLOSE,),), "sentence_end_token_ids": (DOT,), **fields}
    return ThinkingLimit(budget, **given)  # type: ignore[arg-type]


def thinking(request_id: str, budget: int, *, sent: list[int] | None = None, **fields: object) -> GenerateRequest:
    return ask(request_id, [7, 8, 9], sent=sent, thinking=limit(budget), **{"max_tokens": 40, **fields})


def told(text: str, budget: int, max_tokens: int = 24, **fields: object) -> tuple[list[int], dict[int, ThoughtClosed]]:
    """What comes of a model that says `text` over and over ("/" is the closing tag), and which token told a closing."""
    engine = EngineInMemory(script=tuple(CLOSE if letter == "/" else ord(letter) for letter in text))
    engine.run(ask("a", [1], max_tokens=max_tokens, thinking=limit(budget, **fields)))
    closings = {n: event.thought_closed for n, event in enumerate(engine.answers.events) if event.thought_closed}
    return engine.answers.token_ids["a"], closings


def test_at_the_budget_the_thought_is_closed_whatever_the_model_says():
    token_ids, closings = told("x", budget=5, max_tokens=12)
    assert token_ids == [*b"xxxxx", *CLOSING, *b"xxxx"]
    assert closings == {5: ThoughtClosed.BUDGET}


def test_without_a_budget_there_is_no_thought():
    token_ids, closings = told("x", budget=0, max_tokens=5)
    assert token_ids == [*CLOSING, *b"xx"]
    assert closings == {0: ThoughtClosed.BUDGET}


def test_a_sentence_that_ends_shortly_before_the_budget_ends_the_thought():
    token_ids, closings = told("x" * 18 + "." + "y" * 9, budget=20)
    assert token_ids == [*b"x" * 18, DOT, CLOSE, *b"yyyy"]
    assert closings == {19: ThoughtClosed.BUDGET}


def test_a_sentence_that_ends_earlier_does_not():
    token_ids, closings = told("x" * 16 + "." + "y" * 9, budget=20)
    assert token_ids == [*b"x" * 16, DOT, *b"yyy", *CLOSING, *b"y"]
    assert closings == {20: ThoughtClosed.BUDGET}


def test_the_nudge_rises_to_the_budget():
    thought = Thought(limit(100))
    nudges = []
    for _ in range(100):
        thought.take(DOT)
        nudges.append(thought.biases({CLOSE: -1.0}).get(CLOSE))
    assert nudges[:89] == [None] * 89
    assert nudges[89:99] == [pytest.approx(STRONGEST_NUDGE * step / 10 - 1.0) for step in range(1, 11)]
    assert thought.is_forced


@pytest.mark.parametrize("place", [0, 3, 4])
def test_a_thought_that_the_model_closes_itself_is_left_alone(place):
    token_ids, closings = told("x" * place + "/" + "y" * 30, budget=5, max_tokens=20)
    assert token_ids == [*b"x" * place, CLOSE, *b"y" * (19 - place)]
    assert closings == {}


@pytest.mark.parametrize("begins", [{}, {"begin_token_ids": ((OPEN,),)}], ids=["open", "opened by the model"])
def test_the_end_of_sequence_waits_for_the_answer(begins):
    eos = 250
    opening = [OPEN] if begins else []
    engine = EngineInMemory(script=(*opening, ord("x"), eos, eos, ord("x"), CLOSE, ord("y"), eos), eos_token_id=eos)
    answers = engine.run(ask("a", [1], max_tokens=40, thinking=limit(30, **begins)))
    first, *others = answers.token_ids["a"][len(opening) :]
    assert (first, others[2:]) == (ord("x"), [ord("x"), CLOSE, ord("y"), eos])
    assert eos not in others[:2]
    assert answers.of("a").finish_reason is FinishReason.STOP
    engine = EngineInMemory(script=(eos,), eos_token_id=eos)
    answers = engine.run(ask("b", [1], max_tokens=40, thinking=limit(5, **begins)))
    assert len(answers.token_ids["b"]) == (1 if begins else 5 + len(CLOSING) + 1)  # a thought that never began
    assert answers.token_ids["b"][-1] == eos


def test_what_comes_after_the_thought_is_left_alone():
    token_ids, _ = told("x/.", budget=50, max_tokens=200)
    assert token_ids == [ord("x"), CLOSE, DOT] * 66 + [ord("x"), CLOSE]


@pytest.mark.parametrize("spelling", [(1, 2, 3), (4, 3)])
def test_a_tag_of_several_tokens_in_any_spelling(spelling):
    spellings = ((1, 2, 3), (4, 3))
    engine = EngineInMemory(script=(9, *spelling, 9, 9))
    engine.run(ask("a", [1], max_tokens=9, thinking=limit(6, end_token_ids=spellings)))
    assert [event.thought_closed for event in engine.answers.events] == [None] * 9


def test_a_nudge_that_is_followed_is_followed_to_the_end_of_the_tag():
    token_ids, closings = told(".", budget=10, max_tokens=14, end_token_ids=((1, 2, 3), (4, 3)))
    assert token_ids == [*b"." * 9, 1, 2, 3, DOT, DOT]
    assert closings == {9: ThoughtClosed.BUDGET}


def test_a_thought_that_the_model_opens_itself():
    engine = EngineInMemory(script=(OPEN, *b"xxxxxxxxx"))
    begin = {"begin_token_ids": ((OPEN,), (5, 6))}
    engine.run(ask("a", [1], max_tokens=9, thinking=limit(3, **begin)))
    assert engine.answers.token_ids["a"] == [OPEN, *b"xxx", *CLOSING, *b"xx"]
    for script in ((*b"xx", OPEN), (5, 7)):
        engine = EngineInMemory(script=script)
        engine.run(ask("a", [1], max_tokens=9, thinking=limit(3, **begin)))
        assert not set(CLOSING) & set(engine.answers.token_ids["a"])


def test_no_wish_of_the_request_is_in_the_way():
    engine = EngineInMemory()
    wishes = {"logit_bias": {CLOSE: -100.0, LINE: -100.0}, "stop_token_ids": (CLOSE,), "min_tokens": 30}
    answers = engine.run(thinking("a", 4, **wishes))
    assert answers.token_ids["a"][4:] == [LINE, CLOSE]  # which then is a stop token like any other


def test_forced_tokens_are_forced_on_any_sampler_and_keep_their_log_probabilities():
    logits = np.linspace(-90, 90, 256, dtype=np.float32)
    thought = Thought(limit(0, closing_token_ids=(3,)))
    for fields in ({"temperature": 0.0}, {"temperature": 2.0}, {"temperature": 1e-5, "top_k": 2}, {"top_p": 0.01}):
        plain = SamplingParams(**fields, num_logprobs=1)
        forced = SamplingParams(**fields, num_logprobs=1, logit_bias=thought.biases({}))
        token = sample_reference(logits, SampleSpec(forced, 0, 0))
        assert token.token_id == 3
        assert token.logprobs.top_token_ids == sample_reference(logits, SampleSpec(plain, 0, 0)).logprobs.top_token_ids
        assert token.logprobs.logprob == pytest.approx(logits[3] - logits[255], abs=2.0)


def test_resumed_anywhere_it_closes_at_the_same_place():
    whole = EngineInMemory().run(thinking("a", 12, temperature=0.6)).token_ids["a"]
    assert whole[12:15] == [*CLOSING]
    for sent in range(40):
        engine = EngineInMemory(prefill_chunk=2)
        rest = engine.run(thinking("a", 12, temperature=0.6, sent=whole[:sent]))
        assert rest.token_ids["a"] == whole[sent:]
        assert [event.thought_closed for event in rest.events].count(ThoughtClosed.BUDGET) == (sent <= 12)


def some(count: int) -> list[GenerateRequest]:
    return [thinking(f"r{n}", 3 * n, temperature=0.6, seed=n, presence_penalty=0.5 * (n % 2)) for n in range(count)]


@pytest.mark.parametrize(
    "load",
    [{"kv_cache_tokens": 48}, {"max_num_sequences": 1}, {"max_batch_tokens": 3}, {"prefill_chunk": 1}],
    ids=str,
)
def test_alone_and_in_any_crowd_the_same(load):
    crowd = EngineInMemory(**({"block_size": 4} | load))
    crowd.run(*some(8))
    assert load.keys() != {"kv_cache_tokens"} or crowd.scheduler.counts.num_preemptions > 3
    for request in some(8):
        alone = EngineInMemory().run(request)
        assert crowd.answers.token_ids[request.request_id] == alone.token_ids[request.request_id]


@given(
    token_ids=st.lists(st.sampled_from([DOT, CLOSE, OPEN, LINE, 5]), max_size=60),
    budget=st.integers(0, 40),
    opened=st.booleans(),
)
def test_a_thought_never_outlives_its_budget(token_ids, budget, opened):
    """Whatever a model says, between the opening and the closing tag are no more tokens than the budget."""
    thought = Thought(limit(budget, begin_token_ids=() if opened else ((OPEN,),)))
    said: list[int] = []
    for token_id in token_ids:
        biases = thought.biases({})
        forced = next(iter(biases)) if thought.is_forced else token_id
        thought.take(forced)
        said.append(forced)
    begin = 0 if opened else 1
    if opened or said[:1] == [OPEN]:
        assert CLOSE in said[begin : begin + budget + 2] or len(said) < begin + budget + 2


# Tags, closings and sentences of every kind, in an alphabet so small that they begin and end inside each other.
SPELLINGS = [((CLOSE,),), ((1, 2, 3), (4, 3)), ((1, 1, 2), (2, 1))]
BEGINNINGS = [(), ((OPEN,),), ((OPEN, 1), (5, 6))]


@given(
    drawn=st.lists(st.sampled_from([DOT, CLOSE, OPEN, LINE, 1, 2, 3, 4, 5, 6]), max_size=80),
    repeated=st.integers(0, 60),
    budget=st.integers(0, 300),
    ends=st.sampled_from(SPELLINGS),
    begins=st.sampled_from(BEGINNINGS),
    pauses=st.booleans(),
)
@settings(max_examples=examples(400))
def test_a_thought_that_is_skipped_is_where_it_would_be_token_by_token(drawn, repeated, budget, ends, begins, pauses):
    """Resumed after any number of tokens, it wants and says the same from there on."""
    closing = (LINE, *ends[0], LINE)
    wanted = limit(budget, end_token_ids=ends, begin_token_ids=begins, closing_token_ids=closing)
    thought, said, states = Thought(wanted, pauses=pauses), [], []
    for token_id in [*drawn, *[7, 8, 9] * repeated, *drawn]:
        states.append(state(thought))
        said.append(next(iter(thought.biases({}))) if thought.is_forced else token_id)
        thought.take(said[-1])
    states.append(state(thought))
    for num_sent in range(0, len(said) + 1, 1 + len(said) // 20):
        resumed, position = Thought(wanted, pauses=pauses), 0
        while position < num_sent:
            position += resumed.skip(said[position:num_sent])
            resumed.take(said[position])
            position += 1
        assert state(resumed) == states[num_sent]
        for token_id, after in zip(said[num_sent:], states[num_sent + 1 :], strict=True):
            resumed.take(token_id)
            assert state(resumed) == after


def state(thought: Thought) -> tuple[object, ...]:
    return thought.phase, thought.biases({}), thought.opening_token_ids


def test_resuming_a_long_thought_looks_at_its_end_alone():
    class Counting(Thought):
        num_taken = 0

        def take(self, token_id: int) -> ThoughtClosed | None:
            self.num_taken += 1
            return super().take(token_id)

    for text in ([5] * 999_983, [5, DOT, 6] * 333_333):
        thought = Counting(limit(2_000_000, loop_guard=False))
        position = thought.skip(text)
        for token_id in text[position:]:
            thought.take(token_id)
        assert thought.num_taken <= len(CLOSING)
        assert len(thought._last) < 4096
