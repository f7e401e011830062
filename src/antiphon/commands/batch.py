"""`antiphon batch`: its options and its progress bar. The work is done in `offline.batch`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from antiphon.commands.pull import ModelArgument
from antiphon.commands.serve import serve
from antiphon.engine.remote.address import parse_engines
from antiphon.errors import ConfigError
from antiphon.offline.settings import setting_names
from antiphon.terminal import console_on, printable

if TYPE_CHECKING:
    from rich.console import Console

    from antiphon.offline.batch import Progress, Watch

SOME_FAILED = 3  # exit status: the batch is done, and some requests failed

F = TypeVar("F")


def _with_options_of_serve(command: F) -> F:
    """Give `command`, which takes `settings`, the options of `serve` that concern the model."""
    own = [each for each in _parameters(command) if each.kind is not inspect.Parameter.VAR_KEYWORD]
    names = {*setting_names(), "fake_engine"}
    shared = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in _parameters(serve) if each.name in names]
    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]  # as inspect reads it
    return command


def _parameters(command: Any) -> list[inspect.Parameter]:  # noqa: ANN401
    return list(inspect.signature(command, eval_str=True).parameters.values())


@_with_options_of_serve
def batch(
    requests: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="The requests, one a line.")],
    answers: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="The file to write answers to, one a line.")],
    model: ModelArgument,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Answer a file of requests in OpenAI's batch format, without a server.

    Each line of IN has custom_id, method, url and body. Answers are written as they complete; the same command
    continues a batch that was stopped. The options are those of serve. The exit status is 3 if requests failed.

    \b
    Examples:
      antiphon batch requests.jsonl answers.jsonl deepseek-r1:1.5b
      antiphon batch -i requests.jsonl -o answers.jsonl --model model.gguf
    """
    from antiphon.commands.terminal_log import set_up_messages
    from antiphon.loading.model import resolve_model
    from antiphon.offline.batch import count_lines, run_batch
    from antiphon.offline.batch_file import BatchFile
    from antiphon.offline.settings import configs

    console = console_on(stderr=True)
    set_up_messages("warning", console)
    settings["fake"] = settings.pop("fake_engine")
    asked = parse_engines(settings.pop("engines"))
    if asked.addresses:
        raise ConfigError("--engines of a batch cannot name other machines: that needs a server, antiphon serve")
    engine, front = configs(model, settings | {"engines": asked.number})
    if asked.devices:
        engine = replace(engine, devices=asked.devices)
    num_lines = count_lines(requests)
    with BatchFile(answers, requests) as file:
        found = resolve_model(model, console, hub=front.hub, offline=front.offline)
        try:
            with _progress_bar(console, num_lines) as watch:
                done = asyncio.run(run_batch(requests, file, found, engine, front, watch))
        except KeyboardInterrupt:
            console.print(f"stopped with {file.num_lines:,} lines done; the same command continues from there")
            raise
    console.print(_summary(done, answers), soft_wrap=True)
    if done.failed:
        raise typer.Exit(SOME_FAILED)


@contextmanager
def _progress_bar(console: Console, num_lines: int) -> Iterator[Watch]:
    """The lines done and all lines, on a terminal; nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading", total=num_lines)

        def watch(progress: Progress) -> None:
            failed = f", {progress.failed:,} failed" if progress.failed else ""
            bar.update(task, completed=progress.done, description=f"answering{failed}")

        yield watch


def _summary(done: Progress, answers: Path) -> str:
    kept = f"{done.kept:,} of them earlier, " if done.kept else ""
    return printable(f"{done.done:,} lines done, {kept}{done.failed:,} failed: {answers}")
