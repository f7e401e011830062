"""The output file of a batch: what it holds from an earlier run, and every line that is added.

Owns the file from opening to closing. It promises that a file which holds anything but a batch's answers is never
changed, that opening changes nothing at all, that a whole line is never lost, changed or written twice, and that two
batches never write to one file at the same time. After a kill the last line may be incomplete; `repair` removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from antiphon.errors import ConfigError

_BAD_STATUS = 400
_BEGINNING = b'{"id":"batch_req_'  # of every line that we write
_LIKE_OURS = re.compile(rb'\s*\{\s*"id"\s*:')  # also after an editor has changed the blanks
_LOOKED_AT_BYTES = 1 << 16  # of a line, before the rest of it is read


class _Response(msgspec.Struct):
    status_code: int


class _LinePlace(msgspec.Struct):
    line: int


class _Written(msgspec.Struct):
    """The parts of a line that a later run needs."""

    id: str
    custom_id: str | None
    response: _Response
    error: _LinePlace | None = None


class BatchFile:
    """An open output file; `answered`, `bad_lines` and `num_failed` describe what is in it already."""

    def __init__(self, path: Path, requests: Path) -> None:
        """Open `path`, new or from an earlier run.

        Raises:
            ConfigError: it cannot be written, is in use, is the file of `requests`, or holds something else.
        """
        self.answered: set[str] = set()  # custom ids
        self.bad_lines: set[int] = set()  # numbers of lines that were no valid request
        self.num_failed = 0
        self._path = path
        self._end = 0  # bytes: of the whole lines
        self._is_whole = True  # no incomplete line follows them, and the last one ends with a line feed
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from None
        try:
            self._claim(requests)
            self._read()
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def num_lines(self) -> int:
        """Lines in the file."""
        return len(self.answered) + len(self.bad_lines)

    def repair(self) -> None:
        """Make the file end with a whole line: remove one that was cut off, or add the line feed that is missing.

        To be called when the batch is really about to go on; before that the file stays as it was found.
        """
        if self._is_whole:
            return
        self._is_whole = True
        os.ftruncate(self._fd, self._end)
        if self._end and os.pread(self._fd, 1, self._end - 1) != b"\n":
            self._write(b"\n")

    def add_answer(self, custom_id: str, line: bytes, *, failed: bool) -> None:
        """Write the line of a request."""
        self._write(line)
        self.answered.add(custom_id)
        self.num_failed += failed

    def add_bad_line(self, number: int, line: bytes) -> None:
        """Write the line of one that was no valid request."""
        self._write(line)
        self.bad_lines.add(number)
        self.num_failed += 1

    def __enter__(self) -> BatchFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.fsync(self._fd)
        os.close(self._fd)

    def _claim(self, requests: Path) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise ConfigError(f"{self._path} is not a regular file, so a batch could not be resumed from it")
        if os.path.samestat(os.fstat(self._fd), requests.stat()):
            raise ConfigError(f"{self._path} holds the requests; name another file for the answers")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another batch is writing to {self._path}") from None

    def _read(self) -> None:
        """Note what an earlier run has done, and where its whole lines end."""
        decoder = msgspec.json.Decoder(_Written)
        with os.fdopen(os.dup(self._fd), "rb") as file:
            for number, line in enumerate(_lines(file), 1):
                try:
                    self._note(decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    if line.endswith(b"\n") or not self._was_cut_off(line):
                        raise ConfigError(
                            f"{self._path} already exists, and line {number} of it is not an answer of a batch; "
                            "it was not changed. Name another file"
                        ) from None
                    self._is_whole = False
                    break
                self._end += len(line)
                self._is_whole = line.endswith(b"\n")
        os.lseek(self._fd, 0, os.SEEK_END)

    def _was_cut_off(self, tail: bytes) -> bool:
        """Whether the end of the file is the beginning of a line of ours.

        A few bytes could be another program's: alone in a file they are not taken for ours. A machine that loses power
        may leave zeros where a line would have been.
        """
        is_ours = tail[: len(_BEGINNING)] == _BEGINNING[: len(tail)] or not tail.strip(b"\0")
        return is_ours and (self._end > 0 or len(tail) >= len(_BEGINNING))

    def _note(self, written: _Written) -> None:
        if written.error is not None:
            self.bad_lines.add(written.error.line)
        elif written.custom_id is not None:
            self.answered.add(written.custom_id)
        self.num_failed += written.response.status_code >= _BAD_STATUS

    def _write(self, line: bytes) -> None:
        if not self._is_whole:
            raise ConfigError(f"cannot write {self._path}: its last line is incomplete")
        end = os.lseek(self._fd, 0, os.SEEK_END)
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:  # a full disk, most likely: the half of the line that fitted is taken back
            with suppress(OSError):
                os.ftruncate(self._fd, end)
            self._is_whole = os.fstat(self._fd).st_size == end
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The file's lines; of one that cannot be ours, which may be as long as the file, its beginning only."""
    while line := file.readline(_LOOKED_AT_BYTES):
        if not line.endswith(b"\n") and len(line) == _LOOKED_AT_BYTES and _LIKE_OURS.match(line):
            line += file.readline()
        yield line
