"""The command `antiphon`: its help page, its subcommands, and how it reports errors.

Owns what all commands share. It promises that an expected error is one clear line on stderr and exit code 1 (2 where
the command line is wrong), never a traceback. Each command is in `commands/`; they import heavy modules only when they
run, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from antiphon import __version__
from antiphon.commands.aliases import BatchCommand, ModelCommand, PlainHelpCommand
from antiphon.commands.batch import batch
from antiphon.commands.bench import bench
from antiphon.commands.chat import chat
from antiphon.commands.completion import completion, set_up_completion
from antiphon.commands.doctor import doctor
from antiphon.commands.engine_host import engine_host
from antiphon.commands.engines import engines
from antiphon.commands.environment import EnvironmentCommand
from antiphon.commands.foreign_commands import CommandGroup
from antiphon.commands.inspect import inspect
from antiphon.commands.models import models
from antiphon.commands.monitoring import monitoring
from antiphon.commands.proxy_config import proxy_config
from antiphon.commands.pull import pull
from antiphon.commands.quantize import quantize
from antiphon.commands.reload import reload
from antiphon.commands.serve import ServeCommand, serve
from antiphon.errors import AntiphonError
from antiphon.terminal import print_error

_FIRST_PAGE = """
[bold]Antiphon[/bold] serves a small reasoning model to many users at once, on an ordinary machine.
It speaks OpenAI's API, so existing clients and programs work with it unchanged.

[bold]Getting started[/bold]

  antiphon serve demo           download a small model and serve it
  antiphon chat                 talk to it, in another terminal

[bold]With a model of your own[/bold]

  antiphon inspect MODEL        its size in memory and how many users fit
  antiphon serve MODEL          serve it on 127.0.0.1:8000
  antiphon serve MODEL -np 16   … to 16 people at once
  antiphon chat MODEL           talk to it without a server
  antiphon batch IN OUT MODEL   answer a file of requests
  antiphon bench URL            test a server under load
  antiphon quantize MODEL OUT   convert it to 4 or 8 bits
  antiphon models               list what was downloaded
  antiphon doctor               find out what is wrong with this machine

A MODEL is a GGUF file, a Hugging Face folder, or a name: [bold]demo[/bold], [bold]deepseek-r1:1.5b[/bold], or any
[bold]owner/repo[/bold] on Hugging Face or ModelScope, which is downloaded first (antiphon pull MODEL).
Options of serve can also come from the environment: --port from ANTIPHON_PORT.
"""

app = typer.Typer(
    name="antiphon",
    cls=CommandGroup,
    help=_FIRST_PAGE,
    rich_markup_mode="rich",
    add_completion=False,  # it would rewrite people's .bashrc; `antiphon completion` prints the script instead
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Every option of `serve` and `batch` can come from the environment: --port from ANTIPHON_PORT.
_FROM_ENVIRONMENT = {"auto_envvar_prefix": "ANTIPHON"}
app.command(cls=ServeCommand, context_settings=_FROM_ENVIRONMENT, rich_help_panel="Serve")(serve)
app.add_typer(engines, name="engines", rich_help_panel="Serve")
app.command(name="engine-host", cls=ModelCommand, rich_help_panel="Serve")(engine_host)
app.command(cls=EnvironmentCommand, rich_help_panel="Serve")(reload)
app.command(cls=PlainHelpCommand, rich_help_panel="Serve")(monitoring)
app.command(cls=PlainHelpCommand, rich_help_panel="Serve")(proxy_config)
app.command(cls=ModelCommand, rich_help_panel="Serve")(doctor)
app.command(cls=ModelCommand, rich_help_panel="Use")(chat)
app.command(cls=BatchCommand, context_settings=_FROM_ENVIRONMENT, rich_help_panel="Use")(batch)
app.add_typer(bench, name="bench", rich_help_panel="Use")
app.command(cls=ModelCommand, rich_help_panel="Models")(inspect)
app.command(cls=ModelCommand, rich_help_panel="Models")(pull)
app.add_typer(models, name="models", rich_help_panel="Models")
app.command(cls=ModelCommand, rich_help_panel="Models")(quantize)
app.command(rich_help_panel="Shell")(completion)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"antiphon {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _first_page(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of `antiphon` itself; without a command it prints the help page."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line; every expected error is printed as one line."""
    set_up_completion()
    try:
        app(prog_name="antiphon")
    except AntiphonError as error:
        print_error(error.message)
        sys.exit(1)
    except BrokenPipeError:  # who read the output has gone, as `head` does; Python must not flush into it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
