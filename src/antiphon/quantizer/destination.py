"""Where a quantized model may be written: to a new path, or over an older model where `--force` asks for it.

Owns the rule that nothing but a model is ever replaced: a GGUF file, or a folder in which every file is one of those
that belong to a Hugging Face model. The model that is being quantized is never replaced, nor anything it is read from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from antiphon.checkpoint import Checkpoint
from antiphon.errors import ConfigError
from antiphon.formats.gguf import MAGIC
from antiphon.formats.gguf_split import files_of
from antiphon.formats.hugging_face import CONFIG
from antiphon.formats.safetensors import INDEX, SINGLE
from antiphon.quantizer.folder import COPIED

_OF_A_MODEL = {CONFIG, SINGLE, INDEX, *COPIED}
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SHOWN = 3  # names in a message


def check_destination(checkpoint: Checkpoint, out: Path, *, force: bool) -> None:
    """Make sure that `checkpoint` may be written to `out`.

    Raises:
        ConfigError: it has the wrong form, its folder does not exist, it is part of the source, it exists and `force`
            is not set, or it exists and is not a model.
    """
    is_gguf = checkpoint.format == "gguf"
    if is_gguf != (out.suffix == ".gguf"):
        wanted = "a GGUF file, so OUT must end in .gguf" if is_gguf else "a folder, so OUT must be a folder too"
        raise ConfigError(f"{checkpoint.path} is {wanted}")
    if not out.resolve().parent.is_dir():
        raise ConfigError(f"{out.parent}: there is no such folder to write to")
    if not os.path.lexists(out):
        return
    _check_source(checkpoint, out)
    if not force:
        raise ConfigError(f"{out} already exists; --force replaces it")
    if is_gguf:
        _check_old_file(out)
    else:
        _check_old_folder(out)


def _check_source(checkpoint: Checkpoint, out: Path) -> None:
    """Refuse what the model is read from: the file or folder itself, another part, a folder above, a link's target."""
    source = checkpoint.path
    if out.exists() and out.samefile(source):
        raise ConfigError(f"{out} is the model itself; write to another place")
    files = files_of(source) if checkpoint.format == "gguf" else [source, *source.iterdir()]
    for file in files:
        if out.resolve() in (file.resolve(), *file.resolve().parents) or (out.is_file() and out.samefile(file)):
            raise ConfigError(f"{out} contains {file}, which belongs to the model itself; write to another place")


def _check_old_file(out: Path) -> None:
    if not out.is_file():
        raise ConfigError(f"{out} exists and is not a file, so it is not replaced, even with --force")
    with out.open("rb") as file:
        if file.read(len(MAGIC)) not in (MAGIC, b""):
            raise ConfigError(f"{out} exists and is not a GGUF file, so it is not replaced, even with --force")


def _check_old_folder(out: Path) -> None:
    if not out.is_dir():
        raise ConfigError(f"{out} exists and is not a folder, so it is not replaced, even with --force")
    names = {path.name for path in out.iterdir()}
    others = [name for name in names if not _belongs_to_a_model(out / name)]
    if others:
        raise ConfigError(
            f"{out} contains {_some(others)}, which does not belong to a model, so it is not replaced, even with "
            "--force; write to another place or remove it yourself"
        )
    if CONFIG not in names or not names & {SINGLE, INDEX}:
        raise ConfigError(f"{out} exists and is not a model, so it is not replaced, even with --force")


def _belongs_to_a_model(path: Path) -> bool:
    return path.is_file() and (path.name in _OF_A_MODEL or _SHARD.fullmatch(path.name) is not None)


def _some(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:_SHOWN])
    return f"{first} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else first
