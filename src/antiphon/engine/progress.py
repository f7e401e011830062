"""A counter in memory that front and engine share, so that the front can tell a slow engine from a hung one.

The engine's loop moves it every step, and the native program moves it within a step; the front only reads. It promises
nothing about its value but that it changes while the engine makes progress. No locks: eight aligned bytes, one writer.
"""

from __future__ import annotations

import mmap
import os

_SIZE = 8


class Progress:
    """The counter, seen from either process."""

    def __init__(self, fd: int) -> None:
        """Map the counter that lives in `fd`, which this object closes in `close`."""
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self.counter = memoryview(self._map)  # for the runner: writable bytes of a native unsigned 64-bit integer
        self._value = self.counter.cast("Q")

    @classmethod
    def create(cls) -> Progress:
        """A new counter at zero; pass its `fd` on to the engine."""
        fd = os.memfd_create("antiphon-progress")
        os.ftruncate(fd, _SIZE)
        return cls(fd)

    @property
    def value(self) -> int:
        return self._value[0]

    def bump(self) -> None:
        """Say that something moved."""
        self._value[0] = (self._value[0] + 1) % (1 << 64)

    def close(self) -> None:
        self._value.release()
        self.counter.release()
        self._map.close()
        os.close(self.fd)
