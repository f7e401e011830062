"""The connections of clients, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from antiphon.metrics.families import PREFIX


@dataclass(frozen=True, slots=True)
class ConnectionFigures:
    """How many connections there are, and what became of all of them since the server started."""

    open: int = 0
    limit: int = 0  # of open ones; a few more are accepted to be refused
    accepted: int = 0
    refused: int = 0  # over the limit
    evicted: int = 0  # closed while they were idle, to make room


class ConnectionCollector(Collector):
    """Reads the figures at each scrape, once there is a server that has some."""

    def __init__(self) -> None:
        self.figures: Callable[[], ConnectionFigures] = ConnectionFigures

    def collect(self) -> Iterable[Metric]:
        now = self.figures()
        yield GaugeMetricFamily(f"{PREFIX}connections_open", "Open connections of clients.", now.open)
        yield GaugeMetricFamily(f"{PREFIX}connections_limit", "Open connections that are allowed.", now.limit)
        for name, text, value in (
            ("accepted", "Connections of clients within the limit.", now.accepted),
            ("refused", "Connections over the limit, whose requests are refused.", now.refused),
            ("evicted", "Connections that waited for a request and were closed to make room.", now.evicted),
        ):
            yield CounterMetricFamily(f"{PREFIX}connections_{name}", text, value)
