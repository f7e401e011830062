"""Two fixed tiny models, made of integers, that together use every kind of kernel; `fingerprint` computes with them.

Their bytes come from a counter-based generator in integer arithmetic and half-precision numbers assembled from bits, so
they are the same on every machine and with every version of NumPy. They must not change: the fingerprints of two
versions of Antiphon could not be compared any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.checkpoint import Checkpoint, Tensor, TokenizerData, block_of

Bytes = npt.NDArray[np.uint8]

# Sizes that are multiples of a group (32) but not of a panel or a shard, so that partial ones are computed too.
SETTINGS: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 1100,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 512,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": 1.125,
    "truncate": True,
}
_BLOCK_NAMES = {
    "attention_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "attention_out": "self_attn.o_proj.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}


def biased_model() -> Checkpoint:
    """Qwen2 with large key biases, in all weight formats of the kernels; to be served with an int8 KV cache."""
    types = {"q": "Q4_0", "k": "Q4_0", "v": "Q8_0", "gate": "Q4_1", "up": "Q4_1", "attention_out": "Q4_1"}
    return _model("qwen2", SETTINGS, types)


def normed_model() -> Checkpoint:
    """Qwen3 with norms of its heads and YaRN, its head tied to the embedding; for a KV cache in half precision."""
    settings = SETTINGS | {"rope_scaling": _YARN, "tie_word_embeddings": True}
    return _model("qwen3", settings, {"gate": "Q4_0", "up": "Q4_0", "q": "Q4_1", "k": "Q4_1", "v": "Q4_1"})


def random_bytes(seed: int, count: int) -> Bytes:
    """SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014)."""
    z = (np.arange(1, (count + 7) // 8 + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).astype("<u8").view(np.uint8)[:count]


def _model(architecture: str, settings: dict[str, Any], types: dict[str, str]) -> Checkpoint:
    tensors = {}
    for seed, (name, stored_name, shape) in enumerate(_shapes(architecture, settings), start=1):
        type = "F32" if len(shape) == 1 else types.get(name, "Q8_0")
        data = _vector(seed, shape[0], name) if type == "F32" else _matrix(seed, shape, type)
        tensors[stored_name] = Tensor(stored_name, shape, type, memoryview(data.tobytes()).toreadonly)
    return Checkpoint(
        path=Path("probe"),
        format="safetensors",
        name="probe",
        architecture=architecture,
        settings=settings,
        tensors=tensors,
        tokenizer=TokenizerData(eos_token_ids=(0,)),
    )


def _shapes(architecture: str, settings: dict[str, Any]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Our name, the stored name and the shape of each tensor."""
    hidden, inner, dim = settings["hidden_size"], settings["intermediate_size"], settings["head_dim"]
    heads = {"q": settings["num_attention_heads"] * dim, "k": dim, "v": dim}
    block: dict[str, tuple[int, ...]] = {"attention_norm": (hidden,), "mlp_norm": (hidden,)}
    block |= {name: (rows, hidden) for name, rows in heads.items()}
    if architecture == "qwen2":
        block |= {f"{name}_bias": (rows,) for name, rows in heads.items()}
    else:
        block |= {"q_norm": (dim,), "k_norm": (dim,)}
    block |= {"attention_out": (hidden, heads["q"]), "gate": (inner, hidden), "up": (inner, hidden)}
    block["down"] = (hidden, inner)
    yield "embedding", "model.embed_tokens.weight", (settings["vocab_size"], hidden)
    for name, shape in block.items():
        yield name, f"model.layers.0.{_BLOCK_NAMES[name]}", shape
    yield "norm", "model.norm.weight", (hidden,)
    if not settings["tie_word_embeddings"]:
        yield "head", "lm_head.weight", (settings["vocab_size"], hidden)


def _vector(seed: int, size: int, name: str) -> Bytes:
    """Norms from 1/2 to 3/2; biases of K from -16 to 16, seven of eight of them zero; other biases from -1/2 to 1/2."""
    values = random_bytes(seed, size).view(np.int8).astype("<f4")
    if name == "k_bias":
        values *= (np.arange(size) % 8 == 0) / np.float32(8)
    else:
        values = values / np.float32(256) + np.float32(0 if name.endswith("bias") else 1)
    return np.frombuffer(values.tobytes(), np.uint8)


def _matrix(seed: int, shape: tuple[int, ...], type: str) -> Bytes:
    """Random codes; each block's scale in half precision is a power of two times 1 to 2, at random."""
    size, block = block_of(type)
    raw = random_bytes(seed, shape[0] * shape[1] // block * size).reshape(-1, size).copy()
    exponent = {"Q8_0": -9, "Q4_0": -5, "Q4_1": -5}[type]
    fraction = raw[:, :2].copy().view("<u2")[:, 0] & 0x3FF
    raw[:, :2] = (fraction | (exponent + 15) << 10).astype("<u2")[:, None].view(np.uint8)
    if type == "Q4_1":  # the minimum: about -7.5 scales, so that weights average zero
        raw[:, 2:4] = (fraction // 2 | 0x8000 | (exponent + 18) << 10).astype("<u2")[:, None].view(np.uint8)
    return raw.reshape(-1)
