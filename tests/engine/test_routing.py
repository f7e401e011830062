"""Which engine gets a request: shared prefixes first, within a bounded load."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.engine.fleet.placement import relative_speeds
from antiphon.engine.fleet.routing import PREFIX_BLOCK, Candidate, PrefixIndex, choose, prefix_digests

TOKENS = st.lists(st.integers(0, 3), max_size=5 * PREFIX_BLOCK)
CANDIDATES = st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10)), min_size=1, max_size=8).map(
    lambda parts: [Candidate(n, owed, matching * PREFIX_BLOCK) for n, (owed, matching) in enumerate(parts, start=1)]
)


SPEEDS = st.lists(st.floats(0.2, 5), min_size=2, max_size=5)


@given(SPEEDS, st.floats(1, 100))
def test_engines_owe_in_proportion_to_their_speed(speeds, tokens):
    owed = dict.fromkeys(range(len(speeds)), 0.0)
    for _ in range(200):
        owed[choose([Candidate(n, owed[n], 0, speed) for n, speed in enumerate(speeds)], tokens)] += tokens
    fair = sum(owed.values()) / sum(speeds)
    for n, speed in enumerate(
        speeds
    ):  # no engine's work is further from its share than the requests that it began with
        assert abs(owed[n] - fair * speed) <= tokens * (1 + speed / min(speeds))


def test_speeds_count_by_machine_and_not_where_they_hardly_differ_or_are_not_known():
    assert relative_speeds([("a", None), ("b", None)]) == [1, 1]
    assert relative_speeds([("a", 10.0), ("a", 30.0)]) == [1, 1]
    assert relative_speeds([("a", 10.0), ("b", 11.0), ("c", None)]) == [1, 1, 1]
    assert relative_speeds([("a", 10.0), ("b", 20.0), ("b", 40.0), ("b", None), ("c", None)]) == [0.5, 1.5, 1.5, 1.5, 1]
    assert relative_speeds([("a", 1.0), ("b", 1000.0)])[0] == 0.05


def test_a_gpu_counts_as_faster_than_a_cpu_until_both_are_measured():
    gpu = {"cuda:0": 20.0}
    assert relative_speeds([("cuda:0", None), ("cpu", None)], gpu) == [40 / 21, 2 / 21]
    assert relative_speeds([("cuda:0", None), ("cpu", 10.0)], gpu) == [40 / 21, 2 / 21]
    assert relative_speeds([("cuda:0", 200.0), ("cpu", None)], gpu) == [40 / 21, 2 / 21]
    assert relative_speeds([("cuda:0", 10.0), ("cpu", 30.0)], gpu) == [0.5, 1.5]


def test_a_slow_engine_gets_a_request_only_if_it_would_end_there_first():
    def chosen(owed: float) -> int:
        return choose([Candidate(1, owed, 0, 1.9), Candidate(2, 0.0, 0, 0.1)], 100.0)

    assert [chosen(owed) for owed in (0.0, 100.0, 1700.0)] == [1, 1, 1]
    assert chosen(1900.0) == 2


def test_a_prefix_on_a_much_slower_engine_does_not_count():
    def chosen(speed: float) -> int:
        return choose([Candidate(1, 0.0, 0, 1.0), Candidate(2, 0.0, PREFIX_BLOCK, speed)], 100.0)

    assert chosen(0.5) == 2
    assert chosen(0.4) == 1


def num_shared(one: list[int], other: list[int]) -> int:
    """Tokens of whole blocks that both begin with; the last token of neither counts."""
    most = (min(len(one), len(other)) - 1) // PREFIX_BLOCK
    count = 0
    while count < most and one[: (count + 1) * PREFIX_BLOCK] == other[: (count + 1) * PREFIX_BLOCK]:
        count += 1
    return count * PREFIX_BLOCK


@given(TOKENS, TOKENS, st.integers(0, 5 * PREFIX_BLOCK))
def test_an_index_finds_the_longest_shared_prefix(computed, other, shared):
    asked = computed[:shared] + other
    index = PrefixIndex(1000)
    index.note(prefix_digests(computed))
    assert index.num_matching(prefix_digests(asked)) == num_shared(computed, asked)


def test_a_prefix_is_found_under_its_own_salt_only():
    tokens = list(range(100))
    index = PrefixIndex(1000)
    index.note(prefix_digests(tokens, "one key"))
    assert index.num_matching(prefix_digests(tokens, "one key")) == 96
    assert index.num_matching(prefix_digests(tokens, "another key")) == 0
    assert index.num_matching(prefix_digests(tokens)) == 0


def test_long_salts_and_salts_that_are_no_text_are_told_apart():
    tokens = list(range(100))
    salts = ["x" * 100 + "a", "x" * 100 + "b", "\ud800", ""]
    assert len({prefix_digests(tokens, salt)[0] for salt in salts}) == len(salts)


@given(st.lists(TOKENS, max_size=20), st.integers(0, 10))
def test_an_index_is_bounded_and_forgets_the_oldest(prompts, most):
    index = PrefixIndex(most)
    for prompt in prompts:
        digests = prefix_digests(prompt)
        index.note(digests)
        assert len(index) <= most
        assert index.num_matching(digests) == min(len(digests), most) * PREFIX_BLOCK


def test_a_cleared_index_knows_nothing():
    index = PrefixIndex(10)
    index.note(prefix_digests(list(range(100))))
    index.clear()
    assert index.num_matching(prefix_digests(list(range(100)))) == 0


@given(CANDIDATES, st.floats(0, 1e6))
def test_no_engine_with_too_much_to_do_is_chosen(candidates, tokens):
    chosen = next(each for each in candidates if each.engine_id == choose(candidates, tokens))
    mean = sum(each.tokens_owed for each in candidates) / len(candidates)
    assert chosen.tokens_owed <= (1.25 * mean + tokens) * (1 + 1e-9)


@given(CANDIDATES, st.floats(0, 1e6))
def test_among_engines_within_the_bound_the_longest_prefix_wins_then_the_least_work(candidates, tokens):
    chosen = next(each for each in candidates if each.engine_id == choose(candidates, tokens))
    mean = sum(each.tokens_owed for each in candidates) / len(candidates)
    for each in candidates:
        if each.tokens_owed <= 1.25 * mean + tokens:
            assert (chosen.num_matching, -chosen.tokens_owed) >= (each.num_matching, -each.tokens_owed)


@given(st.integers(2, 6), st.integers(1, 200), st.floats(1, 1000))
def test_a_prefix_that_all_requests_share_does_not_fill_one_engine(num_engines, num_requests, tokens):
    """Requests of one size, all with the prefix of engine 1: none gets more than the bound allows."""
    owed = dict.fromkeys(range(1, num_engines + 1), 0.0)
    for _ in range(num_requests):
        candidates = [Candidate(n, owed[n], PREFIX_BLOCK if n == 1 else 0) for n in owed]
        owed[choose(candidates, tokens)] += tokens
    mean = num_requests * tokens / num_engines
    assert max(owed.values()) <= (1.25 * mean + 2 * tokens) * (1 + 1e-9)
