"""Seeded random models small enough for a test, as checkpoints in memory, and the steps that run them.

The same seed gives the same weights whatever the storage type, the file format or the order of rows, so that two
checkpoints which must agree can be told apart only by what a test varies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from antiphon.checkpoint import TENSOR_TYPES, Checkpoint, Tensor, TokenizerData
from antiphon.config import EngineConfig
from antiphon.models.names import _GGUF, _HUGGING_FACE
from antiphon.models.spec import ModelSpec
from antiphon.ops.reference_types import LEVELS
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, create_device
from antiphon.step import SampleSpec, ScheduledSequence

Array = npt.NDArray[np.float32]
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0")  # what `encode` can write
_GGUF_WRITES = ("Q5_0", "Q5_1")  # what the gguf package can write beyond that
# Where a block of the others keeps its scale, and the factor that its scale of minima has so that weights average zero.
_SCALES = {"Q4_K": (0, 7.5), "Q5_K": (0, 15.5), "Q6_K": (208, 0.0), "IQ4_XS": (0, 0.0)}
GREEDY = SampleSpec(SamplingParams(temperature=0.0), 0, 0)
SETTINGS: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 330,  # neither a multiple of 32 nor of 16
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 512,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}


def encode(values: Array, type: str) -> bytes:
    """Float32 values as a checkpoint stores them; quantized types round to the nearest code.

    Types that nothing here can write get codes at random, of the values' size.
    """
    if type == "F32":
        return values.astype(np.float32).tobytes()
    if type == "F16":
        return values.astype(np.float16).tobytes()
    if type == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    blocks = values.astype(np.float32).reshape(-1, 32)
    if type == "Q8_0":
        scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float16)
        return np.hstack(
            [scale.view(np.uint8), _codes(blocks, scale, -127, 127).astype(np.int8).view(np.uint8)]
        ).tobytes()
    if type == "Q4_0":
        scale = (np.abs(blocks).max(axis=1, keepdims=True) / 7).astype(np.float16)
        return np.hstack([scale.view(np.uint8), _paired(_codes(blocks, scale, -8, 7) + 8)]).tobytes()
    if type == "IQ4_NL":
        return _iq4_nl(blocks)
    if type in _GGUF_WRITES:
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType[type]).tobytes()
    if type != "Q4_1":
        return noise(values, type)
    least = blocks.min(axis=1, keepdims=True).astype(np.float16)
    scale = ((blocks.max(axis=1, keepdims=True) - least) / 15).astype(np.float16)
    codes = _codes(blocks - least.astype(np.float32), scale, 0, 15)
    return np.hstack([scale.view(np.uint8), least.view(np.uint8), _paired(codes)]).tobytes()


def _iq4_nl(blocks: Array) -> bytes:
    """The value of largest magnitude on the outermost level, the others on the nearest."""
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    scale = (extreme / LEVELS[0]).astype(np.float16)
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)
    codes = np.searchsorted((LEVELS[1:] + LEVELS[:-1]) / 2, blocks / divisor)
    return np.hstack([scale.view(np.uint8), _paired(codes)]).tobytes()


def noise(values: Array, type: str) -> bytes:
    """Blocks of a quantized type with codes at random, whose weights average zero and spread as the values do."""
    size, block = TENSOR_TYPES[type]
    raw = np.random.default_rng(values.size).integers(0, 256, (values.size // block, size), dtype=np.uint8)
    scale, least = _SCALES[type]

    def put(step: float) -> Array:
        for at, factor in ((scale, 1.0), (2, least)):
            if factor:
                raw[:, at : at + 2] = np.array([step * factor], np.float16).view(np.uint8)
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[type])

    put(float(values.std() / put(1.0 / 64).std() / 64))
    return raw.tobytes()


def _codes(blocks: Array, scale: npt.NDArray[np.float16], lowest: int, highest: int) -> npt.NDArray[np.int32]:
    divisor = np.where(scale == 0, 1, scale).astype(np.float32)
    return np.clip(np.rint(blocks / divisor), lowest, highest).astype(np.int32)


def _paired(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    return (codes[:, :16] | codes[:, 16:] << 4).astype(np.uint8)


def tensor(name: str, values: Array, type: str = "F32") -> Tensor:
    """A tensor of these values; vectors stay float32, as in real checkpoints."""
    return stored(
        name, values.shape, type if values.ndim == 2 else "F32", encode(values, type if values.ndim == 2 else "F32")
    )


def stored(name: str, shape: tuple[int, ...], type: str, data: bytes) -> Tensor:
    """A tensor of these bytes, sound or not."""
    assert len(data) == np.prod(shape) // TENSOR_TYPES[type][1] * TENSOR_TYPES[type][0]
    return Tensor(name, shape, type, lambda: memoryview(data))


def tiny_model(
    *,
    seed: int = 0,
    architecture: str = "llama",
    format: str = "safetensors",
    type: str | Mapping[str, str] = "Q8_0",
    **settings: Any,
) -> Checkpoint:
    """A checkpoint; `type` is one storage type, or one for each of our tensor names ("" for the others)."""
    merged = SETTINGS | settings
    names = _GGUF if format == "gguf" else _HUGGING_FACE
    types = {"": type} if isinstance(type, str) else dict(type)
    tensors = {}
    for name, layer, values in _weights(merged, architecture, np.random.default_rng(seed)):
        theirs = names[name].format(layer)
        if format == "gguf" and architecture == "llama" and name in ("q", "k"):
            values = _interleaved(values, merged["head_dim"])
        tensors[theirs] = tensor(theirs, values, types.get(name, types[""]))
    return Checkpoint(
        path=Path("tiny"),
        format=format,
        name="Tiny",
        architecture=architecture,
        settings=merged,
        tensors=tensors,
        tokenizer=TokenizerData(eos_token_ids=(0,)),
    )


def _weights(
    settings: Mapping[str, Any], architecture: str, rng: np.random.Generator
) -> Iterator[tuple[str, int, Array]]:
    """(our name, layer, values) of every tensor; scaled so that attention and logits are neither flat nor one-hot."""
    hidden, inner, dim = settings["hidden_size"], settings["intermediate_size"], settings["head_dim"]
    query, kv = settings["num_attention_heads"] * dim, settings["num_key_value_heads"] * dim

    def matrix(rows: int, columns: int) -> Array:
        return (rng.standard_normal((rows, columns)) * 1.5 / np.sqrt(columns)).astype(np.float32)

    def vector(size: int, mean: float) -> Array:
        return (mean + 0.2 * rng.standard_normal(size)).astype(np.float32)

    yield "embedding", 0, matrix(settings["vocab_size"], hidden) * np.float32(np.sqrt(hidden))
    for layer in range(settings["num_hidden_layers"]):
        yield "attention_norm", layer, vector(hidden, 1.0)
        for name, rows in (("q", query), ("k", kv), ("v", kv)):
            yield name, layer, matrix(rows, hidden)
            if architecture == "qwen2":
                yield f"{name}_bias", layer, vector(rows, 0.0)
            if architecture == "qwen3" and name != "v":
                yield f"{name}_norm", layer, vector(dim, 1.5)
        yield "attention_out", layer, matrix(hidden, query)
        yield "mlp_norm", layer, vector(hidden, 1.0)
        yield "gate", layer, matrix(inner, hidden)
        yield "up", layer, matrix(inner, hidden)
        yield "down", layer, matrix(hidden, inner)
    yield "norm", 0, vector(hidden, 1.0)
    if not settings["tie_word_embeddings"]:
        yield "head", 0, matrix(settings["vocab_size"], hidden)


def _interleaved(values: Array, head_dim: int) -> Array:
    """Rows 0, d/2, 1, d/2 + 1, … of each head: the order of GGUF's llama files."""
    return np.ascontiguousarray(values.reshape(-1, 2, head_dim // 2, values.shape[1]).swapaxes(1, 2)).reshape(
        values.shape
    )


def cpu_runner(
    checkpoint: Checkpoint,
    instruction_set: str = "auto",
    *,
    threads: int = 1,
    kv: str = "int8",
    activations: str = "int8",
    num_blocks: int = 64,
    max_tokens: int = 160,
    max_sequences: int = 32,
) -> CpuRunner:
    """The real runner on a checkpoint in memory."""
    spec = ModelSpec.from_checkpoint(checkpoint)
    config = EngineConfig(
        "tiny",
        context_length=spec.context_length,
        kv_cache_tokens=num_blocks * CpuRunner.block_size,
        max_num_sequences=max_sequences,
        max_batch_tokens=max_tokens,
        kv_cache_type=kv,
        activations=activations,
        threads=threads,
        instruction_set=instruction_set,
    )
    return CpuRunner(config, create_device(config), checkpoint, spec, None, lambda fraction, phase: None)


def gpu_runner(
    checkpoint: Checkpoint,
    *,
    activations: str = "int8",
    num_blocks: int = 64,
    max_tokens: int = 160,
    max_sequences: int = 32,
    enforce_eager: bool = False,
) -> Any:
    """The GPU's runner on a checkpoint in memory, in the interpreter."""
    from antiphon.ops.triton.interpreter import use_interpreter

    use_interpreter()
    from antiphon.runtime.gpu import GpuRunner

    spec = ModelSpec.from_checkpoint(checkpoint)
    config = EngineConfig(
        "tiny",
        context_length=spec.context_length,
        kv_cache_tokens=num_blocks * CpuRunner.block_size,
        max_num_sequences=max_sequences,
        max_batch_tokens=max_tokens,
        activations=activations,
        threads=1,
        device="interpreter",
        enforce_eager=enforce_eager,
    )
    return GpuRunner(config, create_device(config), checkpoint, spec, None, lambda fraction, phase: None)


def scheduled(
    token_ids: list[int], blocks: list[int], *, start: int = 0, id: int = 0, sample: SampleSpec | None = GREEDY
) -> ScheduledSequence:
    """Tokens to compute from position `start` on."""
    return ScheduledSequence(id, token_ids, start, blocks, (sample,) if sample else ())
