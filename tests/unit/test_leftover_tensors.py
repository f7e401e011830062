"""A tensor that the forward pass would not use is refused by name: without it every answer would be slightly wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoints import write_safetensors
from tiny_folders import write_random_folder, write_random_gguf
from tiny_models import stored, tensor, tiny_model

from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.models.dense import check_tensors

HIDDEN = 96  # of tiny models


def with_tensors(model: Checkpoint, **more: np.ndarray) -> Checkpoint:
    """The model with vectors or matrices beside its own; `__` in a name stands for a dot."""
    named = {name.replace("__", "."): values for name, values in more.items()}
    return replace(model, tensors={**model.tensors, **{name: tensor(name, values) for name, values in named.items()}})


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def refusal(model: Checkpoint) -> str:
    with pytest.raises(CheckpointError) as error:
        check_tensors(model)
    return error.value.message


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("format", ["gguf", "safetensors"])
def test_sound_models_have_no_leftovers(architecture: str, format: str):
    check_tensors(tiny_model(architecture=architecture, format=format))


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("safetensors", "model.layers.1.self_attn.o_proj.bias"),
        ("safetensors", "model.layers.0.mlp.gate_proj.bias"),
        ("safetensors", "model.layers.0.self_attn.k_proj.bias"),  # without q's
        ("safetensors", "model.layers.0.self_attn.q_norm.weight"),  # of Qwen3
        ("safetensors", "model.layers.0.pre_feedforward_layernorm.weight"),  # of Gemma
        ("safetensors", "model.layers.0.self_attn.sinks"),
        ("safetensors", "model.layers.0.mlp.down_proj.weight_scale_inv"),  # of an fp8 folder
        ("safetensors", "model.embed_tokens.scale"),
        ("gguf", "blk.1.attn_output.bias"),
        ("gguf", "blk.0.ffn_down.bias"),
        ("gguf", "blk.0.attn_v.bias"),
        ("gguf", "blk.0.attn_k_norm.weight"),
        ("gguf", "blk.0.post_ffw_norm.weight"),
        ("gguf", "blk.0.attn_q.scale"),
        ("gguf", "output.bias"),
        ("gguf", "position_embd.weight"),
    ],
)
def test_a_tensor_without_a_place_is_named(format: str, name: str):
    model = with_tensors(tiny_model(format=format), **{name: ones(HIDDEN)})
    assert refusal(model).startswith(f"tensor {name!r} has no place in the llama architecture")


def test_how_many_more_there_are_is_said():
    model = with_tensors(tiny_model(), a=ones(4), b=ones(4), c=ones(4))
    assert refusal(model).startswith("tensor 'a' (and 2 more) has no place")


@pytest.mark.parametrize("format", ["gguf", "safetensors"])
def test_fewer_layers_than_the_file_has(format: str):
    model = tiny_model(format=format, num_hidden_layers=3)
    cut = replace(model, settings={**model.settings, "num_hidden_layers": 2})
    message = refusal(cut)
    assert "layers.2." in message or "blk.2." in message
    assert "is beyond the 2 layers that the settings name" in message


@pytest.mark.parametrize(
    "name",
    [
        "rope_freqs.weight",
        "blk.0.attn_rot_embd.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
    ],
)
def test_tables_of_angles_are_harmless(name: str):
    check_tensors(with_tensors(tiny_model(), **{name: ones(16)}))


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.o_proj.bias", "model.layers.0.mlp.down_proj.bias"])
def test_a_bias_of_zeros_is_harmless(name: str):
    check_tensors(with_tensors(tiny_model(), **{name: np.zeros(HIDDEN, np.float32)}))


def test_an_untied_model_needs_a_head():
    model = tiny_model()
    tensors = {name: tensor for name, tensor in model.tensors.items() if name != "lm_head.weight"}
    assert refusal(replace(model, tensors=tensors)).startswith("tensor lm_head.weight is missing")


def tied_folder(tmp_path: Path, change: int | None, kind: str = "BF16") -> Path:
    """A folder that says its head is its embedding and has both; they differ in byte `change`."""
    folder = write_random_folder(tmp_path / "model", "llama", tie_word_embeddings=True)
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    body = raw[8 + length :]
    start, end = header["model.embed_tokens.weight"]["data_offsets"]
    head = bytearray(body[start:end])
    if change is not None:
        head[change] ^= 1
    header["lm_head.weight"] = header["model.embed_tokens.weight"] | {
        "dtype": kind,
        "data_offsets": [len(body), len(body) + len(head)],
    }
    write_safetensors(folder / "model.safetensors", header, body + bytes(head))
    return folder


def test_a_copy_of_the_embedding_is_left_out(tmp_path: Path):
    checkpoint = open_checkpoint(tied_folder(tmp_path, None))
    assert "lm_head.weight" not in checkpoint.tensors
    check_tensors(checkpoint)


@pytest.mark.parametrize("change", [0, -1])
def test_a_tied_model_with_another_head_is_refused(tmp_path: Path, change: int):
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' differs from 'model.embed_tokens.weight'"):
        open_checkpoint(tied_folder(tmp_path, change))


def test_a_tied_model_with_a_head_of_another_type_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        open_checkpoint(tied_folder(tmp_path, None, "F16"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.causal", False),
        ("attention.clamp_kqv", 8.0),
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50.0),
        ("logit_scale", 0.0625),
        ("use_parallel_residual", True),
    ],
)
def test_gguf_fields_that_change_the_arithmetic_are_named(tmp_path: Path, key: str, value: object):
    with pytest.raises(CheckpointError, match=f"'llama.{key}' is {value}, which is not supported"):
        open_checkpoint(write_random_gguf(tmp_path / "m.gguf", "llama", fields={key: value}))


def test_gguf_fields_that_say_what_is_so_are_taken(tmp_path: Path):
    fields = {"attention.causal": True, "attention.clamp_kqv": 0.0, "logit_scale": 1.0}
    open_checkpoint(write_random_gguf(tmp_path / "m.gguf", "llama", fields=fields))


def test_a_leftover_is_not_read():
    def read() -> memoryview:
        raise AssertionError("was read")

    model = tiny_model()
    extra = replace(stored("model.extra.weight", (4,), "F32", bytes(16)), read=read)
    assert "'model.extra.weight'" in refusal(replace(model, tensors={**model.tensors, extra.name: extra}))
