"""How metrics are created: prefix and buckets, and a counter and a histogram that are cheap enough for each token."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PREFIX = "antiphon_"
# Upper bounds in seconds. A request may wait for minutes, and a gap between two tokens lasts as long if an engine has
# to be replaced meanwhile.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
GAP_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1.0, 2.5, 5.0),
    *(10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TOKEN_BUCKETS = tuple(float(1 << power) for power in range(18))  # up to 131072 tokens


class Families:
    """Creates metrics in a registry, with the prefix in front of their names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; Prometheus' format adds `_total` to its name."""
        return Counter(PREFIX + name, text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """A value that rises and falls."""
        return Gauge(PREFIX + name, text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS
    ) -> Histogram:
        """A histogram with these upper bounds."""
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self._registry)

    def fast_counter(self, name: str, text: str) -> FastCounter:
        """A counter without labels that grows with every token."""
        counter = FastCounter(PREFIX + name, text)
        self._registry.register(counter)
        return counter

    def fast_histogram(self, name: str, text: str, buckets: Sequence[float]) -> FastHistogram:
        """A histogram without labels that is observed for every token."""
        histogram = FastHistogram(PREFIX + name, text, buckets)
        self._registry.register(histogram)
        return histogram


class FastCounter(Collector):
    """A counter without labels, for each token of each stream; the library's takes a lock."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self.value = 0

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(self._name, self._text, self.value)


class FastHistogram(Collector):
    """A histogram without labels, for a value per token of each stream; the library's is too slow for that."""

    def __init__(self, name: str, text: str, buckets: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)  # the last one counts values above all bounds
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value; a bucket contains the values up to its bound."""
        self._counts[bisect_left(self._buckets, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        totals = list(accumulate(map(float, self._counts)))
        yield HistogramMetricFamily(
            self._name, self._text, buckets=list(zip(bounds, totals, strict=True)), sum_value=self._sum
        )
