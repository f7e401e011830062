"""JSON files of a checkpoint's folder: capped in size, and refused by name if they are invalid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from antiphon.errors import CheckpointError
from antiphon.formats.fields import Fields, shown
from antiphon.model_files import ModelFiles

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_capped(files: ModelFiles, path: Path, cap: int) -> bytes:
    """The file's bytes; raises CheckpointError if it cannot be read or has more than `cap` bytes."""
    source = files.read(path, cap + 1)
    if len(source) > cap:
        raise CheckpointError(f"{path}: is longer than {cap} bytes")
    return source


def parse_json(path: Path, source: bytes) -> dict[str, Any]:
    """Parse a JSON object without repeated keys; raises CheckpointError for anything else."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            raise ValueError("a key appears twice")
        return result

    try:
        text = source.decode("utf-8-sig")
        tree = json.loads(text, object_pairs_hook=mapping)
        if _SURROGATE.search(text):
            json.dumps(tree, ensure_ascii=False).encode()  # raises a ValueError for half a character
    except (ValueError, RecursionError) as error:
        reason = "a lone surrogate" if isinstance(error, UnicodeEncodeError) else str(error)
        raise CheckpointError(f"{path}: is not valid JSON ({reason})") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path}: must hold a mapping, not {shown(tree)}")
    return tree


def fields_of(files: ModelFiles, path: Path, cap: int) -> Fields:
    """The fields of a JSON file, none if there is no such file."""
    return Fields(path, parse_json(path, read_capped(files, path, cap)) if files.has(path) else {})
