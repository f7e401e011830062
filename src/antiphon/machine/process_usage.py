"""What one process uses: CPU time, memory, open files, threads. Read from /proc, cheaply, for metrics.

Reading never raises: a process may end at any moment, and then there is nothing to say. Memory is told apart into pages
that are the process's own and pages of files, which processes share; the exact shares (PSS, in smaps_rollup) would cost
the kernel a walk over all pages, tens of milliseconds for a large model. Source: proc(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from antiphon.machine.kernel_files import read

_TICKS = os.sysconf("SC_CLK_TCK")  # per second
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """One process at one moment."""

    parent: int  # process id
    cpu_seconds: float  # user and system
    resident_bytes: int
    shared_bytes: int  # of these: pages of files and of shared memory
    virtual_bytes: int
    open_files: int
    threads: int
    started_after: float  # seconds from the machine's boot to the start of the process


def process_usage(pid: int, root: Path = Path("/")) -> ProcessUsage | None:
    """What the process uses; None if there is no such process, or it has ended and was not waited for yet."""
    folder = root / "proc" / str(pid)
    fields = read(folder / "stat").rpartition(")")[2].split()  # the name before it may contain anything
    pages = read(folder / "statm").split()
    if len(fields) < 20 or len(pages) < 3 or fields[0] in "ZX":
        return None
    return ProcessUsage(
        parent=int(fields[1]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        resident_bytes=int(pages[1]) * _PAGE,
        shared_bytes=int(pages[2]) * _PAGE,
        virtual_bytes=int(pages[0]) * _PAGE,
        open_files=_count(folder / "fd"),
        threads=int(fields[17]),
        started_after=int(fields[19]) / _TICKS,
    )


def booted_at(root: Path = Path("/")) -> float:
    """When the machine was booted, in seconds since 1970; 0 if that is not known."""
    for line in read(root / "proc/stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "btime" and value.strip().isdecimal():
            return float(value)
    return 0.0


def _count(folder: Path) -> int:
    """The number of entries; 0 if the folder cannot be read, which needs a descriptor."""
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0
