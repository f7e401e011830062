"""Hugging Face folders of seeded random models, small enough for a test and whole enough to be served."""

from __future__ import annotations

from pathlib import Path

from tiny_checkpoints import tiny_vocabulary, write_hugging_face, write_safetensors
from tiny_models import tiny_model

from antiphon.checkpoint import TENSOR_TYPES

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}


def write_random_folder(folder: Path, architecture: str, *, type: str = "BF16", seed: int = 0) -> Path:
    """A folder as a publisher would upload it, R1's template and advice included; the weights are noise."""
    assert TENSOR_TYPES[type][1] == 1, "a folder holds plain numbers"
    model = tiny_model(
        seed=seed, architecture=architecture, format="safetensors", type=type, vocab_size=len(tiny_vocabulary()[0])
    )
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
    settings = {name: value for name, value in model.settings.items() if value is not None}
    write_hugging_face(folder, architectures=[CLASSES[architecture]], model_type=architecture, **settings)
    write_safetensors(folder / "model.safetensors", header, body)
    return folder
