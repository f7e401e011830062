"""Machines as folders: /proc, /sys/fs/cgroup, and the CPUs and nodes of /sys/devices, laid out for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

UNLIMITED_V1 = 9223372036854771712  # what version 1 writes where there is no limit
_MOUNTINFO = "{id} 23 0:{id} {root} {point} rw,relatime - {kind} {kind} rw{options}\n"


class FakeMachine:
    """A machine below `root`; everything is absent until it is added."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts = 0

    def write(self, path: str, text: str | int) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def memory(self, *, total: int, available: int) -> None:
        self.write("/proc/meminfo", f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB")

    def member(self, *lines: str) -> None:
        """/proc/self/cgroup, as "4:memory:/docker/a" or "0::/a.slice"."""
        self.write("/proc/self/cgroup", "\n".join(lines))

    def mount(self, point: str, *, controllers: str = "", root: str = "/") -> None:
        """A hierarchy: version 2's, or with `controllers` one of version 1."""
        (self.root / point.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self._mounts += 1
        line = _MOUNTINFO.format(
            id=30 + self._mounts,
            root=root.replace(" ", "\\040"),
            point=point.replace(" ", "\\040"),
            kind="cgroup" if controllers else "cgroup2",
            options=f",{controllers}" if controllers else "",
        )
        file = self.root / "proc/self/mountinfo"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as out:
            out.write(line)

    def group(self, folder: str, **files: object) -> None:
        """Control files of one group; `memory_max=1` is the file memory.max, a mapping a file like memory.stat."""
        self.write(f"{folder}/cgroup.procs", "")
        for name, value in files.items():
            kind, _, rest = name.partition("_")
            text = "\n".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
            self.write(f"{folder}/{kind}.{rest}", text)

    def cores(self, cores: Sequence[Sequence[int]], *, file: str = "core_cpus_list") -> None:
        """Physical cores, each as its logical CPUs."""
        for siblings in cores:
            for cpu in siblings:
                self.write(f"/sys/devices/system/cpu/cpu{cpu}/topology/{file}", ",".join(map(str, siblings)))

    def node(self, id: int, cpus: str, *, free: int = 1 << 30, total: int = 1 << 34, inactive_file: int = 0) -> None:
        """A NUMA node; `cpus` as the kernel lists them, "0-3,8"."""
        self.write(f"/sys/devices/system/node/node{id}/cpulist", cpus)
        fields = {"MemTotal": total, "MemFree": free, "Inactive(file)": inactive_file}
        lines = [f"Node {id} {name}:    {size // 1024} kB" for name, size in fields.items()]
        self.write(f"/sys/devices/system/node/node{id}/meminfo", "\n".join(lines))
