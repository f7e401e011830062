"""Real control groups with limits, of version 1 or 2, where this machine lets us make some."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from patience import wait_until

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ControlGroup:
    """A control group."""

    path: Path
    is_v1: bool

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs `arguments` as a member of the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs"), *arguments]

    def add(self, pids: Iterable[int]) -> None:
        """Make processes members."""
        for pid in pids:
            (self.path / "cgroup.procs").write_text(str(pid))

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be a member for the time of the block, as is every process that is started in it."""
        self.add([os.getpid()])
        try:
            yield
        finally:
            ControlGroup(self.path.parent, self.is_v1).add([os.getpid()])


class MemoryGroup(ControlGroup):
    """A control group that limits memory."""

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


@contextmanager
def control_group(controller: str, limits: Mapping[str, int | str] | None = None) -> Iterator[ControlGroup]:
    """A group of `controller` for the time of the block, after which it must have no member any more.

    `limits`: contents of control files, for both versions; those of the version that this machine has are written.
    """
    parent, is_v1 = _own_group(controller)
    group = ControlGroup(parent / f"antiphon-{controller}-{os.getpid()}", is_v1)
    try:
        group.path.mkdir()
        files = {file: str(value) for name, value in (limits or {}).items() if (file := group.path / name).exists()}
        for file, value in files.items():
            file.write_text(value)
        if limits and not files:
            raise OSError("it has no such files")
    except OSError as error:
        with suppress(OSError):
            group.path.rmdir()
        pytest.skip(f"this machine lets us make no control group for {controller} ({error})")
    try:
        yield group
    finally:
        wait_until(lambda: _is_removed(group.path), "the control group still has members")


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group without a limit on memory, at first, for the time of the block."""
    with control_group("memory", {"memory.limit_in_bytes": "-1", "memory.max": "max"}) as group:
        yield MemoryGroup(group.path, group.is_v1)


def _own_group(controller: str) -> tuple[Path, bool]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            whole = _ROOT / controller / path.lstrip("/")
            return (whole if whole.is_dir() else _ROOT / controller), True
        if not controllers and (_ROOT / "cgroup.controllers").exists():
            return _ROOT / path.lstrip("/"), False
    pytest.skip(f"this machine has no control groups for {controller}")


def _is_removed(path: Path) -> bool:
    with suppress(OSError):
        path.rmdir()
    return not path.exists()
