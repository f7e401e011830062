"""How much work is done, whoever else uses the machine: processor time, and not the clock on the wall."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from processes import children

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int | None = None) -> float:
    """Seconds that a process (this one unless named), its descendants and those of them that ended have computed.

    A process that ended and that nobody waited for yet is missing: proc_pid_stat(5), utime to cstime.
    """
    pid = os.getpid() if pid is None else pid
    ticks = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = sum(map(int, fields[11:15]))
    return ticks / _TICKS_PER_SECOND + sum(map(processor_time, children(pid)))


def takes_linear_time(work: Callable[[int], object], length: int) -> bool:
    """Whether work of ten times a length takes less than 40 times as long; if it grew as the square, it would take 100.

    The best of three tries each, since a busy machine's caches are shared.
    """
    short = min(_seconds(work, length) for _ in range(3))
    return any(_seconds(work, 10 * length) < 40 * max(short, 0.005) for _ in range(3))


def _seconds(work: Callable[[int], object], length: int) -> float:
    """Without the garbage collector, which would walk over all that other tests have left in this process."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        work(length)
        return time.process_time() - began
    finally:
        gc.enable()
