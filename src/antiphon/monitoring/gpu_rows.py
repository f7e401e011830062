"""The row of the dashboard about the GPUs that the engines use."""

from __future__ import annotations

from antiphon.monitoring.panels import Panel, Query, Row, limits
from antiphon.monitoring.queries import largest

_GPU = "{{instance}} GPU {{gpu}}"
_BY_GPU = "instance, gpu"
_NO_GPU = "No engine uses a GPU"

GPUS = Row(
    "GPUs",
    [
        Panel(
            "GPU memory",
            "Memory in use by all processes, what the engines take by their plan, and what the GPU has. The plan is "
            "allocated at start, so a high use alone is no trouble.",
            [
                Query(largest("antiphon_gpu_memory_used_bytes", by=_BY_GPU), f"used, {_GPU}"),
                Query(largest("antiphon_gpu_memory_planned_bytes", by=_BY_GPU), f"planned, {_GPU}"),
                Query(largest("antiphon_gpu_memory_total_bytes", by=_BY_GPU), f"total, {_GPU}"),
            ],
            unit="bytes",
            no_value=_NO_GPU,
            document="gpu.md#memory-in-metrics",
        ),
        Panel(
            "GPU memory beyond the plan",
            "How much is in use of the memory that the plan leaves free. Other programs on the GPU use it, or an "
            "engine takes more than planned. Near 100 % the next engine may not start.",
            [Query(largest("antiphon_gpu_memory_reserve_usage_ratio", by=_BY_GPU), _GPU)],
            unit="percentunit",
            highest=1,
            thresholds=limits(0.75, 0.9),
            no_value=_NO_GPU,
            document="troubleshooting.md#antiphongpumemorynearlimit",
        ),
        Panel(
            "GPU memory left free",
            "Memory that the plan leaves free, for other programs.",
            [Query(largest("antiphon_gpu_memory_reserve_bytes", by=_BY_GPU), _GPU)],
            unit="bytes",
            no_value=_NO_GPU,
            document="gpu.md#memory-in-metrics",
        ),
        Panel(
            "GPU utilization",
            "Share of the time in which any kernel ran. It does not say how much of the GPU the kernel used.",
            [Query(largest("antiphon_gpu_utilization_ratio", by=_BY_GPU), _GPU)],
            unit="percentunit",
            highest=1,
            no_value=_NO_GPU,
            document="metrics.md#gpus",
        ),
        Panel(
            "GPU temperature",
            "Temperature, and the limit at which the GPU slows down.",
            [
                Query(largest("antiphon_gpu_temperature_celsius", by=_BY_GPU), _GPU),
                Query(largest("antiphon_gpu_temperature_limit_celsius", by=_BY_GPU), f"limit, {_GPU}"),
            ],
            unit="celsius",
            no_value=_NO_GPU,
            document="troubleshooting.md#antiphongpuhot",
        ),
        Panel(
            "GPU power",
            "Power that the GPU draws, and may draw. At the limit it lowers its clock.",
            [
                Query(largest("antiphon_gpu_power_watts", by=_BY_GPU), _GPU),
                Query(largest("antiphon_gpu_power_limit_watts", by=_BY_GPU), f"limit, {_GPU}"),
            ],
            unit="watt",
            no_value=_NO_GPU,
            document="metrics.md#gpus",
        ),
    ],
)
