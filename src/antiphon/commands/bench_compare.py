"""`antiphon bench compare`: two servers, or two folders of results."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from antiphon.errors import ConfigError
from antiphon.terminal import console_on, print_note, printable

if TYPE_CHECKING:
    from antiphon.bench.comparison import Comparison
    from antiphon.bench.run import LoadTest
    from antiphon.bench.stages import Stage
    from antiphon.commands.bench_settings import Options
    from antiphon.commands.started_servers import StartedServer

_NOT_SHARED = (
    "url",
    "ramp",
    "ramp_seconds",
    "hold_seconds",
    "metrics_url",
    "pid",
    "find_knee",
    "output",
    "resume",
    "name",
    "slo",
)
_DEFAULTS = {"rounds": 6}
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder for the results.", rich_help_panel="Output", show_default="compare-<time>"
    ),
]
_SIDE = "Address of a server, a command that starts one with {port}, or the folder of a load test."
_A = Annotated[str, typer.Argument(metavar="A", help=_SIDE)]
_B = Annotated[str, typer.Argument(metavar="B", help=_SIDE)]
_Names = Annotated[str, typer.Option(help="Name in the comparison.", rich_help_panel="Output", show_default=False)]


def options_of(run: Callable[..., None]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of `run` after its own, for typer, which reads the signature."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        mine = [each for each in own.parameters.values() if each.kind is not each.VAR_KEYWORD]
        theirs = [
            each.replace(kind=each.KEYWORD_ONLY, default=_DEFAULTS.get(name, each.default))
            for name, each in inspect.signature(run, eval_str=True).parameters.items()
            if name not in _NOT_SHARED
        ]
        command.__signature__ = inspect.Signature([*mine, *theirs])  # type: ignore[attr-defined]  # as inspect reads it
        command.__annotations__ = {each.name: each.annotation for each in [*mine, *theirs]}
        return command

    return with_options


def compare(a: _A, b: _B, *, name_a: _Names = "", name_b: _Names = "", output: _Output = None, **given: Any) -> None:  # noqa: ANN401
    """Compare two servers: which is faster, by how much, and whether the measurements can tell.

    Both are measured in turn with the same prompts, in rounds, in the order A B B A. The options are those of
    antiphon bench. A server that is given as a command is started, and paused while the other one is measured.
    Two folders of results can be compared too; that says less, since they were measured at different times.

    \b
    Examples:
      antiphon bench compare 127.0.0.1:8000 127.0.0.1:8080 --users 8
      antiphon bench compare 'antiphon serve m.gguf --port {port}' 'llama-server -m m.gguf --port {port}'
      antiphon bench compare before after
    """
    console = console_on(stderr=True)
    folders = [Path(each) for each in (a, b) if os.path.exists(each)]  # Path.exists raises for a very long command
    if len(folders) == 1:
        raise ConfigError(f"{folders[0]} is a folder and the other is not; compare two servers or two folders")
    output = output or Path(time.strftime("compare-%Y%m%d-%H%M%S"))
    if folders:
        _compare_folders(folders[0], folders[1], name_a, name_b, output, console)
    else:
        status = asyncio.run(_compare_servers((a, b), (name_a or a, name_b or b), output, given, console))
        if status:
            raise typer.Exit(status)


def _compare_folders(a: Path, b: Path, name_a: str, name_b: str, output: Path, console: Console) -> None:
    from antiphon.bench.comparison import compare_independent, with_late_clients
    from antiphon.bench.results import measured_stages, read_records

    runs = [read_records(folder) for folder in (a, b)]
    left, right = (measured_stages(records) for records in runs)
    found = compare_independent(name_a or a.name or str(a), name_b or b.name or str(b), left, right)
    if not found.estimates:
        loads = [sorted({stage.label for stage, _ in side}) for side in (left, right)]
        raise ConfigError(f"{a} and {b} have no load in common: {', '.join(loads[0])}; and {', '.join(loads[1])}")
    _tell(with_late_clients(found, runs), output, console)


async def _compare_servers(
    servers: tuple[str, str], names: tuple[str, str], output: Path, given: dict[str, Any], console: Console
) -> int:
    """Returns the exit status, which says whether the checks of both passed, not which one is faster."""
    from antiphon.bench.about import command_without_secrets
    from antiphon.commands import bench_results
    from antiphon.commands.bench_settings import Options, planned_stages
    from antiphon.commands.load_testing import INTERRUPTED, end_on_interrupt
    from antiphon.commands.started_servers import is_command

    unused = {"ramp": None, "ramp_seconds": 0.0, "hold_seconds": 0.0, "metrics_url": "", "pid": 0, "find_knee": False}
    options = Options(**{**given, **unused, "url": "", "name": "", "output": output, "resume": False, "slo": None})
    planned = planned_stages(options)
    bench_results.check_limits(given["goodput"] or [], [])
    shown = [command_without_secrets(name) if is_command(name) else name for name in names]
    async with _sides(servers, shown, options, output, console) as sides:
        end_on_interrupt(sides[0].test, console)
        await _measure(sides, planned)
    folders = [side.output for side in sides]
    passed = [bench_results.write_and_tell(folder, console) for folder in folders]
    _tell(_compared(shown, folders), output, console)
    if sides[0].test.stop.is_set():
        return INTERRUPTED
    return 0 if all(passed) else bench_results.MISSED


@dataclass(frozen=True)
class _Side:
    """One of the two servers."""

    name: str
    test: LoadTest
    started: StartedServer | None  # None: it was running already
    output: Path


@asynccontextmanager
async def _sides(
    servers: Sequence[str], names: Sequence[str], options: Options, output: Path, console: Console
) -> AsyncIterator[list[_Side]]:
    """Both servers, ready, with a load test for each; an interrupt stops both tests."""
    from antiphon.bench.progress import Live
    from antiphon.commands.load_testing import prepared
    from antiphon.commands.started_servers import is_command, started

    sides: list[_Side] = []
    async with AsyncExitStack() as stack:
        live = stack.enter_context(Live(console))
        for server, name, letter in zip(servers, names, "ab", strict=True):
            folder, log = output / letter, output / f"{letter}.log"
            own = await stack.enter_async_context(started(server, log)) if is_command(server) else None
            side = replace(options, url=own.url if own else server, name=name, output=folder)
            attempt = partial(prepared, side, live)
            test = await stack.enter_async_context(await (own.until_ready(attempt) if own else attempt()))
            sides.append(_Side(name, test, own, folder))
        sides[1].test.stop = sides[0].test.stop
        yield sides


async def _measure(sides: Sequence[_Side], planned: Sequence[Stage]) -> None:
    """Every stage with each server in turn; a server that was started here is paused while it is not measured."""
    from antiphon.bench.comparison import order
    from antiphon.commands.started_servers import running

    for side in sides:
        await side.test.warm_up()
        if side.started:
            side.started.pause()
    for stage in planned:
        for number in order(stage.round):
            side = sides[number]
            if not side.test.stop.is_set():
                async with running(side.started):
                    await side.test.run_stage(stage, f"{stage.number + 1}/{len(planned)} {side.name}:")
    for side in sides:
        async with running(side.started):
            await side.test.check_same()


def _compared(names: Sequence[str], folders: Sequence[Path]) -> Comparison:
    """The rounds that both servers have been through."""
    from antiphon.bench.comparison import compare_rounds, with_late_clients
    from antiphon.bench.results import measured_stages, read_records

    runs = [read_records(folder) for folder in folders]
    left, right = ({stage.stage: stage for stage, _ in measured_stages(records)} for records in runs)
    pairs = [(left[number], right[number]) for number in left if number in right]
    return with_late_clients(compare_rounds(names[0], names[1], pairs), runs)


def _tell(comparison: Comparison, output: Path, console: Console) -> None:
    from antiphon.bench.comparison_report import METHODS, in_words, write_comparison

    output.mkdir(parents=True, exist_ok=True)
    write_comparison(output, comparison)
    for each, words in zip(comparison.estimates, in_words(comparison), strict=True):
        console.print(f"{printable(each.load)}, {each.metric}: {printable(words)}", soft_wrap=True)
    for failure in comparison.failures:
        print_note(console, failure)
    if comparison.method != "paired rounds":
        print_note(console, METHODS[comparison.method])
    console.print(printable(comparison.sentence), style="bold", soft_wrap=True)
    console.print(f"comparison: {output / 'comparison.html'}", soft_wrap=True)
