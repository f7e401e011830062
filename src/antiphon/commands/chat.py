"""`antiphon chat`: its options. The conversation itself is in `conversation`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from antiphon.commands.completion import model_names
from antiphon.commands.pull import HubOption, OfflineOption
from antiphon.commands.server_address import DEFAULT_URL
from antiphon.config import ServerConfig
from antiphon.terminal import console_on

_DEFAULTS = ServerConfig()


def chat(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Serve this model for the conversation; without it, talk to a running server.",
            autocompletion=model_names,
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(envvar="ANTIPHON_URL", help="Address of a running server.", show_default=DEFAULT_URL)
    ] = None,
    api_key: Annotated[str, typer.Option(envvar="ANTIPHON_API_KEY", help="API key to send to the server.")] = "",
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature.", show_default="as the model's files advise")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Maximum tokens in an answer.")] = None,
    hub: HubOption = _DEFAULTS.hub,
    offline: OfflineOption = _DEFAULTS.offline,
) -> None:
    """Talk to a model in the terminal. Ctrl-C stops an answer, Ctrl-D or /exit ends the conversation.

    What you type is edited with the usual keys and kept for the next time (arrow up). Pasted text may have several
    lines. Through a pipe, one question is read and the answer printed.

    [bold]Examples[/bold]

      antiphon chat

      antiphon chat deepseek-r1:1.5b --system "Answer briefly."

      echo "What is the capital of France?" | antiphon chat
    """
    from antiphon.commands.conversation import ChatOptions, talk_to, talk_with_own_server
    from antiphon.commands.terminal_log import set_up_messages
    from antiphon.loading.model import resolve_model

    source = context.get_parameter_source("url")
    if model is not None and url is not None and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("give a MODEL to serve or the --url of a server, not both", param_hint="--url")
    options = ChatOptions(system=system, temperature=temperature, max_tokens=max_tokens)
    if model is not None:
        console = console_on(stderr=True)
        set_up_messages("error", console)
        found = resolve_model(model, console, hub=hub, offline=offline)
        asyncio.run(talk_with_own_server(found, console, options))
    else:
        asyncio.run(talk_to(url or DEFAULT_URL, options, api_key))
