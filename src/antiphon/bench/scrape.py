"""The server's own figures: what its `/metrics` tells, or `/proc` for a process of this machine.

Knows the names of Antiphon's, vLLM's and llama.cpp's metrics. Only the lines that are needed are parsed, since a scrape
once a second must not delay the reading of streams.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from antiphon.bench.records import SampleRecord

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Names:
    """A server's names of what we want to know; several are added. Empty: it does not tell."""

    server: str
    gauges: dict[str, tuple[str, ...]]  # a field of SampleRecord → metrics
    counters: dict[str, tuple[str, ...]]  # our name → metrics

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What lines of a scrape begin with that are wanted."""
        return tuple({name for names in (*self.gauges.values(), *self.counters.values()) for name in names})


ANTIPHON = Names(
    "antiphon",
    {
        "cpu_seconds": ("antiphon_process_cpu_seconds_total",),
        "memory_bytes": ("antiphon_process_resident_memory_bytes",),
        "kv_usage": ("antiphon_kv_cache_usage_ratio",),
        "running": ("antiphon_sequences_running",),
        "waiting": ("antiphon_sequences_waiting",),
        "degrade_level": ("antiphon_degrade_level",),
    },
    {
        "received": ("antiphon_requests_received_total",),
        "refused": ("antiphon_requests_refused_total",),
        "accepted": ("antiphon_requests_accepted_total",),
        "finished": ("antiphon_requests_finished_total",),
        "aborted": ("antiphon_requests_aborted_total",),
        "failed": ("antiphon_requests_failed_total",),
        "unanswered": (
            "antiphon_requests_refused_total",
            "antiphon_requests_aborted_total",
            "antiphon_requests_failed_total",
        ),
        "prompt_tokens": ("antiphon_prompt_tokens_total",),
        "generated_tokens": ("antiphon_generated_tokens_total",),
        "reasoning_tokens": ("antiphon_reasoning_tokens_total",),
        "busy": ("antiphon_requests_running", "antiphon_requests_arriving"),
    },
)
VLLM = Names(
    "vllm",
    {
        "cpu_seconds": ("process_cpu_seconds_total",),
        "memory_bytes": ("process_resident_memory_bytes",),
        "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        "running": ("vllm:num_requests_running",),
        "waiting": ("vllm:num_requests_waiting",),
    },
    {
        "finished": ("vllm:request_success_total",),
        "prompt_tokens": ("vllm:prompt_tokens_total",),
        "generated_tokens": ("vllm:generation_tokens_total",),
        "busy": ("vllm:num_requests_running", "vllm:num_requests_waiting"),
    },
)
LLAMA_CPP = Names(
    "llama.cpp",
    {
        "kv_usage": ("llamacpp:kv_cache_usage_ratio",),
        "running": ("llamacpp:requests_processing",),
        "waiting": ("llamacpp:requests_deferred",),
    },
    {
        "generated_tokens": ("llamacpp:tokens_predicted_total",),
        "busy": ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
    },
)
_MEANS = ("kv_usage", "degrade_level")  # of several engines; other gauges are added


@dataclass
class Scrape:
    """What one scrape told."""

    server: str = ""
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Scrape | None:
        """Read a scrape; None if it is not one of a server that is known."""
        for marker, names in (("antiphon_", ANTIPHON), ("vllm:", VLLM), ("llamacpp:", LLAMA_CPP)):
            if f"\n{marker}" in text or text.startswith(marker):
                try:
                    return cls(names.server, *_values(text, names))
                except ValueError:  # it is not the text format
                    return None
        return None

    def sample(self, at: float, users: int) -> SampleRecord:
        """As a line of the journal."""
        return SampleRecord(at, users, **self.gauges)


def _values(text: str, names: Names) -> tuple[dict[str, float], dict[str, float]]:
    prefixes = names.prefixes
    # Without the lines that tell types, the parser takes each line as a family of its own.
    wanted = [line for line in text.splitlines() if line.startswith(prefixes)]
    found: dict[str, list[tuple[str, float]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for family in text_string_to_metric_families("\n".join(wanted) + "\n"):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((str(sample.labels), sample.value))
    gauges = {name: _sum(found, metrics, name in _MEANS) for name, metrics in names.gauges.items()}
    counters = {name: _sum(found, metrics, False) for name, metrics in names.counters.items()}
    return _without_none(gauges), _without_none(counters)


def _sum(found: dict[str, list[tuple[str, float]]], metrics: Iterable[str], is_mean: bool) -> float | None:
    values = [value for metric in metrics for _, value in found.get(metric, ())]
    if not values:
        return None
    return sum(values) / (len(values) if is_mean else 1)


def _without_none(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def process_tree(pid: int) -> tuple[float, int]:
    """Processor seconds and bytes (proportional set size) of a process and all below it.

    Takes some milliseconds for large processes: call it in a thread. Processes that end meanwhile count nothing.

    Raises:
        ProcessLookupError: there is no such process.
    """
    children: dict[int, list[int]] = {}
    stats: dict[int, list[str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        for line in _lines(folder / "stat"):
            fields = line.rpartition(")")[2].split()
            stats[int(folder.name)] = fields
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    if pid not in stats:
        raise ProcessLookupError(f"there is no process {pid}")
    family = [pid]
    for each in family:
        family += children.get(each, [])
    cpu = sum(int(stats[each][11]) + int(stats[each][12]) for each in family) / _TICKS
    rollups = (line for each in family for line in _lines(Path(f"/proc/{each}/smaps_rollup")))
    return cpu, sum(int(line.split()[1]) << 10 for line in rollups if line.startswith("Pss:"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
