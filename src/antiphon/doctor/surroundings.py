"""Checks of what this process runs in: a container, a virtual machine, the clock.

Sources: container-interface.md of systemd for the variable `container`, adjtimex(2), and the kernel's
Documentation/virt/kvm/x86/timekeeping.rst.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from antiphon.doctor.findings import Finding, note, ok, problem, warning
from antiphon.doctor.host import Host
from antiphon.doctor.storage import mount_of

_SLOW_CLOCKS = {"hpet", "acpi_pm", "jiffies", "refined-jiffies"}
_CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_TIMEX_BYTES = 256  # struct timex has 208
_TIME_ERROR = 5  # adjtimex: the clock is not synchronized
_PLAUSIBLE = 1_735_689_600  # 2025-01-01, seconds since 1970


def container(host: Host, user: int | None = None) -> Iterator[Finding]:
    """The kind of container and what it restricts. `user`: a user id; None: that of this process."""
    groups = "version 2" if host.text("/proc/self/cgroup").startswith("0::") else "version 1 or both"
    if not host.in_container:
        yield ok("not in a container")
    else:
        mount = mount_of(Path("/"), host)
        root = "read-only" if mount and mount.read_only else "writable"
        yield ok(f"in a container ({host.container}), root {root}, control groups {groups}")
        if (os.geteuid() if user is None else user) == 0:
            yield note(
                "this container runs as root",
                why="The server needs no privileges. Without them, an attacker who breaks in can do less.",
                fix="docker run --user 10001 --cap-drop all --security-opt no-new-privileges --read-only …",
            )
    meminfo = mount_of(Path("/proc/meminfo"), host)
    if meminfo and "lxcfs" in meminfo.kind:
        yield note(
            "/proc/meminfo and /proc/cpuinfo come from lxcfs",
            why="They show the container's share. The processor's features may be those of the host.",
            fix="antiphon inspect MODEL  # shows the memory and the cores that Antiphon will use",
        )
    system = host.text("/proc/version").lower()
    if "gvisor" in system:
        yield note(
            "system calls go through gVisor",
            why="Every network packet and page fault takes longer than on the kernel itself.",
            fix="docker run --runtime runc …  # if you trust what runs in the container",
        )
    elif "microsoft" in system:
        yield note(
            "this is Windows' Subsystem for Linux",
            why="It gets half of the machine's memory unless it is given more.",
            fix="notepad.exe '%USERPROFILE%\\.wslconfig'  # [wsl2] memory=…, processors=…; then wsl --shutdown",
        )


def clock(
    host: Host,
    now: Callable[[], float] = time.time,
    synchronized: Callable[[], bool | None] | None = None,
) -> Iterator[Finding]:
    """The clock's source, whether it is synchronized, and whether the date can be right."""
    source = host.text(_CLOCK)
    if source in _SLOW_CLOCKS:
        yield warning(
            f"the kernel's clock source is {source}",
            why="Reading the clock takes a system call each time, and a server reads it for every token.",
            fix="dmesg | grep -i tsc  # why it was rejected; virtual machines: kvm-clock, host-passthrough",
        )
    else:
        yield ok(f"clock source {source or 'unknown'}")
    if now() < _PLAUSIBLE:
        yield problem(
            f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now()))}",
            why="Certificates are not valid yet at that time, so no model can be downloaded over HTTPS.",
            fix="sudo timedatectl set-ntp true  # or: sudo date --set '…'",
        )
    state = (synchronized or is_synchronized)()
    if state is False:
        yield note(
            "the clock is not synchronized with a time server",
            why="Deadlines and time-outs do not depend on it, but logs, metrics and certificates do.",
            fix="sudo timedatectl set-ntp true  # or install chrony; in a virtual machine the host may do it",
        )
    elif state:
        yield ok("the clock is synchronized")


def is_synchronized() -> bool | None:
    """Whether the kernel's clock is synchronized, as adjtimex(2) says; None if it may not be asked."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
