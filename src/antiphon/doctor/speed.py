"""Measures this machine, and a model on it against what the machine allows: `antiphon doctor --speed`.

A step for one user reads all weights once, so memory limits it; a step of a long prompt multiplies each weight by many
rows, so products limit it. Both kinds of steps take turns with measurements of these limits (`roofline`), and each
step's share is of the limits at that moment. The work of a step is counted in `least`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from antiphon.config import EngineConfig
from antiphon.doctor.findings import Finding, note, ok, warning
from antiphon.doctor.least import Model
from antiphon.doctor.roofline import BUFFER_BYTES, Limits, Rates
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.machine import default_threads, free_memory_bytes
from antiphon.ops.native import open_device
from antiphon.request import SamplingParams
from antiphon.runtime.cpu import CpuRunner, create_device, create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

CHECK_SECONDS = 180.0  # loading included; a slow machine may take that long
MEASURED_SECONDS = 30.0  # for which steps are measured
_MIN_RUNS = 3
_CONTEXT, _PROMPT = 256, 256  # tokens
_LOW_SHARE = 0.5
# What prompts reach of the products that an instruction set allows, as measured (docs/benchmarks.md). AMX multiplies
# faster than the other parts of a step can keep up with.
_USUAL_PREFILL = {"amx": 0.12, "avx512": 0.58, "avx2": 0.59}
_SHORT_STEP = 0.005  # seconds; in shorter ones, what is not counted takes a large part
_UNSTEADY = 0.7  # the tenth percentile of a rate, as a share of the ninetieth
_LEAST_BUFFER = 64 << 20  # bytes
_GREEDY = SamplingParams(temperature=0.0)


@dataclass(slots=True)
class Case:
    """Steps of one kind, of one sequence: `tokens` are computed after `context` others."""

    tokens: int
    context: int
    seconds: list[float] = field(default_factory=list)
    rates: list[Rates] = field(default_factory=list)  # meanwhile

    def run(self, runner: CpuRunner) -> None:
        """One step."""
        blocks = -(-(self.context + self.tokens) // runner.block_size)
        token_ids = [(7 * index) % runner.vocab_size for index in range(self.tokens)]
        spec = SampleSpec(_GREEDY, choice_index=0, position=0)
        sequence = ScheduledSequence(self.tokens, token_ids, self.context, list(range(blocks)), (spec,))
        started = time.perf_counter()
        runner.execute(StepPlan([sequence]))
        self.seconds.append(time.perf_counter() - started)

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)

    def share(self, model: Model) -> float:
        """The part of what the machine allows that is reached: the least time of a step, over its time."""
        parts = model.step(1, self.context, self.tokens).values()
        least = (sum(part.seconds(rates) for part in parts) for rates in self.rates)
        return statistics.median(each / seconds for each, seconds in zip(least, self.seconds, strict=True))


def machine_speed(threads: int = 0) -> Iterator[Finding]:
    """The limits of this machine: memory and products; `threads` as in `antiphon serve --threads`."""
    limits = Limits(open_device("auto", threads or default_threads()), _buffer_bytes())
    for _ in range(20):
        limits.around(lambda: None)
    yield from judge_limits(limits.medians(), limits.ranges())


def model_speed(path: Path, threads: int = 0, seconds: float = MEASURED_SECONDS) -> Iterator[Finding]:
    """Steps of a model against the machine's limits, measured for about so many seconds after it is loaded."""
    config = EngineConfig(
        str(path), threads=threads, max_batch_tokens=_PROMPT, max_num_sequences=2, kv_cache_tokens=2 * _CONTEXT
    )
    runner = create_runner(planned_for_this_machine(config))
    try:
        info = runner.describe()
        model = Model.of(path, config.kv_cache_type, wide=info["activations"] == "int16")
        limits = Limits(create_device(config), _buffer_bytes())
        decode, prefill = Case(1, _CONTEXT), Case(_PROMPT, 0)
        for case in (prefill, decode):  # the first of each is not counted: it fills caches and the KV cache
            case.run(runner)
            case.seconds.clear()
        until = time.monotonic() + seconds
        while len(prefill.seconds) < _MIN_RUNS or time.monotonic() < until:
            for case, times in ((decode, 4), (prefill, 1)):
                for _ in range(times):
                    case.rates.append(limits.around(partial(case.run, runner)))
    finally:
        runner.close()
    yield judge_decode(decode.median, decode.share(model))
    usual = _USUAL_PREFILL.get(str(info["instruction_set"]))
    yield judge_prefill(_PROMPT, prefill.median, prefill.share(model), usual)


def judge_limits(rates: Rates, ranges: dict[str, list[float]]) -> Iterator[Finding]:
    """Findings on the machine's rates and on how steady they are (`Limits.medians` and `ranges`)."""
    yield ok(f"memory is read at {rates['bytes'] / 1e9:.1f} GB/s, {rates['products'] / 1e9:,.0f} G products/s")
    names = {"bytes": "memory", "products": "the processor"}
    for name, (low, high) in ranges.items():
        if low < _UNSTEADY * high:
            yield note(
                f"the speed of {names[name]} is not steady: {low / 1e9:,.1f} to {high / 1e9:,.1f} G/s",
                why="Somebody else uses it too, on this machine or, if it is virtual, on the same host.",
                fix="vmstat 1; top  # if nothing shows, it is the host: dedicated machines are steady",
            )


def judge_decode(seconds: float, share: float) -> Finding:
    """A finding on a step for one user."""
    said = (
        f"a step for one user takes {seconds * 1e3:.1f} ms ({1 / seconds:,.0f} tokens/s) and reaches {share:.0%} of "
        "what this machine's memory allows"
    )
    if share >= _LOW_SHARE or seconds < _SHORT_STEP:
        return ok(said if seconds >= _SHORT_STEP else f"{said}, which says little of so small a model")
    return warning(
        said,
        why="Less than 50 % means that something other than memory holds it up: other programs on the same cores, more "
        "threads than the quota, cores of different speeds, or small pages.",
        fix="antiphon doctor --threads N --speed MODEL  # with one thread less, and with half as many",
    )


def judge_prefill(tokens: int, seconds: float, share: float, usual: float | None) -> Finding:
    """A finding on a step of a prompt; `usual`: the share that is usual on this instruction set, if that is known."""
    said = (
        f"prompts are computed at {tokens / seconds:,.0f} tokens/s, {share:.0%} of what this machine's products allow"
    )
    if usual is None or share >= usual / 2 or seconds < _SHORT_STEP:
        return ok(said)
    return warning(
        f"{said}; {usual:.0%} is usual",
        why="Less than half of that means that the cores wait for something: other programs, threads that share cores, "
        "or a frequency that falls when all cores are busy.",
        fix="antiphon doctor --threads N --speed MODEL  # with half as many threads",
    )


def _buffer_bytes() -> int:
    return max(_LEAST_BUFFER, min(BUFFER_BYTES, free_memory_bytes() // 8))
