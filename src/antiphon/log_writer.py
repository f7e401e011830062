"""Writes log lines from a separate thread, so that a slow reader of the log blocks nothing. A leaf.

A pipe holds 64 KB, and Ctrl-S stops a terminal. After that, a write by a plain handler blocks until something reads,
and so does the code that logged: the event loop, or the engine between two steps. Here lines wait in a queue. When the
queue is full, further lines are dropped and counted, and the count is written in their place. So are lines for which
the disk has no room.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from contextlib import suppress

STDOUT, STDERR = 1, 2  # file descriptors
_MAX_WAITING = 10_000  # lines
_PATIENCE = 1.0  # seconds for the last lines to be written at the end


def dropped_note(count: int) -> str:
    """The line that is written in place of dropped lines."""
    lines = "line was" if count == 1 else "lines were"
    return f"{count} log {lines} dropped, because the log could not be written in time"


class LineWriter(logging.Handler):
    """Writes each record as a line to a file descriptor, from a separate thread."""

    def __init__(
        self,
        fd: int,
        *,
        dropped: Callable[[int], str] = dropped_note,
        max_waiting: int = _MAX_WAITING,
        already_dropped: int = 0,
    ) -> None:
        """`dropped` returns the line that reports a number of dropped lines; `max_waiting` is a number of lines.

        `already_dropped` is where `total_dropped` begins.
        """
        super().__init__()
        self._fd = fd
        self._dropped_line = dropped
        # A line, or None at the end, and the number of lines that were dropped before it.
        self._waiting: queue.Queue[tuple[str | None, int]] = queue.Queue(max_waiting)
        self._num_dropped = 0
        self._total_dropped = already_dropped  # by the caller, under the handler's lock
        self._total_lost = 0  # by the thread
        # A daemon thread: a reader that has stopped must not keep this process from exiting.
        self._thread = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def total_dropped(self) -> int:
        """How many lines were dropped so far, for lack of a reader or of space."""
        return self._total_dropped + self._total_lost

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or drop it; never block, never raise."""
        if self._waiting.full():  # checked first, so that a dropped record is not formatted
            self._drop()
            return
        try:
            line = self.format(record)
        except Exception as error:  # an argument does not fit its format; logging's own handler would block
            line = f"a message cannot be formatted: {record.msg!r} ({error})"
        self._put(line)

    def close(self) -> None:
        """Write the queued lines, but wait at most a second for that."""
        with suppress(queue.Full):
            self._waiting.put_nowait((None, self._num_dropped))
            self._thread.join(_PATIENCE)
        super().close()

    def _put(self, line: str) -> None:
        try:
            self._waiting.put_nowait((line, self._num_dropped))
        except queue.Full:
            self._drop()
        else:
            self._num_dropped = 0

    def _drop(self) -> None:
        self._num_dropped += 1
        self._total_dropped += 1

    def _write_all(self) -> None:
        num_lost, is_torn = 0, False
        line: str | None = ""
        while line is not None:
            line, num_dropped = self._waiting.get()
            num_lost += num_dropped
            lines = [self._dropped_line(num_lost)] if num_lost else []
            if line is not None:
                lines.append(line)
            text = "".join(f"{each}\n" for each in lines)
            data = (b"\n" if is_torn else b"") + text.encode(errors="backslashreplace")
            try:
                num_written = self._write(data)
            except BrokenPipeError:  # the reader has closed it
                return
            if num_written == len(data):
                num_lost, is_torn = 0, False
            else:
                num_lost += 1
                self._total_lost += 1
                is_torn = is_torn or num_written > 0

    def _write(self, data: bytes) -> int:
        """Write as much as possible and return its length: a disk may be full, and have room for later lines."""
        num_written = 0
        while num_written < len(data):
            try:
                # Not through Python's own buffer: a blocked thread would hold its lock until the process exits.
                num_written += os.write(self._fd, data[num_written:])
            except BlockingIOError:  # the descriptor was made non-blocking, perhaps by another process
                self._wait_until_writable()
            except BrokenPipeError:
                raise
            except OSError:
                break
        return num_written

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()
