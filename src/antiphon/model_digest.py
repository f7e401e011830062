"""Digests of a model's files, to tell whether two machines have the same model. A leaf.

The digest of a file is the SHA-256 of its contents, which is the same number that hubs show. It is computed once for
each file and state of it, while other threads run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from antiphon.errors import CheckpointError
from antiphon.model_files import ModelFile, unreadable

_READ_BYTES = 1 << 20
_MAX_KEPT = 10_000  # digests; a model has at most some hundred files


def named_files(model: str, files: Iterable[ModelFile]) -> dict[str, ModelFile]:
    """A model's files by a name that does not depend on where the model is stored.

    Names are relative to the model's folder. A model of one file may have any name, so this file's is empty.
    """
    path = Path(model)
    folder = path if path.is_dir() else path.parent
    return {"" if Path(file.path) == path else os.path.relpath(file.path, folder): file for file in files}


class Digests:
    """Computes digests, and keeps them for files that have not changed since."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], str] = {}

    def of(self, file: ModelFile, on_progress: Callable[[], None] = lambda: None) -> str:
        """The digest of an open file, in hexadecimal digits. `on_progress` is called while it is computed.

        Raises:
            CheckpointError: the file has changed since it was opened, or cannot be read.
            ConfigError: it cannot be read at the moment.
        """
        file.check_unchanged()
        state = file.device, file.inode, file.size, file.modified_ns
        if state not in self._known:
            if len(self._known) >= _MAX_KEPT:
                self._known.clear()
            digest = _digest(file, on_progress)
            file.check_unchanged()  # while it was read
            self._known[state] = digest
        return self._known[state]


def _digest(file: ModelFile, on_progress: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    offset = 0
    try:
        while data := os.pread(file.fd, _READ_BYTES, offset):
            digest.update(data)
            offset += len(data)
            on_progress()
    except OSError as error:
        raise unreadable(Path(file.path), error) from None
    return digest.hexdigest()


def check_same_model(expected: dict[str, str], model: str, files: Iterable[ModelFile], digests: Digests) -> None:
    """Raise CheckpointError, naming a file, unless `files` of `model` have the digests that another machine expects.

    `expected`: digests by name (`named_files`). It may have more files than these, which only the other machine needs.
    """
    for name, file in named_files(model, files).items():
        if name not in expected:
            raise CheckpointError(f"{file.path}: the server's model has no such file; use the same model on both")
        if digests.of(file) != expected[name]:
            raise CheckpointError(f"{file.path}: differs from the server's; use the same model on both machines")
