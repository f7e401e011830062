"""Alerting rules for Prometheus. Each links to the row of docs/troubleshooting.md that says what to do.

Metrics of the server are found by their names alone; those that every program has, such as `up`, by the label `job`.
"""

from __future__ import annotations

from typing import Any

from antiphon.monitoring.alert import Alert, Durations, Thresholds
from antiphon.monitoring.burn_rates import burn_rate_alerts, recordings
from antiphon.monitoring.causes import engine_alerts, front_alerts, load_alerts, machine_alerts, server_alerts

_DOCUMENT = "troubleshooting.md"
_OBJECTIVES = "antiphon-objectives"
_INTERVAL = 15.0  # seconds between two evaluations


def alerts(
    thresholds: Thresholds | None = None, *, job: str = "antiphon", time_scale: float = 1.0
) -> dict[str, list[Alert]]:
    """Name of a group of rules → its alerts.

    `job` is the value of the label `job` that Prometheus gives the servers. All durations are multiplied by
    `time_scale`: with 0.01, "15 minutes" are 9 seconds.

    Raises:
        ConfigError: a threshold leaves no room for an alert to fire.
    """
    thresholds, duration = thresholds or Thresholds(), Durations(time_scale)
    return {
        _OBJECTIVES: list(burn_rate_alerts(thresholds)),
        "antiphon-servers": list(server_alerts(thresholds, duration, job)),
        "antiphon-engines": list(engine_alerts(thresholds, duration)),
        "antiphon-load": list(load_alerts(thresholds, duration)),
        "antiphon-machine": list(machine_alerts(thresholds, duration, job)),
        "antiphon-front": list(front_alerts(thresholds, duration)),
    }


def rules(
    thresholds: Thresholds | None = None, *, job: str = "antiphon", docs_url: str = "", time_scale: float = 1.0
) -> dict[str, Any]:
    """The contents of a file of rules for Prometheus. Parameters and errors as for `alerts`.

    `docs_url` is where the documentation is published; without it the links are paths in the repository.
    """
    duration = Durations(time_scale)
    recorded = recordings(thresholds or Thresholds(), duration)
    groups: dict[str, list[dict[str, Any]]] = {
        name: [_rule(alert, duration, docs_url) for alert in members]
        for name, members in alerts(thresholds, job=job, time_scale=time_scale).items()
    }
    # Rules of a group are evaluated in their order, so an alert sees what was recorded just before.
    groups[_OBJECTIVES][:0] = [{"record": name, "expr": expression} for name, expression in recorded.items()]
    return {
        "groups": [
            {"name": name, "interval": duration(_INTERVAL), "rules": members} for name, members in groups.items()
        ]
    }


def _rule(alert: Alert, duration: Durations, docs_url: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expression}
    if alert.hold:
        rule["for"] = duration(alert.hold)
    return rule | {
        "labels": alert.labels,
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{docs_url.rstrip('/') or 'docs'}/{_DOCUMENT}#{alert.anchor}",
        },
    }
