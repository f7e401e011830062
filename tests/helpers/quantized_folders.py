"""Tiny folders with quantized weights, as AutoAWQ, AutoGPTQ (and GPTQModel) and compressed-tensors write them.

Packs by each tool's own description of its layout, and shares no line with the reader.
The weights are made by drawing codes, zero points and scales, so that what they stand for is known exactly.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tiny_checkpoints import tiny_vocabulary, write_hugging_face, write_safetensors
from tiny_folders import CLASSES
from tiny_models import encode, tensor, tiny_model

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.ops.reference import dequantize

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
SETTINGS: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
DTYPES = {"F16": 2, "BF16": 2, "F32": 4, "I8": 1, "I32": 4, "I64": 8}


@dataclass(frozen=True)
class Stored:
    """A tensor as safetensors has it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Scheme:
    """A way to quantize; `method` is awq, gptq, gptq_v2, pack (compressed-tensors' pack-quantized) or int (…)."""

    method: str
    bits: int = 4
    group_size: int = 128  # -1: the whole row
    symmetric: bool = False
    act_order: bool = False
    scales: str = "F16"

    def __str__(self) -> str:
        zeros = "sym" if self.symmetric else "asym"
        return f"{self.method}-{self.bits}-{self.group_size}-{zeros}{'-act-order' * self.act_order}-{self.scales}"


SCHEMES = [
    *(Scheme("awq", group_size=size) for size in (32, 64, 128, -1)),
    *(Scheme("gptq", symmetric=symmetric, group_size=size) for symmetric in (True, False) for size in (32, 128, -1)),
    Scheme("gptq_v2"),
    Scheme("gptq_v2", symmetric=True),
    Scheme("gptq", bits=8, symmetric=True),
    Scheme("gptq", bits=8),
    Scheme("gptq", symmetric=True, act_order=True),
    Scheme("gptq_v2", act_order=True, group_size=32),
    *(Scheme("pack", symmetric=symmetric, group_size=size) for symmetric in (True, False) for size in (32, 128, -1)),
    Scheme("pack", symmetric=True, scales="BF16"),
    Scheme("pack", bits=8, symmetric=True, scales="BF16", group_size=-1),
    Scheme("pack", bits=8),
    Scheme("pack", act_order=True, symmetric=True),
    Scheme("int", bits=8, group_size=-1, symmetric=True, scales="BF16"),
    Scheme("int", bits=8, group_size=-1, symmetric=True, scales="F32"),
]


@dataclass(frozen=True)
class Quantized:
    """A matrix in codes: a weight is (code - zero point of its group) * scale of its group."""

    codes: Ints  # [rows, columns], 0 up
    zeros: Ints  # [rows, groups]
    scales: Array  # [rows, groups]; numbers that the scheme's type of scales has
    group_of: Ints  # [columns]

    def values(self) -> Array:
        centred = self.codes - self.zeros[:, self.group_of]
        return (centred * self.scales[:, self.group_of].astype(np.float64)).astype(np.float32)


