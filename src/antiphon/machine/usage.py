"""How much of the memory and CPU time that this process may use is used, for metrics. Nothing here raises.

Sources: proc(5), and the kernel's Documentation/accounting/psi.rst; limits are those of `control_groups`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from antiphon.machine.control_groups import cpu_throttling, memory_limits, own_folder
from antiphon.machine.kernel_files import read, sizes

RESOURCES = ("cpu", "memory", "io")


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """In bytes."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class CpuUsage:
    """CPU time: what is allowed, and how often a control group had to wait because it had used it."""

    limit_cores: float  # the quota, or the number of logical CPUs that may be used
    throttled_seconds: float = 0.0
    throttled_periods: int = 0
    periods: int = 0


@dataclass(frozen=True, slots=True)
class Pressure:
    """Time lost by waiting for a resource, in seconds since boot or since the control group was created."""

    waiting: float  # at least one task waited
    stalled: float  # all tasks waited at the same time


def memory_usage(processes_bytes: int, root: Path = Path("/")) -> MemoryUsage:
    """The working set of the control group that is closest to its limit, against that limit.

    The working set leaves out file pages that the kernel reclaims first. Without a limit it is `processes_bytes`, what
    the caller's processes have in memory, against the memory of the machine.
    """
    closest = min(memory_limits(root), key=lambda limit: limit.available, default=None)
    if closest is not None:
        return MemoryUsage(closest.used, closest.limit)
    return MemoryUsage(processes_bytes, sizes(root / "proc/meminfo").get("MemTotal", 0))


def cpu_usage(root: Path = Path("/")) -> CpuUsage:
    """The lowest CPU quota, and how often it was used up."""
    throttling = cpu_throttling(root)
    if throttling is None:
        return CpuUsage(float(len(os.sched_getaffinity(0))))
    quota = throttling.quota
    return CpuUsage(quota.cpus, throttling.seconds, throttling.throttled_periods, throttling.periods)


def pressure(root: Path = Path("/")) -> Mapping[str, Pressure]:
    """Resource → pressure, of this process's control group if that is measured, else of the machine.

    Empty if the kernel measures neither.
    """
    group = own_folder(root)
    found = {}
    for resource in RESOURCES:
        text = read(group / f"{resource}.pressure") if group else ""
        seconds = _totals(text or read(root / "proc/pressure" / resource))
        if "some" in seconds:
            found[resource] = Pressure(seconds["some"], seconds.get("full", 0.0))
    return found


def _totals(text: str) -> Mapping[str, float]:
    """The totals in seconds of lines like "some avg10=0.00 avg60=0.00 avg300=0.00 total=12345" (microseconds)."""
    found = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        total = rest.rpartition("total=")[2].strip()
        if total.isdecimal():
            found[kind] = int(total) / 1e6
    return found
