"""`antiphon bench --find-knee`: its options, and the stages that a search runs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from antiphon.bench.knee import RATE_STEPS, find_knee
from antiphon.bench.limits import goodput, objective
from antiphon.bench.run import LoadTest, Outcome
from antiphon.bench.stages import Stage
from antiphon.bench.summary import summarize_stage
from antiphon.commands.bench_settings import Options
from antiphon.errors import ConfigError

_MOST_USERS = 256
_USUAL_OBJECTIVE = "p95 first_token < 2s"


def for_search(options: Options) -> Options:
    """The options of a search for the knee: with an objective, and the heaviest load that is tried.

    Raises:
        ConfigError: an option that does not go with a search.
    """
    if options.ramp or options.rounds != 1:
        raise ConfigError("--find-knee chooses loads and rounds itself; it cannot be combined with --ramp or --rounds")
    objectives = options.slo or [_USUAL_OBJECTIVE]
    if options.rate:
        if not _is_number(options.rate):
            raise ConfigError(
                f"--rate is {options.rate!r}; with --find-knee it must be a number, the highest rate to try"
            )
        return replace(options, slo=objectives)
    users = options.users or str(_MOST_USERS)
    if not users.isdigit() or not int(users):
        raise ConfigError(f"--users is {users!r}; with --find-knee it must be a number, the most users to try")
    return replace(options, users=users, slo=objectives)


def _is_number(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


async def search(test: LoadTest, options: Options, heaviest: Stage) -> list[Outcome]:
    """Run the stages of a search. `heaviest` is the stage with the heaviest load."""
    limits, objectives = goodput(options.goodput or []), [objective(text) for text in options.slo or []]
    outcomes: list[Outcome] = []
    by_rate = heaviest.shape == "rate"

    async def run_stage(load: int, repeat: int) -> bool:
        stage = replace(heaviest, number=len(outcomes), round=repeat)
        stage = replace(stage, rate=heaviest.rate * load / RATE_STEPS) if by_rate else replace(stage, users=load)
        outcome = await test.run_stage(stage, f"{len(outcomes) + 1}")
        outcomes.append(outcome)
        if test.stop.is_set():
            raise _Interrupted
        return summarize_stage(outcome.stage, outcome.requests, (), limits, objectives).is_good

    with suppress(_Interrupted):
        await find_knee(run_stage, most=RATE_STEPS if by_rate else heaviest.users)
    return outcomes


class _Interrupted(Exception):
    """Ctrl-C ended a search."""
