"""A pipe that nobody reads, as a log's reader that has stopped leaves it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def full_pipe() -> Iterator[tuple[int, int, Callable[[], None]]]:
    """(read end, write end, fill): after `fill` whoever writes to it waits until somebody reads."""
    read_end, write_end = os.pipe()

    def fill() -> None:
        # Opened anew, so that not blocking is ours alone.
        own = os.open(f"/proc/self/fd/{write_end}", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(own, b"x" * 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(own, b"x")
        os.close(own)

    try:
        yield read_end, write_end, fill
    finally:
        os.close(read_end)
        with contextlib.suppress(OSError):
            os.close(write_end)
