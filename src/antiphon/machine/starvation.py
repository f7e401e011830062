"""How long a process waits for a processor, because others use them all or a container's limit is reached.

Source: the second number of /proc/<pid>/task/<tid>/schedstat, nanoseconds in which a thread was ready to run and did
not (Documentation/scheduler/sched-stats in Linux' sources). Kernels without it say nothing, and nobody seems to wait.
"""

from __future__ import annotations

from pathlib import Path

from antiphon.machine.kernel_files import read


class Starvation:
    """The waiting of one process's threads. Reading it never raises: the process may end at any moment."""

    def __init__(self, pid: int, root: Path = Path("/")) -> None:
        self._threads = root / "proc" / str(pid) / "task"
        self._waited: dict[str, int] = {}  # by each thread so far, in nanoseconds

    def seconds(self) -> float:
        """How long a thread waited since the last call: of several, the one that waited longest."""
        before, self._waited = self._waited, self._read()
        return max((now - before.get(thread, 0) for thread, now in self._waited.items()), default=0) / 1e9

    def _read(self) -> dict[str, int]:
        try:
            threads = [folder.name for folder in self._threads.iterdir()]
        except OSError:
            return {}
        waited = {thread: read(self._threads / thread / "schedstat").split()[1:2] for thread in threads}
        return {thread: int(numbers[0]) for thread, numbers in waited.items() if numbers and numbers[0].isdecimal()}
