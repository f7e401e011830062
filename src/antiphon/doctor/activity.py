"""What else the machine is doing right now: two readings of the kernel's counters a short time apart.

Sources: proc(5), and the kernel's Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from antiphon.doctor.findings import Finding, ok, warning
from antiphon.doctor.host import Host
from antiphon.machine.kernel_files import read

SECONDS = 0.4  # between the two readings
_MUCH_STEAL = 0.05
_MUCH_OTHERS = 0.25  # of one CPU for each CPU
_FEW_TICKS = 10  # too few to compute shares of
_SHOWN = 3  # processes


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment."""

    total: int  # ticks of all CPUs
    idle: int
    stolen: int  # by other virtual machines on the host
    processes: Mapping[int, tuple[str, int]]  # id → name and ticks
    swapped: int  # pages, in and out


def read_counters(host: Host) -> Reading:
    """The counters now; zeros where the kernel does not say."""
    ticks = next((line.split()[1:] for line in host.text("/proc/stat").splitlines() if line.startswith("cpu ")), [])
    numbers = [int(word) for word in ticks[:8] if word.isdecimal()]
    numbers += [0] * (8 - len(numbers))
    paging = dict(line.split(" ", 1) for line in host.text("/proc/vmstat").splitlines() if " " in line)
    swapped = sum(int(paging[name]) for name in ("pswpin", "pswpout") if paging.get(name, "").isdecimal())
    return Reading(sum(numbers), numbers[3] + numbers[4], numbers[7], _processes(host), swapped)


def _processes(host: Host) -> dict[int, tuple[str, int]]:
    found = {}
    for folder in (host.root / "proc").glob("[0-9]*"):
        name, _, rest = read(folder / "stat").partition("(")[2].rpartition(")")
        fields = rest.split()
        if folder.name.isdecimal() and len(fields) > 12 and fields[11].isdecimal() and fields[12].isdecimal():
            found[int(folder.name)] = (name, int(fields[11]) + int(fields[12]))
    return found


def load(host: Host) -> Iterator[Finding]:
    """Time that other virtual machines or other processes take, and swapping."""
    before = read_counters(host)
    host.pause(SECONDS)
    after = read_counters(host)
    ticks = after.total - before.total
    if ticks < _FEW_TICKS:
        yield ok("the kernel does not say how busy the machine is")
    else:
        yield from _shares(before, after, ticks)
    if after.swapped > before.swapped:
        yield warning(
            f"the machine is swapping: {after.swapped - before.swapped:,} pages in {SECONDS:g} s",
            why="Memory is short. Each step reads all of the model's weights; pages that are on disk make it wait.",
            fix="ps -eo rss,comm --sort=-rss | head  # find what takes the memory; or serve a smaller model",
        )


def _shares(before: Reading, after: Reading, ticks: int) -> Iterator[Finding]:
    stolen = (after.stolen - before.stolen) / ticks
    busy = 1 - (after.idle - before.idle) / ticks - stolen
    if stolen >= _MUCH_STEAL:
        yield warning(
            f"other virtual machines take {stolen:.0%} of the CPU time (steal)",
            why="A thread that is not running holds up all others at the end of each operation.",
            fix="vmstat 1  # column st; move to a machine with dedicated CPUs, or use fewer threads: --threads",
        )
    if busy >= _MUCH_OTHERS:
        yield warning(
            f"the processor is {busy:.0%} busy now{_busiest(before, after, ticks)}",
            why="Threads that share a core with another process hold up all others at the end of each operation.",
            fix="top -o %CPU  # stop it, move it, or leave it a core: antiphon serve MODEL --threads N",
        )
    elif stolen < _MUCH_STEAL:
        yield ok(f"the processor is {max(0.0, busy):.0%} busy with other things")


def _busiest(before: Reading, after: Reading, ticks: int) -> str:
    used = {
        pid: now - before.processes[pid][1]
        for pid, (_, now) in after.processes.items()
        if pid in before.processes and pid != os.getpid()
    }
    most = sorted((pid for pid in used if used[pid] > ticks / 100), key=lambda pid: -used[pid])[:_SHOWN]
    names = ", ".join(f"{after.processes[pid][0]} ({pid}) {used[pid] / ticks:.0%}" for pid in most)
    return f": {names}" if names else ""
