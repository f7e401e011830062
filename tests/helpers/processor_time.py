"""How much work is done, whoever else uses the machine: processor time, and not the clock on the wall."""

from __future__ import annotations

import os
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
