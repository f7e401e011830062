"""How a step is divided among prompts: a quarter for the shortest, and no long one stands still."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from loads import EngineInMemory, ask

from antiphon.engine.worker.prefill import PrefillSharing

GAPS = st.lists(st.integers(1, 300), min_size=1, max_size=12)


def divide(sharing: PrefillSharing, num_tokens: int, gaps: list[int], cap: int = 0) -> list[int]:
    caps = [min(gap, cap or gap) for gap in gaps]
    return sharing.divide(num_tokens, gaps, caps, [True] * len(gaps))


def test_a_prompt_alone_gets_everything():
    assert divide(PrefillSharing(), 512, [8000]) == [512]


def test_a_quarter_goes_to_the_shortest():
    assert divide(PrefillSharing(), 40, [8000, 500, 20]) == [30, 0, 10]
    assert divide(PrefillSharing(), 40, [8000, 500, 5]) == [30, 5, 5]


def test_those_who_may_not_jump_wait_for_their_turn():
    assert PrefillSharing().divide(40, [8000, 500, 20], [8000, 500, 20], [True, True, False]) == [30, 10, 0]


def test_what_one_part_leaves_the_other_gets():
    assert divide(PrefillSharing(), 512, [100, 20]) == [100, 20]
    assert divide(PrefillSharing(), 512, [100, 8000, 20]) == [100, 392, 20]
    assert divide(PrefillSharing(), 512, [8000, 20], cap=50) == [50, 20]


def test_quarters_of_small_steps_add_up():
    sharing = PrefillSharing()
    assert [divide(sharing, 1, [100, 20]) for _ in range(8)] == [[1, 0], [1, 0], [1, 0], [0, 1]] * 2


@given(gaps=GAPS, steps=st.lists(st.tuples(st.integers(0, 64), st.integers(0, 20)), max_size=20), data=st.data())
def test_no_token_is_left_idle_or_given_twice(gaps, steps, data):
    sharing = PrefillSharing()
    for num_tokens, cap in steps:
        caps = [min(gap, cap or gap) for gap in gaps]
        may_jump = data.draw(st.lists(st.booleans(), min_size=len(gaps), max_size=len(gaps)))
        counts = sharing.divide(num_tokens, gaps, caps, may_jump)
        assert all(0 <= count <= most for count, most in zip(counts, caps, strict=True))
        assert sum(counts) == min(num_tokens, sum(caps))


@given(gaps=GAPS, num_tokens=st.integers(1, 64), short=st.integers(1, 30))
def test_the_first_in_order_advances_by_three_quarters_whatever_keeps_arriving(gaps, num_tokens, short):
    """Against an endless stream of short prompts behind it."""
    sharing, remaining, num_steps = PrefillSharing(), 200, 0
    while remaining > 0:
        remaining -= divide(sharing, num_tokens, [remaining, *gaps, *[short] * 9])[0]
        num_steps += 1
        assert num_steps * num_tokens * 3 / 4 - 1 < 200 + num_tokens


@given(num_tokens=st.integers(1, 64), long=st.integers(100, 5000), short=st.integers(1, 40))
def test_a_short_prompt_is_done_after_four_times_its_tokens(num_tokens, long, short):
    sharing, remaining, num_computed = PrefillSharing(), short, 0
    while remaining > 0:
        remaining -= divide(sharing, num_tokens, [long, remaining])[1]
        num_computed += num_tokens
    assert num_computed < 4 * (short + 1) + num_tokens


def test_a_newcomer_does_not_wait_for_a_long_prompt():
    """Its first token comes when about four times its prompt was computed, not after the 4,000 tokens before it."""
    engine = EngineInMemory(max_batch_tokens=16, context_length=8192)
    engine.scheduler.add(ask("long", [1] * 4000, max_tokens=1))
    engine.step()
    engine.scheduler.add(ask("short", [2] * 20, max_tokens=1))
    num_tokens = 0
    while "short" not in engine.answers.ends:
        num_tokens += engine.step().num_tokens
    assert num_tokens <= 96
    engine.run()
    assert list(engine.answers.ends) == ["short", "long"]


def test_a_step_is_small_while_one_prompt_waits_behind_another():
    engine = EngineInMemory(max_batch_tokens=512, target_step_seconds=0.25)
    for _ in range(5):
        engine.budget.observe(100, 0.5)  # 200 tokens a second
    engine.scheduler.add(ask("long", [1] * 3000))
    assert engine.step().num_tokens == 200
    engine.scheduler.add(ask("short", [2] * 20))
    assert [len(entry.token_ids) for entry in engine.step().sequences] == [38, 12]
