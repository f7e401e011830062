"""How long answers are expected to be: as long as they were, with the thought and the answer after it apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.admission.lengths import AnswerLengths, LifeTable
from antiphon.engine.requests.answer_parts import AnswerParts
from antiphon.request import ThinkingLimit, ThoughtClosed

OPEN, CLOSE, WORD = 100, 200, 7
NO_LIMIT = 1 << 20


def limit(budget: int = 10_000, **fields: object) -> ThinkingLimit:
    return ThinkingLimit(budget, (1, CLOSE), ((CLOSE,), (31, 32)), **fields)  # type: ignore[arg-type]


def parts(num_thought: int, num_answer: int | None = None, budget: int = 10_000) -> AnswerParts:
    """A thought of so many tokens, and an answer unless it has not begun."""
    written = [WORD] * num_thought
    if num_answer is not None:
        written = [*written[1:], CLOSE, *[WORD] * num_answer]
    return AnswerParts(limit(budget), written)


def test_answers_are_expected_to_be_as_long_as_they_were() -> None:
    table = LifeTable()
    for _ in range(300):
        table.observe(200, is_complete=True)
    assert table.remaining(0, 4096) == pytest.approx(200, rel=0.15)
    assert table.remaining(100, 4096) == pytest.approx(100, rel=0.25)
    assert table.remaining(0, 50) == pytest.approx(50, rel=0.1)


def test_cut_answers_do_not_make_the_others_short() -> None:
    """Half of them ended at their limit of 16 tokens; the other half shows how long answers are."""
    table = LifeTable()
    for _ in range(300):
        table.observe(16, is_complete=False)
        table.observe(400, is_complete=True)
    assert table.remaining(0, 4096) == pytest.approx(400, rel=0.2)


def test_changes_are_followed() -> None:
    table = LifeTable()
    for length in (50, 800):
        for _ in range(1000):
            table.observe(length, is_complete=True)
    assert table.remaining(0, 4096) == pytest.approx(800, rel=0.2)


def test_a_thought_and_the_answer_after_it_are_expected_apart() -> None:
    """An answer that has just begun is short, although the whole was 20 times as long, and a new one is long."""
    lengths = AnswerLengths()
    for _ in range(300):
        lengths.observe(parts(1000, 50), is_complete=True)
    assert lengths.remaining(parts(0), NO_LIMIT) == pytest.approx(1050, rel=0.15)
    assert lengths.remaining(parts(900), NO_LIMIT) == pytest.approx(150, rel=0.4)
    assert lengths.remaining(parts(1000, 0), NO_LIMIT) == pytest.approx(50, rel=0.15)
    assert lengths.remaining(parts(3, 0), NO_LIMIT) == pytest.approx(50, rel=0.15)


def test_a_thinking_budget_shortens_what_is_expected() -> None:
    lengths = AnswerLengths()
    for _ in range(300):
        lengths.observe(parts(1000, 50), is_complete=True)
    assert lengths.remaining(parts(0, budget=100), NO_LIMIT) == pytest.approx(150, rel=0.15)
    assert lengths.remaining(parts(90, budget=100), NO_LIMIT) == pytest.approx(60, rel=0.15)


def test_answers_without_a_thought_are_a_kind_of_their_own() -> None:
    lengths = AnswerLengths()
    for _ in range(300):
        lengths.observe(parts(1000, 50), is_complete=True)
        lengths.observe(AnswerParts(None, [WORD] * 400), is_complete=True)
    assert lengths.remaining(AnswerParts(None), NO_LIMIT) == pytest.approx(400, rel=0.15)
    assert lengths.remaining(parts(0, budget=0), NO_LIMIT) == pytest.approx(400, rel=0.15)
    assert lengths.remaining(parts(0), NO_LIMIT) == pytest.approx(1050, rel=0.15)


def test_thoughts_that_were_cut_by_their_budget_do_not_make_the_others_short() -> None:
    lengths = AnswerLengths()
    for _ in range(300):
        cut = AnswerParts(limit(), [WORD] * 20)
        cut.take(1, ThoughtClosed.BUDGET)
        cut.take(CLOSE)
        assert not cut.is_thinking
        lengths.observe(cut, is_complete=True)
        lengths.observe(parts(1000, 50), is_complete=True)
    assert lengths.remaining(parts(0), NO_LIMIT) == pytest.approx(1050, rel=0.15)


@pytest.mark.parametrize(
    ("begins", "token_ids", "expected"),
    [
        ((), [WORD, WORD, CLOSE, WORD], (3, 1, False)),
        ((), [WORD, 31, 32, WORD, CLOSE], (3, 2, False)),  # a tag of two tokens; one in the answer is text
        ((), [WORD, 31, WORD, 32], (4, 0, True)),
        (((OPEN,),), [OPEN, WORD, CLOSE, WORD], (3, 1, False)),
        (((OPEN, 5),), [OPEN], (1, 0, True)),
        (((OPEN, 5),), [OPEN, WORD, CLOSE], (0, 3, False)),  # it did not open a thought
        (((OPEN,),), [WORD, WORD], (0, 2, False)),
    ],
)
def test_a_thought_is_told_from_its_answer_by_the_tags(begins, token_ids, expected) -> None:
    written = AnswerParts(limit(begin_token_ids=begins), token_ids)
    assert (written.num_thought, written.num_answer, written.is_thinking) == expected


@given(
    st.lists(st.tuples(st.integers(0, 300), st.one_of(st.none(), st.integers(0, 300)), st.booleans()), max_size=20),
    st.tuples(st.integers(0, 300), st.one_of(st.none(), st.integers(0, 300)), st.integers(0, 500)),
    st.integers(0, 1000),
    st.integers(0, 1000),
)
def test_an_expectation_keeps_to_the_limit(answers, written, most, more) -> None:
    lengths = AnswerLengths()
    for num_thought, num_answer, is_complete in answers:
        lengths.observe(parts(num_thought, num_answer), is_complete=is_complete)
    so_far = parts(*written)
    room = max(0, most - so_far.num_tokens)
    left = lengths.remaining(so_far, most)
    assert min(1, room) - 1e-9 <= left <= room + 1e-9
    assert left <= lengths.remaining(so_far, most + more) + 1e-6
