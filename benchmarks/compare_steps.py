#!/usr/bin/env python3
"""The steps of two versions of the code, in turn: how many times as fast the second one is.

    git worktree add /tmp/before v1 && make -C /tmp/before .venv/installed
    python benchmarks/compare_steps.py MODEL.gguf /tmp/before . [--users 1,8,32] [--json OUT]

Each version is a checkout with a `.venv` and runs in a process of its own, with its own `benchmarks/steps.py`. Both
load the model once and then take turns in the order A B B A: a machine whose speed drifts drifts for both. A turn is
three steps, of which the first is not counted: the process has slept, and the system may wake two of its threads on one
core. Each ratio is that of two neighbouring turns; the table shows their median and the middle half of them.

Each process has its own pages, and some are read faster than others: compare a version with itself, or in the other
order, before you believe a few percent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from record import record

CHILD = """
import argparse, json, sys
sys.path.insert(0, sys.argv[1] + "/benchmarks")
import steps
from antiphon.loading.assembly import planned_for_this_machine
given = json.loads(sys.argv[2])
arguments = argparse.Namespace(**given, sizes=(given["users"], given["contexts"], given["prefill"]))
cases = steps.make_cases(arguments)[: -1]
runner = steps.create_runner(planned_for_this_machine(steps.make_config(arguments, cases)))
steps.write_every_block(runner)
print(json.dumps([[case.users, case.context, case.tokens] for case in cases]), flush=True)
for line in sys.stdin:
    case = cases[int(line)]
    for _ in range(3):
        case.run(runner)
    steps_of_turn = [{"step": case.seconds[-i], **case.parts[-i]} for i in (1, 2)]
    print(json.dumps({part: sum(step[part] for step in steps_of_turn) / 2 for part in steps_of_turn[0]}), flush=True)
"""


class Version:
    """A process of a checkout that runs steps one by one."""

    def __init__(self, checkout: Path, options: dict[str, Any]) -> None:
        self.commit = subprocess.run(
            ["git", "-C", checkout, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
        ).stdout.strip()
        command = [str(checkout / ".venv/bin/python"), "-c", CHILD, str(checkout), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cases: list[list[int]] = self._read()

    def step(self, case: int) -> dict[str, float]:
        """Seconds of a step of one turn, and of its parts: means."""
        assert self._process.stdin
        self._process.stdin.write(f"{case}\n")
        self._process.stdin.flush()
        seconds: dict[str, float] = self._read()
        return seconds

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.commit} ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def compare(versions: list[Version], rounds: int) -> list[dict[str, Any]]:
    """Every case for `rounds` turns with each version, after one that does not count."""
    seconds: list[list[list[dict[str, float]]]] = [[[], []] for _ in versions[0].cases]
    for number in range(rounds + 1):
        for case, both in enumerate(seconds):
            for at in (0, 1) if number % 2 else (1, 0):
                measured = versions[at].step(case)
                if number:
                    both[at].append(measured)
    return [_case(size, *both) for size, both in zip(versions[0].cases, seconds, strict=True)]


def _case(size: list[int], a: list[dict[str, float]], b: list[dict[str, float]]) -> dict[str, Any]:
    ratios = {part: sorted(x[part] / max(y[part], 1e-9) for x, y in zip(a, b, strict=True)) for part in a[0]}
    middle = ratios["step"][len(a) // 4 : -(len(a) // 4) or None]
    return {
        "users": size[0],
        "context": size[1],
        "tokens": size[2],
        "a": {part: statistics.median(x[part] for x in a) for part in a[0]},
        "b": {part: statistics.median(y[part] for y in b) for part in b[0]},
        "ratio": {part: statistics.median(found) for part, found in ratios.items()},
        "middle_half": [middle[0], middle[-1]],
    }


def report(result: dict[str, Any]) -> None:
    """A table in Markdown."""
    a, b = result["versions"]
    print(f"| users | context | tokens each | {a}, ms | {b}, ms | ratio | middle half | linear | attention | head |")
    print(f"|{'---|' * 10}")
    for case in result["cases"]:
        low, high = case["middle_half"]
        parts = " | ".join(f"{case['ratio'][part]:.2f}×" for part in ("linear", "attention", "head"))
        size = f"{case['users']} | {case['context']:,} | {case['tokens']}"
        times = f"{case['a']['step'] * 1e3:.1f} | {case['b']['step'] * 1e3:.1f} | {case['ratio']['step']:.2f}×"
        print(f"| {size} | {times} | {low:.2f} to {high:.2f} | {parts} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("a", type=Path, help="the checkout to compare with")
    parser.add_argument("b", type=Path, help="the checkout whose speed is told")
    parser.add_argument("--users", default="1,8,32")
    parser.add_argument("--contexts", default="128")
    parser.add_argument("--prefill", default="512")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each physical core")
    parser.add_argument("--instruction-set", default="auto")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("users", "contexts", "prefill", "threads")}
    options |= {"model": str(arguments.model.resolve()), "instruction_set": arguments.instruction_set}
    options |= {"activations": "auto", "sampled_users": 1, "temperature": 0.6, "top_p": 0.95}
    versions = [Version(each.resolve(), options) for each in (arguments.a, arguments.b)]
    cases = compare(versions, arguments.rounds)
    for version in versions:
        version.close()
    result = {"versions": [version.commit for version in versions], "options": options, "cases": cases}
    report(result)
    record("compare_steps", result, arguments.json, str(arguments.model))


if __name__ == "__main__":
    main()
