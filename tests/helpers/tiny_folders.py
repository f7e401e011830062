"""Seeded random models on disk, small enough for a test and whole enough to be served: folders and GGUF files.

The same seed, architecture and settings are the same model in both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_checkpoints import metadata, tiny_vocabulary, write_gguf, write_hugging_face, write_safetensors
from tiny_models import tiny_model

from antiphon.checkpoint import TENSOR_TYPES
from antiphon.formats.gguf import GGML_TYPES

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_GGUF_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
}


def write_random_folder(
    folder: Path, architecture: str, *, type: str = "BF16", seed: int = 0, config_class: str = "", **settings: Any
) -> Path:
    """A folder as a publisher would upload it, R1's template and advice included; the weights are noise.

    `settings` overrule those of tiny_models and are written to config.json; `config_class` does so with CLASSES.
    """
    assert TENSOR_TYPES[type][1] == 1, "a folder holds plain numbers"
    settings = {"vocab_size": len(tiny_vocabulary()[0])} | settings
    model = tiny_model(seed=seed, architecture=architecture, format="safetensors", type=type, **settings)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in model.tensors.items():
        data = bytes(tensor.read())
        header[name] = {
            "dtype": tensor.type,
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    fields = {name: value for name, value in model.settings.items() if value is not None}
    config_class = config_class or CLASSES[architecture]
    model_type = config_class.removesuffix("ForCausalLM").lower()
    write_hugging_face(folder, architectures=[config_class], model_type=model_type, **fields)
    write_safetensors(folder / "model.safetensors", header, body)
    return folder


def write_random_gguf(
    path: Path,
    architecture: str,
    *,
    type: str = "F32",
    seed: int = 0,
    fields: dict[str, Any] | None = None,
    tensors: list[tuple[str, tuple[int, ...], int, bytes]] | None = None,
    **settings: Any,
) -> Path:
    """A GGUF file; `fields` are more metadata, named behind the architecture, and `tensors` go beside the model's."""
    settings = {"vocab_size": len(tiny_vocabulary()[0])} | settings
    model = tiny_model(seed=seed, architecture=architecture, format="gguf", type=type, **settings)
    named = {theirs: model.settings[ours] for ours, theirs in _GGUF_KEYS.items()} | (fields or {})
    numbers = {name: number for number, name in GGML_TYPES.items()}
    written = [
        (name, tensor.shape, numbers[tensor.type], bytes(tensor.read())) for name, tensor in model.tensors.items()
    ]
    full = metadata(architecture) | {f"{architecture}.{key}": value for key, value in named.items()}
    return write_gguf(path, full, written + (tensors or []))
