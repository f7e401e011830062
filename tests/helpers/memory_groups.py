"""A real control group with a limit on memory, of version 1 or 2, where this machine lets us make one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_server import wait_until

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """A control group."""

    path: Path
    is_v1: bool

    def limit(self, num_bytes: int | None) -> None:
        """Set the limit; None: no limit. Raises OSError (version 1) if more is in use."""
        name = "memory.limit_in_bytes" if self.is_v1 else "memory.max"
        none = "-1" if self.is_v1 else "max"
        (self.path / name).write_text(none if num_bytes is None else str(num_bytes))

    @property
    def usage(self) -> int:
        """Bytes that are allocated."""
        return int((self.path / ("memory.usage_in_bytes" if self.is_v1 else "memory.current")).read_text())

    @property
    def num_killed(self) -> int:
        """How many processes the kernel has killed because of the limit."""
        file = self.path / ("memory.oom_control" if self.is_v1 else "memory.events")
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])

    def add(self, pids: Iterable[int]) -> None:
        for pid in pids:
            (self.path / "cgroup.procs").write_text(str(pid))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be a member for the time of the block, as is every process that is started in it."""
        self.add([os.getpid()])
        try:
            yield
        finally:
            MemoryGroup(self.path.parent, self.is_v1).add([os.getpid()])


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group for the time of the block, after which it must have no member any more."""
    parent, is_v1 = _own_group()
    group = MemoryGroup(parent / f"antiphon-tests-{os.getpid()}", is_v1)
    try:
        group.path.mkdir()
        group.limit(None)
    except OSError as error:
        with suppress(OSError):
            group.path.rmdir()
        pytest.skip(f"this machine lets us make no control group for memory ({error})")
    try:
        yield group
    finally:
        wait_until(lambda: _is_removed(group), "the control group still has members")


def _own_group() -> tuple[Path, bool]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            whole = _ROOT / "memory" / path.lstrip("/")
            return (whole if whole.is_dir() else _ROOT / "memory"), True
        if not controllers and (_ROOT / "cgroup.controllers").exists():
            return _ROOT / path.lstrip("/"), False
    pytest.skip("this machine has no control groups for memory")


def _is_removed(group: MemoryGroup) -> bool:
    with suppress(OSError):
        group.path.rmdir()
    return not group.path.exists()
