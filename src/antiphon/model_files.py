"""The files of a model, each opened once and then held, so that every engine loads the same bytes. A leaf.

Between the first engine and the next, somebody may put another file in a file's place, write into it or cut it short.
A file that was replaced or deleted is still there for those who have it open: the front opens all of them, and each
engine inherits its descriptors. A file that was written to or cut short has lost what was loaded from it, which shows
in its size or its time of modification: it is refused (`check_unchanged`), since an answer must not go on with other
weights.

A model's files are read through here and nowhere else. Nothing is written.
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

# Of descriptors, of locks, of a disk or a network in trouble: what may pass.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file as it was when it was opened, and the descriptor that holds it."""

    path: str  # where it was found, for messages
    fd: int  # of this process, or inherited by it under the same number
    device: int
    inode: int
    size: int  # bytes
    modified_ns: int  # since the epoch

    def check_unchanged(self) -> None:
        """Raise CheckpointError if what was opened is no longer what is there."""
        try:
            now = os.fstat(self.fd)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read any more ({error.strerror})") from None
        if (now.st_dev, now.st_ino) != (self.device, self.inode):
            raise CheckpointError(f"{self.path}: another file was handed over in its place")
        if now.st_size != self.size:
            what = f"it had {self.size:,} bytes and now has {now.st_size:,}"
        elif now.st_mtime_ns != self.modified_ns:
            what = "it was written to"
        else:
            return
        raise CheckpointError(
            f"{self.path}: the file has changed since it was opened: {what}. Start again to load it as it is now"
        )


class ModelFiles:
    """Files by path. Those that are not open yet are opened when somebody asks; with `given`, there are no others.

    Closed by `close`, and when nobody holds this object any more.
    """

    def __init__(self, given: Iterable[ModelFile] = ()) -> None:
        self._files = {file.path: file for file in given}
        self._is_complete = bool(self._files)
        self._close = weakref.finalize(self, _close, self._files)

    @property
    def opened(self) -> tuple[ModelFile, ...]:
        """All that were opened so far; plain data, for an engine that inherits the descriptors."""
        return tuple(self._files.values())

    def has(self, path: Path) -> bool:
        """Whether there is such a file; a file that came later is not there for those who were `given` theirs."""
        return str(path) in self._files or (not self._is_complete and path.is_file())

    def open(self, path: Path) -> ModelFile:
        """The file at `path`, opened at most once.

        Raises:
            CheckpointError: it cannot be read, or is not a regular file.
            ConfigError: it cannot be read now (`unreadable`).
        """
        file = self._files.get(str(path))
        if file is None:
            if self._is_complete:
                raise CheckpointError(f"{path}: was not there when the model was opened")
            file = self._files[str(path)] = _open(path)
        return file

    def read(self, path: Path, limit: int) -> bytes:
        """The first `limit` bytes, or all if there are fewer.

        Raises:
            CheckpointError: it cannot be read.
            ConfigError: it cannot be read now (`unreadable`).
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
        """Raise CheckpointError, naming it, if any file was written to or cut short since it was opened."""
        for file in self._files.values():
            file.check_unchanged()

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        self._close()


def unreadable(path: Path, error: OSError) -> CheckpointError | ConfigError:
    """The error to raise in place of `error`: a CheckpointError where the model itself is at fault.

    Where the system lacks something, or a disk or a network does not answer now, it is a ConfigError: then another try
    may make sense (`engine.supervisor`).
    """
    message = f"{path}: cannot be read ({error.strerror})"
    if error.errno == errno.ENOMEM:
        return NotEnoughMemory(message)
    return ConfigError(message) if error.errno in _PASSING else CheckpointError(message)


def _open(path: Path) -> ModelFile:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
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
