"""Memory, CPU time and pressure of the server's processes and of the container or machine, read at each scrape.

Reading takes a few milliseconds at most and never fails: of a process that has ended meanwhile there is nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from antiphon.machine import (
    CpuUsage,
    MemoryUsage,
    Pressure,
    ProcessUsage,
    booted_at,
    cpu_usage,
    memory_usage,
    pressure,
    process_usage,
)
from antiphon.metrics.families import PREFIX


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A process that the server has started; it may have ended."""

    process: str  # the value of the label: "engine", "renderer" …
    pid: int
    engine: str = ""  # the engine's number, if it is one


class ResourceCollector(Collector):
    """Reads what the server's processes use, and what they may use."""

    def __init__(self, children: Callable[[], Iterable[ChildProcess]]) -> None:
        self._children = children
        self._booted_at = booted_at()

    def collect(self) -> Iterable[Metric]:
        found = list(self._read())
        yield from _processes(found, self._booted_at)
        yield from _memory(memory_usage(sum(usage.resident_bytes for _, usage in found)))
        yield from _cpu(cpu_usage())
        yield from _pressure(pressure())

    def _read(self) -> Iterable[tuple[ChildProcess, ProcessUsage]]:
        own = os.getpid()
        if usage := process_usage(own):
            yield ChildProcess("front", own), usage
        for child in self._children():
            usage = process_usage(child.pid)
            if usage and usage.parent == own:  # else its id belongs to another process by now
                yield child, usage


def _processes(found: Sequence[tuple[ChildProcess, ProcessUsage]], booted: float) -> Iterable[Metric]:
    labels = ["process", "engine"]
    cpu = CounterMetricFamily(f"{PREFIX}process_cpu_seconds", "User and system CPU time of a process.", labels=labels)
    for child, usage in found:
        cpu.add_metric([child.process, child.engine], usage.cpu_seconds)
    yield cpu
    gauges: tuple[tuple[str, str, Callable[[ProcessUsage], float]], ...] = (
        ("resident_memory_bytes", "Memory of a process that is not swapped out.", lambda usage: usage.resident_bytes),
        ("shared_memory_bytes", "Part of it that may be shared: pages of files.", lambda usage: usage.shared_bytes),
        ("virtual_memory_bytes", "Address space of a process.", lambda usage: usage.virtual_bytes),
        ("open_fds", "Open file descriptors of a process.", lambda usage: usage.open_files),
        ("threads", "Threads of a process.", lambda usage: usage.threads),
        ("start_time_seconds", "Start of a process, since 1970.", lambda usage: booted + usage.started_after),
    )
    for name, text, value in gauges:
        family = GaugeMetricFamily(f"{PREFIX}process_{name}", text, labels=labels)
        for child, usage in found:
            family.add_metric([child.process, child.engine], float(value(usage)))
        yield family


def _memory(memory: MemoryUsage) -> Iterable[Metric]:
    used = GaugeMetricFamily(f"{PREFIX}memory_used_bytes", "Memory in use, as the limit counts it.", labels=[])
    limit = GaugeMetricFamily(f"{PREFIX}memory_limit_bytes", "Memory that may be used.", labels=[])
    if memory.limit:  # else nothing could be read
        used.add_metric([], memory.used)
        limit.add_metric([], memory.limit)
    yield from (used, limit)


def _cpu(cpu: CpuUsage) -> Iterable[Metric]:
    yield GaugeMetricFamily(f"{PREFIX}cpu_limit_cores", "CPUs that may be used.", cpu.limit_cores)
    for name, text, value in (
        ("cpu_periods", "Periods in which the CPU quota applied.", cpu.periods),
        ("cpu_throttled_periods", "Periods in which the CPU quota was used up.", cpu.throttled_periods),
        ("cpu_throttled_seconds", "Time that threads were stopped by the CPU quota.", cpu.throttled_seconds),
    ):
        yield CounterMetricFamily(PREFIX + name, text, value)


def _pressure(found: Mapping[str, Pressure]) -> Iterable[Metric]:
    text = "Time in which {} waited for a resource."
    waiting = CounterMetricFamily(
        f"{PREFIX}pressure_waiting_seconds", text.format("at least one task"), labels=["resource"]
    )
    stalled = CounterMetricFamily(f"{PREFIX}pressure_stalled_seconds", text.format("all tasks"), labels=["resource"])
    for resource, each in found.items():
        waiting.add_metric([resource], each.waiting)
        stalled.add_metric([resource], each.stalled)
    yield from (waiting, stalled)
