#!/usr/bin/env python3
"""Estimates how much drafts speed up decoding for one user of another model: the texts of one, the costs of another.

    python benchmarks/draft_simulation.py --texts demo --costs MODEL.gguf --json OUT

A model of random weights does not repeat text as a trained one does, so drafts cannot be measured with it. Here
`--texts` answers the prompts of draft_prompts.py at temperature 0. The steps of `--costs` are measured: one sequence
after 300 tokens of context, each number of rows, one token drawn for each row, in the runner alone. The engine's own
code (engine/worker/speculation.py) drafts these texts, and each step takes the time that was measured. The time between
steps, grammars, and costs that change with the context or the machine's speed are left out.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draft_prompts import KINDS, chosen
from drafts import Answer
from record import record

from antiphon import Engine
from antiphon.config import EngineConfig
from antiphon.engine.worker.drafting import MOST
from antiphon.engine.worker.sequence import Sequence
from antiphon.engine.worker.speculation import Speculation
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.request import GenerateRequest, SamplingParams
from antiphon.runtime.cpu import CpuRunner, create_runner
from antiphon.step import SampleSpec, ScheduledSequence, StepPlan

CONTEXT = 300
ROWS = range(1, MOST + 2)
GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True)
class Text:
    """A prompt and its answer, as tokens."""

    prompt: list[int]
    answer: list[int]


def texts_of(engine: Engine, kind: str, count: int) -> list[Text]:
    """The answers to a kind's prompts, without those that repeat themselves to the end."""

    def one(body: dict[str, Any]) -> Text | None:
        fields = {name: value for name, value in body.items() if name != "messages"}
        answer = engine.chat(body["messages"], temperature=0, **fields)
        is_loop = Answer(0, 0, 0, answer.text).is_loop
        return None if is_loop else Text(list(answer.prompt_token_ids or ()), list(answer.token_ids))

    with ThreadPoolExecutor(4) as pool:
        found = pool.map(one, chosen(kind, count))
        return [text for text in found if text and len(text.answer) > 1]


def seconds_by_rows(model: str, repeats: int) -> dict[int, float]:
    """Median seconds of a step, by its rows; sizes take turns, so that a drifting machine drifts for all."""
    config = planned_for_this_machine(
        EngineConfig(model=model, context_length=1024, kv_cache_tokens=2048, max_num_sequences=8)
    )
    runner = create_runner(config)
    _step(runner, CONTEXT, 0)
    seconds = defaultdict(list)
    for repeat in range(repeats):
        for rows in ROWS if repeat % 2 else reversed(ROWS):
            started = time.perf_counter()
            _step(runner, rows, CONTEXT)
            seconds[rows].append(time.perf_counter() - started)
    return {rows: statistics.median(seconds[rows]) for rows in ROWS}


def _step(runner: CpuRunner, rows: int, start: int) -> None:
    token_ids = [random.randrange(1000) for _ in range(rows)]  # noqa: S311  # noise, no secret
    table = list(range(-(-(CONTEXT + max(ROWS)) // runner.block_size)))
    samples = [SampleSpec(GREEDY, 0, position) for position in range(rows if start else 1)]
    runner.execute(StepPlan([ScheduledSequence(0, token_ids, start, table, samples)]))


@dataclass
class Course:
    """Totals of all texts of a kind."""

    tokens: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0


def simulated(texts: list[Text], costs: dict[int, float]) -> Course:
    """All answers, one after the other, as one server would give them."""
    speculation, course = Speculation(max(ROWS)), Course()
    speculation.plan([Sequence(-1, GenerateRequest("first", [1], GREEDY))], _has_room, (), CONTEXT)
    speculation.observe_step(1, costs[1])  # a step without drafts, as a server has it when it warms up
    for number, text in enumerate(texts):
        sampling = SamplingParams(temperature=0.0, max_tokens=len(text.answer))
        sequence = Sequence(number, GenerateRequest(str(number), text.prompt, sampling))
        sequence.take(text.answer[0])
        while sequence.num_output_tokens < len(text.answer):
            _step_of(speculation, sequence, text.answer[sequence.num_output_tokens :], costs, course)
        speculation.finish(sequence)
    return course


def _step_of(
    speculation: Speculation, sequence: Sequence, rest: list[int], costs: dict[int, float], course: Course
) -> None:
    """One step: draft, verify against `rest`, which the model would draw, and learn."""
    speculation.plan([sequence], _has_room, (), sequence.num_tokens + len(rest) + 1)
    draft = speculation.of(sequence).token_ids
    right = next((n for n, (one, other) in enumerate(zip(draft, rest, strict=False)) if one != other), len(draft))
    rows = 1 + len(draft)
    speculation.observe_step(rows, costs[rows])
    speculation.observe_draft(sequence, right)
    for token_id in rest[: right + 1]:
        sequence.take(token_id)
    course.steps, course.tokens = course.steps + 1, course.tokens + min(right + 1, len(rest))
    course.drafted, course.accepted = course.drafted + len(draft), course.accepted + right
    course.seconds += costs[rows]


def _has_room(sequence: Sequence, wished: int) -> int:
    return wished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", default="demo", help="model that answers")
    parser.add_argument("--costs", required=True, help="GGUF file whose steps are measured")
    parser.add_argument("--count", type=int, default=24, help="prompts of each kind")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each number of rows")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    costs = seconds_by_rows(arguments.costs, arguments.repeats)
    with Engine(arguments.texts, max_num_seqs=4) as engine:
        texts = {kind: texts_of(engine, kind, arguments.count) for kind in KINDS}
    print("| | answers | tokens a step | drafted tokens that were right | ratio |\n|---|---|---|---|---|")
    kinds = {}
    for kind in KINDS:
        course = simulated(texts[kind], costs)
        ratio = course.tokens * costs[1] / course.seconds
        share = course.accepted / max(1, course.drafted)
        print(f"| {kind} | {len(texts[kind])} | {course.tokens / course.steps:.2f} | {share:.0%} | **{ratio:.2f}** |")
        kinds[kind] = {**vars(course), "answers": len(texts[kind]), "ratio": ratio}
    record("draft_simulation", {"kinds": kinds, "seconds_by_rows": costs}, arguments.json, arguments.costs)


if __name__ == "__main__":
    main()
