"""Writes a GGUF file like the source, with its tensors in other types.

The layout is that of github.com/ggml-org/ggml/blob/master/docs/gguf.md.

Metadata is copied byte for byte, except fields about the types and about splitting into files. The size of the header
does not depend on the sizes of the tensors, so they are written first and the header, with their offsets, last.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from antiphon.checkpoint import Checkpoint, Tensor
from antiphon.errors import CheckpointError
from antiphon.formats.gguf import DEFAULT_ALIGNMENT, GGML_TYPES, MAGIC, U32, U64, GgufFile
from antiphon.formats.gguf_split import read_whole_gguf

VERSION = 3
_TYPE_NUMBERS = {name: number for number, name in GGML_TYPES.items()}
# llama.cpp's numbers for the main type of a file.
_FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7}
_U32_FIELD = 4  # GGUF's number of the value type
_BLOCKS_VERSION = 2  # of the block layouts, as ggml counts
_REPLACED = ("general.file_type", "general.quantization_version")
_DROPPED = "split."


def write_gguf(source: Checkpoint, out: Path, target: str, tensors: Iterable[tuple[Tensor, memoryview]]) -> None:
    """Write `tensors`, each with its bytes, in the order of the source's, and the source's metadata."""
    file = read_whole_gguf(source.path, source.files)
    alignment = int(file.metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    fields = _metadata(file, target)
    written: list[tuple[Tensor, int]] = []
    try:
        with out.open("wb") as sink:
            size = len(_header(fields, [(tensor, 0) for tensor in file.tensors.values()]))
            start = -(-size // alignment) * alignment
            sink.seek(start)
            for tensor, data in tensors:
                _pad(sink, start, alignment)
                written.append((tensor, sink.tell() - start))
                sink.write(data)
            _pad(sink, start, alignment)
            sink.seek(0)
            sink.write(_header(fields, written))
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror})") from None


def _metadata(file: GgufFile, target: str) -> list[bytes]:
    """The fields as they are stored, keys and all."""
    kept = [bytes(file.fields[key]) for key in file.metadata if key not in _REPLACED and not key.startswith(_DROPPED)]
    numbers = dict(zip(_REPLACED, (_FILE_TYPES[target], _BLOCKS_VERSION), strict=True))
    return kept + [_text(key) + U32.pack(_U32_FIELD) + U32.pack(number) for key, number in numbers.items()]


def _header(fields: list[bytes], tensors: list[tuple[Tensor, int]]) -> bytes:
    table = b"".join(
        _text(tensor.name)
        + U32.pack(len(tensor.shape))
        + b"".join(U64.pack(extent) for extent in reversed(tensor.shape))
        + U32.pack(_TYPE_NUMBERS[tensor.type])
        + U64.pack(offset)
        for tensor, offset in tensors
    )
    counts = U64.pack(len(tensors)) + U64.pack(len(fields))
    return MAGIC + U32.pack(VERSION) + counts + b"".join(fields) + table


def _text(text: str) -> bytes:
    data = text.encode()
    return U64.pack(len(data)) + data


def _pad(sink: BinaryIO, start: int, alignment: int) -> None:
    sink.write(bytes(-(sink.tell() - start) % alignment))
