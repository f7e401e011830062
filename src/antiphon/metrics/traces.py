"""What becomes of spans, read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from antiphon.metrics.families import PREFIX
from antiphon.tracing import TracingFigures


class TraceCollector(Collector):
    """Reads the figures at each scrape; zeros where traces are off."""

    def __init__(self) -> None:
        self.figures: Callable[[], TracingFigures] = TracingFigures

    def collect(self) -> Iterable[Metric]:
        now = self.figures()
        yield CounterMetricFamily(
            f"{PREFIX}trace_spans_exported", "Spans that the collector of traces has taken.", now.exported
        )
        dropped = CounterMetricFamily(
            f"{PREFIX}trace_spans_dropped", "Spans that were not exported, by reason.", labels=["reason"]
        )
        dropped.add_metric(["queue_full"], now.queue_full)
        dropped.add_metric(["export_failed"], now.export_failed)
        yield dropped
