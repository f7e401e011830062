"""Opens each file of a model once and keeps it open, so that all engines load the same bytes. A leaf.

Files may be replaced, modified or truncated between the start of one engine and the next. A replaced or deleted file
still exists for processes that have it open, so the front opens all files, and each engine inherits its descriptors. A
modified or truncated file has a different size or modification time and is refused (`check_unchanged`), since an answer
must not continue with other weights.

All of a model's files are read through this module. Nothing is written.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from antiphon.errors import CheckpointError, ConfigError, NotEnoughMemory

# Errors that may be temporary: too few descriptors, interrupted calls, problems of a disk or network.
_TEMPORARY = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The state of a file when it was opened, and its descriptor."""

    path: str  # for messages
    fd: int  # opened by this process, or inherited under the same number
    device: int
    inode: int
    size: int  # bytes
    modified_ns: int  # since the epoch

    def check_unchanged(self) -> None:
        """Raise CheckpointError if the file has changed since it was opened."""
        try:
            now = os.fstat(self.fd)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read any more ({error.strerror})") from None
        if (now.st_dev, now.st_ino) != (self.device, self.inode):
            raise CheckpointError(f"{self.path}: the descriptor belongs to another file")
        if now.st_size != self.size:
            what = f"it had {self.size:,} bytes and now has {now.st_size:,}"
        elif now.st_mtime_ns != self.modified_ns:
            what = "it was written to"
        else:
            return
        raise CheckpointError(
            f"{self.path}: the file has changed since it was opened: {what}. Restart to load the new contents"
        )


class ModelFiles:
    """Files by path, opened when they are first used. With `given`, only those files are available.

    `close`, or deleting this object, closes the files.
    """

    def __init__(self, given: Iterable[ModelFile] = ()) -> None:
        self._files = {file.path: file for file in given}
        self._is_complete = bool(self._files)
        self._close = weakref.finalize(self, _close, self._files)

    @property
    def opened(self) -> tuple[ModelFile, ...]:
        """All files opened so far, as plain data for an engine that inherits the descriptors."""
        return tuple(self._files.values())

    def has(self, path: Path) -> bool:
        """Whether the file exists. With `given`, files that were not given do not exist."""
        return str(path) in self._files or (not self._is_complete and path.is_file())

    def open(self, path: Path) -> ModelFile:
        """The file at `path`, opened at most once.

        Raises:
            CheckpointError: the file cannot be read, or is not a regular file.
            ConfigError: the file cannot be read at the moment (`unreadable`).
        """
        file = self._files.get(str(path))
        if file is None:
            if self._is_complete:
                raise CheckpointError(f"{path}: did not exist when the model was opened")
            file = self._files[str(path)] = _open(path)
        return file

    def read(self, path: Path, limit: int) -> bytes:
        """The first `limit` bytes of a file, or all if there are fewer.

        Raises:
            CheckpointError: the file cannot be read.
            ConfigError: the file cannot be read at the moment (`unreadable`).
        """
        file = self.open(path)
        parts: list[bytes] = []
        size = 0
        try:
            while size < limit and (part := os.pread(file.fd, limit - size, size)):
                parts.append(part)
                size += len(part)
        except OSError as error:
            raise unreadable(path, error) from None
        return b"".join(parts)

    def check_unchanged(self) -> None:
        """Raise CheckpointError, naming the file, if a file was modified or truncated since it was opened."""
        for file in self._files.values():
            file.check_unchanged()

    def close(self) -> None:
        """Close the files. Idempotent."""
        self._close()


def unreadable(path: Path, error: OSError) -> CheckpointError | ConfigError:
    """The exception for `error`: a CheckpointError if the problem is the model itself.

    If the system is out of resources, or a disk or network does not answer, it is a ConfigError, and the supervisor
    tries again.
    """
    message = f"{path}: cannot be read ({error.strerror})"
    if error.errno == errno.ENOMEM:
        return NotEnoughMemory(message)
    return ConfigError(message) if error.errno in _TEMPORARY else CheckpointError(message)


def _open(path: Path) -> ModelFile:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # otherwise opening a pipe would block
    except OSError as error:
        raise unreadable(path, error) from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise CheckpointError(f"{path}: is not a regular file")
    return ModelFile(str(path), fd, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _close(files: dict[str, ModelFile]) -> None:
    for file in files.values():
        with suppress(OSError):
            os.close(file.fd)
    files.clear()
