"""The files with which Grafana finds Prometheus and the dashboard when it starts ("provisioning")."""

from __future__ import annotations

from typing import Any

from antiphon.monitoring.prometheus import MonitoringSettings


def datasource(settings: MonitoringSettings) -> dict[str, Any]:
    """Prometheus as Grafana's source of data; `timeInterval` tells Grafana how often there are new values."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Antiphon Prometheus",
                "uid": "antiphon-prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": settings.prometheus_url,
                "editable": False,
                "jsonData": {"httpMethod": "POST", "timeInterval": settings.scrape_interval},
            }
        ],
    }


def dashboard_provider(path: str) -> dict[str, Any]:
    """Where Grafana finds the dashboard: in the folder `path`, which it reads again every minute."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "antiphon",
                "type": "file",
                "allowUiUpdates": True,
                "updateIntervalSeconds": 60,
                "options": {"path": path},
            }
        ],
    }
