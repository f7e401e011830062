"""A checkpoint on disk as named tensors, settings and tokenizer data, read lazily, whatever its format.

Each format is a file or two of its own and ends in a `Checkpoint`; nothing outside this package knows formats apart.
"""

from __future__ import annotations

from pathlib import Path

from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError
from antiphon.formats.gguf import MAGIC
from antiphon.formats.gguf_checkpoint import open_gguf
from antiphon.formats.hugging_face import CONFIG, open_hugging_face

__all__ = ["open_checkpoint"]


def open_checkpoint(path: Path) -> Checkpoint:
    """Find out what `path` is and open it: a GGUF file, known by its magic, or a Hugging Face folder, by config.json.

    Reads headers and tokenizer data only; the tensors' bytes stay in a memory map. Raises CheckpointError, saying what
    would work, for anything that cannot be served.
    """
    if path.is_dir():
        if (path / CONFIG).is_file():
            return open_hugging_face(path)
        raise CheckpointError(f"{path}: the folder has no {CONFIG}; give a Hugging Face folder or a .gguf file")
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; give a .gguf file or a Hugging Face folder")
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path}: is no ordinary file; give a .gguf file or a Hugging Face folder")
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if magic != MAGIC:
        raise CheckpointError(f"{path}: not a GGUF file; give a .gguf file, or the folder of a Hugging Face model")
    return open_gguf(path)
