"""Writes components/monitoring/prometheus-rule.yaml: the alerts of `antiphon monitoring`, for the Prometheus operator.

    python deploy/kubernetes/prometheus_rule.py

The alerts are defined in `antiphon.monitoring.alerts` alone; a test compares the file with what this writes.
"""

from __future__ import annotations

from pathlib import Path

from antiphon.monitoring.alerts import rules
from antiphon.monitoring.yaml_text import to_yaml

FILE = Path(__file__).parent / "components" / "monitoring" / "prometheus-rule.yaml"

_HEADER = """\
# The alerts of `antiphon monitoring`, written by deploy/kubernetes/prometheus_rule.py: `make kubernetes-rules`.
"""


def text() -> str:
    """The contents of the file."""
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "antiphon",
            "namespace": "antiphon",
            "labels": {"app.kubernetes.io/name": "antiphon"},
        },
        "spec": rules(job="antiphon"),
    }
    return _HEADER + to_yaml(resource)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
