"""The memory plan of a GPU: its bytes are those that the runner allocates for weights, KV cache and buffers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from biased_models import biased_model
from tiny_models import GREEDY, gpu_runner, scheduled, tiny_model

pytest.importorskip("triton")

from antiphon.checkpoint import Checkpoint
from antiphon.config import EngineConfig
from antiphon.errors import ConfigError
from antiphon.gpu_footprint import GpuFootprint, gpu_footprint
from antiphon.memory_plan import MemoryPlan, plan_memory

BLOCKS, MAX_TOKENS, MAX_SEQUENCES = 64, 160, 32


def planned(checkpoint: Checkpoint, activations: str, memory: int = 1 << 30) -> MemoryPlan:
    """The plan for `gpu_runner` of the same checkpoint."""
    config = EngineConfig(
        "tiny",
        quantization="w8",
        kv_cache_tokens=BLOCKS * 32,
        max_num_sequences=MAX_SEQUENCES,
        max_batch_tokens=MAX_TOKENS,
        activations=activations,
        device="cuda:0",
    )
    return plan_memory(checkpoint, config, memory)


def footprint_of(plan: MemoryPlan) -> GpuFootprint:
    assert plan.gpu is not None
    return plan.gpu


ODD = {"hidden_size": 160, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 96}
MIXED = {"": "Q4_1", "v": "Q8_0", "down": "Q5_1", "up": "Q8_0"}  # as in the files that mix types


@pytest.mark.parametrize(
    ("checkpoint", "activations", "bias_pairs"),
    [
        (tiny_model(type="Q8_0"), "int8", (0,)),
        (tiny_model(type="Q4_0", architecture="qwen3", **ODD), "int16", (0,)),
        (tiny_model(type=MIXED, tie_word_embeddings=True), "int8", (0,)),
        (biased_model(60.0), "int8", (4, 2, 4)),
    ],
    ids=["llama", "qwen3", "mixed types", "key biases"],
)
def test_the_plan_is_what_the_runner_allocates(
    checkpoint: Checkpoint, activations: str, bias_pairs: tuple[int, ...]
) -> None:
    plan = planned(checkpoint, activations)
    gpu = footprint_of(plan)
    runner = gpu_runner(
        checkpoint,
        activations=activations,
        num_blocks=BLOCKS,
        max_tokens=MAX_TOKENS,
        max_sequences=MAX_SEQUENCES,
    )
    program = runner._program
    assert sum(each.nbytes for layer in program._attention._pool for each in layer.tensors()) == plan.kv_cache_bytes
    spared = gpu.key_bias - gpu.shape.key_bias(bias_pairs)  # the plan is made before the biases are read
    context = plan.engine_bytes - gpu.weights - gpu.step(plan.context_length) - plan.kv_cache_bytes
    assert runner.describe()["device_bytes"] == plan.engine_bytes - context - spared


def test_a_full_step_allocates_nothing() -> None:
    checkpoint = tiny_model(num_hidden_layers=1)
    runner = gpu_runner(checkpoint, num_blocks=BLOCKS, max_tokens=MAX_TOKENS, max_sequences=MAX_SEQUENCES)
    before = runner.describe()["device_bytes"]
    blocks = list(range(16))  # 512 tokens, the longest context: prefixes are shared
    long = [scheduled([1], blocks, start=511, id=i, sample=GREEDY) for i in range(MAX_SEQUENCES - 1)]
    rest = MAX_TOKENS - len(long)
    runner._program._inputs.take([*long, scheduled([1] * rest, blocks, id=99, sample=None)], {})
    assert runner.describe()["device_bytes"] == before


def test_a_model_that_cannot_be_served_is_refused_by_the_plan() -> None:
    checkpoint = tiny_model()
    without = {name: tensor for name, tensor in checkpoint.tensors.items() if "layers.1.mlp.up" not in name}
    plan = planned(replace(checkpoint, tensors=without), "int8")
    assert "mlp.up_proj" in plan.problem
    with pytest.raises(ConfigError, match=r"mlp\.up_proj"):
        plan.applied_to(EngineConfig("tiny", device="cuda:0"))


def test_a_card_that_is_too_small_is_told_what_the_model_takes() -> None:
    config = EngineConfig("tiny", device="cuda:0")
    plan = plan_memory(tiny_model(), config, 256 << 20)
    assert "not enough memory on cuda:0: the model and its buffers take 0.6 GiB" in plan.problem
    assert "of the 0.2 GiB that are free" in plan.problem


def test_eight_bits_are_chosen_on_a_gpu_if_they_leave_room_there() -> None:
    checkpoint = tiny_model(type="BF16")
    config = EngineConfig("tiny", device="cuda:0")
    chosen = {}
    for name in ("w8", "w4"):
        gpu = gpu_footprint(checkpoint, config)
        room = 32 * 1024 * plan_memory(checkpoint, config, 2 << 30).kv_bytes_per_token
        memory = int((gpu.engine(512) + room) / 0.9) + (4096 if name == "w8" else -4096)
        chosen[name] = plan_memory(checkpoint, config, memory).quantization.name
    assert chosen == {"w8": "w8", "w4": "w4"}
