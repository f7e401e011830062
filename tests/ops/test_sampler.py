"""Drawing tokens: the compiled sampler against the reference, on ordinary rows and on nasty ones."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from logit_rows import LogitRows

from antiphon.ops.reference_sampler import adjusted, candidates, sample_reference, uniform_reference
from antiphon.request import SamplingParams
from antiphon.step import SampledToken, SampleSpec

VOCABULARIES = [1, 5, 16, 1000, 1024, 1025, 3001]
SEEDS = range(12)
FILTERS = [
    SamplingParams(),
    SamplingParams(temperature=0.25),
    SamplingParams(temperature=50.0),
    SamplingParams(temperature=1e-4),
    SamplingParams(temperature=1e-6),
    SamplingParams(top_k=1),
    SamplingParams(top_k=7),
    SamplingParams(top_k=100_000),
    SamplingParams(top_k=40, top_p=0.875, min_p=0.0625),
    SamplingParams(top_p=0.5),
    SamplingParams(top_p=0.9375, temperature=0.5),
    SamplingParams(top_p=1e-9),
    SamplingParams(min_p=1.0),
    SamplingParams(min_p=0.125, temperature=2.0),
    SamplingParams(top_p=0.96875, min_p=0.03125, temperature=8.0),
]


def rows(vocabulary: int) -> np.ndarray:
    """Ordinary, steep, equal, one huge, one tiny, equal maxima far apart, all below zero; at most one a token."""
    rng = np.random.default_rng(vocabulary)
    made = np.stack([rng.standard_normal(vocabulary) * scale for scale in (2, 20, 0, 1, 1, 1)]).astype(np.float32)
    made[2] = 3.5
    made[3, vocabulary // 2] = 60_000
    made[4, -1] = -60_000
    made[5, [0, vocabulary // 2, -1]] = 9.0
    return np.concatenate([made, made[:1] - 100])[:vocabulary]


@cache
def engine(vocabulary: int, instruction_set: str) -> LogitRows:
    return LogitRows(rows(vocabulary), instruction_set)


def check(drawn: SampledToken, row: np.ndarray, spec: SampleSpec) -> None:
    """The reference's token; or the one next to it, when the draw fell on the border up to float32's rounding."""
    expected = sample_reference(row, spec)
    assert drawn.error == expected.error
    if drawn.token_id == expected.token_id:
        return
    ids, probabilities = candidates(adjusted(row.astype(np.float64), spec), spec.sampling)
    index = ids.tolist().index(drawn.token_id)
    end = probabilities[: index + 1].sum()
    uniform = uniform_reference(spec.sampling.seed, spec.choice_index, spec.position)
    assert end - probabilities[index] - 2e-5 <= uniform <= end + 2e-5


def check_all(vocabulary: int, instruction_set: str, spec: SampleSpec) -> None:
    rows = engine(vocabulary, instruction_set)
    for seed in SEEDS:
        seeded = replace(spec, sampling=replace(spec.sampling, seed=seed * 0x9E3779B97F4A7C15 % 2**64), position=seed)
        for row, drawn in enumerate(rows.draw([(row, seeded) for row in range(rows.count)])):
            check(drawn, rows.logits[row], seeded)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_filters(instruction_set: str, vocabulary: int) -> None:
    for sampling in FILTERS:
        check_all(vocabulary, instruction_set, SampleSpec(sampling, 3, 0))


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_greedy_takes_the_lowest_id_among_equals(instruction_set: str, vocabulary: int) -> None:
    rows = engine(vocabulary, instruction_set)
    for temperature in (0.0, 1e-6):
        spec = SampleSpec(SamplingParams(temperature=temperature), 0, 0)
        tokens = [drawn.token_id for drawn in rows.draw([(row, spec) for row in range(rows.count)])]
        assert tokens == rows.logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("sampling", FILTERS[::3], ids=str)
@pytest.mark.parametrize("vocabulary", [5, 1025, 3001])
def test_penalties_biases_and_masks(instruction_set: str, vocabulary: int, sampling: SamplingParams) -> None:
    history = [0, 1, 1, vocabulary - 1, vocabulary // 2, 1, 0, vocabulary - 1, vocabulary - 1]
    changed = replace(
        sampling,
        repetition_penalty=1.25,
        presence_penalty=0.5,
        frequency_penalty=-0.25,
        logit_bias={0: -100.0, 2: 3.0, vocabulary - 1: 100.0, 3: float("-inf")},
    )
    check_all(vocabulary, instruction_set, SampleSpec(changed, 0, 0, (vocabulary // 2, 4), history, 4))


def bitmask(vocabulary: int, allowed: list[int]) -> bytes:
    bits = np.zeros(-(-vocabulary // 32) * 32, np.uint8)
    bits[allowed] = 1
    return np.packbits(bits, bitorder="little").tobytes()


@pytest.mark.parametrize("sampling", FILTERS, ids=str)
@pytest.mark.parametrize("vocabulary", [5, 1024, 1025, 3001])
def test_a_grammars_mask(instruction_set: str, vocabulary: int, sampling: SamplingParams) -> None:
    """Few tokens and many, in some runs of the vocabulary and not in others; what it leaves is drawn from as ever."""
    random = np.random.default_rng(vocabulary)
    some = np.flatnonzero(random.random(vocabulary) < 0.4).tolist() or [0]
    for allowed in ([0], [vocabulary - 1], some, [*range(min(vocabulary, 1030))], [vocabulary // 2, vocabulary - 1]):
        spec = SampleSpec(replace(sampling, logit_bias={0: 3.0, vocabulary - 1: -2.0}), 1, 0)
        check_all(vocabulary, instruction_set, replace(spec, token_bitmask=bitmask(vocabulary, allowed)))


def test_tokens_beyond_a_mask_are_not_drawn(instruction_set: str) -> None:
    rows = engine(3001, instruction_set)
    spec = SampleSpec(SamplingParams(temperature=50.0), 0, 0, token_bitmask=bitmask(32, [3, 9]))
    assert {drawn.token_id for drawn in rows.draw([(row % rows.count, spec) for row in range(64)])} <= {3, 9}


def test_a_mask_without_a_token_is_an_error(instruction_set: str) -> None:
    rows = engine(1025, instruction_set)
    nothing = SampleSpec(SamplingParams(), 0, 0, token_bitmask=bitmask(1025, []))
    clash = SampleSpec(SamplingParams(), 0, 0, (7,), token_bitmask=bitmask(1025, [7]))
    last = SampleSpec(SamplingParams(), 0, 0, (7,), token_bitmask=bitmask(1025, [7, 1024]))
    drawn = rows.draw([(0, nothing), (1, clash), (2, last)])
    assert [token.error is None for token in drawn] == [False, False, True]
    assert drawn[2].token_id == 1024


def test_a_masks_log_probabilities_are_the_models_own(instruction_set: str) -> None:
    sampling = SamplingParams(num_logprobs=3)
    masked = SampleSpec(sampling, 0, 0, token_bitmask=bitmask(1025, [1000]))
    for row, drawn in enumerate(engine(1025, instruction_set).draw([(row, masked) for row in range(3)])):
        free = engine(1025, instruction_set).draw([(row, replace(masked, token_bitmask=b"", masked_token_ids=(1,)))])[0]
        assert drawn.token_id == 1000
        assert drawn.logprobs is not None
        assert free.logprobs is not None
        assert drawn.logprobs.top_logprobs == free.logprobs.top_logprobs
        biased = replace(masked, sampling=replace(sampling, logit_bias={1000: 1e6}), token_bitmask=b"")
        assert drawn.logprobs == engine(1025, instruction_set).draw([(row, biased)])[0].logprobs


def test_masking_everything_is_an_error(instruction_set: str) -> None:
    rows = engine(5, instruction_set)
    spec = SampleSpec(SamplingParams(), 0, 0, range(5))
    others = SampleSpec(SamplingParams(), 0, 0, (0, 1, 2, 4))
    masked, left = rows.draw([(0, spec), (0, others)])
    assert masked.error is not None
    assert left.token_id == 3


@pytest.mark.parametrize(
    "sampling", [SamplingParams(), SamplingParams(top_k=20, temperature=2.0), SamplingParams(top_p=0.75)], ids=str
)
def test_frequencies_are_the_probabilities(sampling: SamplingParams) -> None:
    """Chi-square over 16,000 draws; seeds are fixed, so this cannot fail by chance."""
    rows = LogitRows(np.random.default_rng(5).standard_normal((1, 40)).astype(np.float32))
    counts = np.zeros(40)
    for step in range(250):
        specs = [(0, SampleSpec(replace(sampling, seed=step), choice, step)) for choice in range(64)]
        np.add.at(counts, [drawn.token_id for drawn in rows.draw(specs)], 1)
    ids, probabilities = candidates(rows.logits[0].astype(np.float64), sampling)
    expected = counts.sum() * probabilities
    statistic = ((counts[ids] - expected) ** 2 / expected).sum()
    freedom = len(ids) - 1
    assert counts[ids].sum() == 16_000
    assert statistic < freedom + 3.3 * np.sqrt(2 * freedom)  # about one chance in a thousand


@pytest.mark.parametrize("count", [0, 1, 20])
@pytest.mark.parametrize("vocabulary", [5, 1025, 3001])
def test_logprobs_are_the_raw_distributions(instruction_set: str, vocabulary: int, count: int) -> None:
    """Whatever temperature, filters, biases and masks do to the draw."""
    sampling = SamplingParams(
        temperature=0.7, top_k=3, logit_bias={1: 50.0}, num_logprobs=count, repetition_penalty=1.5
    )
    rows = engine(vocabulary, instruction_set)
    spec = SampleSpec(sampling, 0, 9, (0,), [2, 3], 1)
    for row, drawn in enumerate(rows.draw([(row, spec) for row in range(rows.count)])):
        expected = sample_reference(rows.logits[row], spec)
        assert drawn.token_id == expected.token_id
        assert drawn.logprobs is not None
        assert expected.logprobs is not None
        assert drawn.logprobs.top_token_ids == expected.logprobs.top_token_ids
        ours = [drawn.logprobs.logprob, *drawn.logprobs.top_logprobs]
        theirs = [expected.logprobs.logprob, *expected.logprobs.top_logprobs]
        # A logit minus the logarithm of the sum: each is float32, so the difference errs by their last bit.
        assert ours == pytest.approx(theirs, rel=1e-6, abs=2e-6 + 1.2e-7 * abs(float(rows.logits[row].max())))


def test_draws_do_not_depend_on_company(instruction_set: str) -> None:
    """Alone, among 63 others, on other threads and kernels: the same token and the same bits of its log-probability."""
    crowd = LogitRows(rows(3001), instruction_set, threads=3)
    specs = [
        (i % crowd.count, SampleSpec(replace(FILTERS[i % len(FILTERS)], seed=i, num_logprobs=2), i, i))
        for i in range(64)
    ]
    together = crowd.draw(specs)
    alone = [engine(3001, "scalar").draw([spec])[0] for spec in specs]
    assert [replace(drawn, sequence_id=0) for drawn in together] == alone


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_fails_alone(instruction_set: str, bad: float) -> None:
    spoilt = LogitRows(rows(1025), instruction_set)
    specs = [(row, SampleSpec(SamplingParams(seed=row, num_logprobs=3), 0, row)) for row in range(spoilt.count)]
    before = spoilt.draw(specs)
    spoilt.spoil(2, bad)
    after = spoilt.draw(specs)
    assert after[2].error == "the model's logits are not finite numbers"
    assert after[:2] + after[3:] == before[:2] + before[3:]


@pytest.mark.parametrize("sampling", [SamplingParams(top_k=2**31), SamplingParams(seed=2**64)])
def test_a_number_too_large_to_hold_fails_alone(sampling: SamplingParams) -> None:
    bench = engine(1000, "auto")
    alone = bench.draw([(1, SampleSpec(SamplingParams(seed=3), 0, 0))])
    beside = bench.draw([(0, SampleSpec(sampling, 0, 0)), (1, SampleSpec(SamplingParams(seed=3), 0, 0))])
    assert beside[0].error == "A sampling parameter of this request is too large to compute with."
    assert beside[1].token_id == alone[0].token_id


def test_a_penalty_that_overflows_fails_alone(instruction_set: str) -> None:
    spec = SampleSpec(SamplingParams(repetition_penalty=1e-38), 0, 0, history=range(1000), num_prompt_tokens=1000)
    drawn = engine(1000, instruction_set).draw([(1, spec), (0, SampleSpec(SamplingParams(temperature=0.0), 0, 0))])
    assert drawn[0].error is not None
    assert "not finite" in drawn[0].error
    assert drawn[1].error is None
