"""How much memory a new process may take: what the machine has available, or less where it may not use all of that.

Two things allow less: the control groups around this process, and a restriction to some NUMA nodes (`cpuset.mems`,
`numactl --membind`). Sources: proc(5); the kernel's Documentation/admin-guide/cgroup-v1/cpusets.rst.
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

    total: int  # of the machine, or what the control group allows
    free: int  # may be taken now
    limit: MemoryLimit | None  # the control group that allows the least; None: no group allows less than the machine
    nodes: tuple[int, ...] = ()  # NUMA nodes whose memory may be used; none: all of them


def see_memory(root: Path = Path("/")) -> Memory:
    """Look at the machine and at every control group around this process."""
    meminfo = sizes(root / "proc/meminfo")
    # No Linux: half of what is built in is a cautious stand-in.
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
    """Memory that a new process may take."""
    return see_memory().free


def _allowed_nodes(root: Path) -> dict[int, Mapping[str, int]]:
    """NUMA node → its sizes, of those whose memory this process may use; empty where that is all of them."""
    allowed = frozenset[int]()
    for line in read(root / "proc/self/status").splitlines():
        if line.startswith("Mems_allowed_list:"):
            allowed = number_list(line.partition(":")[2])
    folders = {int(folder.name[4:]): folder for folder in (root / NODES).glob("node[0-9]*")}
    if not allowed or not folders.keys() - allowed:
        return {}
    return {node: sizes(folders[node] / "meminfo") for node in sorted(allowed & folders.keys())}
