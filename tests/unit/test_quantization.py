"""Which precision float weights get, and what a checkpoint looks like then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from antiphon import footprint
from antiphon.checkpoint import Checkpoint, Tensor, TokenizerData
from antiphon.quantization import ENOUGH_TOKENS, as_quantized, choose_quantization

SETTINGS = {"num_hidden_layers": 1, "num_key_value_heads": 2, "head_dim": 128, "tie_word_embeddings": False}
MATRIX = (4096, 4096)


def checkpoint(*types: str) -> Checkpoint:
    tensors = {"model.embed_tokens.weight": (1000, 64), "lm_head.weight": (1000, 64), "model.norm.weight": (64,)}
    tensors |= {f"matrix {i}": MATRIX for i in range(len(types))}
    kinds = dict(zip(list(tensors)[3:], types, strict=True))
    made = {
        name: Tensor(name, shape, kinds.get(name, "BF16"), lambda: memoryview(b"")) for name, shape in tensors.items()
    }
    return Checkpoint(Path("m"), "safetensors", "m", "llama", SETTINGS, made, TokenizerData())


def free_for(model: Checkpoint, tokens: int) -> int:
    """Memory in which the model in 8 bits leaves room for so many tokens and hardly one more."""
    weights = footprint.weight_bytes(model.tensors.values(), tied=False)
    wanted = weights.resident + footprint.PROCESS_BYTES + tokens * footprint.kv_bytes_per_token(SETTINGS, "int8")
    return int(wanted / (1 - footprint.RESERVE_SHARE)) + 100


def test_8_bits_unasked_where_conversations_have_room_beside_them():
    model = checkpoint("BF16", "F16")
    assert choose_quantization("auto", model, free_for(model, ENOUGH_TOKENS), "int8").name == "w8"
    assert choose_quantization("auto", model, free_for(model, ENOUGH_TOKENS - 64), "int8").name == "w4"
    assert choose_quantization("auto", model, free_for(model, 64), "int8", kv_tokens=64).name == "w8"
    assert choose_quantization("auto", model, free_for(model, ENOUGH_TOKENS), "f16").name == "w4"  # larger tokens


def test_the_reason_has_the_figure_that_decided():
    model = checkpoint("BF16")
    assert f"fewer than {ENOUGH_TOKENS:,}" in choose_quantization("auto", model, 0, "int8").reason


@pytest.mark.parametrize("wish", ["w4", "w8"])
def test_a_wish_is_granted_whatever_the_memory(wish):
    assert choose_quantization(wish, checkpoint("F32"), 0, "int8").name == wish


@pytest.mark.parametrize("wish", ["auto", "w4", "w8"])
def test_what_is_stored_quantized_stays(wish):
    model = checkpoint("Q8_0", "Q4_K")  # its embedding and head are floats: those have no choice
    choice = choose_quantization(wish, model, 0, "int8")
    assert choice.name == ""
    assert as_quantized(model, choice.name) is model


def test_4_bits_are_for_the_float_matrices_between_embedding_and_head():
    model = checkpoint("BF16", "Q8_0", "F32")
    quantized = as_quantized(model, "w4")
    assert {name: tensor.type for name, tensor in quantized.tensors.items()} == {
        "model.embed_tokens.weight": "BF16",
        "lm_head.weight": "BF16",
        "model.norm.weight": "BF16",
        "matrix 0": "Q4_1",
        "matrix 1": "Q8_0",
        "matrix 2": "Q4_1",
    }
    before, after = (footprint.weight_bytes(m.tensors.values(), tied=False) for m in (model, quantized))
    assert after.w4 == 2 * footprint.packed_bytes(4096 * 4096, 5.0)
    assert after.w8 == before.w8 - 2 * footprint.packed_bytes(4096 * 4096, 8.5)


def test_blocks_are_made_when_they_are_read_and_the_file_is_let_go_after():
    released = []
    model = checkpoint("F16")
    name = "matrix 0"
    tensor = replace(model.tensors[name], release=lambda: released.append(name))
    model = replace(model, tensors={**model.tensors, name: tensor})
    found = as_quantized(model, "w4", lambda source, type: memoryview(f"{source.name} as {type}".encode())).tensors[
        name
    ]
    assert bytes(found.read()) == b"matrix 0 as Q4_1"
    found.release()
    assert released == [name]
    assert found.num_bytes == 4096 * 4096 // 32 * 20
