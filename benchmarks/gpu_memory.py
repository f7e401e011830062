"""The tables of docs/gpu.md about memory: how many users fit a card, and what a small server takes.

    python benchmarks/gpu_memory.py

Both come from the plan that `antiphon serve` and `antiphon inspect` make, for DeepSeek-R1-Distill-Qwen-1.5B as it is
published in bfloat16. No GPU, no PyTorch and no model file is needed: the plan only depends on the tensors' sizes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from antiphon.checkpoint import Checkpoint, Tensor, TokenizerData
from antiphon.config import EngineConfig
from antiphon.footprint import PROCESS_BYTES, kv_bytes_per_token, users_that_fit
from antiphon.gpu_footprint import CONTEXT_BYTES
from antiphon.memory_plan import MemoryPlan, plan_memory

CARDS = (8, 12, 16, 24, 48, 80)  # GiB
LENGTHS = (2048, 8192, 32768)  # tokens of a conversation
USERS, USER_TOKENS = 12, 2048  # of the small server
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, DIM, VOCABULARY = 1536, 8960, 28, 12, 2, 128, 151_936
SETTINGS = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": DIM,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": False,
}


def r1() -> Checkpoint:
    """DeepSeek-R1-Distill-Qwen-1.5B with the sizes of its tensors and without their values."""
    tensors = [_tensor(name, *shape) for name, *shape in _shapes()]
    return Checkpoint(
        path=Path("r1"),
        format="safetensors",
        name="R1",
        architecture="qwen2",
        settings=SETTINGS,
        tensors={tensor.name: tensor for tensor in tensors},
        tokenizer=TokenizerData(eos_token_ids=(151_643,)),
    )


def _tensor(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, "BF16", lambda: memoryview(b""))


def _shapes() -> Iterator[tuple[str, *tuple[int, ...]]]:
    yield "model.embed_tokens.weight", VOCABULARY, HIDDEN
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", HIDDEN
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            yield f"{at}.self_attn.{name}_proj.weight", heads * DIM, HIDDEN
            yield f"{at}.self_attn.{name}_proj.bias", heads * DIM
        yield f"{at}.self_attn.o_proj.weight", HIDDEN, HEADS * DIM
        yield f"{at}.post_attention_layernorm.weight", HIDDEN
        yield f"{at}.mlp.gate_proj.weight", INNER, HIDDEN
        yield f"{at}.mlp.up_proj.weight", INNER, HIDDEN
        yield f"{at}.mlp.down_proj.weight", HIDDEN, INNER
    yield "model.norm.weight", HIDDEN
    yield "lm_head.weight", VOCABULARY, HIDDEN


def cards_table() -> str:
    """Users that fit a card, by the length of their conversations; Markdown."""
    columns = [f"{kind.upper()}, {length:,}" for kind in ("w4", "w8") for length in LENGTHS]
    lines = [_row("card", *columns), _row(*["---"] * (1 + len(columns)))]
    for card in CARDS:
        plans = [_planned(quantization, card << 30, device="cuda:0") for quantization in ("w4", "w8")]
        cells = [f"{users_that_fit(plan.kv_capacity, length):,}" for plan in plans for length in LENGTHS]
        lines.append(_row(f"{card} GiB", *cells))
    return "\n".join(lines)


def server_table() -> str:
    """What a server for a few users takes, in GB (10^9 bytes); Markdown."""
    tokens = USERS * USER_TOKENS
    bf16 = sum(tensor.num_bytes for tensor in r1().tensors.values())
    rows = [_row("", "weights", "KV cache", "buffers", "CUDA or processes", "sum")]
    rows.append(_row(*["---"] * 6))
    rows.append(_row("bf16, weights and KV cache alone", *_sizes(bf16, tokens * kv_bytes_per_token(SETTINGS, "f16"))))
    for device, where in (("cuda:0", "GPU"), ("cpu", "CPU")):
        for quantization in ("w8", "w4"):
            plan = _planned(
                quantization,
                64 << 30,
                device=device,
                kv_cache_tokens=tokens,
                max_num_sequences=USERS,
                context_length=USER_TOKENS,
            )
            buffers, fixed = 0, PROCESS_BYTES
            if plan.gpu is not None:
                buffers, fixed = plan.gpu.step(plan.context_length), CONTEXT_BYTES
            weights = plan.engine_bytes - plan.kv_cache_bytes - buffers - fixed
            sizes = _sizes(weights, plan.kv_cache_bytes, buffers if plan.gpu else None, fixed)
            rows.append(_row(f"{where}, {quantization.upper()}", *sizes))
    return "\n".join(rows)


def _planned(quantization: str, memory: int, **settings: object) -> MemoryPlan:
    config = EngineConfig("r1", quantization=quantization, engines=1, **settings)  # type: ignore[arg-type]  # of any type
    plan = plan_memory(r1(), config, memory)
    assert not plan.problem, plan.problem
    return plan


def _sizes(*parts: int | None) -> list[str]:
    shown = ["" if part is None else f"{part / 1e9:.2f}" for part in parts]
    shown += [""] * (4 - len(shown))
    return [*shown, f"{sum(part or 0 for part in parts) / 1e9:.2f}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(cards_table(), server_table(), sep="\n\n")
