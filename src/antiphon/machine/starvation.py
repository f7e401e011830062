"""How long a process waits for a processor, because others use them all or a container's limit is reached.

Source: /proc/<pid>/task/<tid>/schedstat, whose first two numbers are the nanoseconds that a thread ran, and that it was
ready to run and did not (Documentation/scheduler/sched-stats in Linux' sources). The second grows when such a wait
ends; of one that has not ended, only the thread's state tells. Kernels without the file say nothing, and nobody seems
to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from antiphon.machine.kernel_files import read

_READY = "R"  # the state of a thread that runs, or would


@dataclass(frozen=True, slots=True)
class _Thread:
    """Seconds since the thread began."""

    ran: float = 0.0
    waited: float = 0.0
    is_ready: bool = False

    def starved_since(self, before: _Thread, elapsed: float) -> float:
        """For how much of the last `elapsed` seconds it waited."""
        waited = elapsed - (self.ran - before.ran) if self.is_ready else self.waited - before.waited
        return min(max(0.0, waited), elapsed)  # a wait that ends now may have been told before


class Starvation:
    """The waiting of one process's threads. Reading it never raises: the process may end at any moment."""

    def __init__(self, pid: int, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = root / "proc" / str(pid) / "task"
        self._clock = clock
        self._asked_at = clock()
        self._threads: dict[str, _Thread] = {}

    def seconds(self) -> float:
        """How long a thread waited since the last call: of several, the one that waited longest."""
        now, before = self._clock(), self._threads
        elapsed, self._asked_at = now - self._asked_at, now
        self._threads = self._read()
        waits = (
            thread.starved_since(before.get(number, _Thread()), elapsed) for number, thread in self._threads.items()
        )
        return max(waits, default=0.0)

    def _read(self) -> dict[str, _Thread]:
        try:
            folders = list(self._folder.iterdir())
        except OSError:
            return {}
        return {folder.name: thread for folder in folders if (thread := _thread(folder))}


def _thread(folder: Path) -> _Thread | None:
    times = read(folder / "schedstat").split()
    state = read(folder / "stat").rpartition(")")[2].split()[:1]  # the name before it may contain anything
    if len(times) < 2 or not state:
        return None
    return _Thread(int(times[0]) / 1e9, int(times[1]) / 1e9, state == [_READY])
