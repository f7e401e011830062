"""The command `antiphon`: its first page, its subcommands, its way of failing.

Owns what all commands share. It promises that an error we foresaw is one clear line on stderr and exit code 1 (2 where
the command was typed wrongly), never a traceback. Each command lives in `commands/`; they import what is heavy only
when they run, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from antiphon import __version__
from antiphon.commands.aliases import AliasCommand, BatchCommand, ModelCommand
from antiphon.commands.batch import batch
from antiphon.commands.chat import chat
from antiphon.commands.inspect import inspect
from antiphon.commands.pull import pull
from antiphon.commands.quantize import quantize
from antiphon.commands.serve import serve
from antiphon.errors import AntiphonError

_FIRST_PAGE = """
[bold]Antiphon[/bold] serves a small reasoning model to many people at once, on the machine you already have.
It speaks OpenAI's API, so the clients and programs you have work with it unchanged.

[bold]To begin[/bold]

  antiphon serve demo           bring a small model and serve it
  antiphon chat                 talk to it, in another terminal

[bold]With a model of your own[/bold]

  antiphon inspect MODEL        what it weighs and who fits beside it
  antiphon serve MODEL          serve it on 127.0.0.1:8000
  antiphon serve MODEL -np 16   … to 16 people at once
  antiphon chat MODEL           talk to it without a server
  antiphon batch IN OUT MODEL   answer a file of requests
  antiphon quantize MODEL OUT   write it in 4 or 8 bits

A MODEL is a GGUF file, a Hugging Face folder, or a name: [bold]demo[/bold], [bold]deepseek-r1:1.5b[/bold], or any
[bold]owner/repo[/bold] of Hugging Face or ModelScope, which is brought first (antiphon pull MODEL).
Options of serve may also come from the environment, --port as ANTIPHON_PORT.
"""

app = typer.Typer(
    name="antiphon",
    help=_FIRST_PAGE,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Every option of `serve` and `batch` can come from the environment: --port from ANTIPHON_PORT.
_FROM_ENVIRONMENT = {"auto_envvar_prefix": "ANTIPHON"}
app.command(cls=AliasCommand, context_settings=_FROM_ENVIRONMENT, rich_help_panel="Serve")(serve)
app.command(cls=ModelCommand, rich_help_panel="Use")(chat)
app.command(cls=BatchCommand, context_settings=_FROM_ENVIRONMENT, rich_help_panel="Use")(batch)
app.command(cls=ModelCommand, rich_help_panel="Look")(inspect)
app.command(cls=ModelCommand, rich_help_panel="Look")(pull)
app.command(cls=ModelCommand, rich_help_panel="Make")(quantize)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"antiphon {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _first_page(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Options of `antiphon` itself; alone, it shows its first page."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; every error we foresaw ends as one line."""
    try:
        app()
    except AntiphonError as error:
        Console(stderr=True, highlight=False).print("[bold red]error:[/bold red]", error.message, soft_wrap=True)
        sys.exit(1)
