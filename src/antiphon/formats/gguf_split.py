"""GGUF in several files, `NAME-00001-of-00003.gguf` and so on: finds, checks and joins the parts.

Given any part, the others are expected beside it, under the names that the splitting tools use. The first part has the
model's metadata; every part has tensors, its number, and counts on which all must agree. Raises CheckpointError, which
names the part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from antiphon.checkpoint import Tensor
from antiphon.errors import CheckpointError
from antiphon.formats.fields import Fields
from antiphon.formats.gguf import GgufFile, read_gguf
from antiphon.model_files import ModelFiles

MAX_PARTS = 1024
_NAME = re.compile(r"(?P<model>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def read_whole_gguf(path: Path, files: ModelFiles) -> GgufFile:
    """Read a GGUF file or, if `path` is one part of a split model, all parts as if they were one file."""
    file = read_gguf(path, files)
    fields = Fields(path, file.metadata)
    count = fields.integer("split.count", 1, least=0, most=MAX_PARTS)
    if count <= 1:
        return file
    parts = [file if part == path else read_gguf(part, files) for part in _part_paths(fields, count, files)]
    for number, part in enumerate(parts):
        _check_part(Fields(part.path, part.metadata), number, count)
    tensors = _joined(parts)
    first = Fields(parts[0].path, parts[0].metadata)
    expected = first.integer("split.tensors.count", len(tensors), least=0)
    if len(tensors) != expected:
        first.fail(f"its parts have {len(tensors)} tensors together, but 'split.tensors.count' is {expected}")
    return replace(parts[0], tensors=tensors)


def _part_paths(fields: Fields, count: int, files: ModelFiles) -> list[Path]:
    """The paths of all parts, in order; raises CheckpointError if one is missing."""
    path = fields.path
    name = _NAME.fullmatch(path.name)
    if name is None or int(name["count"]) != count:
        fields.fail(f"is a part of a model split into {count}; its name must end in '-NNNNN-of-{count:05d}.gguf'")
    paths = [path.with_name(f"{name['model']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    for number, part in enumerate(paths, start=1):
        if not files.has(part):
            raise CheckpointError(f"{part}: part {number} of {count} is missing; download it into this folder")
    if path not in paths:
        fields.fail(f"is numbered {name['number']}, but the parts run from 00001 to {count:05d}")
    return paths


def _check_part(fields: Fields, number: int, count: int) -> None:
    for key, expected in (("split.no", number), ("split.count", count)):
        value = fields.integer(key, least=0)
        if value != expected:
            fields.fail(f"field {key!r} is {value}, but by its name it is {expected}; the parts are mixed up")


def _joined(parts: Sequence[GgufFile]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for part in parts:
        for name, tensor in part.tensors.items():
            if name in tensors:
                raise CheckpointError(f"{part.path}: tensor {name!r} is in an earlier part too")
            tensors[name] = tensor
    return tensors


def files_of(path: Path) -> list[Path]:
    """The file itself or, where its name is that of a part, every part beside it, whether or not they fit together."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        return [path]
    found = (_NAME.fullmatch(each.name) for each in path.parent.iterdir())
    parts = [each for each in found if each and (each["model"], each["count"]) == (name["model"], name["count"])]
    return sorted(path.with_name(each.string) for each in parts)
