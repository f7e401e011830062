"""The memory, CPU and process limits that this process's control groups set, and how often they were reached.

A limit may be set on the process's own group or on any group that contains it, so all groups are read, from the
innermost one to the mounted root. Version 1 has one hierarchy per controller, version 2 one for all. A hybrid machine
mounts both; each controller belongs to one of them, and both are searched. Nothing here raises: a file that cannot be
read sets no limit.

Sources: cgroups(7), proc(5), and the kernel's Documentation/admin-guide: cgroup-v2.rst, cgroup-v1/memory.rst, and
Documentation/scheduler/sched-bwc.rst. All paths are below `root`, which tests replace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from antiphon.machine.kernel_files import read

_UNLIMITED = 1 << 60  # version 1 writes "no limit" as the largest multiple of a page
_VERSION_2 = ""  # the name that /proc/self/cgroup gives its hierarchy: none
_ESCAPE = re.compile(r"\\([0-7]{3})")  # mountinfo writes spaces and the like as octal numbers


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A group's limit and how much of it is used, in bytes."""

    group: str  # its path below the mounted root: "/docker/1f3c"
    limit: int
    used: int  # without inactive file pages, which the kernel reclaims first

    @property
    def available(self) -> int:
        return max(0, self.limit - self.used)


@dataclass(frozen=True, slots=True)
class ProcessLimit:
    """A group's limit on processes and threads, and how many there are."""

    group: str
    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """CPU time that a group may use in each period, as a number of CPUs, such as 1.5."""

    group: str
    cpus: float


@dataclass(frozen=True, slots=True)
class CpuThrottling:
    """How often a group used up its quota; since the group was created."""

    quota: CpuQuota
    periods: int  # in which a task of it wanted to run
    throttled_periods: int  # of these, in which it used up the quota
    seconds: float  # that its tasks were stopped then, added over the CPUs


@dataclass(frozen=True, slots=True)
class _Group:
    """One group of one hierarchy, as a folder of control files."""

    name: str
    folder: Path
    is_own: bool  # the process's own group, not one that contains it

    def number(self, file: str) -> int | None:
        """The number in a control file; None if there is no such file, or it contains "max" or -1."""
        text = read(self.folder / file).strip()
        return int(text) if text.isdecimal() else None

    def stat(self, file: str, key: str) -> int:
        """One line's number in a file like memory.stat; 0 if there is no such line."""
        for line in read(self.folder / file).splitlines():
            name, _, value = line.partition(" ")
            if name == key and value.isdecimal():
                return int(value)
        return 0


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """Every memory limit that applies to this process, the innermost group's first."""
    found = [*map(_memory_limit_v1, _groups("memory", root)), *map(_memory_limit_v2, _groups(_VERSION_2, root))]
    return [limit for limit in found if limit is not None]


def cpu_quota(root: Path = Path("/")) -> CpuQuota | None:
    """The lowest CPU quota that applies to this process; None if there is none."""
    found = _lowest_quota(root)
    return found and found[0]


def cpu_throttling(root: Path = Path("/")) -> CpuThrottling | None:
    """What the lowest CPU quota has cost so far; None if there is no quota."""
    found = _lowest_quota(root)
    if found is None:
        return None
    quota, group = found
    periods, throttled = group.stat("cpu.stat", "nr_periods"), group.stat("cpu.stat", "nr_throttled")
    microseconds, nanoseconds = group.stat("cpu.stat", "throttled_usec"), group.stat("cpu.stat", "throttled_time")
    return CpuThrottling(quota, periods, throttled, microseconds / 1e6 + nanoseconds / 1e9)  # v2 has one, v1 the other


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes of this process's own group the kernel has killed because memory was used up."""
    own = [group for name in ("memory", _VERSION_2) for group in _groups(name, root) if group.is_own]
    return sum(
        group.stat("memory.events", "oom_kill") + group.stat("memory.oom_control", "oom_kill") for group in own
    )  # version 2 has the first file, version 1 the second


def process_limits(root: Path = Path("/")) -> list[ProcessLimit]:
    """Every limit on the number of processes and threads that applies to this process, the innermost group's first."""
    found = []
    for group in [*_groups("pids", root), *_groups(_VERSION_2, root)]:
        limit, used = group.number("pids.max"), group.number("pids.current")
        if limit is not None and used is not None:
            found.append(ProcessLimit(group.name, limit, used))
    return found


