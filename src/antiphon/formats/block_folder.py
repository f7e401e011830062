"""Our own layout of a quantized Hugging Face folder: safetensors whose matrices are GGUF blocks, as bytes.

`config.json` says `"quantization_config": {"quant_method": "antiphon", "types": {tensor: type}}`. These
matrices are stored as U8 [rows, bytes of a row]; everything else is as in any folder. `quantizer.folder` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from antiphon.checkpoint import TENSOR_TYPES, Tensor
from antiphon.errors import CheckpointError
from antiphon.formats.fields import Fields, shown

METHOD = "antiphon"
FIELD = "quantization_config"
BYTES = "U8"


def is_block_folder(config: Fields) -> bool:
    """Whether a config.json is of this layout."""
    field = config.values.get(FIELD)
    return isinstance(field, Mapping) and field.get("quant_method") == METHOD


def with_blocks(folder: Path, tensors: Mapping[str, Tensor], config: Fields) -> dict[str, Tensor]:
    """The folder's tensors, each named matrix in its type; raises CheckpointError if names and bytes disagree."""
    types = config.values[FIELD].get("types")
    if not isinstance(types, Mapping):
        config.fail(f"field '{FIELD}.types' must map tensor names to types, not {shown(types)}")
    found = dict(tensors)
    for name, kind in types.items():
        if name not in found:
            raise CheckpointError(f"{folder}: tensor {name[:200]!r} is missing, but config.json names its type")
        found[name] = _typed(folder, found[name], kind)
    for name, tensor in found.items():
        if tensor.type not in TENSOR_TYPES:
            raise CheckpointError(f"{folder}: tensor {name[:200]!r} is {tensor.type}, and config.json names no type")
    return found


def _typed(folder: Path, tensor: Tensor, kind: object) -> Tensor:
    what = f"{folder}: tensor {tensor.name[:200]!r}"
    size, block = TENSOR_TYPES.get(kind, (0, 1)) if isinstance(kind, str) else (0, 1)
    if not isinstance(kind, str) or block == 1:
        raise CheckpointError(f"{what}: {shown(kind)} is not a type of blocks")
    if tensor.type != BYTES or len(tensor.shape) != 2 or tensor.shape[1] % size:
        raise CheckpointError(f"{what}: {tensor.type} {list(tensor.shape)} does not hold rows of {kind}")
    rows, row_bytes = tensor.shape
    return replace(tensor, shape=(rows, row_bytes // size * block), type=kind)
