"""`antiphon reload`: has a running server read its settings again, and prints what has changed."""

from __future__ import annotations

import json
from typing import Any

import typer

from antiphon.commands.engines import (
    AdminKeyFileOption,
    AdminKeyOption,
    JsonOption,
    NoWaitOption,
    UrlOption,
    awaited,
    connected,
)
from antiphon.commands.server_address import DEFAULT_URL
from antiphon.errors import AntiphonError
from antiphon.terminal import printable


def reload(
    url: UrlOption = DEFAULT_URL,
    admin_key_file: AdminKeyFileOption = "",
    admin_key: AdminKeyOption = "",
    no_wait: NoWaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have a running server read its settings again: the file of --config, key files, the certificate, the model.

    No answer is cut. A new model, or other settings of the engines, load beside the present ones. The server needs an
    admin key (antiphon serve --admin-key-file FILE); without one, send SIGHUP to its process.

    [bold]Examples[/bold]

      antiphon reload

      antiphon reload --url https://10.0.0.5:8000 --admin-key-file admin-keys
    """
    with connected(url, admin_key_file, admin_key) as client:
        operation = client.operate("POST", "/reload")
        if not no_wait:
            operation = awaited(client, operation)
    if as_json:
        typer.echo(json.dumps(operation, indent=2, ensure_ascii=False))
    elif operation["status"] == "running":
        typer.echo("the reload has begun; the server's log says how it ends", err=True)
    else:
        _print(operation)
    if operation["status"] == "failed":
        raise AntiphonError(operation["error"]["message"].rstrip("."))


def _print(operation: dict[str, Any]) -> None:
    reloaded = operation.get("reload")
    if reloaded is None:
        return
    for each in reloaded["changed"]:
        typer.echo(printable(f"{each['setting']}: {each['before']} → {each['after']}"))
    for each in reloaded["not_changed"]:
        typer.echo(printable(f"{each['setting']} stays {each['value']}: {each['reason']}"))
    if not reloaded["changed"] and not reloaded["not_changed"]:
        typer.echo("nothing has changed", err=True)
    if reloaded["engines"] == "replaced":
        typer.echo(f"new engines serve {printable(reloaded['model'])}", err=True)
