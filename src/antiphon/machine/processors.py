"""Which CPUs this process may use, their physical cores and NUMA nodes, and how many threads to compute with.

The kernels keep every vector unit busy, so a second thread on the same core (SMT, "hyper-threading") makes both slower.
With more threads than the CPU quota, the kernel stops the process for the rest of each period, in the middle of a step.
Reading weights from another NUMA node is several times slower, so threads stay on one node unless more threads are
requested than it has cores.

Sources: the kernel's Documentation/ABI/stable, sysfs-devices-system-cpu and sysfs-devices-node. All paths are below
`root`, which tests replace.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from antiphon.config import MAX_THREADS
from antiphon.machine.control_groups import CpuQuota, cpu_quota
from antiphon.machine.kernel_files import NODES, number_list, read, sizes

_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node, restricted to the CPUs that this process may use."""

    id: int
    cpus: frozenset[int]  # logical CPUs
    num_cores: int  # physical
    free_bytes: int  # of its own memory
    cores: tuple[frozenset[int], ...] = ()  # the logical CPUs of each physical core


@dataclass(frozen=True, slots=True)
class Processors:
    """The CPUs that this process may use."""

    cpus: frozenset[int]  # logical CPUs
    num_cores: int  # physical cores that these belong to
    nodes: tuple[Node, ...]  # NUMA nodes with such CPUs; exactly one on a machine without NUMA
    quota: CpuQuota | None


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """The number of threads to compute with, and where they run."""

    threads: int
    node: Node | None  # the NUMA node to stay on; None: all nodes, or there is only one
    reason: str  # for display: "one for each physical core"


def see_processors(root: Path = Path("/"), affinity: Collection[int] | None = None) -> Processors:
    """Read the machine's CPUs; `affinity` defaults to the CPUs that the calling thread may run on."""
    cpus = frozenset(os.sched_getaffinity(0) if affinity is None else affinity)
    return Processors(cpus, _count_cores(cpus, root), _nodes(cpus, root), cpu_quota(root))


def choose_threads(processors: Processors, threads: int = 0) -> ThreadChoice:
    """`threads` threads or, if it is 0, one for each physical core of one NUMA node, within the CPU quota."""
    several = len(processors.nodes) > 1
    # The node with the most cores. With equal cores, the one with more free memory: another server may use the other.
    best = max(processors.nodes, key=lambda node: (node.num_cores, node.free_bytes, -node.id))
    if threads:
        return ThreadChoice(threads, best if several and threads <= best.num_cores else None, "as asked")
    threads, reason = best.num_cores, "one for each physical core"
    quota = processors.quota
    if quota is not None and math.ceil(quota.cpus) < threads:
        threads, reason = math.ceil(quota.cpus), f"the CPU quota is {quota.cpus:.3g}"
    return ThreadChoice(max(1, min(threads, MAX_THREADS)), best if several else None, reason)


def default_threads() -> int:
    """How many threads to compute with on this machine."""
    return choose_threads(see_processors()).threads


def stay_on(node: Node | None) -> None:
    """Restrict the calling thread, and threads it starts later, to a node. Memory is then allocated there too.

    Raises:
        OSError: the system does not allow it.
    """
    if node is not None:
        os.sched_setaffinity(0, node.cpus)


def _count_cores(cpus: Iterable[int], root: Path) -> int:
    """Physical cores that these logical CPUs belong to."""
    return len({_core_of(cpu, root) for cpu in cpus})


def _core_of(cpu: int, root: Path) -> frozenset[int]:
    """All logical CPUs on the same core. A CPU without topology information counts as a separate core."""
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second before Linux 5.3
        siblings = number_list(read(root / _CPUS / f"cpu{cpu}/topology" / name))
        if cpu in siblings:
            return siblings
    return frozenset([cpu])


def _nodes(cpus: frozenset[int], root: Path) -> tuple[Node, ...]:
    """The NUMA nodes, at least one. Each has CPUs that this process may use, and each such CPU is on one of them."""
    nodes = []
    left = cpus
    for folder in sorted((root / NODES).glob("node[0-9]*"), key=lambda folder: int(folder.name[4:])):
        if here := number_list(read(folder / "cpulist")) & left:
            nodes.append(_node(int(folder.name[4:]), here, sizes(folder / "meminfo").get("MemFree", 0), root))
            left -= here
    if left:  # no NUMA, or not every CPU is listed, so there is no node to stay on
        return (_node(0, cpus, 0, root),)
    return tuple(nodes)


def _node(node_id: int, cpus: frozenset[int], free_bytes: int, root: Path) -> Node:
    cores: dict[frozenset[int], set[int]] = {}
    for cpu in sorted(cpus):
        cores.setdefault(_core_of(cpu, root), set()).add(cpu)
    return Node(node_id, cpus, len(cores), free_bytes, tuple(map(frozenset, cores.values())))
