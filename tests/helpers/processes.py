"""Processes as Linux shows them: children, and whether one is stopped or gone; and moments in which they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process started and that are not gone."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended just now
                found += map(int, (thread / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [child for child in found if not is_gone(child)]


def is_gone(pid: int) -> bool:
    """Whether no process has that id, or only a zombie that nobody waited for yet."""
    try:
        return _state(pid) in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped a process."""
    return _state(pid) == "T"


def run_briefly(pids: Sequence[int]) -> None:
    """Let stopped processes run for a moment; they are stopped again.

    Engines that run in moments do not end what they are doing because a busy machine is late to show it.
    """
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.01)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """A process of one thread gets next to no time: four others, of higher priority, use all of its only processor."""
    (processor, *_) = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, {processor})
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    busy = f"import os; os.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(4)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]  # a name may hold brackets and spaces
