"""The GPU's kernels, in the interpreter, draw the tokens that the native sampler draws from the same logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("triton")

from tiny_models import cpu_runner, gpu_runner, scheduled, tensor, tiny_model

from antiphon import _native
from antiphon.ops.native_sampling import Samplings
from antiphon.ops.triton.device import Device
from antiphon.ops.triton.interpreter import use_interpreter
from antiphon.ops.triton.tiles import InterpreterTiles
from antiphon.request import SamplingParams
from antiphon.step import PENDING, SampleSpec, ScheduledSequence, StepPlan

VOCABULARY = 2100  # three runs, the last of 52 tokens


def spec(position: int = 0, masked: tuple[int, ...] = (), **sampling: Any) -> SampleSpec:
    return SampleSpec(SamplingParams(**{"seed": 3 << 40, **sampling}), 1, position, masked_token_ids=masked)


SPECS = (
    spec(temperature=0.0),
    spec(temperature=0.0, masked=(7, 2099)),
    spec(5, temperature=0.7),
    spec(1 << 33, temperature=1.5, masked=(1, 2, 3, 4, 5)),
    spec(6, temperature=0.6, top_p=0.95),
    spec(7, temperature=1.0, top_p=0.4, min_p=0.01),
    spec(8, temperature=1.3, min_p=0.2),
    spec(9, temperature=1.0, top_p=1e-6),
    spec(10, temperature=0.9, top_k=12),
    spec(11, temperature=1.1, top_k=9, top_p=0.6, masked=(11,)),
    spec(12, temperature=1.0, top_k=6, min_p=0.3),
    spec(13, temperature=1.0, top_k=VOCABULARY, top_p=0.8),
)


def draw(logits: np.ndarray, specs: tuple[SampleSpec, ...]) -> list[int]:
    """What the kernels draw."""
    use_interpreter()
    from antiphon.ops.triton.drawing import Drawing, kind_of, row_parameters

    device = Device("interpreter")
    rows, vocabulary = logits.shape
    parameters = np.array([row_parameters(each, vocabulary) for each in specs])
    tokens = device.zeros((rows,), "int32")
    drawing = Drawing(device, InterpreterTiles(), device.upload(logits), device.upload(parameters), tokens)
    drawing.launch(rows, kind_of(parameters))
    return [int(token) for token in device.download(tokens)]


def draw_natively(logits: np.ndarray, specs: tuple[SampleSpec, ...]) -> list[int]:
    samplings = Samplings()
    requests = [samplings.request(id, each) for id, each in enumerate(specs)]
    return [outcome.token_id for outcome in _native.sample_rows(_native.Device("auto", 1), logits.copy(), requests)]


@pytest.mark.parametrize("spread", [0.05, 3.0], ids=["flat", "peaked"])
def test_every_kind_of_draw_takes_the_native_sampler_s_token(spread: float) -> None:
    rng = np.random.default_rng(round(spread))
    logits = (spread * rng.standard_normal((len(SPECS), VOCABULARY))).round(1).astype(np.float32)  # many are equal
    assert draw(logits, SPECS) == draw_natively(logits, SPECS)


def test_a_row_without_a_token_says_why_and_the_others_are_drawn() -> None:
    logits = np.random.default_rng(2).standard_normal((6, 5)).astype(np.float32)
    logits[1, 4], logits[4, 0] = np.nan, np.inf
    every = tuple(range(5))
    specs = (
        spec(temperature=1.0),
        spec(temperature=1.0),
        spec(temperature=1.0, masked=every),
        spec(temperature=0.0, masked=every),
        spec(temperature=0.0),
        spec(temperature=1.0, top_p=0.5),
    )
    found, native = draw(logits, specs), draw_natively(logits, specs)
    assert found[1:5] == [-1, -2, -2, -1]
    assert native[1:5] == [-1] * 4
    assert [found[0], found[5]] == [native[0], native[5]]


def test_the_walks_are_enough_for_the_widest_range() -> None:
    use_interpreter()
    from antiphon.ops.triton.drawing import WALKS

    width = int(np.float32(1).view(np.int32)) + 1 - int(np.float32(1e-37).view(np.int32))
    for _ in range(WALKS):
        width = max((width * (i + 1)) // 5 - (width * i) // 5 for i in range(5))
    assert width == 1


def test_what_the_kernels_do_not_know_is_left_to_the_native_sampler() -> None:
    use_interpreter()
    from antiphon.ops.triton.drawing import is_drawable

    assert all(is_drawable(each, VOCABULARY) for each in SPECS)
    for sampling in ({"num_logprobs": 0}, {"presence_penalty": 0.5}, {"logit_bias": {1: 2.0}}, {"top_k": 500}):
        assert not is_drawable(spec(**sampling), VOCABULARY)
    assert not is_drawable(SampleSpec(SamplingParams(), 0, 0, token_bitmask=b"\1\0\0\0"), VOCABULARY)
    assert not is_drawable(SampleSpec(SamplingParams(), 0, 0, step_logit_bias={3: 1.0}), VOCABULARY)


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_1", "Q8_0", "Q6_K", "Q4_K"])
def test_an_embedding_on_the_device_has_the_stored_values(type: str) -> None:
    use_interpreter()
    from antiphon.ops.triton.tables import launch_embed, upload_table

    values = np.random.default_rng(3).standard_normal((9, 256)).astype(np.float32)
    stored = tensor("table", values, type)
    table = _native.StoredMatrix(stored.read(), type, 9, 256)
    device = Device("interpreter")
    rows, expected = device.zeros((5, 256), "float32"), np.empty((5, 256), np.float32)
    tokens, drawn = np.array([8, -2, 0, 3, -1], np.int32), np.array([5, 7], np.int32)
    launch_embed(device, upload_table(device, table), 5, device.upload(tokens), device.upload(drawn), rows)
    table.dequantize_rows([8, 7, 0, 3, 5], expected)
    assert np.array_equal(device.download(rows), expected)


PROMPTS = [4, 7, 9], [5, 8, 2, 1], [6, 3]


def test_a_step_that_is_submitted_before_the_last_token_is_known_reads_it_on_the_device() -> None:
    """The third sequence is left out of the second step: the host draws its tokens, when its steps are collected."""
    checkpoint = tiny_model(num_hidden_layers=1)
    ahead, cpu = gpu_runner(checkpoint, max_sequences=4), cpu_runner(checkpoint, max_sequences=4)
    penalties, history = SamplingParams(temperature=0.9, seed=1, presence_penalty=1.5), list(PROMPTS[2])
    specs = [
        [spec(i, temperature=1.0) for i in range(2)],
        [spec(0, temperature=0.8), spec(1, temperature=0.8, num_logprobs=1)],
        [SampleSpec(penalties, 0, i, history=history, num_prompt_tokens=2) for i in range(2)],
    ]
    assert [ahead.may_be_pending(each) for each, _ in specs] == [True, True, False]
    first = StepPlan([scheduled(PROMPTS[i], [i], id=i, sample=specs[i][0]) for i in range(3)])
    ahead.submit(first)
    ahead.submit(StepPlan([following(i, PENDING, specs[i][1]) for i in (1, 0)]))  # in another order
    known = cpu.execute(first)
    assert ahead.collect() == known
    tokens = {sampled.sequence_id: sampled.token_id for sampled in known.sampled}
    history.append(tokens[2])
    ahead.submit(third := StepPlan([following(2, tokens[2], specs[2][1])]))
    assert ahead.collect() == cpu.execute(StepPlan([following(i, tokens[i], specs[i][1]) for i in (1, 0)]))
    assert ahead.collect() == cpu.execute(third)
    with pytest.raises(ValueError, match="outside the vocabulary"):  # its token is not on the device
        ahead.submit(StepPlan([following(2, PENDING, specs[2][1])]))


def following(id: int, token_id: int, sample: SampleSpec) -> ScheduledSequence:
    """The token after a prompt."""
    return scheduled([token_id], [id], start=len(PROMPTS[id]), id=id, sample=sample)


def test_a_request_with_a_number_too_large_for_the_sampler_fails_alone_though_the_next_step_is_submitted() -> None:
    ahead = gpu_runner(tiny_model(num_hidden_layers=1), max_sequences=4)
    seeds = 1, 1 << 64
    plans = [
        StepPlan([following(i, token, spec(temperature=1.0, seed=seeds[i])) for i in range(2)])
        for token in (5, PENDING)
    ]
    for plan in plans:
        ahead.submit(plan)
    for _ in plans:
        ours, other = ahead.collect().sampled
        assert ours.error is None
        assert "too large" in (other.error or "")
