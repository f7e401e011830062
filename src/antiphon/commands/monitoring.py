"""`antiphon monitoring`: writes the files with which Prometheus, Alertmanager and Grafana watch a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from antiphon.monitoring.alertmanager import WEBHOOK


def monitoring(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; it is created.", file_okay=False)],
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Address of a server; may be given several times.", show_default="localhost:8000"
        ),
    ] = None,
    job: Annotated[str, typer.Option(help="Name of the scrape job, the label `job`.")] = "antiphon",
    scrape_interval: Annotated[str, typer.Option(metavar="TIME", help="Time between two scrapes.")] = "15s",
    credentials_file: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="A file with one of the servers' API keys and nothing else, for Prometheus to read."
        ),
    ] = "",
    ca_file: Annotated[
        str, typer.Option(metavar="FILE", help="Certificates to check the servers' certificates with (https).")
    ] = "",
    alertmanager: Annotated[str, typer.Option(metavar="HOST:PORT", help="Address of Alertmanager.")] = "localhost:9093",
    webhook_url: Annotated[
        str, typer.Option(metavar="URL", help="Where Alertmanager sends alerts; a placeholder, unless you set it.")
    ] = WEBHOOK,
    prometheus_url: Annotated[
        str, typer.Option(metavar="URL", help="Address of Prometheus, as Grafana reaches it.")
    ] = "http://localhost:9090",
    dashboards_path: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="The folder of the dashboard as Grafana sees it, such as a mount in its container."
        ),
    ] = "",
    docs_url: Annotated[
        str, typer.Option(metavar="URL", help="Where this documentation is published, for links in the dashboard.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that were changed.")] = False,
) -> None:
    """Write the configuration of Prometheus, Alertmanager and Grafana, with alerts and a dashboard, to DIR.

    DIR is created if it does not exist. Files in it that were changed are only replaced with --force.

    \b
    Examples:
      antiphon monitoring monitoring/
      antiphon monitoring monitoring/ --target one:8000 --target two:8000
      antiphon monitoring monitoring/ --target https://one --credentials-file key
    """
    from antiphon.monitoring.bundle import files, write
    from antiphon.monitoring.prometheus import MonitoringSettings

    settings = MonitoringSettings(
        targets=tuple(target or MonitoringSettings.targets),
        job=job,
        scrape_interval=scrape_interval,
        credentials_file=credentials_file,
        ca_file=ca_file,
        alertmanager=alertmanager,
        webhook_url=webhook_url,
        prometheus_url=prometheus_url,
        dashboards_path=dashboards_path,
        docs_url=docs_url,
    )
    for path, outcome in write(folder, files(folder, settings), force=force).items():
        typer.echo(f"{outcome:9} {folder / path}")
