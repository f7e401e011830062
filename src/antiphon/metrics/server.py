"""All metrics of one server, in one registry of their own, and Prometheus' text format of them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from antiphon.metrics.account import RequestAccount
from antiphon.metrics.connections import ConnectionCollector, ConnectionFigures
from antiphon.metrics.engines import EnginesCollector, EnginesReport
from antiphon.metrics.families import LAG_BUCKETS, PREFIX, Families
from antiphon.metrics.gpus import GpuCollector, GpuFigures
from antiphon.metrics.requests import RequestMetrics
from antiphon.metrics.resources import ChildProcess, ResourceCollector
from antiphon.metrics.traces import TraceCollector
from antiphon.metrics.vllm_names import vllm_families
from antiphon.tracing import TracingFigures

LOGS = ("access", "messages")  # values of the label `log`
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(RequestMetrics):
    """All metrics of one server."""

    def __init__(
        self,
        version: str,
        model_name: str,
        engines: Callable[[], EnginesReport] = EnginesReport,
        key_names: Sequence[str] = (),
        children: Callable[[], Iterable[ChildProcess]] = tuple,
        *,
        vllm_names: bool = False,
    ) -> None:
        """`engines` and `children` are called at each scrape; `key_names` are the values of the label `key`.

        `vllm_names`: a scrape has the values under vLLM's names too.
        """
        self.vllm_names = vllm_names
        self.registry = _Registry()
        super().__init__(self.registry, key_names)
        self._version = version
        self._define_server(Families(self.registry))
        self.set_model(model_name, children)
        self.registry.register(EnginesCollector(engines))
        self.registry.register(ResourceCollector(lambda: self._children()))
        self._gpus = GpuCollector()
        self.registry.register(self._gpus)
        self._connections = ConnectionCollector()
        self.registry.register(self._connections)
        self._logs_and_certificate = _LogsAndCertificate()
        self.registry.register(self._logs_and_certificate)
        self._peers = _PeerCollector()
        self.registry.register(self._peers)
        self._traces = TraceCollector()
        self.registry.register(self._traces)
        ProcessCollector(registry=self.registry)

    def request(self, endpoint: str, key: str = "", *, is_retry: bool = False) -> RequestAccount:
        """Start the account of a request that has just arrived.

        `key` is the name of its API key; `is_retry`: its client says that it has sent it before.
        """
        if is_retry:
            self.retries_seen.inc()
        return RequestAccount(self, endpoint, key)

    def watch_connections(self, figures: Callable[[], ConnectionFigures]) -> None:
        """Call `figures` at each scrape."""
        self._connections.figures = figures

    def watch_gpus(self, figures: Callable[[], Sequence[GpuFigures]]) -> None:
        """Call `figures` at each scrape."""
        self._gpus.figures = figures

    def watch_dropped_lines(self, dropped: Callable[[], Mapping[str, int]]) -> None:
        """Call `dropped` at each scrape: the log lines that were dropped, for each log."""
        self._logs_and_certificate.dropped = dropped

    def watch_certificate(self, not_after: Callable[[], float | None]) -> None:
        """Call `not_after` at each scrape: when the certificate expires, in seconds since 1970."""
        self._logs_and_certificate.not_after = not_after

    def watch_peers(self, reached: Callable[[], Mapping[str, bool]]) -> None:
        """Call `reached` at each scrape: whether each peer has sent its latest report, by URL."""
        self._peers.reached = reached

    def watch_traces(self, figures: Callable[[], TracingFigures]) -> None:
        """Call `figures` at each scrape."""
        self._traces.figures = figures

    def set_model(self, name: str, children: Callable[[], Iterable[ChildProcess]]) -> None:
        """Set the name of the served model; `children` is called at each scrape from now on."""
        self._children = children
        self._model = name
        self._build.clear()
        self._build.labels(self._version, platform.python_version(), name).set(1)

    def watch_stored_responses(
        self, count: Callable[[], int], num_bytes: Callable[[], int], max_bytes: Callable[[], int]
    ) -> None:
        """Call these at each scrape."""
        self._stored.set_function(count)
        self._stored_bytes.set_function(num_bytes)
        self._stored_limit.set_function(max_bytes)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format. Call it on the event loop, where the accounts change."""
        if not self.vllm_names:
            return generate_latest(self.registry)
        families = list(self.registry.collect())
        return generate_latest(_Scrape([*families, *vllm_families(families, self._model)]))

    def _define_server(self, families: Families) -> None:
        self._stored = families.gauge("stored_responses", "Responses that are kept to be continued.")
        self._stored_bytes = families.gauge(
            "stored_responses_bytes", "Memory of responses that are kept or run in the background."
        )
        self._stored_limit = families.gauge("stored_responses_limit_bytes", "The limit of that memory.")
        self.loop_lag = families.histogram(
            "event_loop_lag_seconds", "How late the server's event loop ran a timer.", buckets=LAG_BUCKETS
        )
        self._build = families.gauge(
            "build_info", "Always 1; the labels say what is running.", ["version", "python_version", "model"]
        )


class _LogsAndCertificate(Collector):
    """Log lines that were dropped, and until when the certificate is valid, read at each scrape."""

    def __init__(self) -> None:
        self.dropped: Callable[[], Mapping[str, int]] = lambda: dict.fromkeys(LOGS, 0)
        self.not_after: Callable[[], float | None] = lambda: None

    def collect(self) -> Iterable[Metric]:
        dropped = CounterMetricFamily(
            f"{PREFIX}log_lines_dropped", "Log lines that could not be written in time, or at all.", labels=["log"]
        )
        for log, count in self.dropped().items():
            dropped.add_metric([log], count)
        yield dropped
        not_after = GaugeMetricFamily(
            f"{PREFIX}tls_certificate_not_after_timestamp_seconds",
            "When the certificate expires, in seconds since 1970.",
            labels=[],
        )
        if (expiry := self.not_after()) is not None:
            not_after.add_metric([], expiry)
        yield not_after


class _PeerCollector(Collector):
    """Which peers are reached, read at each scrape."""

    def __init__(self) -> None:
        self.reached: Callable[[], Mapping[str, bool]] = dict

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily(f"{PREFIX}peer_up", "1 if the peer told what is used there, else 0.", labels=["peer"])
        for url, is_reached in self.reached().items():
            up.add_metric([url], is_reached)
        yield up


class _Scrape(CollectorRegistry):
    """Families as they were collected."""

    def __init__(self, families: Sequence[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return iter(self._families)


class _Registry(CollectorRegistry):
    """A registry without the time at which each series was created.

    The library adds one `_created` series to each counter and histogram, which doubles a scrape, and which Prometheus
    does not use in this format.
    """

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
