"""GGUF, the container: a header of typed metadata, a table of tensors, then their bytes. Versions 2 and 3.

Owns the bytes; `gguf_checkpoint` knows what the keys mean. The file is untrusted: every count, length and offset is
checked against the rest of the file before anything is allocated, and every fault is a CheckpointError that names the
file and the field or tensor. Tensors are located here, never read. Layout:
github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from antiphon.checkpoint import TENSOR_TYPES, Tensor
from antiphon.errors import CheckpointError
from antiphon.formats.mapped import ByteRange, MappedFile, check_ranges, tensor_bytes
from antiphon.model_files import ModelFiles

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 256 << 20  # the largest vocabularies take about 10 MiB
MAX_KEY_BYTES = 65_535  # by the specification
MAX_STRING_BYTES = 16 << 20
MAX_STRINGS = 4 << 20  # in one array
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32

U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

# Value type → struct's letter; GGUF is little-endian.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# ggml's number of a tensor type → its name. Those in TENSOR_TYPES are served, the others refused by name.
GGML_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    30: "BF16",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


@dataclass(frozen=True, slots=True)
class GgufFile:
    """Metadata and tensors. Arrays of numbers are views of the memory map, arrays of strings are lists."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    fields: Mapping[str, memoryview]  # each metadata field as it is stored: key, type, value


def read_gguf(path: Path, files: ModelFiles) -> GgufFile:
    """Read the header of a GGUF file; raises CheckpointError for anything that is malformed."""
    file = MappedFile.open(path, files)
    cursor = _Cursor(file)
    version = _read_version(cursor)
    num_tensors = cursor.count("the number of tensors", smallest=24)
    num_keys = cursor.count("the number of metadata fields", smallest=13)
    metadata, fields = _read_metadata(cursor, num_keys)
    tensors = _read_tensors(cursor, num_tensors, _alignment(cursor, metadata))
    return GgufFile(path, version, metadata, tensors, fields)


class _Cursor:
    """A position in the header that cannot pass its end. `what` names the field in error messages."""

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.data = file.data
        self.position = 0
        self.end = min(file.size, MAX_HEADER_BYTES)

    def fail(self, message: str) -> NoReturn:
        raise CheckpointError(f"{self.file.path}: {message}")

    def _advance(self, num_bytes: int, what: str) -> int:
        """Skip `num_bytes`; returns where they start."""
        start = self.position
        if num_bytes > self.end - start:
            self.fail(f"{what} runs past the end of the header; the file is truncated or damaged: download it again")
        self.position = start + num_bytes
        return start

    def u32(self, what: str) -> int:
        return int(U32.unpack_from(self.data, self._advance(4, what))[0])

    def u64(self, what: str) -> int:
        return int(U64.unpack_from(self.data, self._advance(8, what))[0])

    def count(self, what: str, smallest: int) -> int:
        """A count of things that take at least `smallest` bytes each, and must fit into the rest of the header."""
        count = self.u64(what)
        if count > (self.end - self.position) // smallest:
            self.fail(f"{what} is {count}, more than fits in the file; it is truncated or damaged")
        return count

    def string(self, what: str, cap: int = MAX_STRING_BYTES) -> str:
        length = self.u64(what)
        if length > cap:
            self.fail(f"{what} is {length} bytes long; the most is {cap}")
        start = self._advance(length, what)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")

    def strings(self, what: str) -> list[str]:
        """An array of strings, in one loop without calls: a vocabulary has hundreds of thousands."""
        count = self.count(f"the length of {what}", smallest=8)
        if count > MAX_STRINGS:
            self.fail(f"{what} has {count} strings; the most is {MAX_STRINGS}")
        data, position, end, unpack = self.data, self.position, self.end, U64.unpack_from
        strings = []
        try:
            for _ in range(count):
                start = position + 8
                position = start + unpack(data, position)[0]
                if position > end:
                    raise struct.error
                strings.append(data[start:position].decode())
        except struct.error:
            self.fail(f"{what}[{len(strings)}] runs past the end of the header; the file is truncated or damaged")
        except UnicodeDecodeError:
            self.fail(f"{what}[{len(strings)}] is not UTF-8")
        self.position = position
        return strings

    def scalar(self, kind: int, what: str) -> int | float | bool:
        letter = SCALARS[kind]
        start = self._advance(struct.calcsize("<" + letter), what)
        if letter == "?" and self.data[start] > 1:
            self.fail(f"{what} is neither true nor false")
        value: int | float | bool = struct.unpack_from("<" + letter, self.data, start)[0]
        return value

    def numbers(self, kind: int, what: str) -> memoryview[Any]:
        """An array of numbers as a typed view of the memory map, so that a huge one costs nothing."""
        size = struct.calcsize("<" + SCALARS[kind])
        count = self.count(f"the length of {what}", smallest=size)
        start = self._advance(count * size, what)
        view: Any = memoryview(self.data)[start : start + count * size]
        return cast("memoryview[Any]", view.cast(SCALARS[kind]))

    def value(self, what: str) -> object:
        kind = self.u32(f"the type of {what}")
        if kind == STRING:
            return self.string(what)
        if kind in SCALARS:
            return self.scalar(kind, what)
        if kind != ARRAY:
            self.fail(f"{what} has the unknown value type {kind}")
        kind = self.u32(f"the type of {what}'s elements")
        if kind == STRING:
            return self.strings(what)
        if kind in SCALARS:
            return self.numbers(kind, what)
        if kind == ARRAY:
            self.fail(f"{what} is an array of arrays, which no known field is")
        self.fail(f"{what} has elements of the unknown value type {kind}")


