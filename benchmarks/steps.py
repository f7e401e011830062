"""What a step costs: prefill, and decoding for many users at several lengths of context, by the engine's runner alone.

    python benchmarks/steps.py MODEL.gguf [--users 1,8,16,32] [--contexts 128,1000] [--temperature 0.6 --top-p 0.95]

No HTTP and no scheduler: a plan goes in, a result comes out. The step's milliseconds are told by part; what the parts
leave is Python's: inputs and outcomes translated. Each figure is the median of `--repeats` steps after two
that are not counted; cases take turns, so a machine whose speed drifts drifts for all of them. A step reads all weights
once whatever the number of users, so beside the milliseconds stands the rate of reading weights that they imply.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass, field, replace

from antiphon.config import EngineConfig
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

WARM_UP = 2
PARTS = ("linear", "attention", "head", "sampling", "rest")


@dataclass(slots=True)
class Case:
    """Steps of one kind: `users` sequences that compute `tokens` tokens each after `context` others."""

    users: int
    context: int
    tokens: int
    sampling: SamplingParams
    seconds: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)  # seconds in each part of a step

    def run(self, runner: CpuRunner) -> None:
        plan = StepPlan([self._sequence(runner, user) for user in range(self.users)])
        started = time.perf_counter()
        runner.execute(plan)
        self.seconds.append(time.perf_counter() - started)
        self.parts.append(runner.last_seconds())

    def _sequence(self, runner: CpuRunner, user: int) -> ScheduledSequence:
        token_ids = [random.randrange(1000) for _ in range(self.tokens)]  # noqa: S311  # noise, no secret
        blocks = -(-(self.context + self.tokens) // runner.block_size)
        table = list(range(user * blocks, (user + 1) * blocks))
        spec = SampleSpec(replace(self.sampling, seed=user), choice_index=0, position=len(self.seconds))
        return ScheduledSequence(user, token_ids, self.context, table, spec)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds[WARM_UP:])

    def part(self, name: str) -> float:
        """The median of one part, in seconds."""
        return statistics.median(step[name] for step in self.parts[WARM_UP:])


def measure(runner: CpuRunner, cases: list[Case], repeats: int) -> None:
    """Run all cases in turn, again and again."""
    for _ in range(WARM_UP + repeats):
        for case in cases:
            case.run(runner)


def report(runner: CpuRunner, cases: list[Case]) -> None:
    """A table in Markdown, and the figures as JSON on the last line."""
    about = runner.describe()
    names = list(PARTS)
    titles = ["users", "context", "tokens each", "ms a step", *names, "Python", "tokens/s", "weights read, GB/s"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    rows = []
    for case in cases:
        parts = {name: case.part(name) for name in names}
        parts["Python"] = case.median - sum(parts.values())
        rate, read = case.users * case.tokens / case.median, int(about["weight_bytes"]) / case.median / 1e9
        shown = [f"{seconds * 1e3:.1f}" for seconds in (case.median, *parts.values())]
        print(f"| {case.users} | {case.context:,} | {case.tokens} | {' | '.join(shown)} | {rate:.1f} | {read:.1f} |")
        size = {"users": case.users, "context": case.context, "tokens": case.tokens}
        rows.append({**size, "seconds": case.median, "parts": parts})
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
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
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
    sampling = SamplingParams(temperature=arguments.temperature, top_p=arguments.top_p)
    cases = [Case(1, 0, arguments.prefill, sampling)]
    cases += [Case(count, context, 1, sampling) for context in contexts for count in users]
    measure(runner, cases, arguments.repeats)
    report(runner, cases)


if __name__ == "__main__":
    main()
