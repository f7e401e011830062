"""How much memory a new process may take: what the machine has available, or less where a control group allows less."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from antiphon.machine.control_groups import MemoryLimit, memory_limits


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes."""

    total: int  # of the machine, or what the control group allows
    free: int  # may be taken now
    limit: MemoryLimit | None  # the control group that allows the least; None: the machine itself has the least


def see_memory(root: Path = Path("/")) -> Memory:
    """Look at the machine and at every control group around this process."""
    meminfo = _meminfo(root)
    # No Linux: half of what is built in is a cautious stand-in.
    total = meminfo.get("MemTotal", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    free = meminfo.get("MemAvailable", total // 2)
    least = min(memory_limits(root), key=lambda limit: limit.available, default=None)
    if least is None or least.available >= free:
        return Memory(total, free, None)
    return Memory(min(total, least.limit), least.available, least)


def free_memory_bytes() -> int:
    """Memory that a new process may take."""
    return see_memory().free


def _meminfo(root: Path) -> Mapping[str, int]:
    """/proc/meminfo in bytes."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * 1024
    return found
