"""All Prometheus metrics of one server. A leaf: imports only other leaves and prometheus_client.

`requests` defines what is counted of requests, `account` counts each request once, from its arrival to its end,
`engines` reads the engines' state at each scrape, `connections` the connections, `gpus` the GPUs, `resources` what
processes, container and machine use, and `traces` what becomes of spans. `server` puts all of them into one registry. A
test compares them with the list in `docs/metrics.md`.
"""

from __future__ import annotations

from antiphon.metrics.account import Outcome, RequestAccount, error_code
from antiphon.metrics.connections import ConnectionFigures
from antiphon.metrics.engines import EngineCounts, EngineFigures, EngineLimits, EnginesReport, FleetFigures
from antiphon.metrics.gpus import GpuFigures
from antiphon.metrics.requests import ENDPOINTS, REFUSALS
from antiphon.metrics.resources import ChildProcess
from antiphon.metrics.server import CONTENT_TYPE, Metrics

__all__ = [
    "CONTENT_TYPE",
    "ENDPOINTS",
    "REFUSALS",
    "ChildProcess",
    "ConnectionFigures",
    "EngineCounts",
    "EngineFigures",
    "EngineLimits",
    "EnginesReport",
    "FleetFigures",
    "GpuFigures",
    "Metrics",
    "Outcome",
    "RequestAccount",
    "error_code",
]
