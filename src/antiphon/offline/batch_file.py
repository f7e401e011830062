"""The file of answers: what it holds from an earlier run, and every line that is added.

Owns the file from opening to closing. It promises that what stands in it is whole lines, but for a part of the last one
after a death, which the next opening cuts off; that a whole line is never lost, changed or written again; and that two
batches never write one file at once.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType

import msgspec

from antiphon.errors import ConfigError

_BAD_STATUS = 400


class _Response(msgspec.Struct):
    status_code: int


class _LinePlace(msgspec.Struct):
    line: int


class _Written(msgspec.Struct):
    """As much of a line as a later run must know."""

    id: str
    custom_id: str | None
    response: _Response
    error: _LinePlace | None = None


class BatchFile:
    """An open file of answers; `answered`, `bad_lines` and `num_failed` tell what is in it already."""

    def __init__(self, path: Path, requests: Path) -> None:
        """Open `path`, new or from an earlier run.

        Raises:
            ConfigError: it cannot be written, is in use, is the file of `requests`, or holds something else.
        """
        self.answered: set[str] = set()  # custom ids
        self.bad_lines: set[int] = set()  # numbers of lines that could not be asked
        self.num_failed = 0
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from None
        try:
            self._claim(requests)
            self._take_over()
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def num_lines(self) -> int:
        """Lines in the file."""
        return len(self.answered) + len(self.bad_lines)

    def add_answer(self, custom_id: str, line: bytes, *, failed: bool) -> None:
        """Write the line of a request."""
        self._write(line)
        self.answered.add(custom_id)
        self.num_failed += failed

    def add_bad_line(self, number: int, line: bytes) -> None:
        """Write the line of one that could not be asked."""
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
            raise ConfigError(f"{self._path} is not a file; answers go into one, so that a batch can be resumed")
        if os.path.samestat(os.fstat(self._fd), requests.stat()):
            raise ConfigError(f"{self._path} holds the requests; name another file for the answers")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another batch is writing {self._path}") from None

    def _take_over(self) -> None:
        """Learn what an earlier run has done, and cut off what it could not finish."""
        whole = 0
        decoder = msgspec.json.Decoder(_Written)
        with os.fdopen(os.dup(self._fd), "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._note(decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    raise ConfigError(
                        f"line {number} of {self._path} is not a line of a batch's answers; name another file"
                    ) from None
                whole += len(line)
        os.ftruncate(self._fd, whole)
        os.lseek(self._fd, whole, os.SEEK_SET)

    def _note(self, written: _Written) -> None:
        if written.error is not None:
            self.bad_lines.add(written.error.line)
        elif written.custom_id is not None:
            self.answered.add(written.custom_id)
        self.num_failed += written.response.status_code >= _BAD_STATUS

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from None
