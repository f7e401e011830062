#!/usr/bin/env python3
"""A fleet of many engines in simulated time: how long users wait, what a death costs, and what limits its size.

    python benchmarks/fleet.py [--engines 1,10,100,1000] [--steps FILE] [--json OUT] [--markdown OUT]
    python benchmarks/fleet.py --sizing [--answers 100,300,1000] [--limit 3] [--json OUT]
    python benchmarks/fleet.py --check [--json OUT]

The scheduler, block pools, router and admission are the product's own (`fleet_simulation.py`). The duration of a step
comes from the steps that `steps.py` measured, in FILE, and `--between` from `step_overhead.py`. For each number of
engines there are three runs: *usual* and *overload*, with `--rate` and `--overload` requests a second of each engine,
and *death*, which is the usual load while one engine is killed. `fleet_traffic.py` says what is asked.

The processor time that the front's decisions need is real, and that of this machine. A run is simulated for
`--seconds`, or less, so that engines times seconds are no more than `--engine-seconds`; a quarter of it is warm-up.

`--sizing` finds how many requests a second an engine can be asked for, by the length of answers, while 95 % of the
first tokens come within `--limit` seconds. `--check` compares the simulation with real runs of the same load; see
`fleet_check.py`.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import virtual_time
from fleet_check import MODELS, Steps, compare
from fleet_report import check_markdown, markdown, sizing_markdown
from fleet_sizing import most
from fleet_steps import StepModel, errors_of
from record import record

if TYPE_CHECKING:
    from fleet_traffic import Traffic

STEPS = Path(__file__).parent / "results" / "r1-zen4" / "steps.json"
BETWEEN = 0.009  # seconds: the cycle through HTTP and the runner alone, 168.1 and 159.1 ms, in step-overhead.json
WARM_UP = 0.25  # of a run
SIZED = 4  # engines
SAMPLES = 100  # of a run, for means over time


def simulate(
    clock: virtual_time.Clock,
    model: StepModel,
    traffic: Traffic,
    engines: int,
    seconds: float,
    *,
    with_death: bool = False,
) -> dict[str, Any]:
    """One run; returns its figures."""
    began = time.process_time()
    figures = virtual_time.run(clock, _simulate(clock, model, traffic, engines, seconds, with_death=with_death))
    gc.collect()
    return {**figures, "run_seconds": time.process_time() - began}


async def _simulate(
    clock: virtual_time.Clock, model: StepModel, traffic: Traffic, engines: int, seconds: float, *, with_death: bool
) -> dict[str, Any]:
    import asyncio

    from fleet_death import Death
    from fleet_figures import Window, fairness, tokens_in, waits
    from fleet_simulation import EngineSizes, SimulatedClient
    from fleet_traffic import Users

    from antiphon.config import ServerConfig
    from antiphon.engine.wire import EngineStats

    client = SimulatedClient(clock, model, EngineSizes(), ServerConfig(max_queued_requests=256 * engines))
    await client.start_engines(engines)
    users, death, begin = Users(client, traffic, engines), Death(), clock.now
    window = Window(begin + WARM_UP * seconds, begin + seconds)
    before: list[EngineStats] = []
    loop, running = asyncio.get_running_loop(), []
    for number in range(SAMPLES):
        at = window.begin + (number + 0.5) * window.seconds / SAMPLES
        loop.call_at(at, lambda: running.append(client.counters.running))
    loop.call_at(window.begin, lambda: before.append(client.stats))
    if with_death:
        loop.call_at(window.begin + window.seconds / 3, death.strike, client, users)
    await users.run(seconds)
    stats = client.stats
    queries, hits = (
        getattr(stats, name) - getattr(before[0], name) for name in ("num_prefix_queries", "num_prefix_hits")
    )
    tokens = tokens_in(users.seen, window) / window.seconds
    figures = {
        "engines": engines,
        "seconds": seconds,
        "rate": traffic.rate,
        **waits(users.seen, window),
        "tokens_per_second": tokens,
        "computed_per_second": (stats.num_computed_tokens - before[0].num_computed_tokens) / window.seconds,
        "running": sum(running) / SAMPLES,
        "prefix_hits": hits / max(1, queries),
        "preemptions": stats.num_preemptions - before[0].num_preemptions,
        "fairness": fairness(users.seen, window),
        "front": client.costs.figures(),
        "death": death.figures(client) if with_death else None,
    }
    await client.stop()
    return figures


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """All runs for all numbers of engines. What has been simulated so far is kept in `arguments.json`."""
    model = StepModel.from_steps(arguments.steps, arguments.between)
    clock = virtual_time.install()
    from fleet_traffic import Traffic

    usual = Traffic(rate=arguments.rate, seed=arguments.seed)
    cases = {"usual": usual, "overload": replace(usual, rate=arguments.overload, token_seconds=0.3), "death": usual}
    errors = errors_of(model, arguments.steps)
    rows: list[dict[str, Any]] = []
    result = {
        "steps": arguments.steps.name,
        "between": arguments.between,
        "model_error": {"least": min(errors), "largest": max(errors)},
        "traffic": asdict(usual),
        "runs": rows,
    }
    for engines in (int(each) for each in arguments.engines.split(",")):
        seconds = min(arguments.seconds, arguments.engine_seconds / engines)
        for name in arguments.runs.split(","):
            row = simulate(clock, model, cases[name], engines, seconds, with_death=name == "death")
            rows.append({"run": name, **row})
            print(rows[-1], file=sys.stderr, flush=True)
            if arguments.json:
                record("fleet", result, arguments.json)
    return result


def size_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """The highest rate of an engine, for each length of answers."""
    model = StepModel.from_steps(arguments.steps, arguments.between)
    clock = virtual_time.install()
    from fleet_traffic import Traffic

    rows = []
    for answer in (float(each) for each in arguments.answers.split(",")):
        traffic = Traffic(answer=answer, longest_answer=round(4 * answer), seed=arguments.seed)

        def at(rate: float, traffic: Traffic = traffic) -> dict[str, Any]:
            figures = simulate(clock, model, replace(traffic, rate=rate), SIZED, arguments.seconds)
            print({"answer": traffic.answer, **figures}, file=sys.stderr, flush=True)
            return figures

        rows.append({"answer": answer, "figures": most(at, answer + traffic.message, arguments.limit)})
    about = {"steps": arguments.steps.name, "between": arguments.between, "traffic": asdict(Traffic())}
    return {**about, "engines": SIZED, "limit": arguments.limit, "seconds": arguments.seconds, "sizes": rows}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="1,10,100,1000")
    parser.add_argument("--runs", default="usual,overload,death")
    parser.add_argument("--seconds", type=float, default=600.0, help="simulated, at most")
    parser.add_argument("--engine-seconds", type=float, default=60_000.0, help="engines times seconds, at most")
    parser.add_argument("--rate", type=float, default=0.25, help="requests a second of each engine")
    parser.add_argument("--overload", type=float, default=0.9, help="the same in overload")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=Path, default=STEPS, help="a result of steps.py")
    parser.add_argument("--between", type=float, default=BETWEEN, help="seconds between two steps")
    parser.add_argument("--sizing", action="store_true", help="look for the highest rate of an engine instead")
    parser.add_argument("--answers", default="100,300,1000", help="mean lengths of answers for that, in tokens")
    parser.add_argument("--limit", type=float, default=3.0, help="seconds for 95 %% of the first tokens, for that")
    parser.add_argument("--check", action="store_true", help="compare with real runs instead")
    parser.add_argument("--check-model", choices=MODELS, default="fake")
    parser.add_argument("--check-engines", type=int, default=2)
    parser.add_argument("--check-rates", default="1.5,3,4.5", help="requests a second of all engines together")
    parser.add_argument("--check-seconds", type=float, default=60.0, help="of each rate")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--markdown", type=Path, help="where to write the tables")
    arguments = parser.parse_args(words)
    if arguments.sizing:
        result = size_all(arguments)
        text = sizing_markdown(result)
    elif arguments.check:
        rates = [float(each) for each in arguments.check_rates.split(",")]
        result = compare(arguments.check_model, arguments.check_engines, rates, arguments.check_seconds, Steps())
        text = check_markdown(result)
    else:
        result = run_all(arguments)
        text = markdown(result)
    print(text, file=sys.stderr)
    if arguments.markdown:
        arguments.markdown.write_text(text)
    name = "fleet-check" if arguments.check else "fleet-sizing" if arguments.sizing else "fleet"
    record(name, result, arguments.json)


if __name__ == "__main__":
    main()
