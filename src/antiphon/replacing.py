"""Replaces files and folders safely: at any moment the old or the new one is complete. A leaf.

The steps are: write next to the destination, flush to disk, rename the old one, rename the new one to the destination,
and only then delete the old one. After a failure at any point the old one is still in place, or, if that is not
possible, under a name that the error contains.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from antiphon.errors import ConfigError

Check = Callable[[Path], None]  # raises ConfigError if the path must not be replaced


@contextmanager
def replacing(destination: Path, check: Check) -> Iterator[Path]:
    """A path to write to, which replaces `destination` at the end of the block. If the block fails, it is deleted.

    `check` is called for an existing `destination` just before it is replaced. A symbolic link itself is replaced, not
    its target.

    Raises:
        ConfigError: raised by `check`, or the old one could not be restored and has another name now.
        OSError: writing failed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{destination.name[:100]}.part-", dir=destination.parent) as folder:
        part = Path(folder, destination.name)
        yield part
        _flush(part)
        if not os.path.lexists(destination):
            part.rename(destination)
        elif part.is_dir() or destination.is_dir():
            check(destination)
            _swap(part, destination)
        else:
            check(destination)
            part.replace(destination)  # in one step
        _flush_names(destination.parent)


def _swap(part: Path, destination: Path) -> None:
    """Rename the old one, rename the new one to `destination`, and delete the old one."""
    aside = _free_name(destination)
    destination.rename(aside)
    try:
        part.rename(destination)
    except OSError:
        try:
            aside.rename(destination)
        except OSError as error:
            raise ConfigError(
                f"{destination} could not be replaced or restored ({error.strerror}); it is now at {aside}"
            ) from None
        raise
    _delete(aside)


def _delete(path: Path) -> None:
    """Delete a file, or a folder and its files. A folder that contains other folders is kept, with these folders."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for each in list(path.iterdir()):
        if each.is_symlink() or not each.is_dir():
            each.unlink()
    with suppress(OSError):
        path.rmdir()


def _free_name(destination: Path) -> Path:
    """An unused name next to `destination`."""
    number = 0
    while os.path.lexists(aside := destination.with_name(f".{destination.name[:100]}.old-{os.getpid()}-{number}")):
        number += 1
    return aside


def _flush(path: Path) -> None:
    """Flush a file, or every file of a folder, to disk."""
    for each in [*path.iterdir(), path] if path.is_dir() else [path]:
        if not each.is_dir() or each == path:
            _flush_names(each)


def _flush_names(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
