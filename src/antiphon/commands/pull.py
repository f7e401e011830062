"""`antiphon pull`: downloads a model, and the options that all commands with a MODEL share."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.commands.completion import model_names, one_of
from antiphon.config import HUBS, ServerConfig
from antiphon.terminal import console_on

_DEFAULTS = ServerConfig()


def _known_hub(hub: str) -> str:
    ServerConfig(hub=hub)  # or ConfigError
    return hub


# Shared with the other commands that take a MODEL. Those of `serve` come from the environment by themselves.
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A GGUF file, a Hugging Face folder, or a name on a hub.", autocompletion=model_names
    ),
]
HubOption = Annotated[
    str,
    typer.Option(
        envvar="ANTIPHON_HUB",
        help=f"Where to find models given by name: {' or '.join(HUBS)}.",
        callback=_known_hub,
        autocompletion=one_of(HUBS),
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", envvar="ANTIPHON_OFFLINE", help="Download nothing; use what is on this disk.")
]


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The name of a model: owner/repo, owner/repo:TYPE, deepseek-r1:1.5b …",
            autocompletion=model_names,
        ),
    ],
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
    from antiphon.loading.model import resolve_model

    found = resolve_model(model, console_on(stderr=True), hub=hub, offline=offline, verify=verify)
    typer.echo(found.path)
