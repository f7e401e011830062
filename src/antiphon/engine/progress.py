"""Memory that front and engine share: whether the engine makes progress, and which requests it is working on.

The engine's loop moves a counter every step, and the native program moves it within a step, so that the front can tell
a slow engine from a hung one; its value means nothing except that it changes. Beside it the engine keeps the ids of
the requests that it is working on at the moment. They outlive the engine, however it ends, so the front can tell which
requests may have killed it. No locks: there is one writer, and the front reads the ids only after the engine is gone.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable

_COUNTER_BYTES = 8
_LENGTH = struct.Struct("<Q")
_IDS_AT = _COUNTER_BYTES + _LENGTH.size
# Room for the ids of thousands of sequences; pages that are never written take no memory.
_SIZE = 1 << 20
_SEPARATOR = b"\0"


class Progress:
    """The shared memory, seen from either process."""

    def __init__(self, fd: int) -> None:
        """Map the memory behind `fd`; `close` closes the descriptor too."""
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._view = memoryview(self._map)
        self.counter = self._view[:_COUNTER_BYTES]  # for the runner: writable bytes of a native unsigned 64-bit integer
        self._value = self.counter.cast("Q")

    @classmethod
    def create(cls) -> Progress:
        """New memory: a counter at zero and no ids; pass its `fd` on to the engine."""
        fd = os.memfd_create("antiphon-progress")
        os.ftruncate(fd, _SIZE)
        return cls(fd)

    @property
    def value(self) -> int:
        return self._value[0]

    def bump(self) -> None:
        """Show that something moved."""
        self._value[0] = (self._value[0] + 1) % (1 << 64)

    def work_on(self, request_ids: Iterable[str]) -> None:
        """Note the requests that are being worked on from now on; ids beyond the room for them are left out."""
        ids = _SEPARATOR.join(request_id.encode() for request_id in request_ids)
        if len(ids) > _SIZE - _IDS_AT:
            ids = ids[: ids.rindex(_SEPARATOR, 0, _SIZE - _IDS_AT)]
        # An engine that dies in between was working on nothing yet.
        _LENGTH.pack_into(self._view, _COUNTER_BYTES, 0)
        self._view[_IDS_AT : _IDS_AT + len(ids)] = ids
        _LENGTH.pack_into(self._view, _COUNTER_BYTES, len(ids))

    @property
    def working_on(self) -> frozenset[str]:
        """The ids last noted."""
        (length,) = _LENGTH.unpack_from(self._view, _COUNTER_BYTES)
        ids = bytes(self._view[_IDS_AT : _IDS_AT + min(length, _SIZE - _IDS_AT)])
        return frozenset(each.decode(errors="replace") for each in ids.split(_SEPARATOR) if each)

    def close(self) -> None:
        self._value.release()
        self.counter.release()
        self._view.release()
        self._map.close()
        os.close(self.fd)
