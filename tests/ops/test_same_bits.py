"""The same bits under any load: instruction sets, companions in a batch, chunking, threads. All compared with ==."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property_tests import examples
from tiny_models import SETTINGS, cpu_runner, scheduled, tiny_model

from antiphon import _native
from antiphon.checkpoint import Checkpoint
from antiphon.runtime.cpu import CpuRunner
from antiphon.step import StepPlan

BLOCK = _native.BLOCK_TOKENS
MIXED = {"": "Q4_0", "v": "Q8_0", "down": "Q4_1", "gate": "Q4_1", "embedding": "F16", "head": "Q8_0"}
MODELS = {
    "llama, tied": lambda: tiny_model(type="Q4_0", tie_word_embeddings=True),
    "llama, mixed": lambda: tiny_model(type=MIXED, num_attention_heads=4, num_key_value_heads=4, head_dim=64),
    "qwen2, biased": lambda: tiny_model(architecture="qwen2", type="Q8_0"),
}
PROMPTS = [
    np.random.default_rng(i).integers(0, SETTINGS["vocab_size"], n).tolist() for i, n in enumerate((1, 5, 40, 70))
]


@cache
def runner(name: str, instruction_set: str, threads: int, kv: str, activations: str) -> CpuRunner:
    checkpoint: Checkpoint = MODELS[name]()
    return cpu_runner(checkpoint, instruction_set, threads=threads, kv=kv, activations=activations)


def blocks_of(index: int) -> list[int]:
    """Each prompt's own three blocks, out of order."""
    return [3 * index + 2, 3 * index, 3 * index + 1]


def alone(runner: CpuRunner, index: int) -> np.ndarray:
    """The logits after a prompt, computed in one step by itself."""
    runner.execute(StepPlan([scheduled(PROMPTS[index], blocks_of(index))]))
    return runner.logits()[0].copy()


@cache
def expected(name: str, kv: str, activations: str) -> list[np.ndarray]:
    """What everyone must arrive at: the plainest kernels, one thread, each prompt alone."""
    plain = runner(name, "scalar", 1, kv, activations)
    return [alone(plain, index) for index in range(len(PROMPTS))]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("kv", "activations"), [("int8", "int8"), ("f16", "int16")])
@pytest.mark.parametrize("name", MODELS)
def test_instruction_sets_and_threads(instruction_set: str, name: str, kv: str, activations: str, threads: int) -> None:
    machine = runner(name, instruction_set, threads, kv, activations)
    for index, row in enumerate(expected(name, kv, activations)):
        assert (alone(machine, index) == row).all()


@settings(max_examples=examples(40))
@given(st.data())
def test_any_mix_and_any_chunking(data: st.DataObject) -> None:
    """Prompts enter when they like, in chunks as they come, in any order, beside any others."""
    name = data.draw(st.sampled_from(sorted(MODELS)))
    kv, activations = data.draw(st.sampled_from([("int8", "int8"), ("f16", "int16")]))
    instruction_set = data.draw(st.sampled_from(_native.instruction_sets()))
    machine = runner(name, instruction_set, data.draw(st.integers(1, 3)), kv, activations)
    computed = dict.fromkeys(range(len(PROMPTS)), 0)
    while computed:
        chosen = data.draw(st.lists(st.sampled_from(sorted(computed)), min_size=1, unique=True))
        chunks = {index: data.draw(st.integers(1, len(PROMPTS[index]) - computed[index])) for index in chosen}
        finished = _step(machine, computed, chunks)
        rows = machine.logits()
        for index, row in zip(finished, rows, strict=True):
            assert (row == expected(name, kv, activations)[index]).all()


def _step(machine: CpuRunner, computed: dict[int, int], chunks: dict[int, int]) -> list[int]:
    """Run one step and forget the prompts that it finishes; returns those, in order."""
    plan, finished = [], []
    for index, size in chunks.items():
        start, end = computed[index], computed[index] + size
        last = end == len(PROMPTS[index])
        part = scheduled(PROMPTS[index][start:end], blocks_of(index), start=start, id=index)
        plan.append(part if last else scheduled(part.token_ids, part.block_table, start=start, sample=None))
        computed[index] = end
        if last:
            finished.append(index)
            del computed[index]
    machine.execute(StepPlan(plan))
    return finished


def test_a_shared_prefix_is_as_good_as_ones_own(instruction_set: str) -> None:
    """A second sequence reads the first one's full blocks and computes only what follows."""
    machine = runner("qwen2, biased", instruction_set, 2, "int8", "int8")
    row = alone(machine, 3)
    rest = PROMPTS[3][2 * BLOCK :]
    shared = [*blocks_of(3)[:2], 60]
    machine.execute(StepPlan([scheduled(rest, shared, start=2 * BLOCK)]))
    assert (machine.logits()[0] == row).all()


@cache
def long_context(instruction_set: str, threads: int, kv: str, activations: str, chunks: tuple[int, ...]) -> np.ndarray:
    """The logits after a prompt of two segments of attention, and a bit of a third, computed in chunks."""
    machine = cpu_runner(
        tiny_model(type="Q4_0", max_position_embeddings=600),
        instruction_set,
        threads=threads,
        kv=kv,
        activations=activations,
        max_tokens=600,
    )
    prompt = np.random.default_rng(9).integers(0, SETTINGS["vocab_size"], sum(chunks)).tolist()
    table = np.random.default_rng(10).permutation(len(prompt) // BLOCK + 1).tolist()
    start = 0
    for size in chunks:
        last = start + size == len(prompt)
        part = scheduled(prompt[start : start + size], table, start=start)
        machine.execute(
            StepPlan([part if last else scheduled(part.token_ids, part.block_table, start=start, sample=None)])
        )
        start += size
    return machine.logits()[0].copy()


@pytest.mark.parametrize(("kv", "activations"), [("int8", "int8"), ("f16", "int16")])
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_that_share_a_long_context(instruction_set: str, threads: int, kv: str, activations: str) -> None:
    """Its segments are computed apart where there are threads for them."""
    expected = long_context("scalar", 1, kv, activations, (530,))
    for chunks in ((529, 1), (250, 13, 200, 66, 1)):
        assert (long_context(instruction_set, threads, kv, activations, chunks) == expected).all()
