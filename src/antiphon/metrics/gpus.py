"""Memory, load, temperature and power of the GPUs that the engines use, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from antiphon.metrics.families import PREFIX

_LABELS = ("gpu", "uuid")


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """One GPU at a scrape; None: not known. Memory in bytes."""

    gpu: str  # its number
    uuid: str
    name: str
    source: str  # of the memory's figures: "nvml" or "engine"
    used: int | None = None
    total: int | None = None
    planned: int | None = None
    reserve: int | None = None
    utilization: float | None = None  # 0 to 1
    temperature: float | None = None  # °C
    temperature_limit: float | None = None
    power: float | None = None  # watts
    power_limit: float | None = None

    @property
    def reserve_usage(self) -> float | None:
        """The share of the planned reserve that is in use, 0 to 1."""
        if not self.reserve or self.used is None or self.total is None:
            return None
        return min(1.0, max(0.0, 1 - (self.total - self.used) / self.reserve))


_GAUGES: tuple[tuple[str, str, Callable[[GpuFigures], float | None]], ...] = (
    ("memory_used_bytes", "Memory of the GPU in use, by all processes.", lambda each: each.used),
    ("memory_total_bytes", "Memory of the GPU.", lambda each: each.total),
    ("memory_planned_bytes", "Memory that the engines on the GPU take, as planned.", lambda each: each.planned),
    ("memory_reserve_bytes", "Memory that the plan leaves free.", lambda each: each.reserve),
    ("memory_reserve_usage_ratio", "Share of that reserve in use, 0 to 1.", lambda each: each.reserve_usage),
    ("utilization_ratio", "Share of the time in which the GPU computed, 0 to 1.", lambda each: each.utilization),
    ("temperature_celsius", "Temperature of the GPU.", lambda each: each.temperature),
    (
        "temperature_limit_celsius",
        "Temperature at which the GPU slows down.",
        lambda each: each.temperature_limit,
    ),
    ("power_watts", "Power that the GPU draws.", lambda each: each.power),
    ("power_limit_watts", "Power that the GPU may draw.", lambda each: each.power_limit),
)


class GpuCollector(Collector):
    """Reads the figures of the GPUs; there are none without `figures`."""

    def __init__(self) -> None:
        self.figures: Callable[[], Sequence[GpuFigures]] = tuple

    def collect(self) -> Iterable[Metric]:
        found = self.figures()
        info = GaugeMetricFamily(
            f"{PREFIX}gpu_info",
            "Always 1; the labels say which GPU it is, and who reports its memory.",
            labels=[*_LABELS, "name", "source"],
        )
        for each in found:
            info.add_metric([each.gpu, each.uuid, each.name, each.source], 1)
        yield info
        for name, text, value in _GAUGES:
            family = GaugeMetricFamily(f"{PREFIX}gpu_{name}", text, labels=_LABELS)
            for each in found:
                if (known := value(each)) is not None:
                    family.add_metric([each.gpu, each.uuid], known)
            yield family
