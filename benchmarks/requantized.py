"""SmolLM2 in every format that can be written here, beside float32 arithmetic: the second table of docs/checkpoints.md.

The demo model's own weights, as float32, are what everything is made from and held against. Codes are the nearest ones:
what AWQ's and GPTQ's searches would find is better. K-quants and IQ4_XS, which the `gguf` package cannot write, are in
the files that llama.cpp's own program makes of the same weights. Loading is told in processor time, which a busy
machine leaves alone.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from checkpoint_formats import SCHEMES, Format, load
from prose import prose
from quantized_folders import Stored, config_of, in_parts, round_to, write_stored
from tiny_checkpoints import write_hugging_face
from tiny_models import encode, tensor
from transformers import PreTrainedModel

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.demo import demo_path
from antiphon.formats import open_checkpoint
from antiphon.models.names import _GGUF, _HUGGING_FACE, TensorFinder
from antiphon.models.spec import ModelSpec
from antiphon.ops.reference import dequantize
from fidelity import Distance, cut_windows, follow, load_judge

WINDOWS, LENGTH = 2, 128  # of prose
Weights = Mapping[str, Tensor]  # float32, under Hugging Face's names and in its order


def float_weights(checkpoint: Checkpoint) -> Weights:
    """A GGUF file's weights."""
    spec = ModelSpec.from_checkpoint(checkpoint)
    finder, weights = TensorFinder(checkpoint, spec), {}
    for ours, theirs in _GGUF.items():
        for layer in range(spec.num_layers if "{}" in theirs else 1):
            if finder.has(ours, layer):
                shape = checkpoint.tensors[theirs.format(layer)].shape
                name = _HUGGING_FACE[ours].format(layer)
                weights[name] = tensor(name, dequantize(finder.find(ours, shape, layer)), "F32")
    return weights


def write_gguf_as(path: Path, source: Path, kind: str) -> None:
    """The source with its matrices in another type; its metadata goes over byte by byte."""
    reader = gguf.GGUFReader(source)
    raw = source.read_bytes()
    infos, body = [], bytearray()
    for found in reader.tensors:
        values = gguf.quants.dequantize(found.data, found.tensor_type).astype(np.float32)
        kept = "F32" if values.ndim == 1 else kind
        name, number = found.name.encode(), int(gguf.GGMLQuantizationType[kept])
        extents = [int(extent) for extent in found.shape]
        infos.append(struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(extents)}Q", len(extents), *extents))
        infos.append(struct.pack("<IQ", number, len(body)))
        data = encode(values, kept)
        body += data + bytes(-len(data) % 32)
    header = raw[: reader.tensors[0].field.offset] + b"".join(infos)
    path.write_bytes(header + bytes(-len(header) % 32) + body)


def write_folder_as(path: Path, checkpoint: Checkpoint, weights: Weights, form: Format) -> Weights:
    """A folder in this format; what its weights stand for comes back."""
    settings = {name: value for name, value in checkpoint.settings.items() if value is not None}
    fields = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **settings}
    if form.kind == "folder":
        stored = {name: _as(part, form.type) for name, part in weights.items()}
        known = weights
    else:
        scheme = SCHEMES[form.kind]
        stored, known = in_parts(weights, scheme, lambda part: round_to(part, scheme))
        fields["quantization_config"] = config_of(scheme)
    write_hugging_face(path, **fields)
    write_stored(path / "model.safetensors", stored)
    return known


def _as(part: Tensor, kind: str) -> Stored:
    """Norms stay float32."""
    kind = kind if len(part.shape) == 2 else "F32"
    return Stored(kind, part.shape, encode(dequantize(part), kind))


class Bench:
    """The prose, the judge, and what the judge makes of the demo model's own weights."""

    def __init__(self) -> None:
        self.checkpoint = open_checkpoint(demo_path())
        self.windows = cut_windows(self.checkpoint, prose(), WINDOWS, LENGTH)
        self.weights = float_weights(self.checkpoint)
        self._judge: PreTrainedModel = load_judge(self.checkpoint)
        self.original = self.verdict(self.weights)

    def verdict(self, weights: Weights) -> torch.Tensor:
        """Log-probabilities at every position of every window, by float32 arithmetic."""
        state = {name: torch.from_numpy(dequantize(part).copy()) for name, part in weights.items()}
        self._judge.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
        with torch.inference_mode():
            return torch.stack([self._judge(window[None]).logits[0].log_softmax(-1) for window in self.windows])

    def row(self, name: str, path: Path, quantization: str, own: torch.Tensor) -> str:
        """`own`: the verdict on what the file holds."""
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("*.safetensors")))
        started = time.process_time()
        runner = load(path, quantization, max_num_sequences=WINDOWS, kv_cache_tokens=WINDOWS * LENGTH)
        seconds = time.process_time() - started
        ours, both = Distance(), Distance()
        follow(runner, self.windows, [(own, ours), (self.original, both)])
        about = runner.describe()
        errors = " | ".join(f"{distance.report()['mean_kl']:.5f}" for distance in (ours, both))
        return (
            f"| {name} | {size / 1e6:.0f} MB | {int(about['weight_bytes']) / 1e6:.0f} MB | {about['weight_format']} "
            f"| {seconds:.1f} s | {errors} |"
        )

    def write(self, path: Path, form: Format, llama_quantize: Path | None) -> Weights:
        """The demo model in a format; what it holds then comes back."""
        if form.kind == "llama.cpp":
            floats = path.with_name("floats.gguf")
            write_gguf_as(floats, demo_path(), "F16")
            command = [str(llama_quantize), str(floats), str(path), form.type]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        elif form.kind == "gguf":
            write_gguf_as(path, demo_path(), form.type)
        else:
            return write_folder_as(path, self.checkpoint, self.weights, form)
        return float_weights(open_checkpoint(path))


def rows(formats: list[Format], llama_quantize: Path | None) -> Iterator[str]:
    bench = Bench()
    yield bench.row("GGUF Q4_1, embedding Q8_0: the demo model", demo_path(), "auto", bench.original)
    for form in formats:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("model.gguf" if form.kind in ("gguf", "llama.cpp") else "model")
            own = bench.verdict(bench.write(path, form, llama_quantize))
            yield bench.row(form.name, path, form.quantization, own)
