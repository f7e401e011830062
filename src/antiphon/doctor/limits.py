"""Checks of this process's limits: open files, processes and threads.

Sources: proc(5), getrlimit(2), the kernel's Documentation/admin-guide/cgroup-v1/pids.rst and sysctl/fs.rst.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from antiphon.doctor.findings import Finding, ok, problem, warning
from antiphon.doctor.host import Host, parse_limits
from antiphon.http.listening import OTHER_FILES
from antiphon.machine import choose_threads
from antiphon.machine.control_groups import process_limits
from antiphon.machine.kernel_files import read

_FEWEST_FILES = 64  # with fewer the server cannot start
_OTHER_THREADS = 48  # of the server, its helpers and an engine, besides the threads that compute


def open_files(host: Host, max_connections: int) -> Iterator[Finding]:
    """Descriptors for that many connections; `max_connections` as in `antiphon serve --max-connections`."""
    soft, hard = parse_limits(host.text("/proc/self/limits")).get("Max open files", (None, None))
    needed = max_connections + OTHER_FILES
    fix = f"ulimit -n {needed}  # systemd: LimitNOFILE={needed}; containers: --ulimit nofile={needed}:{needed}"
    if hard is not None and hard < _FEWEST_FILES:
        yield problem(f"at most {hard} files may be open", why="The server cannot start with so few.", fix=fix)
    elif hard is not None and hard < needed:
        room = max(hard - OTHER_FILES, hard // 2)
        yield warning(
            f"at most {hard:,} files may be open, so {room:,} connections are allowed instead of {max_connections:,}",
            why="More clients wait until another connection is closed.",
            fix=fix,
        )
    else:
        raised = f"; the server raises this to {needed:,}" if soft is not None and soft < needed else ""
        count = "any number of" if soft is None else f"{soft:,}"
        yield ok(f"{count} files may be open{raised}, enough for {max_connections:,} connections")
    allocated, _, most = [*host.text("/proc/sys/fs/file-nr").split(), "", "", ""][:3]
    if allocated.isdecimal() and most.isdecimal() and int(most) - int(allocated) < needed:
        yield warning(
            f"{int(allocated):,} of {int(most):,} files of the whole machine are open",
            why="When there are none left, no program can open a file or accept a connection.",
            fix="sudo sysctl fs.file-max=1000000",
        )


def processes(host: Host, threads: int = 0) -> Iterator[Finding]:
    """Processes and threads that may still be started; `threads` as in `antiphon serve --threads`."""
    needed = choose_threads(host.processors, threads).threads + _OTHER_THREADS
    tight = [(f"control group {each.group}", each.limit, each.used) for each in process_limits(host.root)]
    soft, _ = parse_limits(host.text("/proc/self/limits")).get("Max processes", (None, None))
    if soft is not None and os.geteuid() != 0:  # the kernel does not hold root to it
        tight.append(("this user", soft, _threads_of_user(host)))
    most = host.number("/proc/sys/kernel/threads-max")
    if most is not None:
        tight.append(("the machine", most, _threads_of_machine(host)))
    short = [(whose, limit, used) for whose, limit, used in tight if limit - used < needed]
    for whose, limit, used in short:
        yield problem(
            f"{whose} may have {limit:,} processes and threads, and has {used:,}",
            why=f"A server needs about {needed} more. Engines and helpers do not start, or exit at once.",
            fix=f"docker update --pids-limit {used + 4 * needed} CONTAINER  # systemd: TasksMax=, LimitNPROC=; "
            f"shell: ulimit -u {used + 4 * needed}",
        )
    if not short:
        yield ok(f"at least {needed} more processes and threads may be started")


def _threads_of_user(host: Host) -> int:
    total = 0
    for folder in (host.root / "proc").glob("[0-9]*"):
        status = read(folder / "status")
        user = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
        count = re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)
        if user and count and int(user[1]) == os.getuid():
            total += int(count[1])
    return total


def _threads_of_machine(host: Host) -> int:
    """From /proc/loadavg, whose fourth field is "running/existing"."""
    fields = host.text("/proc/loadavg").split()
    existing = fields[3].partition("/")[2] if len(fields) > 3 else ""
    return int(existing) if existing.isdecimal() else 0
