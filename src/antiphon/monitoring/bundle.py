"""All files of `antiphon monitoring DIR` as texts, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiphon import __version__
from antiphon.errors import ConfigError
from antiphon.monitoring import alertmanager, alerts
from antiphon.monitoring.dashboard import dashboard
from antiphon.monitoring.grafana import dashboard_provider, datasource
from antiphon.monitoring.prometheus import RULES_FOLDER, MonitoringSettings, configuration
from antiphon.monitoring.yaml_text import to_yaml
from antiphon.replacing import replacing

_DASHBOARDS = "grafana/dashboards"
_PROVISIONING = "grafana/provisioning"
_HEADER = f"# Written by `antiphon monitoring` {__version__}; run it again after an update.\n"


def files(folder: Path, settings: MonitoringSettings) -> dict[str, str]:
    """Path below `folder` → contents."""
    dashboards = settings.dashboards_path or str(folder.absolute() / _DASHBOARDS)
    documents: dict[str, Any] = {
        "prometheus.yml": configuration(settings),
        f"{RULES_FOLDER}/antiphon.yml": alerts.rules(job=settings.job, docs_url=settings.docs_url),
        "alertmanager.yml": alertmanager.config(webhook_url=settings.webhook_url),
        f"{_PROVISIONING}/datasources/antiphon.yml": datasource(settings),
        f"{_PROVISIONING}/dashboards/antiphon.yml": dashboard_provider(dashboards),
    }
    found = {path: _HEADER + to_yaml(document) for path, document in documents.items()}
    found[f"{_DASHBOARDS}/antiphon.json"] = (
        json.dumps(dashboard(settings.docs_url), indent=2, ensure_ascii=False) + "\n"
    )
    found["README.md"] = _readme(settings)
    return dict(sorted(found.items()))


def write(folder: Path, contents: Mapping[str, str], *, force: bool = False) -> dict[str, str]:
    """Write the files, and return what happened to each: `written`, `replaced` or `unchanged`.

    Nothing is written if any file could not be.

    Raises:
        ConfigError: a file exists with other contents and `force` is not set, or `folder` cannot be written to.
    """
    outcomes = {path: _outcome(folder / path, text) for path, text in contents.items()}
    changed = [path for path, outcome in outcomes.items() if outcome == "replaced"]
    if changed and not force:
        raise ConfigError(f"{folder / changed[0]} exists and differs from what would be written; --force replaces it")
    try:
        for path, text in contents.items():
            if outcomes[path] != "unchanged":
                destination = folder / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with replacing(destination, lambda _: None) as part:
                    part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} cannot be written ({error.strerror})") from None
    return outcomes


def _outcome(path: Path, text: str) -> str:
    try:
        return "unchanged" if path.read_text(encoding="utf-8") == text else "replaced"
    except FileNotFoundError:
        return "written"
    except UnicodeDecodeError:
        return "replaced"
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from None


def _readme(settings: MonitoringSettings) -> str:
    key = (
        f"\nThe servers need an API key. Write one, and nothing else, to `{settings.credentials_file}` (relative to\n"
        "this folder), readable by Prometheus alone:\n\n"
        f"    install -m 600 /dev/stdin {settings.credentials_file}\n"
        if settings.credentials_file
        else ""
    )
    return f"""# Monitoring Antiphon

Written by `antiphon monitoring` {__version__}. It scrapes {", ".join(settings.addresses)}.
{key}
| file | what it is for |
|---|---|
| `prometheus.yml` | Prometheus: the servers to scrape, rules, where alerts go |
| `rules/antiphon.yml` | the alerts, which Prometheus evaluates; rules of your own can go beside it |
| `alertmanager.yml` | Alertmanager: alerts go to {settings.webhook_url}; put your own receivers there |
| `grafana/dashboards/antiphon.json` | the dashboard; it can also be imported by hand |
| `grafana/provisioning/` | Grafana finds Prometheus and the dashboard here when it starts |

Check the files, and start Prometheus and Alertmanager (Debian calls it `prometheus-alertmanager`):

    promtool check config prometheus.yml
    prometheus --config.file=prometheus.yml --storage.tsdb.path=data
    alertmanager --config.file=alertmanager.yml --storage.path=alerts

Start Grafana with this provisioning, or copy its files to `/etc/grafana/provisioning`:

    GF_PATHS_PROVISIONING="$PWD/grafana/provisioning" grafana server --homepath /usr/share/grafana

Then open the dashboard "Antiphon". Every panel explains itself: hover over the "i" beside its title.
"""
