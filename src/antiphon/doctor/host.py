"""The machine as the checks see it: the kernel's files below a root, the usable CPUs, and a pause between two readings.

Tests replace the root with a folder of their own and the pause with a change to it. Nothing here raises.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from antiphon.machine import Processors, see_processors
from antiphon.machine.kernel_files import read

_LIMIT = re.compile(r"^(Max [a-z ]+?) {2,}(\S+) +(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Host:
    """This machine, or a folder that looks like one."""

    root: Path = Path("/")
    affinity: frozenset[int] = field(default_factory=lambda: frozenset(os.sched_getaffinity(0)))
    pause: Callable[[float], None] = time.sleep  # seconds

    def text(self, path: str) -> str:
        """A file's text without blanks around it; empty if it cannot be read."""
        return read(self.root / path.lstrip("/")).strip()

    def number(self, path: str) -> int | None:
        """The number in a file; None if there is none."""
        text = self.text(path)
        return int(text) if re.fullmatch(r"-?[0-9]+", text) else None

    @property
    def processors(self) -> Processors:
        return see_processors(self.root, self.affinity)

    @property
    def in_container(self) -> bool:
        """Whether this process runs in a container of Docker, Podman, Kubernetes, LXC or systemd-nspawn."""
        return bool(self.container)

    @property
    def container(self) -> str:
        """The kind of container this process runs in; empty if it runs in none that shows."""
        if (self.root / "run/.containerenv").exists():
            return "Podman"
        groups = self.text("/proc/self/cgroup")
        if "kubepods" in groups or (self.root / "var/run/secrets/kubernetes.io").exists():
            return "Kubernetes"
        if (self.root / ".dockerenv").exists() or "docker" in groups:
            return "Docker"
        kind = re.search(r"(?:^|\0)container=([\w.-]+)", self.text("/proc/1/environ"))
        return kind[1] if kind else ""


def parse_limits(text: str) -> Mapping[str, tuple[int | None, int | None]]:
    """Name → soft and hard limit, from /proc/self/limits ("Max open files"); None: unlimited."""
    found = {}
    for name, soft, hard in _LIMIT.findall(text):
        if all(value.isdecimal() or value == "unlimited" for value in (soft, hard)):
            found[name] = tuple(int(value) if value.isdecimal() else None for value in (soft, hard))
    return found  # type: ignore[return-value]  # pairs, which a generator does not show
