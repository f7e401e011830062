"""What an alert is, the values at which alerts fire, and how durations are written for Prometheus.

`burn_rates` and `causes` define the alerts with these, `alerts` writes them as Prometheus' rules.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from antiphon.errors import ConfigError
from antiphon.metrics.families import LATENCY_BUCKETS

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0  # seconds

Severity = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The values at which alerts fire. Shares are between 0 and 1, durations in seconds.

    Raises:
        ConfigError: an alert with this value could never fire, or would always.
    """

    availability: float = 0.99  # objective: this share of requests does not fail because of the server
    first_token_share: float = 0.95  # objective: this share of requests has its first token within
    first_token_seconds: float = 10.0  # this time, one of the histogram's bounds
    min_bad_requests: int = 10  # burn rates fire only after this many bad requests
    min_requests: int = 10  # other shares of requests count only if there were this many
    server_restarts: int = 2  # in 15 minutes
    engine_restarts: int = 1  # in 15 minutes
    degrade_level: int = 1
    max_wait_share: float = 0.5  # of the server's --max-wait, predicted for one of ten requests
    shed_share: float = 0.05
    deadlines_missed_share: float = 0.05
    kv_cache_share: float = 0.9
    preemptions: int = 10  # in 5 minutes
    memory_share: float = 0.95
    gpu_reserve_share: float = 0.9  # of the memory that the plan leaves free
    gpu_temperature_margin: float = 5.0  # °C below the limit at which the GPU slows down
    cpu_throttled_share: float = 0.25  # of the periods of the quota
    event_loop_lag_seconds: float = 0.5
    connections_share: float = 0.8
    connections_evicted: int = 10  # in 5 minutes
    open_files_share: float = 0.8
    certificate_days: float = 14.0
    certificate_days_critical: float = 2.0
    scrape_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name} is {value}; it must be above 0")
            if (name.endswith("share") or name == "availability") and not value < 1:
                raise ConfigError(f"{name} is {value}; it must be below 1")
        if self.first_token_seconds not in LATENCY_BUCKETS:
            bounds = ", ".join(f"{bound:g}" for bound in LATENCY_BUCKETS)
            raise ConfigError(f"first_token_seconds is {self.first_token_seconds:g}; it must be one of {bounds}")


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert."""

    name: str
    severity: Severity  # critical: act now; warning: soon
    expression: str
    summary: str  # one line; may contain Prometheus' templates, as may the description
    description: str
    hold: float = 0.0  # the expression must be true for this long, in seconds
    slo: str = ""  # the objective that it watches, for all servers of a job; empty: it watches one server
    is_cause: bool = False  # explains why an objective is missed, so it is not sent while one is

    @property
    def anchor(self) -> str:
        """Of its row in docs/troubleshooting.md."""
        return self.name.lower()

    @property
    def labels(self) -> dict[str, str]:
        """The labels that the alert adds to those of its series."""
        found: dict[str, str] = {"severity": self.severity}
        if self.slo:
            found["slo"] = self.slo
        if self.is_cause:
            found["kind"] = "cause"
        return found


class Durations:
    """Writes durations as Prometheus reads them, all multiplied by `scale`.

    Tests use a small scale, so that a window of an hour passes in seconds.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale

    def __call__(self, seconds: float) -> str:
        """The duration in the largest unit that fits: `5m`, `90s`, `300ms`."""
        milliseconds = max(1, round(seconds * self._scale * 1000))
        for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
            if milliseconds % size == 0:
                return f"{milliseconds // size}{unit}"
        return f"{milliseconds}ms"
