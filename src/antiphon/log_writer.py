"""Log lines written by a thread of their own, so that nobody waits for whoever reads them. A leaf.

A pipe holds 64 KB, and a terminal can be stopped with Ctrl-S. After that a plain handler's write lasts until somebody
reads on, and with it whatever logged: the event loop, or the engine between two steps. Here a line waits in a queue;
when the queue is full, further lines are dropped and counted, and the count is written in their place.
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
    """What is written in place of lines that were dropped."""
    return f"{count} log {'line was' if count == 1 else 'lines were'} dropped, since nobody read the log in time"


class LineWriter(logging.Handler):
    """Writes each record as a line to a file descriptor, from a thread of its own."""

    def __init__(
        self, fd: int, *, dropped: Callable[[int], str] = dropped_note, max_waiting: int = _MAX_WAITING
    ) -> None:
        """`dropped` makes the line that tells how many were dropped; `max_waiting` is a number of lines."""
        super().__init__()
        self._fd = fd
        self._dropped_line = dropped
        self._waiting: queue.Queue[str | None] = queue.Queue(max_waiting)
        self._num_dropped = 0
        # A daemon, since a reader that has stopped reading must not keep this process from ending.
        self._thread = threading.Thread(target=self._write_all, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record's line, or drop it; never blocks and never raises."""
        if self._waiting.full():  # before it costs the time to format it
            self._num_dropped += 1
            return
        try:
            line = self.format(record)
        except Exception as error:  # an argument does not fit its format; logging's own handler would write and wait
            line = f"a message cannot be written: {record.msg!r} ({error})"
        self._put(line)

    def close(self) -> None:
        """Write what waits, if that takes no longer than a moment."""
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
                    # Past Python's own buffer, whose lock a waiting thread would hold until the end of the process.
                    data = data[os.write(self._fd, data) :]
                except BlockingIOError:  # somebody made this descriptor non-blocking, with another process perhaps
                    self._wait_until_writable()
                except OSError:  # nobody reads any more
                    return

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll()
