"""Runs a load test for `antiphon bench`: shows progress, handles Ctrl-C, prints the result."""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
from pathlib import Path

import typer
from rich.console import Console

from antiphon.bench.progress import Live
from antiphon.bench.records import CheckRecord
from antiphon.bench.run import LoadTest, Outcome, Watcher
from antiphon.bench.stages import Stage
from antiphon.commands.bench_knee import for_search, search
from antiphon.commands.bench_results import MISSED, check_limits, write_and_tell
from antiphon.commands.bench_settings import Options, planned_stages, prompts_of, server_of, settings_of
from antiphon.errors import AntiphonError, ConfigError
from antiphon.terminal import print_note, printable

INTERRUPTED = 130  # exit status


def run_load_test(options: Options, console: Console) -> None:
    """Run it to its end.

    Raises:
        ConfigError: an option is wrong; it is named.
        AntiphonError: the server cannot be reached, or answered nothing.
    """
    if options.find_knee:
        options = for_search(options)
    planned = planned_stages(options)
    check_limits(options.goodput or [], options.slo or [])
    folder = options.output or Path(time.strftime("bench-%Y%m%d-%H%M%S"))
    if options.resume and options.output is None:
        raise ConfigError("--resume needs --output, the folder of the run to continue")
    status = asyncio.run(_run(options, planned, folder, console))
    if status:
        raise typer.Exit(status)


async def prepared(options: Options, watcher: Watcher, folder: Path | None = None) -> LoadTest:
    """A load test of a server that answers. Raises as `run_load_test` does."""
    settings, server = settings_of(options), server_of(options)
    try:
        await server.prepare()
    except BaseException:
        server.close()
        raise
    prompts = await prompts_of(options, server)
    path = folder or options.output or Path()
    return LoadTest(server, prompts, settings, path, options.shown(), watcher, resume=options.resume)


async def _run(options: Options, planned: list[Stage], folder: Path, console: Console) -> int:
    with Live(console) as live:
        async with await prepared(options, live, folder) as test:
            if not test.server.has_metrics and not options.pid:
                print_note(
                    console,
                    "the server has no /metrics of a known kind, so its counters cannot be checked; --metrics-url "
                    "gives another address",
                )
            end_on_interrupt(test, console)
            await test.warm_up()
            outcomes = await (search(test, options, planned[0]) if options.find_knee else _all(test, planned))
            same = await test.check_same()
    return _tell(outcomes, same, folder, console, is_interrupted=test.stop.is_set())


async def _all(test: LoadTest, planned: list[Stage]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for stage in planned:
        if not test.stop.is_set():
            outcomes.append(await test.run_stage(stage, f"{len(outcomes) + 1}/{len(planned)}"))
    return outcomes


def end_on_interrupt(test: LoadTest, console: Console) -> None:
    """The first Ctrl-C ends the stage and writes the results; the second ends the program at once."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        print_note(console, "stopping; the results so far are kept")
        test.stop.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, interrupted)


def _tell(
    outcomes: list[Outcome], same: CheckRecord | None, folder: Path, console: Console, *, is_interrupted: bool
) -> int:
    """Print the results; returns the exit status."""
    labels = {outcome.stage.stage: outcome.stage.label for outcome in outcomes}
    checks = [check for outcome in outcomes for check in outcome.checks] + ([same] if same else [])
    failed = [check for check in checks if not check.passed]
    for check in failed:
        where = f" with {printable(labels[check.stage])}" if check.stage in labels else ""
        for difference in [*check.differences, *([check.note] if check.note else [])]:
            console.print(f"{check.check} check failed{where}: {printable(difference)}", style="red", soft_wrap=True)
    if same and same.passed:
        console.print(f"answers under load equal those alone: {same.note}", soft_wrap=True)
    passed = write_and_tell(folder, console)
    requests = [request for outcome in outcomes for request in outcome.requests]
    if is_interrupted:
        print_note(console, f"the same command with --output {shlex.quote(str(folder))} --resume continues")
        return INTERRUPTED
    if requests and not any(request.end == "answered" for request in requests):
        first = requests[0]
        raise AntiphonError(f"no request was answered; the first ended so: {first.end}, {first.message or first.code}")
    return 0 if passed and not failed else MISSED