def own_folder(root: Path = Path("/")) -> Path | None:
    """The folder of this process's own group of version 2; None if that is not mounted."""
    return next((group.folder for group in _groups(_VERSION_2, root) if group.is_own), None)


def _lowest_quota(root: Path) -> tuple[CpuQuota, _Group] | None:
    version_1 = [(_cpu_quota_v1(group), group) for group in _groups("cpu", root)]
    version_2 = [(_cpu_quota_v2(group), group) for group in _groups(_VERSION_2, root)]
    found = [(quota, group) for quota, group in version_1 + version_2 if quota is not None]
    return min(found, key=lambda pair: pair[0].cpus, default=None)


def _memory_limit_v1(group: _Group) -> MemoryLimit | None:
    if not group.is_own and read(group.folder / "memory.use_hierarchy").strip() == "0":
        return None  # this limit does not apply to the groups inside
    limit, usage = group.number("memory.limit_in_bytes"), group.number("memory.usage_in_bytes")
    if limit is None or usage is None or limit >= _UNLIMITED:
        return None
    return MemoryLimit(group.name, limit, max(0, usage - group.stat("memory.stat", "total_inactive_file")))


def _memory_limit_v2(group: _Group) -> MemoryLimit | None:
    # Above memory.high allocations do not fail, but they become so slow that the process cannot work.
    limits = [limit for limit in map(group.number, ("memory.max", "memory.high")) if limit is not None]
    usage = group.number("memory.current")
    if not limits or usage is None:
        return None
    return MemoryLimit(group.name, min(limits), max(0, usage - group.stat("memory.stat", "inactive_file")))


def _cpu_quota_v1(group: _Group) -> CpuQuota | None:
    return _quota(group.name, group.number("cpu.cfs_quota_us"), group.number("cpu.cfs_period_us"))


def _cpu_quota_v2(group: _Group) -> CpuQuota | None:
    quota, _, period = read(group.folder / "cpu.max").strip().partition(" ")
    if not (quota.isdecimal() and period.isdecimal()):
        return None
    return _quota(group.name, int(quota), int(period))


def _quota(group: str, quota: int | None, period: int | None) -> CpuQuota | None:
    return CpuQuota(group, quota / period) if quota and period else None


def _groups(controller: str, root: Path) -> Iterator[_Group]:
    """The groups of a hierarchy that contain this process, from its own to the mounted root.

    `controller` is a name as in cgroups(7). The path in /proc/self/cgroup may not match the mount: in a container that
    sees the host's names, the mount begins at the container's group; seen from outside a namespace, a path begins with
    "/..". Then only the mounted root is known to contain this process.
    """
    path, mount = _memberships(root).get(controller), _mounts(root).get(controller)
    if path is None or mount is None:
        return
    mounted_at = root / mount.point.lstrip("/")
    inside = _relative(path, mount.root)
    for depth in range(len(inside), -1, -1):
        folder = mounted_at.joinpath(*inside[:depth])
        if folder.is_dir():
            yield _Group("/" + "/".join(inside[:depth]), folder, is_own=depth == len(inside))


def _relative(path: str, mounted_root: str) -> tuple[str, ...]:
    """The parts of `path` below the mounted root; empty if it is not below it."""
    pure = PurePosixPath(path)
    if ".." in pure.parts or not pure.is_relative_to(mounted_root):
        return ()
    return pure.relative_to(mounted_root).parts


def _memberships(root: Path) -> Mapping[str, str]:
    """Controller → the path of this process's group; version 2's hierarchy has the empty name."""
    found = {}
    for line in read(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            found.update(dict.fromkeys(fields[1].split(","), fields[2]))
    return found


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str  # the group that is mounted
    point: str  # where


def _mounts(root: Path) -> Mapping[str, _Mount]:
    """Controller → where its hierarchy is mounted; version 2's has the empty name."""
    found: dict[str, _Mount] = {}
    for line in read(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, details = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(details) < 3 or details[0] not in ("cgroup", "cgroup2"):
            continue
        mount = _Mount(_unescaped(fields[3]), _unescaped(fields[4]))
        names = [_VERSION_2] if details[0] == "cgroup2" else details[2].split(",")
        for name in names:
            found.setdefault(name, mount)
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
