"""PromQL expressions for the dashboard's panels.

Each selects the servers that are chosen at the top of the dashboard (`$job`, `$instance`). Rates are taken over
`$__rate_interval`, which Grafana makes long enough for at least four scrapes.
"""

from __future__ import annotations

from antiphon.monitoring.panels import Query

CHOSEN = 'job=~"$job", instance=~"$instance"'
_WINDOW = "[$__rate_interval]"


def series(metric: str, *matchers: str) -> str:
    """The chosen servers' series of a metric; `matchers` are further ones, such as `status=~"5.."`."""
    return f"{metric}{{{', '.join((CHOSEN, *matchers))}}}"


def total(metric: str, *matchers: str, by: str = "") -> str:
    """The sum of a gauge over the chosen servers, or one sum for each value of the labels `by`."""
    return f"sum{_by(by)} ({series(metric, *matchers)})"


def largest(metric: str, *matchers: str, by: str = "") -> str:
    """The largest value of a gauge."""
    return f"max{_by(by)} ({series(metric, *matchers)})"


def smallest(metric: str, *matchers: str, by: str = "") -> str:
    """The smallest value of a gauge."""
    return f"min{_by(by)} ({series(metric, *matchers)})"


def rate(metric: str, *matchers: str, by: str = "") -> str:
    """The increase of a counter per second."""
    return f"sum{_by(by)} (rate({series(metric, *matchers)}{_WINDOW}))"


def increase(metric: str, *matchers: str, by: str = "") -> str:
    """The increase of a counter within the window of the rate: how often something rare happened."""
    return f"sum{_by(by)} (increase({series(metric, *matchers)}{_WINDOW}))"


def share(part: str, whole: str) -> str:
    """`part` divided by `whole`; 0 where both are 0."""
    return f"{part} / clamp_min({whole}, 1e-9)"


def quantile(q: float, histogram: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram's observations; not a number while there are none."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', *matchers, by=labels)})"


def quantiles(histogram: str) -> list[Query]:
    """The median, and what 5 % and 1 % of the observations exceed."""
    return [Query(quantile(q, histogram), f"P{round(q * 100)}") for q in (0.5, 0.95, 0.99)]


def mean(histogram: str) -> str:
    """The mean of a histogram's observations."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
