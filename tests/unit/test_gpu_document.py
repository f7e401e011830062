"""The table of docs/gpu.md: who fits which card, by the plan that `serve` and `inspect` make."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.checkpoint import TENSOR_TYPES, Checkpoint, Tensor, TokenizerData
from antiphon.config import EngineConfig
from antiphon.footprint import users_that_fit
from antiphon.machine.gpu import GPU_OVERHEAD_BYTES
from antiphon.memory_plan import plan_memory

DOCUMENT = Path(__file__).parents[2] / "docs" / "gpu.md"
CARDS = (8, 12, 16, 24, 48, 80)  # GiB
LENGTHS = (2048, 8192, 32768)
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, DIM, VOCABULARY = 1536, 8960, 28, 12, 2, 128, 151_936


def unread(name: str, *shape: int) -> Tensor:
    assert TENSOR_TYPES["BF16"]
    return Tensor(name, shape, "BF16", lambda: memoryview(b""))


def r1() -> Checkpoint:
    """DeepSeek-R1-Distill-Qwen-1.5B as it is published, without a weight."""
    rows = {"q": HEADS * DIM, "k": KV_HEADS * DIM, "v": KV_HEADS * DIM}
    tensors = [unread("model.embed_tokens.weight", VOCABULARY, HIDDEN), unread("lm_head.weight", VOCABULARY, HIDDEN)]
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        tensors += [unread(f"{at}.self_attn.{name}_proj.weight", count, HIDDEN) for name, count in rows.items()]
        tensors += [unread(f"{at}.self_attn.{name}_proj.bias", count) for name, count in rows.items()]
        tensors += [unread(f"{at}.self_attn.o_proj.weight", HIDDEN, HEADS * DIM)]
        tensors += [unread(f"{at}.mlp.{name}_proj.weight", INNER, HIDDEN) for name in ("gate", "up")]
        tensors += [unread(f"{at}.mlp.down_proj.weight", HIDDEN, INNER)]
    settings = {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": DIM,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": False,
    }
    return Checkpoint(
        path=Path("r1"),
        format="safetensors",
        name="R1",
        architecture="qwen2",
        settings=settings,
        tensors={tensor.name: tensor for tensor in tensors},
        tokenizer=TokenizerData(eos_token_ids=(0,)),
    )


def row(card: int) -> str:
    cells = []
    for quantization in ("w4", "w8"):
        config = EngineConfig("r1", device="cuda:0", quantization=quantization, engines=1)
        plan = plan_memory(r1(), config, (card << 30) - GPU_OVERHEAD_BYTES)
        assert not plan.problem
        cells += [f"{users_that_fit(plan.kv_capacity, length):,}" for length in LENGTHS]
    return f"| {card} GiB | {' | '.join(cells)} |"


@pytest.mark.parametrize("card", CARDS)
def test_the_table_says_who_fits(card: int) -> None:
    assert row(card) in DOCUMENT.read_text(encoding="utf-8")
