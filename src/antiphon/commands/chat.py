"""`antiphon chat`: its options. The conversation itself is in `conversation`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from antiphon.commands.pull import HubOption, OfflineOption
from antiphon.config import ServerConfig

_DEFAULTS = ServerConfig()
DEFAULT_URL = "http://127.0.0.1:8000"


def chat(
    model: Annotated[
        str | None, typer.Argument(help="Serve this model for the conversation; else talk to a running server.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(envvar="ANTIPHON_URL", help=f"A running server; {DEFAULT_URL} unless given.")
    ] = None,
    api_key: Annotated[
        str, typer.Option(envvar="ANTIPHON_API_KEY", help="What a server that asks for a key is shown.")
    ] = "",
    system: Annotated[str, typer.Option(help="What the model is told before the conversation.")] = "",
    temperature: Annotated[float | None, typer.Option(help="How freely it answers; else as advised.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    hub: HubOption = _DEFAULTS.hub,
    offline: OfflineOption = _DEFAULTS.offline,
) -> None:
    """Talk to a model. Ctrl-C stops an answer, Ctrl-D leaves, /help says more.

    [bold]Examples[/bold]

      antiphon chat

      antiphon chat deepseek-r1:1.5b --system "Answer briefly."

      echo "What is the capital of France?" | antiphon chat
    """
    from rich.console import Console

    from antiphon.commands.conversation import Wishes, talk_to, talk_with_own_server
    from antiphon.loading.model import resolve_model

    if model is not None and url is not None:
        raise typer.BadParameter("give a MODEL to serve or the --url of a server, not both", param_hint="--url")
    wishes = Wishes(system=system, temperature=temperature, max_tokens=max_tokens)
    if model is not None:
        console = Console(stderr=True, highlight=False)
        found = resolve_model(model, console, hub=hub, offline=offline)
        asyncio.run(talk_with_own_server(found, console, wishes))
    else:
        asyncio.run(talk_to(url or DEFAULT_URL, wishes, api_key))
