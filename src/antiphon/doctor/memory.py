"""Checks of memory: what may be used, swap, overcommit, who is killed first, NUMA, huge pages.

Sources: proc(5), cgroups(7), the kernel's Documentation/admin-guide/sysctl/vm.rst and mm/transhuge.rst.
"""

from __future__ import annotations

from collections.abc import Iterator

from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.host import Host, parse_limits
from antiphon.footprint import PROCESS_BYTES
from antiphon.machine import choose_threads, default_engines, see_memory
from antiphon.machine.control_groups import memory_limits, oom_kills
from antiphon.machine.kernel_files import sizes

_GIB = 1 << 30
_MIB = 1 << 20
_MUCH_SWAP = 256 * _MIB
_THP = "/sys/kernel/mm/transparent_hugepage"


def amount(num_bytes: float) -> str:
    """For display: "2.1 GiB", "300 MiB"."""
    return f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB else f"{num_bytes / _MIB:.0f} MiB"


def free_memory(host: Host) -> Iterator[Finding]:
    """Memory that a server could use, and the limits of control groups."""
    memory = see_memory(host.root)
    limit = f", limited by control group {memory.limit.group}" if memory.limit else ""
    have = f"{amount(memory.free)} of {amount(memory.total)} memory are free{limit}"
    if memory.free < PROCESS_BYTES:
        yield problem(
            have,
            why=f"The server's processes alone need about {amount(PROCESS_BYTES)}. Without it the kernel kills them.",
            fix="docker update --memory 4g --memory-swap 4g CONTAINER  # systemd: MemoryMax=; or free some memory",
        )
    else:
        yield ok(have)
    for each in memory_limits(host.root):
        if each.limit < memory.total and each is not memory.limit:
            yield ok(f"control group {each.group} allows {amount(each.limit)}, {amount(each.used)} used")
    if killed := oom_kills(host.root):
        yield warning(
            f"the kernel has killed {killed} {'process' if killed == 1 else 'processes'} of this control group, "
            "because its memory was used up",
            why="The next to die may be the server's engine. It is started again, but everyone waits meanwhile.",
            fix="docker update --memory N --memory-swap N CONTAINER  # or lower antiphon serve --kv-cache-tokens",
        )


def swap(host: Host) -> Iterator[Finding]:
    """Swap space that is in use."""
    meminfo = sizes(host.root / "proc/meminfo")
    total, free = meminfo.get("SwapTotal", 0), meminfo.get("SwapFree", 0)
    used = total - free
    if used > _MUCH_SWAP:
        yield note(
            f"{amount(used)} of {amount(total)} swap are in use",
            why="Memory was short before. A step that needs a page from swap waits for the disk.",
            fix="sudo sysctl vm.swappiness=10; sudo swapoff -a && sudo swapon -a  # when there is enough memory",
        )
    else:
        yield ok(f"{amount(used)} of {amount(total)} swap are in use" if total else "no swap")


def overcommit(host: Host) -> Iterator[Finding]:
    """Whether the kernel refuses allocations before memory is used up."""
    mode = host.number("/proc/sys/vm/overcommit_memory")
    meminfo = sizes(host.root / "proc/meminfo")
    left = meminfo.get("CommitLimit", 0) - meminfo.get("Committed_AS", 0)
    free = see_memory(host.root).free
    if mode == 2 and left < free:
        yield warning(
            f"vm.overcommit_memory is 2: {amount(max(0, left))} can be allocated, although {amount(free)} are free",
            why="Engines and helpers reserve more than they use, so they may fail to start.",
            fix="sudo sysctl vm.overcommit_memory=0  # or raise vm.overcommit_ratio",
        )
    else:
        yield ok("memory may be reserved beyond what is used")


def killed_first(host: Host) -> Iterator[Finding]:
    """This process's adjustment of the score by which the kernel chooses what to kill."""
    adjustment = host.number("/proc/self/oom_score_adj") or 0
    if adjustment > 0:
        yield note(
            f"oom_score_adj is {adjustment}, which the server inherits",
            why="If memory runs out, the kernel prefers to kill it, and with it all connections. Engines have 500, so "
            "that they are killed before the server.",
            fix="choom --adjust 0 --pid $$  # systemd: OOMScoreAdjust=0; Kubernetes: requests equal to limits",
        )
    else:
        yield ok(f"oom_score_adj is {adjustment}")


def address_space(host: Host) -> Iterator[Finding]:
    """Limits of this process's address space and data."""
    limits = parse_limits(host.text("/proc/self/limits"))
    free = see_memory(host.root).free
    names = {"Max address space": "-v", "Max data size": "-d"}
    tight = [name for name in names if (soft := limits.get(name, (None, None))[0]) is not None and soft < free]
    for name in tight:
        soft = limits[name][0]
        assert soft is not None
        yield warning(
            f"{name.lower()} is limited to {amount(soft)}, less than the {amount(free)} that are free",
            why="Mapping the model or allocating the KV cache fails although there is memory.",
            fix=f"ulimit {names[name]} unlimited  # systemd: LimitAS=, LimitDATA=",
        )
    if not tight:
        yield ok("the address space is not limited")


def numa(host: Host) -> Iterator[Finding]:
    """Processors and memory on the same NUMA nodes."""
    processors = host.processors
    memory = see_memory(host.root)
    choice = choose_threads(processors)
    if len(processors.nodes) < 2 and not memory.nodes:
        yield ok("one NUMA node")
        return
    engines = default_engines(processors)
    where = f"node {choice.node.id}" if choice.node else "one node"
    yield ok(
        f"{len(processors.nodes)} NUMA nodes: {'an engine on each' if engines > 1 else f'one engine on {where}'}, "
        "if memory allows"
    )
    used = {node.id for node in processors.nodes}
    if memory.nodes and not used <= set(memory.nodes):
        yield warning(
            f"CPUs of NUMA nodes {sorted(used)} with memory of {list(memory.nodes)} only",
            why="Reading weights from another node's memory is several times slower.",
            fix=f"numactl --cpunodebind={memory.nodes[0]} --membind={memory.nodes[0]} antiphon serve MODEL",
        )
    if host.number("/proc/sys/vm/zone_reclaim_mode"):
        yield warning(
            "vm.zone_reclaim_mode is on",
            why="The kernel drops cached files of a node while other nodes have free memory, so loading gets slow.",
            fix="sudo sysctl vm.zone_reclaim_mode=0",
        )


def huge_pages(host: Host) -> Iterator[Finding]:
    """Whether weights and KV cache get large pages."""
    chosen = host.text(f"{_THP}/enabled").partition("[")[2].partition("]")[0]
    if chosen == "never" or "THP_enabled:\t0" in host.text("/proc/self/status"):
        yield warning(
            "transparent huge pages are switched off",
            why="Weights and KV cache are in pages of 4 KiB. The processor looks up more addresses, and steps take "
            "longer.",
            fix=f"echo madvise | sudo tee {_THP}/enabled",
        )
    else:
        yield ok(f"transparent huge pages: {chosen}" if chosen else "the kernel has no transparent huge pages")
    meminfo = sizes(host.root / "proc/meminfo")
    reserved = (host.number("/proc/sys/vm/nr_hugepages") or 0) * meminfo.get("Hugepagesize", 0)
    if reserved > meminfo.get("MemTotal", 0) / 20:
        yield note(
            f"{amount(reserved)} of memory are reserved as huge pages (vm.nr_hugepages)",
            why="Antiphon does not use this kind, and nothing else can use that memory.",
            fix="sudo sysctl vm.nr_hugepages=0  # if no database or virtual machine needs them",
        )
