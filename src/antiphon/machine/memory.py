"""How much memory a new process can use.

That is the memory that the machine has available, or less if control groups or a restriction to some NUMA nodes
(`cpuset.mems`, `numactl --membind`) limit it. Sources: proc(5); the kernel's
Documentation/admin-guide/cgroup-v1/cpusets.rst.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from antiphon.machine.control_groups import MemoryLimit, memory_limits
from antiphon.machine.kernel_files import NODES, number_list, read, sizes


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes."""

    total: int  # of the machine, or the control group's limit
    free: int  # available now
    limit: MemoryLimit | None  # of the control group with the least available; None: no group has less than the machine
    nodes: tuple[int, ...] = ()  # NUMA nodes whose memory may be used; none: all of them


def see_memory(root: Path = Path("/")) -> Memory:
    """Read the memory of the machine and the limits of every control group that contains this process."""
    meminfo = sizes(root / "proc/meminfo")
    # Without /proc/meminfo (not Linux), half of the installed memory is a cautious estimate.
    total = meminfo.get("MemTotal", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    free = meminfo.get("MemAvailable", total // 2)
    nodes = _allowed_nodes(root)
    if nodes:
        total = min(total, sum(node.get("MemTotal", 0) for node in nodes.values()))
        free = min(free, sum(node.get("MemFree", 0) + node.get("Inactive(file)", 0) for node in nodes.values()))
    least = min(memory_limits(root), key=lambda limit: limit.available, default=None)
    if least is None or least.available >= free:
        return Memory(total, free, None, tuple(nodes))
    return Memory(min(total, least.limit), least.available, least, tuple(nodes))


def free_memory_bytes() -> int:
    """Memory that a new process can use, in bytes."""
    return see_memory().free


def anonymous_bytes(pid: int) -> int:
    """Memory that a process has allocated and used, without pages of files; 0 if there is no such process."""
    return sizes(Path(f"/proc/{pid}/status")).get("RssAnon", 0)


def _allowed_nodes(root: Path) -> dict[int, Mapping[str, int]]:
    """NUMA node → its sizes, for the nodes whose memory this process may use; empty if it may use all of them."""
    allowed = frozenset[int]()
    for line in read(root / "proc/self/status").splitlines():
        if line.startswith("Mems_allowed_list:"):
            allowed = number_list(line.partition(":")[2])
    folders = {int(folder.name[4:]): folder for folder in (root / NODES).glob("node[0-9]*")}
    if not allowed or not folders.keys() - allowed:
        return {}
    return {node: sizes(folders[node] / "meminfo") for node in sorted(allowed & folders.keys())}
