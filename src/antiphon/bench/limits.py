"""Limits that a server should keep: of each request (goodput), and of all requests of a stage (service level).

    --goodput 'ttft:2000 tpot:100 e2el:8000'      milliseconds, as in vLLM's benchmark
    --slo 'p95 first_token < 2s'                  also: mean end_to_end <= 1.5s, output_tokens_per_second > 100,
                                                  error_rate < 1%, goodput >= 95%

Requests that were not answered are slower than any limit: a server cannot keep a percentile by refusing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from antiphon.bench.distributions import distribution, percentile
from antiphon.bench.measured_requests import MeasuredRequest
from antiphon.errors import ConfigError

LATENCIES = ("first_token", "first_answer", "time_per_token", "end_to_end")
_ALIASES = {
    "ttft": "first_token",
    "tpot": "time_per_token",
    "e2el": "end_to_end",
    "e2e": "end_to_end",
    "latency": "end_to_end",
    "ttfa": "first_answer",
}
_LEVELS = ("requests_per_second", "output_tokens_per_second", "error_rate", "goodput")
_FIGURES = ("mean", "p50", "p90", "p95", "p99", "max")
_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SLO = re.compile(
    r"(?:(?P<figure>[a-z]+\d*)\s+)?(?P<metric>[a-z0-9_]+)\s*(?P<comparison><=|>=|<|>)\s*"
    r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|%)?"
)


@dataclass(frozen=True, slots=True)
class Goodput:
    """Limits, in seconds, that a request must keep to be good."""

    limits: dict[str, float]

    def is_good(self, request: MeasuredRequest) -> bool:
        """Whether the request was answered within all limits. What cannot be measured (the time per token of a single
        token) is kept."""
        if not request.answered:
            return False
        values = ((getattr(request, name), limit) for name, limit in self.limits.items())
        return all(value is None or value <= limit for value, limit in values)

    def __str__(self) -> str:
        return ", ".join(f"{name} ≤ {limit:g} s" for name, limit in self.limits.items())


@dataclass(frozen=True, slots=True)
class Objective:
    """One service level objective: a figure of a stage that must be below or above a bound."""

    text: str  # as it was given
    figure: str  # mean, p50 … max; empty for metrics that are a single figure
    metric: str
    comparison: str
    bound: float  # seconds, per second, or a share from 0 to 1

    @property
    def is_latency(self) -> bool:
        """Whether the bound is in seconds."""
        return self.metric in LATENCIES

    @property
    def unit(self) -> str:
        """Of the bound: `s`, `/s` or `share`."""
        if self.is_latency:
            return "s"
        return "/s" if self.metric.endswith("_per_second") else "share"

    def is_met(self, value: float | None) -> bool:
        """Whether a measured value keeps the bound. Nothing measured does not."""
        return value is not None and bool(_COMPARISONS[self.comparison](value, self.bound))


def goodput(texts: Iterable[str]) -> Goodput | None:
    """Limits as vLLM's `--goodput` has them: `ttft:2000`, one or several in a text, in milliseconds.

    Raises:
        ConfigError: an unknown name or a number that is not one.
    """
    limits: dict[str, float] = {}
    for part in " ".join(texts).replace(",", " ").split():
        name, _, number = part.partition(":")
        metric = _ALIASES.get(name, name)
        if metric not in LATENCIES or not re.fullmatch(r"\d+(\.\d+)?", number):
            raise ConfigError(
                f"--goodput {part!r} is not NAME:MILLISECONDS, with a NAME of {', '.join(_names())}: ttft:2000 tpot:100"
            )
        limits[metric] = float(number) / 1000
    return Goodput(limits) if limits else None


def objective(text: str) -> Objective:
    """Parse an objective such as `p95 first_token < 2s`. A latency without a unit is in seconds.

    Raises:
        ConfigError: it is not an objective; the message says what is wrong and shows what would work.
    """
    found = _SLO.fullmatch(text.strip().lower())
    if found is None:
        raise ConfigError(f"--slo {text!r} is not an objective like 'p95 first_token < 2s' or 'error_rate < 1%'")
    metric = _ALIASES.get(found["metric"], found["metric"])
    figure, unit = found["figure"] or "", found["unit"] or ""
    if metric in LATENCIES:
        if figure not in _FIGURES:
            raise ConfigError(f"--slo {text!r} needs one of {', '.join(_FIGURES)} before {metric}")
        fits = unit in ("", "s", "ms")
    elif metric in _LEVELS:
        if figure:
            raise ConfigError(f"--slo {text!r}: {metric} is a single figure, without {figure}")
        fits = unit == "" or (unit == "%" and metric in ("error_rate", "goodput"))
    else:
        raise ConfigError(f"--slo {text!r}: {metric} is not one of {', '.join([*_names(), *_LEVELS])}")
    if not fits:
        raise ConfigError(f"--slo {text!r}: {metric} is not measured in {unit}")
    number = float(found["number"]) / {"ms": 1000, "%": 100}.get(unit, 1)
    return Objective(text.strip(), figure, metric, found["comparison"], number)


def latency_figure(figure: str, metric: str, requests: Sequence[MeasuredRequest]) -> float | None:
    """A figure of a latency over requests. For percentiles and `max`, requests without an answer count as infinitely
    slow; a mean is over the answers. None if there is nothing to measure.
    """
    counted = [each for each in requests if each.counts]
    values = [value for each in counted if each.answered and (value := getattr(each, metric)) is not None]
    if figure == "mean":
        found = distribution(values)
        return None if found is None else found.mean
    ordered = sorted(values + [inf] * sum(not each.answered for each in counted))
    if not ordered:
        return None
    return percentile(ordered, 100 if figure == "max" else int(figure[1:]))


def _names() -> list[str]:
    return [*LATENCIES, *(name for name in _ALIASES if name != "latency")]
