"""Rotary scaling: both formats' fields as one mapping, the frequencies that follow, and what is refused by name."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import metadata, write_gguf, write_hugging_face

from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError
from antiphon.formats import open_checkpoint
from antiphon.models.rope import rope_attention_factor, rope_frequencies

LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
YARN_NUMBERS = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 256,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": pytest.approx(0.1 * math.log(4) + 1),
    "truncate": True,
}


def folder(path: Path, **config: Any) -> Checkpoint:
    return open_checkpoint(write_hugging_face(path / "model", **config))


def gguf(path: Path, fields: dict[str, Any], divisors: bytes | None = None) -> Checkpoint:
    """Heads of 16, so eight divisors."""
    tensors = [("output.weight", (4,), 0, bytes(16))]
    if divisors is not None:
        tensors.append(("rope_freqs.weight", (len(divisors) // 4,), 0, divisors))
    full = metadata() | {f"qwen2.rope.{key}": value for key, value in fields.items()}
    return open_checkpoint(write_gguf(path / "m.gguf", full, tensors))


@pytest.mark.parametrize("source", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["rope_type", "type"])
def test_a_folders_scaling_is_found_where_old_and_new_files_keep_it(tmp_path: Path, source: str, kind: str) -> None:
    settings = folder(tmp_path, **{source: {kind: "linear", "factor": 2, "rope_theta": 5e5}}).settings
    assert settings["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert settings["rope_theta"] == 5e5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (LLAMA3, {**LLAMA3, "original_max_position_embeddings": 512}),
        ({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 256}, YARN_NUMBERS),
        (
            {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 256, "attention_factor": 1.5},
            YARN_NUMBERS | {"attention_factor": 1.5},
        ),
        (
            {"type": "yarn", "factor": 4, "original_max_position_embeddings": 256, "mscale": 1, "mscale_all_dim": 1},
            YARN_NUMBERS | {"attention_factor": 1.0},
        ),
        (  # as DeepSeek-R1-0528-Qwen3-8B has it
            {"type": "yarn", "factor": 4, "original_max_position_embeddings": 256, "attn_factor": 0.8782488562869419},
            YARN_NUMBERS | {"attention_factor": pytest.approx(1.0)},
        ),
        ({"rope_type": "default"}, None),
        (
            {"rope_type": "dynamic", "factor": 4},
            {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 512},
        ),
    ],
)
def test_a_folders_numbers(tmp_path: Path, given: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert folder(tmp_path, rope_scaling=given).settings["rope_scaling"] == expected


def test_yarn_reaches_as_far_as_it_was_chosen_for(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 256}
    assert folder(tmp_path, rope_scaling=scaling | {"factor": 1e308}).settings["max_position_embeddings"] == 1 << 24
    for stated in (256, 512, 1024):
        assert (
            folder(tmp_path, rope_scaling=scaling, max_position_embeddings=stated).settings["max_position_embeddings"]
            == 1024
        )


@pytest.mark.parametrize(
    ("stated", "original", "trained", "reach"),
    [(512, None, 512, 2048), (512, 256, 256, 1024), (4096, 256, 256, 4096), (1 << 23, None, 1 << 23, 1 << 24)],
)
def test_dynamic_scaling_reaches_as_far_as_its_factor_says(
    tmp_path: Path, stated: int, original: int | None, trained: int, reach: int
) -> None:
    scaling = {"rope_type": "dynamic", "factor": 4, "original_max_position_embeddings": original}
    settings = folder(tmp_path, rope_scaling=scaling, max_position_embeddings=stated).settings
    assert settings["rope_scaling"]["original_max_position_embeddings"] == trained
    assert settings["max_position_embeddings"] == reach


@pytest.mark.parametrize("longest", [1, 100, 2048, 2049, 5000, 8192, 1 << 20])
def test_dynamic_scaling_is_that_of_transformers_at_the_longest_sequence(longest: int) -> None:
    """Up to the trained length it scales nothing."""
    pytest.importorskip("torch")
    rules = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    config_class = pytest.importorskip("transformers").LlamaConfig
    scaling = {"rope_type": "dynamic", "factor": 4.0}
    config = config_class(head_dim=64, max_position_embeddings=2048, rope_theta=1e4, rope_scaling=dict(scaling))
    theirs, factor = rules["dynamic"](config, "cpu", seq_len=longest)
    scaling["original_max_position_embeddings"] = 2048
    assert rope_frequencies(1e4, 64, scaling, longest) == pytest.approx(theirs.tolist(), rel=2e-6)
    assert rope_attention_factor(scaling) == factor
    if longest <= 2048:
        assert rope_frequencies(1e4, 64, scaling, longest) == rope_frequencies(1e4, 64, None, longest)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
        ({"scaling.type": "linear", "scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scaling.type": "linear", "scaling.factor": 0.0}, None),
        (
            {"scaling.type": "yarn", "scaling.factor": 4.0, "scaling.original_context_length": 256},
            YARN_NUMBERS,
        ),
        (
            {
                "scaling.type": "yarn",
                "scaling.factor": 4.0,
                "scaling.original_context_length": 256,
                "scaling.attn_factor": 2.0,
                "scaling.yarn_beta_fast": 16.0,
            },
            YARN_NUMBERS | {"attention_factor": pytest.approx(2 * (0.1 * math.log(4) + 1)), "beta_fast": 16.0},
        ),
    ],
)
def test_a_gguf_files_numbers(tmp_path: Path, fields: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert gguf(tmp_path, fields).settings["rope_scaling"] == expected


def frequencies(checkpoint: Checkpoint) -> list[float]:
    settings = checkpoint.settings
    return rope_frequencies(settings["rope_theta"], settings["head_dim"], settings["rope_scaling"], 512)


def test_llama_3s_scaling_is_the_same_by_its_rule_and_by_its_divisors(tmp_path: Path) -> None:
    by_rule = frequencies(folder(tmp_path, rope_scaling=LLAMA3 | {"original_max_position_embeddings": 64}))
    plain = frequencies(folder(tmp_path))
    divisors = [before / after for before, after in zip(plain, by_rule, strict=True)]
    assert (divisors[0], divisors[-1]) == (1, 8)
    assert any(1 < divisor < 8 for divisor in divisors)
    by_tensor = frequencies(gguf(tmp_path, {}, struct.pack("<8f", *divisors)))
    assert by_tensor == pytest.approx(by_rule, rel=1e-6)


@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 1_000_000.0])
def test_frequencies_are_those_of_transformers(theta: float, head_dim: int, truncate: bool) -> None:
    """Of real sizes: Llama 3.1, Qwen 2.5 with YaRN."""
    pytest.importorskip("torch")
    rules = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    config_class = pytest.importorskip("transformers").LlamaConfig
    yarn = YARN_NUMBERS | {"original_max_position_embeddings": 32768, "attention_factor": 1.1, "truncate": truncate}
    for scaling in (
        {"rope_type": "linear", "factor": 4.0},
        {**LLAMA3, "original_max_position_embeddings": 8192},
        yarn,
    ):
        config = config_class(
            head_dim=head_dim, max_position_embeddings=131072, rope_theta=theta, rope_scaling=dict(scaling)
        )
        theirs, factor = rules[scaling["rope_type"]](config, "cpu")
        assert rope_frequencies(theta, head_dim, scaling, 131072) == pytest.approx(theirs.tolist(), rel=2e-6)
        assert rope_attention_factor(scaling) == factor


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rope_type": "longrope", "factor": 4}, "rotary scaling 'longrope' is not supported; supported are default"),
        ({"rope_type": 7}, "'rope_scaling.rope_type' must be a string"),
        ({"rope_type": "linear"}, "'rope_scaling.factor' is missing"),
        ({"rope_type": "dynamic"}, "'rope_scaling.factor' is missing"),
        ({"rope_type": "dynamic", "factor": 0}, "'rope_scaling.factor' is 0"),
        ({"rope_type": "dynamic", "factor": 1e300}, "'rope_scaling.factor' is 1e"),
        ({"rope_type": "linear", "factor": 0.5}, "'rope_scaling.factor' is 0.5"),
        ({"rope_type": "linear", "factor": float("nan")}, "'rope_scaling.factor' is nan"),
        ({"rope_type": "linear", "factor": 10**400}, "'rope_scaling.factor' is 1000"),
        (LLAMA3 | {"high_freq_factor": 1}, "'rope_scaling.high_freq_factor' is 1; it must be above"),
        (LLAMA3 | {"original_max_position_embeddings": 0}, "'rope_scaling.original_max_position_embeddings' is 0"),
        ({"rope_type": "yarn", "factor": 4, "beta_slow": 0}, "'rope_scaling.beta_slow' is 0"),
        ({"rope_type": "yarn", "factor": 4, "rope_theta": 1}, "'yarn' needs a base"),
        ({"rope_type": "yarn", "factor": 4, "attention_factor": -1.0}, "'rope_scaling.attention_factor' is -1"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "'rope_scaling.partial_rotary_factor' is not 1"),
        ({"full_attention": {"rope_type": "default"}}, "'rope_scaling' differs among layers"),
        ("yarn", "'rope_scaling' must be a mapping, not 'yarn'"),
    ],
)
def test_what_a_folder_cannot_mean_is_named(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        folder(tmp_path, rope_scaling=given)
    assert "config.json" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "divisors", "message"),
    [
        ({"scaling.type": "longrope"}, None, "rotary scaling 'longrope' is not supported; supported are none, linear"),
        ({"scaling.type": "linear", "scaling.factor": 0.5}, None, "'qwen2.rope.scaling.factor' is 0.5"),
        ({"scaling.type": "yarn"}, None, "'qwen2.rope.scaling.factor' is missing"),
        ({"scaling.type": "yarn", "scaling.factor": 2.0, "scaling.yarn_ext_factor": 0.5}, None, "yarn_ext_factor"),
        ({}, struct.pack("<7f", *[1.0] * 7), "'rope_freqs.weight' must hold 8 weights in F32"),
        ({}, struct.pack("<8f", *[1.0] * 7, 0.0), "'rope_freqs.weight' holds a divisor"),
        ({}, struct.pack("<8f", *[1.0] * 7, math.nan), "'rope_freqs.weight' holds a divisor"),
        ({}, struct.pack("<8f", *[1.0] * 7, 0.49), "'rope_freqs.weight' holds a divisor that .* at least 0.5"),
        ({"scaling.type": "linear", "scaling.factor": 2.0}, struct.pack("<8f", *[1.0] * 8), "has both"),
    ],
)
def test_what_a_gguf_file_cannot_mean_is_named(
    tmp_path: Path, fields: dict[str, Any], divisors: bytes | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        gguf(tmp_path, fields, divisors)
