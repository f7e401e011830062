"""Real control groups with a limit, of version 1 or 2, for commands that a test starts in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_server import wait_until

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class LimitedGroup:
    """A control group."""

    path: Path

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs `arguments` as a member of the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs"), *arguments]


@contextmanager
def limited_group(controller: str, limits: Mapping[str, int | str]) -> Iterator[LimitedGroup]:
    """A group of `controller` for the time of the block, after which it must have no member any more.

    `limits`: contents of control files, for both versions; those of the version that this machine has are written.
    """
    path = _own_group(controller) / f"antiphon-{controller}-{os.getpid()}"
    try:
        path.mkdir()
        files = {path / name: str(value) for name, value in limits.items() if (path / name).exists()}
        for file, value in files.items():
            file.write_text(value)
        if not files:
            raise OSError("it has no such files")
    except OSError as error:
        with suppress(OSError):
            path.rmdir()
        pytest.skip(f"this machine lets us make no control group for {controller} ({error})")
    try:
        yield LimitedGroup(path)
    finally:
        wait_until(lambda: _is_removed(path), "the control group still has members")


def _own_group(controller: str) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            whole = _ROOT / controller / path.lstrip("/")
            return whole if whole.is_dir() else _ROOT / controller
        if not controllers and (_ROOT / "cgroup.controllers").exists():
            return _ROOT / path.lstrip("/")
    pytest.skip(f"this machine has no control groups for {controller}")


def _is_removed(path: Path) -> bool:
    with suppress(OSError):
        path.rmdir()
    return not path.exists()
