#!/usr/bin/env python3
"""What drafts would be worth to one user of another model: one model's texts with another one's costs.

    python benchmarks/draft_simulation.py --texts demo --costs MODEL.gguf --json OUT

Random weights say nothing that repeats as text does, so a model that only has the right shape cannot be measured with
drafts. Here `--texts` answers the prompts of draft_prompts.py, at temperature 0. `--costs` is measured: a step of one
sequence with so many rows after 300 tokens of context, each row drawing a token, by the runner alone. Then the
engine's own guesses (engine/worker/drafts.py) and decisions (drafting.py) go through the texts, and each step takes
what was measured. Left out are the time between steps, the grammar's masks, and costs that change with the context.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from draft_prompts import KINDS, chosen
from drafts import Answer
from record import record

from antiphon import Engine
from antiphon.config import EngineConfig
from antiphon.engine.worker.accuracy import Draft
from antiphon.engine.worker.drafting import MOST, Drafting
from antiphon.engine.worker.drafts import Memory
from antiphon.loading.assembly import planned_for_this_machine
from antiphon.request import SamplingParams
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
    """The answers to a kind's prompts, without those that go round in circles."""

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
    """What became of a kind's texts."""

    tokens: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0


def simulated(texts: list[Text], costs: dict[int, float]) -> Course:
    """All answers, one after the other, as one server would give them."""
    memory, drafting, course = Memory(), Drafting(), Course()
    drafting.costs.observe(1, costs[1])
    for number, text in enumerate(texts):
        known, position = [*text.prompt, text.answer[0]], 1
        while position < len(text.answer):
            rest = text.answer[position:]
            draft = _drafted(memory, drafting, number, known)[: len(rest)]
            right = next((n for n, (a, b) in enumerate(zip(draft, rest, strict=False)) if a != b), len(draft))
            rows, taken = 1 + len(draft), min(right + 1, len(rest))
            if draft:
                _learn(memory, drafting, number, known, len(draft), right)
            drafting.costs.observe(rows, costs[rows])
            known, position = known + rest[:taken], position + taken
            course.steps, course.tokens = course.steps + 1, course.tokens + taken
            course.drafted, course.accepted = course.drafted + len(draft), course.accepted + right
            course.seconds += costs[rows]
        memory.finish(number, "", text.answer)
        drafting.forget(number)
    return course


def _drafted(memory: Memory, drafting: Drafting, number: int, known: list[int]) -> list[int]:
    if not drafting.may_pay(1):
        return []
    guess = memory.guess(number, "", known)
    token_ids = list(islice(guess.token_ids, MOST))
    return token_ids[: drafting.lengths([Draft(number, guess.run, [False] * len(token_ids))], 1, MOST + 1)[0]]


def _learn(memory: Memory, drafting: Drafting, number: int, known: list[int], length: int, right: int) -> None:
    run = memory.guess(number, "", known).run
    drafting.observe(Draft(number, run, [False] * length), length, right)


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
