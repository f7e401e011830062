"""Alertmanager's configuration: who gets which alert, and which alerts are not sent while a more important one fires.

Alerts of all servers of one job come in one message. While a critical alert says that users are affected, the causes
that explain it are not sent, but Alertmanager's own page still shows them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from antiphon.errors import ConfigError
from antiphon.monitoring.alert import HOUR, MINUTE, Durations

WEBHOOK = "http://127.0.0.1:5001/"  # a placeholder, where nobody listens

# Alertmanager's own default is 5 minutes. That is as long as an alert of a single event fires, such as a connection
# that was refused, so it could end before the next message of its group and never be sent.
_GROUP_INTERVAL = MINUTE
_CAUSE = 'kind="cause"'


def config(*, webhook_url: str = WEBHOOK, time_scale: float = 1.0) -> dict[str, Any]:
    """The contents of alertmanager.yml.

    `webhook_url` receives all alerts: replace it, or the two receivers, by what you use. All durations are multiplied
    by `time_scale`.

    Raises:
        ConfigError: `webhook_url` is not an HTTP address.
    """
    if urlsplit(webhook_url).scheme not in ("http", "https") or not urlsplit(webhook_url).netloc:
        raise ConfigError(f"webhook_url is {webhook_url!r}; write it as in {WEBHOOK}")
    duration = Durations(time_scale)
    return {
        "route": {
            "receiver": "warning",
            "group_by": ["job"],
            "group_wait": duration(30.0),
            "group_interval": duration(_GROUP_INTERVAL),
            "repeat_interval": duration(12 * HOUR),
            "routes": [
                {
                    "matchers": ['severity="critical"'],
                    "receiver": "critical",
                    "group_by": ["job"],
                    "group_wait": duration(10.0),
                    "group_interval": duration(_GROUP_INTERVAL),
                    "repeat_interval": duration(HOUR),
                }
            ],
        },
        "inhibit_rules": [
            # An objective is that of all servers of a job, so it has no label `instance`.
            _inhibit('slo=~".+"', _CAUSE, equal=["job"]),
            _inhibit('alertname=~"AntiphonServerDown|AntiphonNoEngineReady"', _CAUSE, equal=["job", "instance"]),
            _inhibit(
                'alertname="AntiphonCertificateExpiresSoon"',
                'alertname="AntiphonCertificateExpiring"',
                equal=["job", "instance"],
            ),
        ],
        "receivers": [
            {"name": name, "webhook_configs": [{"url": webhook_url, "send_resolved": True}]}
            for name in ("critical", "warning")
        ],
    }


def _inhibit(source: str, target: str, *, equal: list[str]) -> dict[str, Any]:
    """While an alert that `source` matches fires, do not send those that `target` matches with equal labels."""
    return {"source_matchers": [source], "target_matchers": [target], "equal": equal}
