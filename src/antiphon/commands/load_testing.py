"""Runs a load test for `antiphon bench`: shows progress, handles Ctrl-C, prints the result."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import typer
from rich.console import Console

from antiphon.bench.knee import find_knee
from antiphon.bench.limits import goodput, objective
from antiphon.bench.progress import Live
from antiphon.bench.records import CheckRecord
from antiphon.bench.run import LoadTest, Outcome, Watcher
from antiphon.bench.stages import Stage
from antiphon.bench.summary import summarize_stage
from antiphon.commands.bench_results import MISSED, check_limits, write_and_tell
from antiphon.commands.bench_settings import Options, planned_stages, prompts_of, server_of, settings_of
from antiphon.errors import AntiphonError, ConfigError
from antiphon.terminal import print_note, printable

INTERRUPTED = 130  # exit status
_MOST_USERS = 256  # of a search for the knee
_USUAL_OBJECTIVE = "p95 first_token < 2s"


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
        raise ConfigError("--resume needs --output, the folder of the run to go on with")
    status = asyncio.run(_run(options, planned, folder, console))
    if status:
        raise typer.Exit(status)


async def prepared(options: Options, watcher: Watcher, folder: Path | None = None) -> LoadTest:
    """A load test of a server that answers. Raises as `run_load_test` does."""
    settings, server = settings_of(options), server_of(options)
    await server.prepare()
    prompts = await prompts_of(options, server)
    path = folder or options.output or Path()
    return LoadTest(server, prompts, settings, path, options.shown(), watcher, resume=options.resume)


async def _run(options: Options, planned: list[Stage], folder: Path, console: Console) -> int:
    with Live(console) as live:
        async with await prepared(options, live, folder) as test:
            if not test.server.has_metrics and not options.pid:
                print_note(
                    console, "the server has no /metrics that is known here, so there are no accounts to compare"
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


def for_search(options: Options) -> Options:
    """The options of a search for the knee: with an objective, and the most users that are tried.

    Raises:
        ConfigError: an option that does not go with a search.
    """
    if options.ramp or options.rate or options.rounds != 1:
        raise ConfigError("--find-knee chooses users and rounds itself; it does not go with --ramp, --rate or --rounds")
    users = options.users or str(_MOST_USERS)
    if not users.isdigit() or not int(users):
        raise ConfigError(f"--users is {users!r}; with --find-knee it is the most users that are tried, a number")
    return replace(options, users=users, slo=options.slo or [_USUAL_OBJECTIVE])


async def search(test: LoadTest, options: Options, heaviest: Stage) -> list[Outcome]:
    """Run the stages of a search for the knee. `heaviest` is the stage with the most users."""
    limits, objectives = goodput(options.goodput or []), [objective(text) for text in options.slo or []]
    outcomes: list[Outcome] = []

    async def run_stage(users: int, repeat: int) -> bool:
        stage = replace(heaviest, number=len(outcomes), users=users, round=repeat)
        outcome = await test.run_stage(stage, f"{len(outcomes) + 1}")
        outcomes.append(outcome)
        if test.stop.is_set():
            raise _Interrupted
        return summarize_stage(outcome.stage, outcome.requests, (), limits, objectives).is_good

    with suppress(_Interrupted):
        await find_knee(run_stage, most=heaviest.users)
    return outcomes


class _Interrupted(Exception):
    """Ctrl-C ended a search."""


def end_on_interrupt(test: LoadTest, console: Console) -> None:
    """The first Ctrl-C ends the stage in good order; the second one ends the program."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        print_note(console, "stopping; what was measured is kept")
        test.stop.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, interrupted)


def _tell(
    outcomes: list[Outcome], same: CheckRecord | None, folder: Path, console: Console, *, is_interrupted: bool
) -> int:
    """Print what came out; returns the exit status."""
    checks = [check for outcome in outcomes for check in outcome.checks] + ([same] if same else [])
    failed = [check for check in checks if not check.passed]
    for check in failed:
        where = "" if check.stage < 0 else f" in stage {check.stage}"
        for difference in [*check.differences, *([check.note] if check.note else [])]:
            console.print(f"{check.check} check failed{where}: {printable(difference)}", style="red", soft_wrap=True)
    if same and same.passed:
        console.print(f"answers under load equal those alone: {same.note}", soft_wrap=True)
    passed = write_and_tell(folder, console)
    requests = [request for outcome in outcomes for request in outcome.requests]
    if is_interrupted:
        return INTERRUPTED
    if requests and not any(request.end == "answered" for request in requests):
        first = requests[0]
        raise AntiphonError(f"no request was answered; the first: {first.end}, {first.message or first.code}")
    return 0 if passed and not failed else MISSED