def draw(rng: np.random.Generator, part: Tensor, scheme: Scheme) -> Quantized:
    """Codes of a matrix of about unit gain, in the place of `part`."""
    rows, columns = part.shape
    top = (1 << scheme.bits) - 1
    size = columns if scheme.group_size == -1 else scheme.group_size
    groups = -(-columns // size)
    zeros = rng.integers(1, top + 1, (rows, groups))  # GPTQ's first version has no zero point 0
    if scheme.symmetric:
        zeros[:] = (top + 1) // 2
    step = 4.0 / (top * np.sqrt(columns))
    scales = (step * rng.uniform(0.5, 1.5, (rows, groups))).astype(np.float32)
    group_of = np.arange(columns) // size
    return Quantized(
        codes=np.clip(np.rint(rng.normal(top / 2, top / 5, (rows, columns))), 0, top).astype(np.int64),
        zeros=zeros,
        scales=_as_stored(scales, scheme.scales),
        group_of=_scattered(group_of, part.name) if scheme.act_order else group_of,
    )


def _scattered(group_of: Ints, name: str) -> Ints:
    """In an order that matrices of the same inputs share, as they do when they are quantized on them."""
    family = re.sub("(q|k|v|gate|up)_proj", lambda found: "mlp" if len(found[1]) > 1 else "attention", name)
    return np.random.default_rng(zlib.crc32(family.encode())).permutation(group_of)


def round_to(part: Tensor, scheme: Scheme) -> Quantized:
    """The nearest codes to given weights, a group at a time."""
    values = dequantize(part)
    top, middle = (1 << scheme.bits) - 1, 1 << (scheme.bits - 1)
    rows, columns = values.shape
    size = columns if scheme.group_size == -1 else scheme.group_size
    group_of = np.arange(columns) // size
    if scheme.act_order:
        group_of = _scattered(group_of, part.name)
    grouped = values[:, np.argsort(group_of, kind="stable")].reshape(rows, -1, size)
    lowest, highest = grouped.min(axis=2).clip(max=0), grouped.max(axis=2).clip(min=0)
    steps = np.abs(grouped).max(axis=2) / (middle - 1) if scheme.symmetric else (highest - lowest) / top
    scales = _as_stored(np.maximum(steps, 1e-6).astype(np.float32), scheme.scales)
    zeros = np.full(scales.shape, middle) if scheme.symmetric else np.rint(-lowest / scales).clip(1, top)
    codes = np.rint(values / scales[:, group_of]) + zeros[:, group_of]
    return Quantized(codes.clip(0, top).astype(np.int64), zeros.astype(np.int64), scales, group_of)


def _as_stored(values: Array, dtype: str) -> Array:
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) if dtype == "BF16" else values


def parts_of(matrix: Quantized, scheme: Scheme) -> dict[str, Stored]:
    """Endings of names → the tensors of one module."""
    return _PARTS[scheme.method](matrix, scheme)


