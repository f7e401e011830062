"""Matrices that a Hugging Face folder stores in quantized parts, as tensors of types that the kernels know.

Owns which parts make up a matrix in each layout, and checks their shapes, types and indices before anything is
unpacked; `quantized_blocks` unpacks when a tensor is read. A result is named like the matrix that it stands for
(`….q_proj.weight`), so no other module knows these layouts.

Codes of 4 bits become Q4_0, or Q4_ZP with zero points; symmetric codes of 8 bits become Q8_0. Matrices without such a
type become F32, which is rounded like any float weight: codes of 8 bits with zero points, and matrices in act-order
that cannot be sorted (`act_order`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from antiphon.checkpoint import INTEGER_TYPES, Source, Tensor
from antiphon.errors import CheckpointError
from antiphon.formats.act_order import Arrangement, arrange, is_scattered
from antiphon.formats.quantization_config import GROUP, QuantizationConfig
from antiphon.formats.quantized_parts import Parts

FLOATS = ("F16", "BF16", "F32")
# A part that every quantized matrix of a method has, and nothing else does.
MARKS = {"awq": ".qweight", "gptq": ".qweight", "compressed-tensors": ".weight_scale"}
EMBEDDING = "model.embed_tokens"
# compressed-tensors' scales and zero points of activations and of its KV cache: ours are made as we run.
ACTIVATIONS = re.compile(r".*\.(?:input|output|q|k|v)_(?:scale|zero_point)")
BIASED = (".q_proj", ".k_proj", ".v_proj")  # the modules whose bias our models add


def whole_matrices(folder: Path, tensors: Mapping[str, Tensor], how: QuantizationConfig | None) -> dict[str, Tensor]:
    """The tensors of a folder, each quantized matrix as one; raises CheckpointError for malformed parts."""
    found = dict(tensors)
    if how is not None:
        mark = MARKS[how.method]
        modules = [name.removesuffix(mark) for name in tensors if name.endswith(mark)]
        parts = {module: _sound_parts(_PartFinder(folder, module, found, how), how) for module in modules}
        arrangements = arrange({module: part.groups for module, part in parts.items()})
        if how.method == "compressed-tensors":
            found = {name: tensor for name, tensor in found.items() if not ACTIVATIONS.fullmatch(name)}
        for module, part in parts.items():
            found[f"{module}.weight"] = _whole_matrix(f"{module}.weight", part, arrangements[module], how)
    for name, tensor in found.items():
        if tensor.type in INTEGER_TYPES:
            wanted = how.name if how else "the quantization_config of config.json"
            raise CheckpointError(
                f"{folder}: tensor {name[:200]!r}: type {tensor.type} is not supported; use {', '.join(FLOATS)}, "
                f"or what {wanted} calls for"
            )
    return found


def described(how: QuantizationConfig, tensors: Mapping[str, Tensor]) -> str:
    """Describe the quantization, and how many matrices have no type of the kernels."""
    matrices = [tensor.type for tensor in tensors.values() if tensor.source]
    floats = matrices.count("F32")
    return f"{how.name}; {floats} of {len(matrices)} matrices read as floats" if floats else how.name


@dataclass(frozen=True, slots=True)
class _PartFinder:
    """Removes the parts of `module` from `found`, and checks each."""

    folder: Path
    module: str
    found: dict[str, Tensor]
    how: QuantizationConfig

    def take(self, ending: str, shape: tuple[int | None, ...], types: tuple[str, ...] = ("I32",)) -> Tensor:
        """The part; None in `shape` is any extent. Raises CheckpointError if it is missing or does not match."""
        tensor = self.take_any(ending)
        if tensor is None:
            self.fail(ending, f"is missing, but {self.how.method} needs it; download the model again")
        if tensor.type not in types:
            self.fail(ending, f"has type {tensor.type}, but {self.how.method} has {' or '.join(types)} here")
        if len(tensor.shape) != len(shape) or any(
            want not in (None, extent) for want, extent in zip(shape, tensor.shape, strict=True)
        ):
            wanted = ", ".join("any" if extent is None else str(extent) for extent in shape)
            self.fail(ending, f"has shape {list(tensor.shape)}, but {self.how.name} calls for [{wanted}]")
        return tensor

    def take_any(self, ending: str) -> Tensor | None:
        return self.found.pop(self.module + ending, None)

    def fail(self, ending: str, message: str) -> NoReturn:
        raise CheckpointError(f"{self.folder}: tensor {(self.module + ending)[:200]}: {message}")


def _sound_parts(finder: _PartFinder, how: QuantizationConfig) -> Parts:
    if finder.module == EMBEDDING:
        finder.fail(".weight", f"an embedding quantized by {how.method} is not supported")
    parts = _LAYOUTS[how.method](finder, how)
    if parts.columns % GROUP:
        finder.fail(".weight", f"its rows have {parts.columns} weights; to be served, a multiple of {GROUP}")
    if finder.module + ".weight" in finder.found:
        finder.fail(".weight", f"is there beside the parts that {how.method} made of it; one of them is too many")
    _drop_empty_bias(finder)
    return parts


def _whole_matrix(name: str, parts: Parts, arrangement: Arrangement, how: QuantizationConfig) -> Tensor:
    kind = _type(parts, arrangement, how)

    def read() -> memoryview:
        from antiphon.formats.quantized_blocks import read_blocks  # with NumPy, which the front does without

        return read_blocks(parts, arrangement, how, kind)

    def release() -> None:
        for part in parts.all:
            part.release()

    in_file = {part.name: part.num_bytes for part in (*parts.all, *parts.others)}
    return Tensor(
        name,
        (parts.rows, parts.columns),
        kind,
        read,
        release,
        source=Source(how.method, sum(in_file.values())),
        column_order=arrangement.columns if arrangement.from_engine else None,
    )


def _type(parts: Parts, arrangement: Arrangement, how: QuantizationConfig) -> str:
    groups = parts.groups
    if groups and arrangement.columns is None and is_scattered(groups):
        return "F32"
    if how.bits == 4:
        return "Q4_0" if how.symmetric else "Q4_ZP"
    return "Q8_0" if how.symmetric else "F32"


def _awq(finder: _PartFinder, how: QuantizationConfig) -> Parts:
    codes = finder.take(".qweight", (None, None))
    columns, words = codes.shape
    groups = _num_groups(columns, how)
    return Parts(
        rows=8 * words,
        columns=columns,
        num_groups=groups,
        codes=codes,
        scales=finder.take(".scales", (groups, 8 * words), FLOATS),
        zeros=finder.take(".qzeros", (groups, words)),
    )


def _gptq(finder: _PartFinder, how: QuantizationConfig) -> Parts:
    codes = finder.take(".qweight", (None, None))
    in_word = 32 // how.bits
    columns, rows = codes.shape[0] * in_word, codes.shape[1]
    groups = _num_groups(columns, how)
    group_of = finder.take(".g_idx", (columns,)) if finder.module + ".g_idx" in finder.found else None
    return Parts(
        rows=rows,
        columns=columns,
        num_groups=groups,
        codes=codes,
        scales=finder.take(".scales", (groups, rows), FLOATS),
        zeros=finder.take(".qzeros", (groups, -(-rows // in_word))),
        group_of=_unless_in_order(finder, group_of, groups, how),
        others=(group_of,) if group_of else (),
    )


def _compressed_tensors(finder: _PartFinder, how: QuantizationConfig) -> Parts:
    if not how.packed:
        codes = finder.take(".weight", (None, None), ("I8",))
        rows, columns = codes.shape
        shape: tuple[Tensor, ...] = ()
    else:
        codes = finder.take(".weight_packed", (None, None))
        rows, columns = codes.shape[0], codes.shape[1] * (32 // how.bits)
        shape = (finder.take(".weight_shape", (2,), ("I64", "I32")),)
        stated = list(shape[0].read().cast("q" if shape[0].type == "I64" else "i"))
        if stated != [rows, columns]:
            finder.fail(".weight_shape", f"says {stated}, but weight_packed holds {[rows, columns]}")
    groups = _num_groups(columns, how)
    group_of = finder.take(".weight_g_idx", (columns,)) if finder.module + ".weight_g_idx" in finder.found else None
    return Parts(
        rows=rows,
        columns=columns,
        num_groups=groups,
        codes=codes,
        scales=finder.take(".weight_scale", (rows, groups), FLOATS),
        zeros=_compressed_zeros(finder, how, rows, groups),
        group_of=_unless_in_order(finder, group_of, groups, how),
        others=shape + ((group_of,) if group_of else ()),
    )


def _compressed_zeros(finder: _PartFinder, how: QuantizationConfig, rows: int, groups: int) -> Tensor | None:
    """Packed along the rows, or an int8 each. Symmetric matrices have none, or zeros."""
    stored = finder.found.get(finder.module + ".weight_zero_point")
    if stored is None and how.symmetric:
        return None
    if stored is not None and stored.type == "I32":
        return finder.take(".weight_zero_point", (-(-rows * how.bits // 32), groups))
    return finder.take(".weight_zero_point", (rows, groups), ("I8", "I32"))


_LAYOUTS = {"awq": _awq, "gptq": _gptq, "compressed-tensors": _compressed_tensors}


def _num_groups(columns: int, how: QuantizationConfig) -> int:
    return -(-columns // how.group_size) if how.group_size else 1


def _unless_in_order(
    finder: _PartFinder, group_of: Tensor | None, groups: int, how: QuantizationConfig
) -> Tensor | None:
    """The group of each column, or None if they are in order; -1 throughout also means in order."""
    if group_of is None:
        return None
    indices = list(group_of.read().cast("i"))
    if set(indices) == {-1}:
        return None
    for column, index in enumerate(indices):
        if not 0 <= index < groups:
            ending = group_of.name.removeprefix(finder.module)
            finder.fail(ending, f"column {column} is said to be of group {index}; there are groups 0 to {groups - 1}")
    size = how.group_size or len(indices)
    return None if all(index == column // size for column, index in enumerate(indices)) else group_of


def _drop_empty_bias(finder: _PartFinder) -> None:
    """Remove a bias of zeros, which GPTQ's tools write for modules that have none. Others are not supported."""
    if finder.module.endswith(BIASED):
        return
    bias = finder.take_any(".bias")
    if bias is not None and any(bias.read()):
        finder.fail(".bias", "a bias of this module is not supported")
