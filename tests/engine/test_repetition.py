"""A thought that goes round in circles is noticed, closed and told; what only looks like it is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from loads import EngineInMemory, ask

from antiphon.engine.worker.repetition import CHECK_EVERY, MAX_PERIOD, MIN_REPEATS, MIN_TOKENS, is_loop
from antiphon.request import ThinkingLimit, ThoughtClosed

CLOSING = (10, 200, 10)


def noticed(token_ids: list[int]) -> int | None:
    """How many tokens are there when the loop is noticed."""
    return next((length for length in range(len(token_ids) + 1) if is_loop(token_ids[:length])), None)


@pytest.mark.parametrize("before", [0, 1, 100, 613])
@pytest.mark.parametrize("period", [1, 2, 7, 31, 32, 33, 100, MAX_PERIOD])
def test_a_loop_is_noticed_soon_after_it_is_beyond_doubt(period, before):
    start = np.random.default_rng(period).integers(1000, 2000, before).tolist()
    unit = [*range(period)]
    at = noticed(start + unit * (700 // period + 1))
    enough = before + max(MIN_TOKENS, MIN_REPEATS * period)
    assert at is not None
    assert enough <= at < enough + CHECK_EVERY


@pytest.mark.parametrize("period", [MAX_PERIOD + 1, 200])
def test_longer_runs_are_not(period):
    assert noticed([*range(period)] * 6) is None


def test_a_loop_with_one_word_changed_is_none():
    places = np.random.default_rng(1)
    token_ids = [*range(20)] * 60
    for at in range(0, len(token_ids), 100):
        token_ids[at + places.integers(20)] = 999
    assert noticed(token_ids) is None


def test_thinking_aloud_in_few_words_is_none():
    assert noticed(np.random.default_rng(2).integers(3, size=20_000).tolist()) is None
    assert noticed([token for other in range(20) for token in [*range(40)] * 3 + [100 + other]]) is None


def say(script: tuple[int, ...], *, max_tokens: int = 400, sent: list[int] | None = None, **fields: bool):
    engine = EngineInMemory(script=script)
    limit = ThinkingLimit(300, CLOSING, ((200,),), **fields)
    engine.run(ask("a", [7], max_tokens=max_tokens, sent=sent, thinking=limit))
    told = [event.thought_closed for event in engine.answers.events if event.thought_closed]
    return engine.answers.token_ids.get("a", []), told


def test_the_thought_is_closed_and_the_answer_goes_on():
    token_ids, told = say(tuple(b"wait, "))
    assert told == [ThoughtClosed.LOOP]
    place = token_ids.index(200) - 1
    assert place == MIN_TOKENS
    assert token_ids[place : place + 3] == [*CLOSING]
    assert len(token_ids) == 400
    assert token_ids.count(200) == 1  # the answer may repeat what it likes


def test_it_can_be_switched_off():
    token_ids, told = say(tuple(b"wait, "), loop_guard=False)
    assert told == [ThoughtClosed.BUDGET]
    assert token_ids.index(200) == 301


def test_an_answer_is_never_a_loop():
    token_ids, told = say((200, *b"aaaaaa"), max_tokens=350)
    assert told == []
    assert token_ids == ([200, *b"aaaaaa"] * 50)


def test_resumed_anywhere_the_loop_is_noticed_at_the_same_place():
    whole, _ = say(tuple(b"wait, "), max_tokens=160)
    for sent in range(100, 160, 3):
        rest, told = say(tuple(b"wait, "), max_tokens=160, sent=whole[:sent])
        assert rest == whole[sent:]
        assert told == [ThoughtClosed.LOOP] * (sent <= MIN_TOKENS)