def _awq(matrix: Quantized, scheme: Scheme) -> dict[str, Stored]:
    """Eight outputs of one input lie in a word, the odd ones in its upper half."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    return {
        ".qweight": _words(matrix.codes.T, 4, along=1, order=order),
        ".qzeros": _words(matrix.zeros.T, 4, along=1, order=order),
        ".scales": _floats(matrix.scales.T, scheme.scales),
    }


def _gptq(matrix: Quantized, scheme: Scheme) -> dict[str, Stored]:
    offset = 0 if scheme.method == "gptq_v2" else 1
    columns = len(matrix.group_of)
    return {
        ".qweight": _words(matrix.codes.T, scheme.bits, along=0),
        ".qzeros": _words(matrix.zeros.T - offset, scheme.bits, along=1),
        ".scales": _floats(matrix.scales.T, scheme.scales),
        ".g_idx": Stored("I32", (columns,), matrix.group_of.astype("<i4").tobytes()),
        ".bias": Stored("F16", (len(matrix.codes),), bytes(2 * len(matrix.codes))),
    }


def _pack(matrix: Quantized, scheme: Scheme) -> dict[str, Stored]:
    shape = matrix.codes.shape
    parts = {
        ".weight_packed": _words(matrix.codes, scheme.bits, along=1),
        ".weight_scale": _floats(matrix.scales, scheme.scales),
        ".weight_shape": Stored("I64", (2,), np.array(shape, "<i8").tobytes()),
    }
    if not scheme.symmetric:
        parts[".weight_zero_point"] = _words(matrix.zeros, scheme.bits, along=0)
    if scheme.act_order:
        parts[".weight_g_idx"] = Stored("I32", (shape[1],), matrix.group_of.astype("<i4").tobytes())
    return parts


def _int(matrix: Quantized, scheme: Scheme) -> dict[str, Stored]:
    return {
        ".weight": Stored("I8", matrix.codes.shape, (matrix.codes - 128).astype(np.int8).tobytes()),
        ".weight_scale": _floats(matrix.scales, scheme.scales),
    }


_PARTS: dict[str, Callable[[Quantized, Scheme], dict[str, Stored]]] = {
    "awq": _awq,
    "gptq": _gptq,
    "gptq_v2": _gptq,
    "pack": _pack,
    "int": _int,
}


def _words(codes: Ints, bits: int, *, along: int, order: list[int] | None = None) -> Stored:
    """32-bit words along one axis; place i of a word has code `order[i]` of those that share it."""
    if along == 0:
        turned = _words(codes.T, bits, along=1, order=order)
        words = np.frombuffer(turned.data, "<u4").reshape(turned.shape).T
        return Stored("I32", words.shape, words.tobytes())
    count = 32 // bits
    words = np.zeros((len(codes), codes.shape[1] // count), np.int64)
    for place, which in enumerate(order or range(count)):
        words += codes[:, which::count] << (bits * place)
    return Stored("I32", words.shape, words.astype("<u4").tobytes())


def _floats(values: Array, dtype: str) -> Stored:
    return Stored(dtype, values.shape, encode(np.ascontiguousarray(values), dtype))


def config_of(scheme: Scheme) -> dict[str, Any]:
    """`quantization_config` as the tool writes it."""
    if scheme.method == "awq":
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": scheme.group_size,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": None,
        }
    if scheme.method.startswith("gptq"):
        return {
            "quant_method": "gptq",
            "bits": scheme.bits,
            "group_size": scheme.group_size,
            "sym": scheme.symmetric,
            "desc_act": scheme.act_order,
            "checkpoint_format": scheme.method,
            "damp_percent": 0.01,
            "true_sequential": True,
            "pack_dtype": "int32",
        }
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "channel" if scheme.group_size == -1 else "group",
        "group_size": None if scheme.group_size == -1 else scheme.group_size,
        "actorder": "group" if scheme.act_order else None,
        "dynamic": False,
        "observer": "minmax",
    }
    inputs = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    group = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": inputs if scheme.method == "int" else None,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": {"pack": "pack-quantized", "int": "int-quantized"}[scheme.method],
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
    }


def write_quantized_folder(
    folder: Path,
    scheme: Scheme,
    architecture: str = "qwen2",
    *,
    seed: int = 0,
    change: Callable[[dict[str, Stored]], object] = lambda tensors: None,
    **config: Any,
) -> Checkpoint:
    """Write the folder; the same model with the values that its codes stand for, in float32, is what comes back.

    `change` may spoil the tensors before they are written, `config` overrules fields of config.json.
    """
    vocabulary = len(tiny_vocabulary()[0])
    model = tiny_model(seed=seed, architecture=architecture, vocab_size=vocabulary, type="F32", **SETTINGS)
    rng = np.random.default_rng(seed)
    stored, known = in_parts(model.tensors, scheme, lambda part: draw(rng, part, scheme))
    change(stored)
    fields = {name: value for name, value in model.settings.items() if value is not None}
    fields |= {"architectures": [CLASSES[architecture]], "model_type": architecture}
    write_hugging_face(folder, **fields | {"quantization_config": config_of(scheme)} | config)
    write_stored(folder / "model.safetensors", stored)
    return replace(model, tensors=known)


def in_parts(
    tensors: Mapping[str, Tensor], scheme: Scheme, quantize: Callable[[Tensor], Quantized]
) -> tuple[dict[str, Stored], dict[str, Tensor]]:
    """A model's tensors (float32, Hugging Face's names), projections in parts; and with what those stand for."""
    stored, known = {}, {}
    for name, part in tensors.items():
        if "_proj.weight" not in name:
            stored[name], known[name] = Stored("F32", part.shape, bytes(part.read())), part
            continue
        matrix, module = quantize(part), name.removesuffix(".weight")
        parts = parts_of(matrix, scheme)
        if f"{module}.bias" in tensors:
            parts.pop(".bias", None)  # it has one of its own
        stored |= {module + ending: what for ending, what in parts.items()}
        known[name] = tensor(name, matrix.values(), "F32")
    return stored, known


def write_stored(path: Path, tensors: dict[str, Stored]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for name, what in tensors.items():
        end = len(body) + len(what.data)
        header[name] = {"dtype": what.dtype, "shape": list(what.shape), "data_offsets": [len(body), end]}
        body += what.data
    write_safetensors(path, header, bytes(body))
