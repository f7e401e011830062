"""All metrics of one server, in one registry of their own, and Prometheus' text format of them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from antiphon.metrics.account import RequestAccount
from antiphon.metrics.engines import EnginesCollector, EnginesReport
from antiphon.metrics.families import Families
from antiphon.metrics.requests import RequestMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(RequestMetrics):
    """All metrics of one server."""

    def __init__(
        self,
        version: str,
        model_name: str,
        engines: Callable[[], EnginesReport] = EnginesReport,
        key_names: Sequence[str] = (),
    ) -> None:
        """`engines` is called at each scrape; `key_names` are the values of the label `key`."""
        self.registry = CollectorRegistry()
        super().__init__(self.registry, key_names)
        build = Families(self.registry).gauge(
            "build_info", "Always 1; the labels say what is running.", ["version", "python_version", "model"]
        )
        build.labels(version, platform.python_version(), model_name).set(1)
        self.registry.register(EnginesCollector(engines))

    def request(self, endpoint: str, key: str = "") -> RequestAccount:
        """Start the account of a request that has just arrived; `key` is the name of its API key."""
        return RequestAccount(self, endpoint, key)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
