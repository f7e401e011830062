"""`antiphon pull`: brings a model from a hub, to be served later, or elsewhere, or offline."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.config import HUBS, ServerConfig

_DEFAULTS = ServerConfig()

# Shared with the other commands that take a MODEL. Those of `serve` come from the environment by themselves.
HubOption = Annotated[
    str, typer.Option(envvar="ANTIPHON_HUB", help=f"Where models given by name are: {' or '.join(HUBS)}.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", envvar="ANTIPHON_OFFLINE", help="Bring nothing; use what is on this disk.")
]


def pull(
    model: Annotated[str, typer.Argument(help="The name of a model: owner/repo, owner/repo:TYPE, deepseek-r1:1.5b …")],
    hub: HubOption = _DEFAULTS.hub,
    offline: OfflineOption = _DEFAULTS.offline,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare checksums, and download damaged files again.")
    ] = False,
) -> None:
    """Download MODEL and print its path. Interrupted downloads resume; files of the wrong size are downloaded again.

    [bold]Examples[/bold]

      antiphon pull deepseek-r1:1.5b

      antiphon pull bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q8_0

      antiphon pull ms://deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
    """
    from rich.console import Console

    from antiphon.loading.model import resolve_model

    found = resolve_model(model, Console(stderr=True, highlight=False), hub=hub, offline=offline, verify=verify)
    typer.echo(found.path)
