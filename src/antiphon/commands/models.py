"""`antiphon models`: lists what was downloaded, and removes it when asked to."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from antiphon.commands.completion import model_names
from antiphon.commands.environment import EnvironmentCommand
from antiphon.commands.pull import HubOption
from antiphon.config import ServerConfig
from antiphon.errors import HubError
from antiphon.terminal import console_on, printable

if TYPE_CHECKING:
    from antiphon.hub.downloaded import Downloaded, Removal

_DEFAULTS = ServerConfig()
_DEMO = "demo"
_SHOWN = 5  # files, before a removal is confirmed

models = typer.Typer(rich_markup_mode="rich", pretty_exceptions_enable=False)


@models.callback(invoke_without_command=True)
def list_models(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False
) -> None:
    """List the models that were downloaded, by the names to type for them.

    Models from Hugging Face are in the cache that its own tools and vLLM use too.

    [bold]Examples[/bold]

      antiphon models

      antiphon models remove bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q8_0
    """
    if context.invoked_subcommand is not None:
        return
    found = _found()
    if as_json:
        typer.echo(json.dumps([_as_json(model) for model in found], indent=2, ensure_ascii=False))
    elif found:
        _print(found)
    else:
        typer.echo("No models were downloaded. `antiphon pull demo` downloads a small one.", err=True)


@models.command(cls=EnvironmentCommand)
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="As listed.", autocompletion=model_names)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    hub: HubOption = _DEFAULTS.hub,
) -> None:
    """Remove downloaded models.

    owner/repo is all of a repository; owner/repo:Q8_0 and owner/repo/file.gguf are one model. Files that another model
    or revision needs are kept. Other programs that use the same cache lose what is removed.
    """
    removals = [(name, _plan(name, hub)) for name in names]
    for name, removal in removals:
        _announce(name, removal)
        if not yes:
            _confirm()
        try:
            removal.execute()
        except OSError as error:
            raise HubError(f"{name} could not be removed: {error.strerror}") from None
        typer.echo(f"Removed {printable(name)}: {_megabytes(removal.size)} freed.", err=True)


def _found() -> list[Downloaded]:
    from antiphon.demo import demo_path
    from antiphon.hub.downloaded import Downloaded, downloaded_models

    path = demo_path()
    demo = []
    if path.is_file():
        stat = path.stat()
        demo = [Downloaded(_DEMO, stat.st_size, path, stat.st_atime)]
    return [*demo, *downloaded_models()]


def _plan(name: str, hub: str) -> Removal:
    from antiphon.demo import demo_path
    from antiphon.hub import near_names, parse_name
    from antiphon.hub.downloaded import Removal, plan_removal

    path = demo_path()
    if name == _DEMO and path.is_file():
        return Removal((path,), path.stat().st_size, path.unlink)
    parsed = parse_name(name, hub) if name != _DEMO else None
    if parsed is None:
        near = near_names(name, [model.name for model in _found()])
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise HubError(f"{name} was not downloaded; `antiphon models` lists what was.{meant}")
    return plan_removal(parsed)


def _announce(name: str, removal: Removal) -> None:
    lines = [f"{printable(name)}: {len(removal.paths)} files, {_megabytes(removal.size)}"]
    lines += [f"  {printable(str(path))}" for path in removal.paths[:_SHOWN]]
    if len(removal.paths) > _SHOWN:
        lines.append(f"  and {len(removal.paths) - _SHOWN} more")
    typer.echo("\n".join(lines), err=True)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise HubError("nothing was removed: standard input is not a terminal to ask on; --yes removes without asking")
    typer.confirm("Delete them?", abort=True, err=True)


def _as_json(model: Downloaded) -> dict[str, object]:
    return {
        "name": model.name,
        "size": model.size,
        "path": str(model.path),
        "last_used": _time(model).isoformat(timespec="seconds"),
        "complete": model.is_whole,
    }


def _print(found: list[Downloaded]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "size", "last used", "", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    table.columns[1].justify = "right"
    for model in found:
        state = "" if model.is_whole else "incomplete; `antiphon pull` resumes it"
        when = _time(model).astimezone().strftime("%Y-%m-%d")
        table.add_row(Text(printable(model.name)), _megabytes(model.size), when, state)
    console_on(stderr=False).print(table)


def _time(model: Downloaded) -> datetime:
    return datetime.fromtimestamp(model.last_used, UTC)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
