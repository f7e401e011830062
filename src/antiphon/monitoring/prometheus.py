"""Prometheus' configuration: which servers it scrapes and how, its rules, and where it sends alerts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from antiphon.errors import ConfigError
from antiphon.monitoring.alertmanager import WEBHOOK

RULES_FOLDER = "rules"
_DURATION = re.compile(r"(?!0+[a-z])(\d+)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_ADDRESS = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_NAME = re.compile(r"[A-Za-z_][\w.-]*")


@dataclass(frozen=True)
class MonitoringSettings:
    """What the generated files say about the servers and the other programs.

    Raises:
        ConfigError: a value is not valid.
    """

    targets: tuple[str, ...] = ("http://localhost:8000",)  # addresses of the servers
    job: str = "antiphon"  # the value of the label `job`
    scrape_interval: str = "15s"
    credentials_file: str = ""  # a file with an API key and nothing else; empty: the servers need no key
    ca_file: str = ""  # certificates that the servers' certificates are checked with; empty: the system's
    alertmanager: str = "localhost:9093"
    webhook_url: str = WEBHOOK  # where Alertmanager sends alerts
    prometheus_url: str = "http://localhost:9090"  # as Grafana reaches it
    dashboards_path: str = ""  # of the dashboards' folder, as Grafana sees it; empty: where it was written
    docs_url: str = ""  # where the documentation is published

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError("there is no server to scrape; name at least one with --target")
        if len(schemes := {_split(target)[0] for target in self.targets}) > 1:
            raise ConfigError(f"--target has {' and '.join(sorted(schemes))} addresses; all must have the same scheme")
        if len(set(self.addresses)) < len(self.addresses):
            raise ConfigError("--target names the same server twice")
        if self.ca_file and self.scheme != "https":
            raise ConfigError("--ca-file needs targets that begin with https://")
        if not _DURATION.fullmatch(self.scrape_interval):
            raise ConfigError(f"--scrape-interval is {self.scrape_interval!r}; write it as in 15s, 1m or 500ms")
        if not _NAME.fullmatch(self.job):
            raise ConfigError(f"--job is {self.job!r}; use letters, digits, _, - and .")
        if not _ADDRESS.fullmatch(self.alertmanager):
            raise ConfigError(f"--alertmanager is {self.alertmanager!r}; write HOST:PORT, as in localhost:9093")
        for flag, url in (
            ("--webhook-url", self.webhook_url),
            ("--prometheus-url", self.prometheus_url),
            ("--docs-url", self.docs_url),
        ):
            if url and not re.fullmatch(r"https?://\S+", url):
                raise ConfigError(f"{flag} is {url!r}; write it as in http://localhost:9090")

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return _split(self.targets[0])[0]

    @property
    def addresses(self) -> list[str]:
        """The servers' addresses without a scheme, which Prometheus has as the label `instance`."""
        return [_split(target)[1] for target in self.targets]

    @property
    def scrape_timeout(self) -> str:
        """10 s as in Prometheus, or the interval if that is shorter, as Prometheus requires."""
        number, unit = _DURATION.fullmatch(self.scrape_interval).groups()  # type: ignore[union-attr]  # checked above
        return "10s" if int(number) * _SECONDS[unit] >= 10 else self.scrape_interval


def _split(target: str) -> tuple[str, str]:
    """The scheme and the address of a target, as in `https://host:8000` or `host:8000`.

    Raises:
        ConfigError: it is something else.
    """
    parts = urlsplit(target if "://" in target else f"http://{target}")
    if parts.scheme not in ("http", "https") or parts.path.strip("/") or not _ADDRESS.fullmatch(parts.netloc):
        raise ConfigError(f"--target is {target!r}; write HOST:PORT or http://HOST:PORT, without a path")
    return parts.scheme, parts.netloc


def configuration(settings: MonitoringSettings) -> dict[str, Any]:
    """The contents of prometheus.yml."""
    job: dict[str, Any] = {"job_name": settings.job, "scheme": settings.scheme, "metrics_path": "/metrics"}
    if settings.credentials_file:
        job["authorization"] = {"type": "Bearer", "credentials_file": settings.credentials_file}
    if settings.ca_file:
        job["tls_config"] = {"ca_file": settings.ca_file}
    job["static_configs"] = [{"targets": settings.addresses}]
    return {
        "global": {
            "scrape_interval": settings.scrape_interval,
            "scrape_timeout": settings.scrape_timeout,
            "evaluation_interval": settings.scrape_interval,
        },
        "rule_files": [f"{RULES_FOLDER}/*.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [settings.alertmanager]}]}]},
        "scrape_configs": [job],
    }
