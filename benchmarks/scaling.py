#!/usr/bin/env python3
"""How steps scale with the number of threads, beside what a model of a step predicts.

    python benchmarks/scaling.py MODEL.gguf [--threads 1,2] [--instruction-sets avx512,avx2] [--json OUT]
    python benchmarks/scaling.py --from RESULT.json

Steps of 1, 8 and 32 users, a prefill, and one user with a long context are measured with each number of threads, by the
engine's runner alone. All numbers of threads take turns, so a machine whose speed drifts drifts for all of them. The
machine's limits (reading memory, products of small integers) are measured around every step with the same threads.

`step_model.py` then gets six constants from parts of four measurements with one thread: what the kernels reach of
these limits, and what small loops cost. All other figures with one thread, and all with several, are predictions;
the table shows them beside the measurements. Last, the model says what more cores would do. There it assumes that cores
keep the speed that one has alone, that memory reads `--memory` GB/s, and that handing over from one loop to the next
takes `--nanoseconds-per-thread` more for each thread. These are assumptions, not measurements.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from record import record
from step_model import PARTS, Machine, Sizes, Step, loop_table
from steps import FILLED_AT_ONCE, Case, write_every_block

from antiphon import _native
from antiphon.config import EngineConfig
from antiphon.doctor.least import Model
from antiphon.doctor.roofline import Limits
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.machine.processors import see_processors
from antiphon.ops.native import open_roofline
from antiphon.runtime.cpu import CpuRunner, create_device, create_runner

WARM_UP = 1
BUFFER_BYTES = 256 << 20  # for the rate of memory
STEPS = {
    "1 user": Step(1, 128),
    "8 users": Step(8, 128),
    "32 users": Step(32, 128),
    "prefill of 512": Step(1, 0, 512),
    "1 user, 16,000 tokens": Step(1, 16_000),
}
MORE_THREADS = (8, 16, 32, 64)
TOLERANCE = 0.10


class Threads:
    """A runner with some number of threads, and what was measured with it."""

    def __init__(self, config: EngineConfig) -> None:
        self.runner = create_runner(planned_for_this_machine(config))
        write_every_block(self.runner)
        device = create_device(config)
        self.count = device.threads
        self.limits = Limits(device, BUFFER_BYTES)
        self.roofline = open_roofline(device, 1 << 20)
        self.cases = {name: Case(step.users, step.context, step.tokens) for name, step in STEPS.items()}
        self.loop_seconds: list[float] = []

    def run(self, name: str) -> None:
        case = self.cases[name]
        case.rates.append(self.limits.around(partial(case.run, self.runner)))
        self.loop_seconds.append(self.roofline.seconds_per_loop())

    def figures(self) -> dict[str, Any]:
        """Medians, in seconds and per second."""
        return {
            "threads": self.count,
            "limits": str(self.limits),
            "loop_seconds": statistics.median(self.loop_seconds),
            "steps": {name: _case_figures(case) for name, case in self.cases.items()},
        }


def _case_figures(case: Case) -> dict[str, Any]:
    rates = case.rates[WARM_UP:]
    return {
        "seconds": statistics.median(case.seconds[WARM_UP:]),
        "parts": {name: statistics.median(parts[name] for parts in case.parts[WARM_UP:]) for name in PARTS},
        "rates": {name: statistics.median(at[name] for at in rates) for name in rates[0]},
    }


def measure(config: EngineConfig, threads: list[int], repeats: int) -> list[dict[str, Any]]:
    runs = [Threads(replace(config, threads=count)) for count in threads]
    for _ in range(WARM_UP + repeats):
        for name in STEPS:
            for run in runs:
                run.run(name)
    return [run.figures() for run in runs]


def make_config(model: str, instruction_set: str) -> EngineConfig:
    block = CpuRunner.block_size
    blocks = max(step.users * -(-(step.context + step.tokens) // block) for step in STEPS.values())
    return EngineConfig(
        model=model,
        instruction_set=instruction_set,
        activations="int8",
        max_batch_tokens=FILLED_AT_ONCE,
        max_num_sequences=FILLED_AT_ONCE,
        kv_cache_tokens=blocks * block,
    )


def sizes_of(model: Model) -> Sizes:
    spec = model.spec
    return Sizes(
        hidden=spec.hidden_size,
        intermediate=spec.intermediate_size,
        layers=spec.num_layers,
        heads=spec.num_heads,
        kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        vocabulary=spec.vocab_size,
        layer_bytes=model.layers.bytes,
        head_bytes=model.head.bytes,
        kv_bytes=model.kv_bytes,
    )


# ---- The model ----


def machine_at(run: dict[str, Any], one: dict[str, Any], name: str, fitted: Machine) -> Machine:
    """The machine while a step ran: its limits, as they were measured around it."""
    rates, alone = run["steps"][name]["rates"], one["steps"][name]["rates"]
    threads = run["threads"]
    return replace(
        fitted,
        bytes=alone["bytes"],
        most_bytes=rates["bytes"],
        products=rates["products"] / threads,
        loop_seconds=run["loop_seconds"] if threads > 1 else 0.0,
    )


def solve(predicted: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """Where `predicted`, which falls or rises all the way, equals `wanted`: by bisection of a positive range."""
    rises = predicted(high) > predicted(low)
    for _ in range(60):
        middle = (low * high) ** 0.5
        if (predicted(middle) < wanted) == rises:
            low = middle
        else:
            high = middle
    return low


def fit(sizes: Sizes, one: dict[str, Any]) -> Machine:
    """The constants, from four of the steps with one thread."""
    machine = Machine(bytes=1.0, products=1.0, most_bytes=1.0)
    long = "1 user, 16,000 tokens"
    constants = [
        ("memory_share", "1 user", "linear", 0.01, 10.0),
        ("product_share", "prefill of 512", "linear", 0.01, 10.0),
        ("row_seconds", "prefill of 512", "rest", 1e-9, 1e-3),
        ("attention_products", long, "attention", 1e8, 1e13),
        ("rope_seconds", "prefill of 512", "attention", 1e-9, 1e-3),
        ("tile_seconds", "32 users", "attention", 1e-9, 1e-3),
    ]
    for _ in range(3):  # they depend on each other a little
        for field, name, part, low, high in constants:
            predicted = partial(_part_with, sizes, one, machine, field, name, part)
            machine = replace(machine, **{field: solve(predicted, one["steps"][name]["parts"][part], low, high)})
    return machine


def _part_with(
    sizes: Sizes, one: dict[str, Any], machine: Machine, field: str, name: str, part: str, value: float
) -> float:
    """Seconds of a part of a step with one thread, with another value of a constant."""
    return machine_at(one, one, name, replace(machine, **{field: value})).step(sizes, STEPS[name], 1)[part]


def predict(sizes: Sizes, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The fitted constants, and for each number of threads and each step predicted / measured."""
    one = next(run for run in runs if run["threads"] == 1)
    fitted = fit(sizes, one)
    ratios = {}
    for run in runs:
        for name, step in STEPS.items():
            parts = machine_at(run, one, name, fitted).step(sizes, step, run["threads"])
            measured = run["steps"][name]["parts"]
            ratios[f"{run['threads']}, {name}"] = {
                "predicted": sum(parts.values()),
                "measured": sum(measured.values()),
                "parts": parts,
            }
    return {"constants": asdict(fitted), "steps": ratios}


