"""The journal of a load test: a file of JSON lines, one record each, that only grows.

Whatever happens to the client, what was measured is there. A line that was cut off by the end of the program is
ignored when the file is read, and removed before a resumed run appends to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import msgspec

from antiphon.bench.records import CheckRecord, Record, RequestRecord, StageRecord
from antiphon.errors import AntiphonError

JOURNAL = "journal.jsonl"  # the file's name in the folder of a load test
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def read(path: Path) -> list[Record]:
    """All records of a journal, in the order of their writing.

    Raises:
        AntiphonError: a line that is not the last one is not a record.
    """
    return list(_records(path, path.read_bytes()))


def current(records: list[Record]) -> list[Record]:
    """The records without those of stages that were repeated or never ended.

    A resumed run repeats the stage that was not complete, so a journal may have several records of one stage. The last
    one counts, with the requests that were sent during it and the verdicts that follow it.
    """
    last = {each.stage: each for each in records if isinstance(each, StageRecord)}
    checks = {(each.stage, each.check): each for each in records if isinstance(each, CheckRecord)}

    def counts(record: Record) -> bool:
        if isinstance(record, StageRecord):
            return record is last[record.stage]
        if isinstance(record, CheckRecord):
            return record is checks[record.stage, record.check]
        if isinstance(record, RequestRecord):
            stage = last.get(record.stage)
            return stage is not None and stage.started <= record.sent <= stage.ended
        return True

    return [record for record in records if counts(record)]


def _records(path: Path, content: bytes) -> Iterator[Record]:
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline was cut off
        if not line:
            continue
        try:
            yield _decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise AntiphonError(f"{path}, line {number} is not a record of a load test: {error}") from None


class Journal:
    """An open journal that records are appended to. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        whole = 0
        if path.exists():
            content = path.read_bytes()
            whole = content.rfind(b"\n") + 1
        self._file = path.open("ab")
        self._file.truncate(whole)

    def write(self, record: Record) -> None:
        """Append a record. It is in the file after the next `flush`, and on the disk after the next `sync`."""
        with self._named_errors():
            self._file.write(_encoder.encode(record) + b"\n")

    def flush(self) -> None:
        """Hand everything to the kernel, so that it survives the end of this program."""
        with self._named_errors():
            self._file.flush()

    def sync(self) -> None:
        """Write everything to the disk: at the end of each stage."""
        with self._named_errors():
            self._file.flush()
            os.fsync(self._file.fileno())

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raises AntiphonError where the file cannot be written."""
        try:
            yield
        except OSError as error:
            raise AntiphonError(f"{self._path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        except AntiphonError:
            if error is None:
                raise
        finally:
            with suppress(OSError):
                self._file.close()
