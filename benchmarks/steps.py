#!/usr/bin/env python3
"""What a step costs: prefill, and decoding for many users at several lengths of context, by the engine's runner alone.

    python benchmarks/steps.py MODEL.gguf [--users 1,8,16,32,64] [--contexts 128,1000,4000] [--json OUT]

No HTTP and no scheduler: a plan goes in, a result comes out. The step's milliseconds are told by part; what the parts
leave is Python's: inputs and outcomes translated. Beside each part stands the least that this machine could need for it
(antiphon.doctor.least), by the rate of reading memory and the peak of its integer products, both measured again before
and after every step (antiphon.doctor.roofline).
Every block of the KV cache has been written before, so that what attention reads does come from memory.

Steps draw greedily, but for one case of `--sampled-users` with `--temperature` and `--top-p`; random weights make
noise, of which top-p keeps far more tokens than of text. Each figure is the median of `--repeats` steps after one that
is not counted; cases take turns, so a machine whose speed drifts drifts for all of them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from record import record

from antiphon.config import EngineConfig
from antiphon.doctor.least import Model
from antiphon.doctor.roofline import Limits, Rates
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, create_device, create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

WARM_UP = 1
PARTS = ("linear", "attention", "head", "sampling", "rest")
FILLED_AT_ONCE = 512  # blocks
GREEDY = SamplingParams(temperature=0.0)


@dataclass(slots=True)
class Case:
    """Steps of one kind: `users` sequences that compute `tokens` tokens each after `context` others."""

    users: int
    context: int
    tokens: int
    sampling: SamplingParams = GREEDY
    seconds: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)  # seconds in each part of a step
    rates: list[Rates] = field(default_factory=list)  # the machine's limits meanwhile
    first_id: int = field(default_factory=partial(next, count(0, 1_000_000)))  # of its sequences
    samplings: list[SamplingParams] = field(init=False)  # of each user, the same in every step

    def __post_init__(self) -> None:
        self.samplings = [replace(self.sampling, seed=user) for user in range(self.users)]

    def run(self, runner: CpuRunner) -> None:
        plan = StepPlan([self._sequence(runner, user) for user in range(self.users)])
        started = time.perf_counter()
        runner.execute(plan)
        self.seconds.append(time.perf_counter() - started)
        parts = {name: runner.last_seconds()[name] for name in PARTS}
        self.parts.append({**parts, "Python": self.seconds[-1] - sum(parts.values())})

    def _sequence(self, runner: CpuRunner, user: int) -> ScheduledSequence:
        token_ids = [random.randrange(1000) for _ in range(self.tokens)]  # noqa: S311  # noise, no secret
        blocks = -(-(self.context + self.tokens) // runner.block_size)
        table = list(range(user * blocks, (user + 1) * blocks))
        spec = SampleSpec(self.samplings[user], choice_index=0, position=len(self.seconds))
        return ScheduledSequence(self.first_id + user, token_ids, self.context, table, (spec,))

    def figures(self, model: Model) -> dict[str, Any]:
        """Medians in seconds, and the least of each part."""
        work = model.step(self.users, self.context, self.tokens)
        read = sum(each.bytes for each in work.values())
        seconds, rates = statistics.median(self.seconds[WARM_UP:]), self.rates[WARM_UP:]
        usual = {name: statistics.median(at[name] for at in rates) for name in rates[0]}
        return {
            "users": self.users,
            "context": self.context,
            "tokens": self.tokens,
            "temperature": self.sampling.temperature,
            "seconds": seconds,
            "tokens_per_second": self.users * self.tokens / seconds,
            "parts": {name: statistics.median(step[name] for step in self.parts[WARM_UP:]) for name in self.parts[0]},
            "least": {name: statistics.median(each.seconds(at) for at in rates) for name, each in work.items()},
            "bound_by": {name: each.binds(usual) for name, each in work.items()},
            "share_of_memory": statistics.median(
                read / each / at["bytes"] for each, at in zip(self.seconds[WARM_UP:], rates, strict=True)
            ),
        }


def write_every_block(runner: CpuRunner) -> None:
    """One token into each block of the cache: memory that was never written is one page of zeros, in the cache."""
    for start in range(0, runner.num_blocks, FILLED_AT_ONCE):
        blocks = range(start, min(runner.num_blocks, start + FILLED_AT_ONCE))
        runner.execute(StepPlan([ScheduledSequence(block, [block % 1000], 0, [block]) for block in blocks]))


def measure(runner: CpuRunner, limits: Limits, cases: list[Case], repeats: int) -> None:
    """Run all cases in turn, again and again."""
    for _ in range(WARM_UP + repeats):
        for case in cases:
            case.rates.append(limits.around(partial(case.run, runner)))


def report(result: dict[str, Any]) -> None:
    """A table in Markdown."""
    print(f"Limits: {result['limits']}\n")
    titles = ["users", "context", "tokens each", "ms a step", *PARTS, "Python", "least", "of memory", "tokens/s"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for case in result["cases"]:
        times = [case["seconds"], *case["parts"].values(), sum(case["least"].values())]
        size = f"{case['users']}{' sampled' if case['temperature'] else ''} | {case['context']:,} | {case['tokens']}"
        shown = " | ".join(f"{seconds * 1e3:.1f}" for seconds in times)
        print(f"| {size} | {shown} | {case['share_of_memory']:.0%} | {case['tokens_per_second']:.1f} |")


def make_cases(arguments: argparse.Namespace) -> list[Case]:
    users, contexts, prefill = ([int(n) for n in text.split(",")] for text in arguments.sizes)
    cases = [Case(1, 0, tokens) for tokens in prefill]
    cases += [Case(count, context, 1) for context in contexts for count in users]
    drawn = SamplingParams(temperature=arguments.temperature, top_p=arguments.top_p)
    return [*cases, Case(arguments.sampled_users, 1000, 1, drawn)]


def make_config(arguments: argparse.Namespace, cases: list[Case]) -> EngineConfig:
    block = CpuRunner.block_size
    blocks = max(case.users * -(-(case.context + case.tokens) // block) for case in cases)
    return EngineConfig(
        model=arguments.model,
        instruction_set=arguments.instruction_set,
        activations=arguments.activations,
        threads=arguments.threads,
        max_batch_tokens=max(FILLED_AT_ONCE, *(case.users * case.tokens for case in cases)),
        max_num_sequences=FILLED_AT_ONCE,
        kv_cache_tokens=blocks * block,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--users", default="1,8,16,32,64")
    parser.add_argument("--contexts", default="128,1000,4000")
    parser.add_argument("--prefill", default="512,1000", help="tokens of the prefill steps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each physical core")
    parser.add_argument("--instruction-set", default="auto")
    parser.add_argument("--activations", default="auto")
    parser.add_argument("--sampled-users", type=int, default=32)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    arguments.sizes = (arguments.users, arguments.contexts, arguments.prefill)
    cases = make_cases(arguments)
    config = make_config(arguments, cases)
    runner = create_runner(planned_for_this_machine(config))
    about = runner.describe()
    model = Model.of(Path(arguments.model), config.kv_cache_type, about["activations"] == "int16")
    write_every_block(runner)
    limits = Limits(create_device(config))
    measure(runner, limits, cases, arguments.repeats)
    about_limits = {"limits": str(limits), "peaks": limits.medians(), "ranges": limits.ranges()}
    result = {"runner": about, **about_limits, "cases": [case.figures(model) for case in cases]}
    report(result)
    record("steps", result, arguments.json, arguments.model)


if __name__ == "__main__":
    main()
