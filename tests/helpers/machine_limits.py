"""Limits on a server's memory and CPU time that a test sets and lifts while it runs.

They are those of real control groups where this machine lets us make some. Elsewhere the server reads the files of a
made-up machine, which say what a kernel would.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from control_groups import ControlGroup, MemoryGroup, control_group, memory_group
from machines import FakeMachine
from patience import wait_until

_PERIOD = 100_000  # microseconds


class RealLimits:
    """Control groups, of the servers that are started within `entered`."""

    environment: Mapping[str, str] = {}

    def __init__(self, memory: MemoryGroup, cpu: ControlGroup) -> None:
        """`cpu`: the group for CPU time; with version 2 it is the same."""
        self._memory, self._cpu = memory, cpu

    @contextmanager
    def entered(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(self._memory.entered())
            if self._cpu is not self._memory:
                stack.enter_context(self._cpu.entered())
            yield

    def use_memory(self, share: float | None) -> None:
        """Let this share of the memory be in use; None: no limit."""
        if share is None:
            self._memory.limit(None)
        else:
            wait_until(lambda: self._set_memory(share), "the limit could not be set")

    def _set_memory(self, share: float) -> bool:
        statistics = dict(line.split() for line in (self._memory.path / "memory.stat").read_text().splitlines())
        inactive = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
        with suppress(OSError):  # more is in use, and the kernel could not free enough
            self._memory.limit(int((self._memory.usage - int(inactive)) / share))
            return True
        return False

    def quota(self, cpus: float | None) -> None:
        """Limit CPU time; None: no limit."""
        microseconds = None if cpus is None else int(cpus * _PERIOD)
        if self._memory.is_v1:
            (self._cpu.path / "cpu.cfs_quota_us").write_text(str(microseconds or -1))
        else:
            (self._cpu.path / "cpu.max").write_text(f"{microseconds or 'max'} {_PERIOD}")


class MadeUpLimits:
    """The files of a control group of version 2 on a made-up machine."""

    def __init__(self, folder: Path) -> None:
        self._machine = FakeMachine(folder)
        self.environment: Mapping[str, str] = {"MACHINE_ROOT": str(folder)}
        self._machine.member("0::/server")
        self._machine.mount("/sys/fs/cgroup")
        self._machine.memory(total=1 << 34, available=1 << 33)
        self._throttled: threading.Event | None = None
        self.use_memory(None)
        self._write_cpu("max", 0)

    @contextmanager
    def entered(self) -> Iterator[None]:
        yield

    def use_memory(self, share: float | None) -> None:
        current = 1 << 30
        limit = "max" if share is None else int(current / share)
        self._machine.group("/sys/fs/cgroup/server", memory_current=current, memory_max=limit)

    def quota(self, cpus: float | None) -> None:
        """With a quota, every period is throttled."""
        if self._throttled:
            self._throttled.set()
            self._throttled = None
        if cpus is None:
            self._write_cpu("max", 0)
        else:
            self._throttled = threading.Event()
            threading.Thread(target=self._throttle, args=(int(cpus * _PERIOD), self._throttled), daemon=True).start()

    def _throttle(self, quota: int, end: threading.Event) -> None:
        periods = 0
        while not end.wait(0.1):
            periods += 1
            self._write_cpu(str(quota), periods)

    def _write_cpu(self, quota: str, periods: int) -> None:
        statistics = {"nr_periods": periods, "nr_throttled": periods, "throttled_usec": 1000 * periods}
        self._machine.group("/sys/fs/cgroup/server", cpu_max=f"{quota} {_PERIOD}", cpu_stat=statistics)


@contextmanager
def machine_limits(folder: Path) -> Iterator[RealLimits | MadeUpLimits]:
    """The limits for the time of the block, after which no server may be left."""
    with ExitStack() as stack:
        limits: RealLimits | MadeUpLimits
        try:
            memory = stack.enter_context(memory_group())
            limits = RealLimits(memory, stack.enter_context(control_group("cpu")) if memory.is_v1 else memory)
            limits.quota(None)
            with limits.entered():
                pass
        except (pytest.skip.Exception, OSError):
            limits = MadeUpLimits(folder)
        yield limits
