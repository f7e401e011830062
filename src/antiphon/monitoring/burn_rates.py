"""Alerts on service level objectives: how fast the error budget is spent, over a long and a short window.

An objective of 99 % leaves a budget of 1 % bad requests. At a burn rate of 14.4, a budget for 30 days lasts 50 hours.
The long window shows that it matters, the short one that it is still going on. Source: "Alerting on SLOs" in The Site
Reliability Workbook (Google, 2018), chapter 5.

With little traffic a single bad request exceeds any rate, so a number of bad requests is also required.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from antiphon.errors import ConfigError
from antiphon.monitoring.alert import HOUR, MINUTE, Alert, Durations, Thresholds

# Refusals that are the server's fault. `server_overloaded` has an alert of its own, and the others are the clients'.
UNAVAILABLE = ("engine_unavailable", "internal_error", "not_ready")


@dataclass(frozen=True, slots=True)
class BurnRate:
    """A pair of windows, in seconds, and the rate at which the budget is spent in both."""

    name: str
    rate: float
    long: float
    short: float
    in_words: str  # the long window


@dataclass(frozen=True, slots=True)
class Objective:
    """A share of requests that must be good. `bad` and `good` return how many such there were within a window."""

    name: str
    slo: str
    target: float
    bad: Callable[[str], str]
    good: Callable[[str], str]
    bad_in_words: str

    def recorded(self, what: str, window: float) -> str:
        """The name under which the number of `bad` or of all (`total`) requests is recorded."""
        return f"job:antiphon_slo_{self.slo}_{what}:increase{Durations()(window)}"


BURN_RATES = (
    BurnRate("FastBurn", 14.4, HOUR, 5 * MINUTE, "hour"),
    BurnRate("SlowBurn", 6.0, 6 * HOUR, 30 * MINUTE, "6 hours"),
)


def recordings(thresholds: Thresholds, duration: Durations) -> dict[str, str]:
    """Name → expression of what the alerts compare: bad requests and all requests, within each window."""
    windows = [window for rate in BURN_RATES for window in (rate.short, rate.long)]
    found = {}
    for objective in objectives(thresholds):
        for window in windows:
            bad = objective.recorded("bad", window)
            found[bad] = objective.bad(duration(window))
            found[objective.recorded("total", window)] = f"{objective.good(duration(window))} + {bad}"
    return found


def burn_rate_alerts(thresholds: Thresholds) -> Iterator[Alert]:
    """One alert for each objective and burn rate, on the recordings.

    Raises:
        ConfigError: an objective is so low that its budget cannot be spent that fast.
    """
    for objective in objectives(thresholds):
        for rate in BURN_RATES:
            yield _alert(objective, rate, thresholds.min_bad_requests)


def objectives(thresholds: Thresholds) -> tuple[Objective, Objective]:
    """What users are promised: no failures, and a first token in time."""
    return _availability(thresholds), _first_token(thresholds)


def _availability(thresholds: Thresholds) -> Objective:
    """Requests do not fail because of the server.

    Not counted are what clients did wrong or aborted, and what was refused or dropped because of too much work.
    """
    refused = f'antiphon_requests_refused_total{{code=~"{"|".join(UNAVAILABLE)}"}}'
    dropped = 'antiphon_shed_requests_total{reason="queue_timeout"}'  # these count as failed, too

    def bad(window: str) -> str:
        failed = f"{_count('antiphon_requests_failed_total', window)} - {_count(dropped, window)}"
        return f"clamp_min({failed}, 0) + {_count(refused, window)}"

    def good(window: str) -> str:
        return _count("antiphon_requests_finished_total", window)

    return Objective("Availability", "availability", thresholds.availability, bad, good, "failed")


def _first_token(thresholds: Thresholds) -> Objective:
    """The first token comes in time, for requests that get one."""
    histogram = "antiphon_time_to_first_token_seconds"
    in_time = f'{histogram}_bucket{{le="{float(thresholds.first_token_seconds)}"}}'

    def good(window: str) -> str:
        return _count(in_time, window)

    def bad(window: str) -> str:
        return f"{_count(f'{histogram}_count', window)} - {good(window)}"

    late = f"waited more than {thresholds.first_token_seconds:g} s for their first token"
    return Objective("FirstToken", "first_token", thresholds.first_token_share, bad, good, late)


def _alert(objective: Objective, rate: BurnRate, min_bad: int) -> Alert:
    allowed = rate.rate * (1 - objective.target)
    if allowed >= 1:
        raise ConfigError(
            f"the objective for {objective.slo} is {objective.target:g}, so more than all requests would have to be "
            f"bad before an alert fires; it must be above {1 - 1 / rate.rate:.3f}"
        )

    def share(window: float) -> str:
        return f"{objective.recorded('bad', window)} / {objective.recorded('total', window)} > {allowed:.6g}"

    bad = f"{{{{ $value | humanizePercentage }}}} of requests {objective.bad_in_words}"
    return Alert(
        name=f"Antiphon{objective.name}{rate.name}",
        severity="critical",
        expression=f"{share(rate.long)}\nand {share(rate.short)}\n"
        f"and {objective.recorded('bad', rate.long)} >= {min_bad}",
        summary=bad,
        description=f"{bad} within the last {rate.in_words} (job {{{{ $labels.job }}}}), and it continues. The "
        f"objective allows {100 * (1 - objective.target):.3g} %; this is more than {rate.rate:g} times as much.",
        slo=objective.slo,
    )


def _count(series: str, window: str) -> str:
    """How many there were within the window, of all servers of a job."""
    return f"sum by (job) (increase({series}[{window}]))"
