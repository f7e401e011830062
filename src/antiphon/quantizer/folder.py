"""Writes a Hugging Face folder like the source, with its matrices as blocks (`formats.block_folder`).

Of the other files only those with the names of a model's small files are copied.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from antiphon.checkpoint import TENSOR_TYPES, Checkpoint, Tensor
from antiphon.errors import CheckpointError
from antiphon.formats.block_folder import BYTES, FIELD, METHOD
from antiphon.formats.hugging_face import CONFIG, MAX_CONFIG_BYTES
from antiphon.formats.json_file import fields_of
from antiphon.formats.safetensors import SINGLE

COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "LICENSE",
    "README.md",
)


def write_folder(
    source: Checkpoint, out: Path, planned: Iterable[Tensor], tensors: Iterable[tuple[Tensor, memoryview]]
) -> None:
    """Write `tensors`, which are those of `planned` in the same order, and copy the small files of the source."""
    planned = list(planned)
    try:
        out.mkdir()
        for name in COPIED:
            if source.files.has(source.path / name):
                file = source.files.open(source.path / name)
                (out / name).write_bytes(source.files.read(source.path / name, file.size))
        (out / CONFIG).write_text(json.dumps(_config(source, planned), indent=2, ensure_ascii=False) + "\n")
        with (out / SINGLE).open("wb") as sink:
            sink.write(_header(planned))
            for _, data in tensors:
                sink.write(data)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror})") from None


def _config(source: Checkpoint, planned: Iterable[Tensor]) -> Mapping[str, Any]:
    types = {tensor.name: tensor.type for tensor in planned if _is_blocks(tensor)}
    config = fields_of(source.files, source.path / CONFIG, MAX_CONFIG_BYTES)
    return {**config.values, FIELD: {"quant_method": METHOD, "types": types}}


def _header(planned: Iterable[Tensor]) -> bytes:
    """safetensors' header; the tensors' bytes follow it in the same order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in planned:
        shape = [tensor.shape[0], tensor.num_bytes // tensor.shape[0]] if _is_blocks(tensor) else list(tensor.shape)
        kind = BYTES if _is_blocks(tensor) else tensor.type
        entries[tensor.name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + tensor.num_bytes]}
        end += tensor.num_bytes
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the first tensor is aligned
    return struct.pack("<Q", len(text)) + text


def _is_blocks(tensor: Tensor) -> bool:
    return TENSOR_TYPES[tensor.type][1] > 1
