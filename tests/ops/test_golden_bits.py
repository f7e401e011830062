"""Bits that were computed once and are compared everywhere: another machine, compiler or library must get the same.

The models are made of integers (`runtime.probe_models`), so the results show nothing but the engine's own arithmetic.
If a change here is intended, the answers of every model change: say so in CHANGELOG.md.
"""

from __future__ import annotations

import struct
from hashlib import sha256

import numpy as np
import pytest
from tiny_models import cpu_runner

from antiphon import _native
from antiphon.models.rope import rope_frequencies
from antiphon.ops.reference_sampler import uniform_reference
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, fingerprint_of
from antiphon.runtime.fingerprint import EXPECTED, NUM_BLOCKS, PROMPT_LENGTH, model_fingerprint, prompt
from antiphon.runtime.probe_models import biased_model, normed_model
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

ANSWERS = {
    ("biased", "greedy"): "842eb6308f27711f15d353e010d10c1c",
    ("biased", "sampled"): "ce9913d50088201b665e2b72d5eac331",
    ("normed", "greedy"): "1684aeda041bbf6a0b665bd5f8568f2b",
    ("normed", "sampled"): "9794ed1237c55f4c7db954e9cefc40dc",
}
MODEL_BYTES = {"biased": "71a714e6554fc8ade3da33a44240374e", "normed": "ff5bad3f259965fcbba0ba0960e622bb"}
ROTATIONS = {
    ("plain", 10000.0): "15c54bc89cd05e955808be49d08b3bf5",
    ("plain", 1000000.0): "605208acc9c000da7a8ec6ed4ef7e5a2",
    ("yarn", 1000000.0): "8027cdfc42ab4bb3f8bf6ca7f0a91e10",
    ("llama3", 500000.0): "490d6d56521a349f809a5ed0b2a8ca7e",
}
DRAWS = "923d6f0363c6b05623252c8609a4856d"

MODELS = {"biased": (biased_model, "int8", "int8"), "normed": (normed_model, "f16", "int16")}
WAYS = {
    "greedy": SamplingParams(temperature=0.0, num_logprobs=5),
    "sampled": SamplingParams(temperature=1.25, top_p=0.9375, seed=11, frequency_penalty=0.25, num_logprobs=5),
}
SCALINGS = {
    "plain": None,
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "attention_factor": 1.0,
        "truncate": True,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


def hashed(data: bytes) -> str:
    return sha256(data).hexdigest()[:32]


def golden_runner(model: str, instruction_set: str, threads: int) -> CpuRunner:
    make, kv, activations = MODELS[model]
    return cpu_runner(
        make(), instruction_set, threads=threads, kv=kv, activations=activations, max_tokens=PROMPT_LENGTH
    )


def answer(runner: CpuRunner, sampling: SamplingParams, chunk: int) -> bytes:
    """Twelve tokens with their log-probabilities; the prompt is computed in chunks."""
    known, table = prompt(), list(range(1, NUM_BLOCKS + 1))
    done, packed = 0, b""
    for position in range(12):
        while len(known) - done > chunk:
            runner.execute(StepPlan([ScheduledSequence(0, known[done : done + chunk], done, table)]))
            done += chunk
        spec = SampleSpec(sampling, 0, position, history=known, num_prompt_tokens=PROMPT_LENGTH)
        (drawn,) = runner.execute(StepPlan([ScheduledSequence(0, known[done:], done, table, (spec,))])).sampled
        assert drawn.logprobs is not None
        scores = drawn.logprobs
        packed += struct.pack("<i6f5i", drawn.token_id, scores.logprob, *scores.top_logprobs, *scores.top_token_ids)
        done = len(known)
        known.append(drawn.token_id)
    return packed


@pytest.mark.parametrize("model", MODELS)
def test_the_models_of_these_tests_are_the_same_bytes_everywhere(model: str) -> None:
    digest = sha256()
    for name, stored in sorted(MODELS[model][0]().tensors.items()):
        digest.update(name.encode() + bytes(stored.read()))
    assert digest.hexdigest()[:32] == MODEL_BYTES[model]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_log_probabilities_are_the_committed_ones(
    instruction_set: str, model: str, way: str, threads: int
) -> None:
    runner = golden_runner(model, instruction_set, threads)
    chunk = PROMPT_LENGTH if threads == 1 else 97
    assert hashed(answer(runner, WAYS[way], chunk)) == ANSWERS[model, way]


def test_the_answers_differ() -> None:
    """Else the hashes would say little about drawing tokens."""
    assert len(set(ANSWERS.values())) == len(ANSWERS)
    for model in MODELS:
        tokens = [answer(golden_runner(model, "auto", 1), sampling, PROMPT_LENGTH)[::48] for sampling in WAYS.values()]
        assert all(len(set(each)) > 4 for each in tokens)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_fingerprint_is_the_committed_one(instruction_set: str, threads: int) -> None:
    assert fingerprint_of(_native.Device(instruction_set, threads)) == EXPECTED


def test_a_model_has_the_same_fingerprint_on_every_instruction_set_and_another_than_other_models() -> None:
    found = {
        model: {
            model_fingerprint(golden_runner(model, name, threads), ())
            for name in _native.instruction_sets()
            for threads in (1, 2)
        }
        for model in MODELS
    }
    assert [len(each) for each in found.values()] == [1, 1]
    assert found["biased"] != found["normed"]


def test_settings_that_change_bits_of_long_sequences_change_a_models_fingerprint() -> None:
    runner = golden_runner("biased", "auto", 1)
    assert model_fingerprint(runner, ("f16",)) != model_fingerprint(runner, ("int8",))
    assert model_fingerprint(runner, ("a", "bc")) != model_fingerprint(runner, ("ab", "c"))


@pytest.mark.parametrize(("scaling", "theta"), ROTATIONS)
def test_rotary_tables_are_the_committed_ones(scaling: str, theta: float) -> None:
    frequencies = rope_frequencies(theta, 128, SCALINGS[scaling], 131072)
    rows = [
        _native.sine_cosine(position * frequency) for position in range(0, 131072, 997) for frequency in frequencies
    ]
    assert hashed(np.array(rows, np.float64).astype("<f4").tobytes()) == ROTATIONS[scaling, theta]


def test_random_numbers_are_the_committed_ones() -> None:
    counted = [(seed, choice, position) for seed in (0, 1, 2**64 - 1) for choice in (0, 7) for position in range(50)]
    drawn = [_native.uniform_draw(*each) for each in counted]
    assert drawn == [uniform_reference(*each) for each in counted]
    assert hashed(struct.pack(f"<{len(drawn)}d", *drawn)) == DRAWS
