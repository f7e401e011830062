"""A file mapped into memory, read-only, and checks on the tensors in it.

This is what GGUF and safetensors have in common: a file is opened without reading it, and the byte ranges that its
header gives must be inside the file and must not overlap. Nothing is allocated because a header says so: a tensor's
bytes stay in the map, and its range is checked before anything reads it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from antiphon.checkpoint import Tensor, block_of
from antiphon.errors import CheckpointError
from antiphon.model_files import ModelFiles, unreadable

MAX_ELEMENTS = 1 << 40  # weights in one tensor; far above any real one, far below where int64 arithmetic elsewhere ends


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A whole file as memory. The map exists as long as this object or any view of it."""

    path: Path
    data: mmap.mmap

    @classmethod
    def open(cls, path: Path, files: ModelFiles) -> MappedFile:
        """Map `path`; raises CheckpointError when it cannot be read or is empty."""
        file = files.open(path)
        try:
            # With the size that it had, so that a file which was cut short meanwhile is refused here.
            return cls(path, mmap.mmap(file.fd, file.size, access=mmap.ACCESS_READ))
        except ValueError:
            if file.size:
                file.check_unchanged()
            raise CheckpointError(f"{path}: the file is empty") from None
        except OSError as error:
            raise unreadable(path, error) from None

    @property
    def size(self) -> int:
        return len(self.data)

    def tensor(self, name: str, shape: tuple[int, ...], kind: str, span: ByteRange) -> Tensor:
        """The tensor stored in `span`, which need not have been checked yet."""
        whole_pages = -(-span.start // mmap.PAGESIZE) * mmap.PAGESIZE, span.end // mmap.PAGESIZE * mmap.PAGESIZE

        def release() -> None:
            first, end = whole_pages
            if first < end:
                self.data.madvise(mmap.MADV_DONTNEED, first, end - first)  # a later read takes them from the file

        return Tensor(name, shape, kind, lambda: memoryview(self.data)[span.start : span.end], release)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Where a tensor is stored, as the header says: bytes [start, end) of the file."""

    name: str
    start: int
    end: int


def tensor_bytes(shape: tuple[int, ...], type: str) -> int:
    """Size in bytes of a tensor of this shape; raises ValueError, saying why, for an impossible shape."""
    size, block = block_of(type)
    if not shape or min(shape) < 1:
        raise ValueError(f"its shape {list(shape)} is empty")
    count = 1
    for extent in shape:
        count *= extent
        if count > MAX_ELEMENTS:
            raise ValueError(f"its shape {list(shape)} has more than 2^40 weights")
    if shape[-1] % block:
        raise ValueError(f"its rows have {shape[-1]} weights, not a multiple of {type}'s block of {block}")
    return count // block * size


def check_ranges(path: Path, ranges: Iterable[ByteRange], start: int, end: int) -> None:
    """Raise CheckpointError unless every range is within bytes [start, end) of the file and no two overlap."""
    before: ByteRange | None = None
    for span in sorted(ranges, key=lambda span: (span.start, span.end)):
        if span.start < start or span.end > end:
            raise CheckpointError(
                f"{path}: tensor {span.name!r} should be in bytes {span.start} to {span.end}, but the tensors are in "
                f"bytes {start} to {end} of the file; it is truncated or damaged: download it again"
            )
        if before is not None and span.start < before.end:
            raise CheckpointError(f"{path}: tensors {before.name!r} and {span.name!r} overlap")
        before = span
