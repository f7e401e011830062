"""Writes log lines from a separate thread, so that a slow reader of the log blocks nothing. A leaf.

A pipe holds 64 KB, and Ctrl-S stops a terminal. After that, a write by a plain handler blocks until somebody reads, and
so does the code that logged: the event loop, or the engine between two steps. Here lines wait in a queue. When the
queue is full, further lines are dropped and counted, and the count is written in their place.
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
    return f"{count} log {'line was' if count == 1 else 'lines were'} dropped, because the log was not read in time"


class LineWriter(logging.Handler):
    """Writes each record as a line to a file descriptor, from a separate thread."""

    def __init__(
        self, fd: int, *, dropped: Callable[[int], str] = dropped_note, max_waiting: int = _MAX_WAITING
    ) -> None:
        """`dropped` returns the line that reports a number of dropped lines; `max_waiting` is a number of lines."""
        super().__init__()
        self._fd = fd
        self._dropped_line = dropped
        self._waiting: queue.Queue[str | None] = queue.Queue(max_waiting)
        self._num_dropped = 0
        # A daemon thread: a reader that has stopped must not keep this process from exiting.
        self._thread = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or drop it; never block, never raise."""
        if self._waiting.full():  # checked first, so that a dropped record is not formatted
            self._num_dropped += 1
            return
        try:
            line = self.format(record)
        except Exception as error:  # an argument does not fit its format; logging's own handler would block
            line = f"a message cannot be formatted: {record.msg!r} ({error})"
        self._put(line)

    def close(self) -> None:
        """Write the queued lines, but wait at most a second for that."""
        with suppress(queue.Full):
            if self._num_dropped:
                self._waiting.put_nowait(self._dropped_line(self._num_dropped))
            self._waiting.put_nowait(None)
            self._thread.join(_PATIENCE)
        super().close()

    def _put(self, line: str) -> None:
        if self._num_dropped:
            line = f"{self._dropped_line(self._num_dropped)}\n{line}"
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._num_dropped += 1
        else:
            self._num_dropped = 0

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            data = f"{line}\n".encode(errors="backslashreplace")
            while data:
                try:
                    # Not through Python's own buffer: a blocked thread would hold its lock until the process exits.
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:  # the descriptor was made non-blocking, perhaps by another process
                    self._wait_until_writable()
                except OSError:  # the reader has closed it
                    return

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()