def larger_machine(one: dict[str, Any], fitted: Machine, threads: int, memory: float, per_thread: float) -> Machine:
    """An imagined machine: every core as fast as one is alone."""
    rates = [step["rates"] for step in one["steps"].values()]
    alone = {name: statistics.median(at[name] for at in rates) for name in rates[0]}
    most = min(memory, threads * alone["bytes"])
    return replace(
        fitted,
        bytes=alone["bytes"],
        most_bytes=most,
        products=alone["products"],
        loop_seconds=one["loop_seconds_of_two"] + per_thread * (threads - 2) if threads > 1 else 0.0,
    )


# ---- What is shown ----


def report(result: dict[str, Any], memory: float, per_thread: float) -> None:
    sizes = Sizes(**result["sizes"])
    for name, runs in result["instruction_sets"].items():
        print(f"\n## {name}\n")
        for run in runs:
            print(f"- {run['threads']} threads: {run['limits']}; a loop {run['loop_seconds'] * 1e6:.2f} µs")
        if any(run["threads"] == 1 for run in runs):
            model = predict(sizes, runs)
            print(f"\n{measured_table(runs, model)}\n")
            print(f"\n{more_table(sizes, runs, model, memory, per_thread)}\n")
    for step in ("1 user", "32 users"):
        print(f"\nTasks and idle threads, {step}:\n\n{loop_table(sizes, STEPS[step], [2, *MORE_THREADS])}\n")


