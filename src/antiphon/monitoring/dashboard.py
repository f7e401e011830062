"""Grafana's dashboard for this server, as a dictionary to be written as JSON."""

from __future__ import annotations

from typing import Any

from antiphon.monitoring.engine_rows import CACHE, ENGINE, FAULTS
from antiphon.monitoring.gpu_rows import GPUS
from antiphon.monitoring.latency_rows import LATENCY, THOUGHT
from antiphon.monitoring.machine_rows import CONNECTIONS, MEMORY, PROCESSOR
from antiphon.monitoring.panels import DATASOURCE, Row, link, to_grafana
from antiphon.monitoring.traffic_rows import ALERTS, KEYS, LOAD, OVERLOAD, OVERVIEW

UID = "antiphon"
TITLE = "Antiphon"
ROWS: tuple[Row, ...] = (
    *(OVERVIEW, ALERTS, LOAD, LATENCY, THOUGHT, OVERLOAD, ENGINE, CACHE),
    *(MEMORY, GPUS, PROCESSOR, FAULTS, CONNECTIONS, KEYS),
)
# Metrics that no panel shows, because another one of them says the same or they tell an operator nothing.
NOT_SHOWN = frozenset(
    {
        "antiphon_peer_up",  # only where servers have peers
        "antiphon_gpu_info",  # names, for queries of other metrics
        "antiphon_engine_info",  # names, for queries of other metrics; a difference shows in inexact continuations
        "antiphon_process_virtual_memory_bytes",  # address space, of which most is never used
        "process_virtual_memory_bytes",
        "process_cpu_seconds",  # the front's, as antiphon_process_… has them for all processes
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    }
)


def dashboard(docs_url: str = "") -> dict[str, Any]:
    """The dashboard. `docs_url`: where the documentation is published, for links; empty: no links."""
    return {
        "uid": UID,
        "title": TITLE,
        "description": "A server that answers many people with one small reasoning model.",
        "tags": ["antiphon", "llm"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one crosshair in all panels
        "schemaVersion": 38,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), _variable("job", "Job"), _variable("instance", "Server", "$job")]},
        "annotations": {"list": []},
        "links": [link("Documentation", f"{docs_url.rstrip('/')}/monitoring.md")] if docs_url else [],
        "panels": to_grafana(ROWS, docs_url),
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "skipUrlSync": False,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "options": [],
    }


def _variable(name: str, label: str, job: str = "") -> dict[str, Any]:
    """A choice among the values of a label, all of them at first."""
    chosen = f'{{job=~"{job}"}}' if job else ""
    query = f"label_values(antiphon_build_info{chosen}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "hide": 0,
        "skipUrlSync": False,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,  # whenever the time range changes: servers come and go
        "sort": 1,
        "regex": "",
        "options": [],
    }
