"""The machine resources this process may use: memory, CPUs, NUMA nodes, and the limits of enclosing containers.

A leaf that reads the kernel's files and decides the number of threads. `see_machine` returns all of it; `inspect` and
the server's first log lines show it. `usage` and `process_usage` say how much of it is used, for the metrics, and
`starvation` how long a process waited for a processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.machine.division import THREADS_BESIDE_GPU, Seat, default_engines, divide
from antiphon.machine.memory import Memory, anonymous_bytes, free_memory_bytes, see_memory
from antiphon.machine.process_usage import ProcessUsage, booted_at, process_usage
from antiphon.machine.processors import (
    Processors,
    ThreadChoice,
    choose_threads,
    default_threads,
    see_processors,
    stay_on,
)
from antiphon.machine.starvation import Starvation
from antiphon.machine.usage import CpuUsage, MemoryUsage, Pressure, cpu_usage, memory_usage, pressure

__all__ = [
    "THREADS_BESIDE_GPU",
    "CpuUsage",
    "Machine",
    "Memory",
    "MemoryUsage",
    "Pressure",
    "ProcessUsage",
    "Processors",
    "Seat",
    "Starvation",
    "ThreadChoice",
    "anonymous_bytes",
    "booted_at",
    "choose_threads",
    "cpu_usage",
    "default_engines",
    "default_threads",
    "divide",
    "free_memory_bytes",
    "memory_usage",
    "pressure",
    "process_usage",
    "see_machine",
    "see_memory",
    "see_processors",
    "stay_on",
]

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """The state of the machine at one moment, and the threads that were chosen."""

    memory: Memory
    processors: Processors
    choice: ThreadChoice

    def threads_line(self) -> str:
        """For display: "4 threads (one for each physical core, on NUMA node 0 of 2)"."""
        count, node = self.choice.threads, self.choice.node
        place = f", on NUMA node {node.id} of {len(self.processors.nodes)}" if node else ""
        return f"{count} {'thread' if count == 1 else 'threads'} ({self.choice.reason}{place})"

    def memory_line(self) -> str:
        """For display: "memory 2.1 of 4.0 GiB free (limit of control group /docker/1f3c)"."""
        memory = self.memory
        nodes = f" on NUMA node {', '.join(map(str, memory.nodes))}" if memory.nodes else ""
        limit = f" (limit of control group {memory.limit.group})" if memory.limit else ""
        return f"memory {memory.free / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free{nodes}{limit}"

    def limits(self) -> list[str]:
        """Every limit that was found, one sentence each; for `inspect`."""
        processors, quota = self.processors, self.processors.quota
        seen = [f"{len(processors.cpus)} logical CPUs may be used, on {processors.num_cores} physical cores"]
        if quota:
            seen.append(f"control group {quota.group} allows {quota.cpus:.3g} CPUs")
        if len(processors.nodes) > 1:
            nodes = ", ".join(f"{node.id} with {node.num_cores} cores" for node in processors.nodes)
            seen.append(f"NUMA nodes: {nodes}; {self._stays()}")
        return [*seen, self.memory_line()]

    def report(self) -> dict[str, Any]:
        """The same as plain data; sizes in bytes."""
        processors, quota, limit = self.processors, self.processors.quota, self.memory.limit
        return {
            "threads": self.choice.threads,
            "threads_reason": self.choice.reason,
            "logical_cpus": len(processors.cpus),
            "physical_cores": processors.num_cores,
            "cpu_quota": quota and quota.cpus,
            "cpu_quota_group": quota and quota.group,
            "numa_nodes": {node.id: {"cores": node.num_cores, "free": node.free_bytes} for node in processors.nodes},
            "numa_node": self.choice.node.id if self.choice.node else None,
            "memory_total": self.memory.total,
            "memory_free": self.memory.free,
            "memory_limit_group": limit and limit.group,
            "memory_nodes": list(self.memory.nodes),
            "seen": self.limits(),
        }

    def _stays(self) -> str:
        node = self.choice.node
        if node is None:
            return f"{self.choice.threads} threads use all of them"
        if default_engines(self.processors) > 1:
            return f"one engine for each, if memory allows; --threads above {node.num_cores} makes it one on all nodes"
        return f"threads stay on node {node.id}, and --threads above {node.num_cores} uses all of them"


def see_machine(threads: int = 0, root: Path = Path("/")) -> Machine:
    """Look at the machine; `threads` as in `EngineConfig`: 0 chooses."""
    processors = see_processors(root)
    return Machine(see_memory(root), processors, choose_threads(processors, threads))
