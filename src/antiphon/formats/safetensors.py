"""safetensors, the container: the length of a JSON header, the header, then the tensors' bytes.

Owns single files and the index of a sharded folder. As with GGUF, the header is untrusted: its length is capped before
it is read, and every tensor's bytes must be inside the file, not overlap others, and have the size that shape and type
need. Layout: github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TypeGuard

from antiphon.checkpoint import INTEGER_TYPES, Tensor
from antiphon.errors import CheckpointError
from antiphon.formats.fields import shown
from antiphon.formats.json_file import parse_json, read_capped
from antiphon.formats.mapped import ByteRange, MappedFile, check_ranges, tensor_bytes
from antiphon.model_files import ModelFiles

TYPES = ("F32", "F16", "BF16")
MAX_HEADER_BYTES = 4 << 20  # a thousand tensors take about 100 KiB
MAX_DIMENSIONS = 4
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_folder(folder: Path, files: ModelFiles) -> dict[str, Tensor]:
    """The tensors of a Hugging Face folder, from one file or from the shards that its index names."""
    if files.has(folder / SINGLE):
        return read_safetensors(folder / SINGLE, files)
    index = folder / INDEX
    if not files.has(index):
        raise CheckpointError(f"{folder}: has neither {SINGLE} nor {INDEX}; weights in other formats cannot be read")
    weight_map = parse_json(index, read_capped(files, index, MAX_HEADER_BYTES)).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: field 'weight_map' must map tensor names to files")
    shards = {
        shard: read_safetensors(_shard_path(index, shard, files), files) for shard in sorted(set(weight_map.values()))
    }
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(f"{index}: tensor {name!r} is said to be in {shard}, which does not have it")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def read_safetensors(path: Path, files: ModelFiles) -> dict[str, Tensor]:
    """The tensors of one file, located but not read; raises CheckpointError for anything that is malformed."""
    file = MappedFile.open(path, files)
    if file.size < 8:
        raise CheckpointError(f"{path}: is too short to be a safetensors file")
    (length,) = struct.unpack_from("<Q", file.data)
    if length > min(file.size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(
            f"{path}: its header is said to have {length} bytes, but the file has {file.size - 8} after the length and "
            f"the most is {MAX_HEADER_BYTES}; it is truncated or no safetensors file"
        )
    header = parse_json(path, file.data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors, ranges = {}, []
    for name, entry in header.items():
        shape, kind, start, end = _entry(path, name, entry)
        span = ByteRange(name, 8 + length + start, 8 + length + end)
        ranges.append(span)
        tensors[name] = file.tensor(name, shape, kind, span)
    check_ranges(path, ranges, 8 + length, file.size)
    return tensors


def _entry(path: Path, name: str, entry: object) -> tuple[tuple[int, ...], str, int, int]:
    """(shape, type, start, end) of one tensor, checked against each other."""
    what = f"{path}: tensor {name[:200]!r}"
    if not isinstance(entry, dict):
        raise CheckpointError(f"{what}: its entry must be a mapping, not {shown(entry)}")
    kind, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or (kind not in TYPES and kind not in INTEGER_TYPES):
        raise CheckpointError(f"{what}: type {shown(kind)} is not supported; use {', '.join(TYPES)}")
    if not _is_integers(shape) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"{what}: its shape must be a list of up to {MAX_DIMENSIONS} whole numbers")
    if not _is_integers(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{what}: its data_offsets must be two whole numbers")
    try:
        size = tensor_bytes(tuple(shape), kind)
    except ValueError as error:
        raise CheckpointError(f"{what}: {error}") from None
    start, end = offsets
    if end - start != size:
        raise CheckpointError(f"{what}: shape {shape} in {kind} needs {size} bytes, but has {end - start}")
    return tuple(shape), kind, start, end


def _is_integers(value: object) -> TypeGuard[list[int]]:
    """Whether it is a list of whole numbers that are short enough to be quoted."""
    return isinstance(value, list) and all(type(item) is int and item.bit_length() <= 64 for item in value)


def _shard_path(index: Path, shard: str, files: ModelFiles) -> Path:
    """The path of a shard that the index names; it must be in the same folder."""
    if Path(shard).name != shard or "\\" in shard or not shard.endswith(".safetensors"):
        raise CheckpointError(f"{index}: {shard[:200]!r} is not the name of a .safetensors file in this folder")
    path = index.parent / shard
    if not files.has(path):
        raise CheckpointError(f"{index}: the shard {shard} is missing; download it into this folder")
    return path