def measured_table(runs: list[dict[str, Any]], model: dict[str, Any]) -> str:
    titles = ["step", "threads", "ms", *PARTS[:3], "rest", "predicted ms", "predicted : measured", "× one thread"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    one = next(run for run in runs if run["threads"] == 1)
    for name in STEPS:
        for run in runs:
            step, each = run["steps"][name], model["steps"][f"{run['threads']}, {name}"]
            rest = step["parts"]["rest"] + step["parts"]["sampling"]
            times = [each["measured"], *(step["parts"][part] for part in PARTS[:3]), rest, each["predicted"]]
            shown = " | ".join(f"{seconds * 1e3:.1f}" for seconds in times)
            speedup = one["steps"][name]["seconds"] / step["seconds"]
            ratio = each["predicted"] / each["measured"]
            lines.append(f"| {name} | {run['threads']} | {shown} | {ratio:.2f} | {speedup:.2f} |")
    ratios = [each["predicted"] / each["measured"] for each in model["steps"].values()]
    far = sum(abs(ratio - 1) > TOLERANCE for ratio in ratios)
    lines.append(f"\n{len(ratios) - far} of {len(ratios)} within {TOLERANCE:.0%}. {_long_context(runs, one)}")
    return "\n".join(lines)


def _long_context(runs: list[dict[str, Any]], one: dict[str, Any]) -> str:
    name = "1 user, 16,000 tokens"
    alone = one["steps"][name]
    told = []
    for run in runs:
        if run is not one:
            step = run["steps"][name]
            attention = alone["parts"]["attention"] / step["parts"]["attention"]
            memory = step["rates"]["bytes"] / alone["rates"]["bytes"]
            told.append(f"{run['threads']} threads {attention:.2f}× (memory {memory:.2f}×)")
    return f"Attention at 16,000 tokens against one thread: {', '.join(told)}." if told else ""


def more_table(
    sizes: Sizes, runs: list[dict[str, Any]], model: dict[str, Any], memory: float, per_thread: float
) -> str:
    """Milliseconds that the model says for more threads; in brackets the speed-up over one."""
    one = dict(next(run for run in runs if run["threads"] == 1))
    one["loop_seconds_of_two"] = next((run["loop_seconds"] for run in runs if run["threads"] == 2), 1e-6)
    fitted = Machine(**model["constants"])
    lines = [f"| step | {' | '.join(f'{n} threads' for n in (1, 2, *MORE_THREADS))} |"]
    lines.append("|---" * (3 + len(MORE_THREADS)) + "|")
    for name, step in STEPS.items():
        times = [
            sum(larger_machine(one, fitted, n, memory, per_thread).step(sizes, step, n).values())
            for n in (1, 2, *MORE_THREADS)
        ]
        lines.append(f"| {name} | {' | '.join(f'{t * 1e3:.1f} ({times[0] / t:.1f}×)' for t in times)} |")
    return "\n".join(lines)


def main() -> None:
    cores = see_processors().num_cores
    usual = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < cores] + [cores]
    sets = [name for name in _native.instruction_sets() if name != "scalar"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", default=",".join(map(str, usual)))
    parser.add_argument("--instruction-sets", default=",".join(sets), help="[all of this machine but scalar]")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=float, default=200.0, help="GB/s of the imagined machines [200]")
    parser.add_argument("--nanoseconds-per-thread", type=float, default=50.0)
    parser.add_argument("--from", dest="source", type=Path, help="show a result again instead of measuring")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    assumed = (arguments.memory * 1e9, arguments.nanoseconds_per_thread * 1e-9)
    if arguments.source:
        return report(json.loads(arguments.source.read_text()), *assumed)
    if not arguments.model:
        sys.exit("scaling.py: give a model, or --from a result")
    threads = [int(text) for text in arguments.threads.split(",")]
    measured = {
        name: measure(make_config(arguments.model, name), threads, arguments.repeats)
        for name in arguments.instruction_sets.split(",")
    }
    sizes = sizes_of(Model.of(Path(arguments.model), "int8", wide=False))
    result = {"sizes": asdict(sizes), "instruction_sets": measured}
    report(result, *assumed)
    record("scaling", result, arguments.json, arguments.model)


if __name__ == "__main__":
    main()
