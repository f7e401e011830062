"""What the server used during an interval, from samples of its metrics or of /proc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec

from antiphon.bench.records import SampleRecord


class ServerLoad(msgspec.Struct, frozen=True):
    """The server over an interval; None where it does not tell."""

    cpu: float | None  # cores, mean
    memory_bytes: float | None  # the most
    kv_usage: float | None  # the most, from 0 to 1
    running: float | None  # requests, mean
    waiting: float | None  # requests, mean
    degrade_level: float | None  # the highest


def server_load(samples: Iterable[SampleRecord], begin: float, end: float) -> ServerLoad:
    """The load from `begin` to `end`, in seconds since the start of the run. `samples` are in the order of time."""
    ordered = list(samples)
    inside = [sample for sample in ordered if begin <= sample.at <= end]
    return ServerLoad(
        cpu=_mean_cores(ordered, begin, end),
        memory_bytes=max(_told(inside, "memory_bytes"), default=None),
        kv_usage=max(_told(inside, "kv_usage"), default=None),
        running=_mean(_told(inside, "running")),
        waiting=_mean(_told(inside, "waiting")),
        degrade_level=max(_told(inside, "degrade_level"), default=None),
    )


def cores(samples: Sequence[SampleRecord]) -> Iterator[tuple[float, float, float]]:
    """Cores in use between each two samples: (from, to, cores). A restart of the server leaves a gap."""
    told = [(sample.at, sample.cpu_seconds) for sample in samples if sample.cpu_seconds is not None]
    for (begin, before), (end, after) in pairwise(told):
        if end > begin and after >= before:
            yield begin, end, (after - before) / (end - begin)


def _mean_cores(samples: Sequence[SampleRecord], begin: float, end: float) -> float | None:
    """The mean over the part of the interval that the samples cover."""
    used = covered = 0.0
    for start, stop, value in cores(samples):
        overlap = min(stop, end) - max(start, begin)
        if overlap > 0:
            used += value * overlap
            covered += overlap
    return used / covered if covered else None


def _told(samples: Iterable[SampleRecord], name: str) -> list[float]:
    return [value for sample in samples if (value := getattr(sample, name)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
