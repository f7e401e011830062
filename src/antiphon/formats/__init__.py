"""Opens a checkpoint of any format as named tensors, settings and tokenizer data; tensors are read lazily.

Each format has a file or two of its own and produces a `Checkpoint`. Outside this package formats make no difference.
"""

from __future__ import annotations

from pathlib import Path

from antiphon.checkpoint import Checkpoint
from antiphon.errors import CheckpointError
from antiphon.formats.gguf import MAGIC
from antiphon.formats.gguf_checkpoint import open_gguf
from antiphon.formats.hugging_face import CONFIG, open_hugging_face
from antiphon.model_files import ModelFiles

__all__ = ["open_checkpoint"]


def open_checkpoint(path: Path, files: ModelFiles | None = None) -> Checkpoint:
    """Open a GGUF file, recognized by its magic, or a Hugging Face folder, recognized by its config.json.

    Reads headers and tokenizer data only; tensors stay in a memory map. `files` are those of a process that opened the
    model before: they are read again, even if others have replaced them on disk.

    Raises:
        CheckpointError: it cannot be served; the message says what would work.
    """
    held = files or ModelFiles()
    held.check_unchanged()
    if held.has(path):
        if held.read(path, len(MAGIC)) != MAGIC:
            raise CheckpointError(f"{path}: not a GGUF file; give a .gguf file, or the folder of a Hugging Face model")
        return open_gguf(path, held)
    if held.has(path / CONFIG):
        return open_hugging_face(path, held)
    if path.is_dir():
        raise CheckpointError(f"{path}: the folder has no {CONFIG}; give a Hugging Face folder or a .gguf file")
    if path.exists():
        raise CheckpointError(f"{path}: is not a regular file; give a .gguf file or a Hugging Face folder")
    raise CheckpointError(f"{path}: no such file or folder; give a .gguf file or a Hugging Face folder")
