"""What a step costs: prefill, and decoding for many users at several lengths of context, by the engine's runner alone.

    python benchmarks/steps.py MODEL.gguf [--users 1,8,16,32] [--contexts 128,1000] [--instruction-set …]

No HTTP and no scheduler: a plan goes in, a result comes out. Each figure is the median of `--repeats` steps after two
that are not counted; cases take turns, so a machine whose speed drifts drifts for all of them. A step reads all weights
once whatever the number of users, so beside the milliseconds stands the rate of reading weights that they imply.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass, field

from antiphon.config import EngineConfig
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

WARM_UP = 2


@dataclass(slots=True)
class Case:
    """Steps of one kind: `users` sequences that compute `tokens` tokens each after `context` others."""

    users: int
    context: int
    tokens: int
    seconds: list[float] = field(default_factory=list)

    def run(self, runner: CpuRunner) -> None:
        plan = StepPlan([self._sequence(runner, user) for user in range(self.users)])
        started = time.perf_counter()
        runner.execute(plan)
        self.seconds.append(time.perf_counter() - started)

    def _sequence(self, runner: CpuRunner, user: int) -> ScheduledSequence:
        token_ids = [random.randrange(1000) for _ in range(self.tokens)]  # noqa: S311  # noise, no secret
        blocks = -(-(self.context + self.tokens) // runner.block_size)
        table = list(range(user * blocks, (user + 1) * blocks))
        spec = SampleSpec(SamplingParams(temperature=0.0), choice_index=0, position=0)
        return ScheduledSequence(user, token_ids, self.context, table, spec)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds[WARM_UP:])


def measure(runner: CpuRunner, cases: list[Case], repeats: int) -> None:
    """Run all cases in turn, again and again."""
    for _ in range(WARM_UP + repeats):
        for case in cases:
            case.run(runner)


def report(runner: CpuRunner, cases: list[Case]) -> None:
    """A table in Markdown, and the figures as JSON on the last line."""
    about = runner.describe()
    print("| users | context | tokens each | ms a step | tokens/s | weights read, GB/s |\n|---|---|---|---|---|---|")
    rows = []
    for case in cases:
        rate, read = case.users * case.tokens / case.median, int(about["weight_bytes"]) / case.median / 1e9
        rows.append({"users": case.users, "context": case.context, "tokens": case.tokens, "seconds": case.median})
        print(
            f"| {case.users} | {case.context:,} | {case.tokens} | {case.median * 1e3:.1f} | {rate:.1f} | {read:.1f} |"
        )
    print(json.dumps({"runner": about, "cases": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--users", default="1,8,16,32")
    parser.add_argument("--contexts", default="128,1000")
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prefill step")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--instruction-set", default="auto")
    parser.add_argument("--activations", default="auto")
    arguments = parser.parse_args()
    users = [int(text) for text in arguments.users.split(",")]
    contexts = [int(text) for text in arguments.contexts.split(",")]
    config = EngineConfig(
        model=arguments.model,
        instruction_set=arguments.instruction_set,
        activations=arguments.activations,
        max_batch_tokens=max(arguments.prefill, *users),
        max_num_sequences=max(users),
        kv_cache_tokens=max(users) * (max(contexts) + 64) + arguments.prefill,
    )
    runner = create_runner(config)
    cases = [Case(1, 0, arguments.prefill)]
    cases += [Case(count, context, 1) for context in contexts for count in users]
    measure(runner, cases, arguments.repeats)
    report(runner, cases)


if __name__ == "__main__":
    main()
