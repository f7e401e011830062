"""New files and folders that take the place of old ones, without a moment in which neither is there whole. A leaf.

Owns the order: write beside the destination, flush to disk, put the old one aside, move the new one in, and only then
delete the old one. It promises that a failure at any point leaves the old one in place, or, where even that is not
possible, under a name that the error tells.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from antiphon.errors import ConfigError

Check = Callable[[Path], None]  # raises ConfigError where the path must not be replaced


@contextmanager
def replacing(destination: Path, check: Check) -> Iterator[Path]:
    """Where to write what becomes `destination` at the end of the block; removed if the block fails.

    `check` is asked about what is at `destination` by then, just before that is replaced. A symbolic link is
    replaced as a link; what it points to stays.

    Raises:
        ConfigError: what `check` says, or the old one could not be put back and is now elsewhere.
        OSError: it cannot be written.
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
    """Put the old one aside, the new one in its place, and delete the old one."""
    aside = _free_name(destination)
    destination.rename(aside)
    try:
        part.rename(destination)
    except OSError:
        try:
            aside.rename(destination)
        except OSError as error:
            raise ConfigError(
                f"{destination} could not be replaced or put back ({error.strerror}); it is now at {aside}"
            ) from None
        raise
    _delete(aside)


def _delete(path: Path) -> None:
    """Delete a file, or a folder with its files; of a folder that holds other folders those stay."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for each in list(path.iterdir()):
        if each.is_symlink() or not each.is_dir():
            each.unlink()
    with suppress(OSError):
        path.rmdir()


def _free_name(destination: Path) -> Path:
    """A name beside `destination` that nothing has."""
    number = 0
    while os.path.lexists(aside := destination.with_name(f".{destination.name[:100]}.old-{os.getpid()}-{number}")):
        number += 1
    return aside


def _flush(path: Path) -> None:
    """Have the disk hold a file, or every file of a folder."""
    for each in [*path.iterdir(), path] if path.is_dir() else [path]:
        if not each.is_dir() or each == path:
            _flush_names(each)


def _flush_names(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