def _read_version(cursor: _Cursor) -> int:
    if cursor.data[:4] != MAGIC:
        cursor.fail("does not begin with 'GGUF', so it is not a GGUF file")
    cursor.position = 4
    version = cursor.u32("the version")
    if version in VERSIONS:
        return version
    if version and version & 0xFFFF == 0:
        cursor.fail("is a big-endian GGUF file; only little-endian ones can be served")
    cursor.fail(f"has GGUF version {version}; supported are versions 2 and 3: convert the model again")


def _read_metadata(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """Each field's value, and its bytes."""
    metadata: dict[str, Any] = {}
    fields: dict[str, memoryview] = {}
    for index in range(count):
        start = cursor.position
        key = cursor.string(f"the key of metadata field {index}", MAX_KEY_BYTES)
        if not key:
            cursor.fail(f"metadata field {index} has an empty key")
        if key in metadata:
            cursor.fail(f"metadata field {key!r} appears twice")
        metadata[key] = cursor.value(f"metadata field {key!r}")
        fields[key] = memoryview(cursor.data)[start : cursor.position]
    return metadata, fields


def _alignment(cursor: _Cursor, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        cursor.fail(f"metadata field 'general.alignment' is {alignment!r}; it must be a power of two up to 2^20")
    return alignment


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, Tensor]:
    """The tensor table. Its offsets count from the end of the header, rounded up to the alignment."""
    entries: dict[str, tuple[tuple[int, ...], str, int]] = {}
    for index in range(count):
        name = cursor.string(f"the name of tensor {index}", MAX_KEY_BYTES)
        if name in entries:
            cursor.fail(f"tensor {name!r} appears twice")
        entries[name] = _read_tensor_entry(cursor, name, alignment)
    data_start = -(-cursor.position // alignment) * alignment
    tensors, ranges = {}, []
    for name, (shape, kind, offset) in entries.items():
        try:
            size = tensor_bytes(shape, kind)
        except ValueError as error:
            cursor.fail(f"tensor {name!r}: {error}")
        span = ByteRange(name, data_start + offset, data_start + offset + size)
        ranges.append(span)
        tensors[name] = cursor.file.tensor(name, shape, kind, span)
    check_ranges(cursor.file.path, ranges, data_start, cursor.file.size)
    return tensors


def _read_tensor_entry(cursor: _Cursor, name: str, alignment: int) -> tuple[tuple[int, ...], str, int]:
    """(row-major shape, type, offset) of one tensor."""
    what = f"the entry of tensor {name!r}"
    num_dimensions = cursor.u32(what)
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        cursor.fail(f"tensor {name!r} has {num_dimensions} dimensions; it must have 1 to {MAX_DIMENSIONS}")
    shape = tuple(reversed([cursor.u64(what) for _ in range(num_dimensions)]))
    number = cursor.u32(what)
    kind = GGML_TYPES.get(number, f"the unknown type {number}")
    if kind not in TENSOR_TYPES:
        *most, last = TENSOR_TYPES
        cursor.fail(f"tensor {name!r}: {kind} is not supported yet; use {', '.join(most)} or {last}")
    offset = cursor.u64(what)
    if offset % alignment:
        cursor.fail(f"tensor {name!r} has offset {offset}, which is not a multiple of the alignment {alignment}")
    return shape, kind, offset
