#!/usr/bin/env python3
"""docs/benchmarks.md's tables and charts, from the figures that the benchmarks wrote.

    python benchmarks/report.py benchmarks/results/FOLDER

FOLDER has what one machine measured, each file written by a benchmark with `--json`; TABLES says which files belong to
which folder. A missing file's place in the document stays as it is. Text outside the marks is not changed; text between
the marks is replaced.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from charts import Bar, Line, bar_chart, line_chart

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "images"
OURS = "antiphon"
QUIET = 0.1  # cores that others may take beside a measurement
SHOWN_STEP = (32, 1000)  # users and context of the step whose milliseconds are told one by one
Result = dict[str, Any]


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def origin(result: Result) -> str:
    """Where figures come from."""
    machine = result["machine"]
    model = f" Model: `{result['model']}`." if "model" in result else ""
    return (
        f"Commit {result['commit']}, {result['date']}; {machine['cpu']} (family {machine['family']}, model "
        f"{machine['model']}), {machine['cores']} cores, {', '.join(machine['integer_dot_products'])}, "
        f"{machine['memory_gib']} GiB; load average in the end {machine['load']:.1f}.{model}\n\n    {result['command']}"
    )


# ---- Side by side ----


def side_by_side(result: Result, image_name: str = "users.svg") -> list[str]:
    cases, names = result["cases"], list(result["servers"])
    users = [row for row in cases if not row["known"] and row["answer"] > 1]
    lines = [
        Line(name, [(row["users"], row["decode"]) for row in users if row["server"] == name and row["decode"]])
        for name in names
    ]
    image = []
    if all(line.points for line in lines):
        IMAGES.mkdir(exist_ok=True)
        (IMAGES / image_name).write_text(line_chart("Tokens a second, all users together", "users at once", lines))
        image = [f"![Tokens a second against users, for each server](images/{image_name})", ""]
    keys = list(dict.fromkeys(_case_key(row) for row in cases))
    rows = [_case_row(key, names, cases) for key in keys]
    rows += [_first_prefill_row(key, names, cases) for key in keys if key[3]]
    memory = max(cases, key=lambda row: row["users"] * (row["prompt"] + row["answer"]))
    weights = [f"{_row(cases, _case_key(memory), name)['memory_bytes'] / 2**30:.2f}" for name in names]
    rows.append([f"memory at {memory['users']} × {memory['prompt']:,}, GiB", *weights])
    rows.append(["start to first token, s", *(f"{result['servers'][name]['seconds_to_start']:.0f}" for name in names)])
    commands = [f"- {name}: `{result['servers'][name]['command']}`" for name in names]
    return [*image, _quiet(cases), "", *table(["", *names], rows), "", origin(result), "", *commands]


def _case_key(row: Result) -> tuple[int, int, int, bool]:
    return row["users"], row["prompt"], row["answer"], row["known"]


def _row(cases: list[Result], key: tuple[int, int, int, bool], server: str) -> Result:
    return next(row for row in cases if _case_key(row) == key and row["server"] == server)


def _case_row(key: tuple[int, int, int, bool], names: list[str], cases: list[Result]) -> list[str]:
    """A rate for each server, and by how much ours is above it: the median over the rounds."""
    users, prompt, answer, known = key
    rate = "throughput" if answer == 1 else "decode"
    name = f"prefill of {prompt:,}" if answer == 1 else f"{users} user{'s' * (users > 1)}"
    if known:
        name += f", {prompt:,} tokens of context"
    ours = _row(cases, key, OURS)["runs"]
    cells = []
    for server in names:
        row = _row(cases, key, server)
        pairs = [(a[rate], b[rate]) for a, b in zip(ours, row["runs"], strict=True) if a[rate] and b[rate]]
        ratio = f" ({statistics.median(a / b for a, b in pairs):.1f}×)" if server != OURS and pairs else ""
        cells.append(f"{row[rate]:.1f}{ratio}" if row[rate] else "")
    return [name, *cells]


def _first_prefill_row(key: tuple[int, int, int, bool], names: list[str], cases: list[Result]) -> list[str]:
    found = (_row(cases, key, name)["first_prefill"] for name in names)
    return [f"prefill of {key[0]} × {key[1]:,} at once", *(f"{rate:.0f}" for rate in found)]


def _others(cases: list[Result]) -> float:
    """Cores that anyone else took in any round, at most."""
    return max(float(run["others"]) for row in cases for run in row["runs"])


def _quiet(cases: list[Result]) -> str:
    if _others(cases) <= QUIET:
        return f"Nobody else took more than {_others(cases):.2f} cores in any round."
    return (
        f"**Not a fair measurement**: other work took up to {_others(cases):.1f} cores, which hurts most where threads "
        "wait for each other."
    )


# ---- The step ----


def steps(result: Result) -> list[str]:
    titles = [
        "users",
        "context",
        "ms",
        "linear",
        "attention",
        "head",
        "sampling",
        "rest",
        "Python",
        "least",
        "tokens/s",
    ]
    rows = [_step_row(case) for case in result["cases"]]
    one = next(case for case in result["cases"] if (case["users"], case["tokens"]) == (1, 1))
    words = (
        f"Limits: {result['limits']}. One user's step ({one['context']} tokens of context) uses "
        f"{one['share_of_memory']:.0%} of the memory's rate."
    )
    return [words, "", *table(titles, rows), "", origin(result)]


def _step_row(case: Result) -> list[str]:
    users = f"{case['users']}{', sampled' if case['temperature'] else ''}"
    size = [f"prefill of {case['tokens']:,}", ""] if case["tokens"] > 1 else [users, f"{case['context']:,}"]
    times = [case["seconds"], *case["parts"].values(), sum(case["least"].values())]
    return [*size, *(f"{seconds * 1e3:.1f}" for seconds in times), f"{case['tokens_per_second']:.0f}"]


def step_roofline(result: Result) -> list[str]:
    greedy = [case for case in result["cases"] if case["tokens"] == 1 and not case["temperature"]]
    case = next(case for case in greedy if (case["users"], case["context"]) == SHOWN_STEP)
    bars, rows = [], []
    for name, seconds in case["parts"].items():
        least = case["least"].get(name, 0.0)
        bound = f"least {least * 1e3:.1f}, bound by {case['bound_by'][name]}" if least else ""
        bars.append(Bar(name, seconds, least, f"{seconds * 1e3:.1f} ms{'  ·  ' * bool(bound)}{bound}"))
        shares = [f"{seconds / case['seconds']:.1%}", f"{least / seconds:.0%}" if least else ""]
        bound_by = case["bound_by"].get(name, "")
        rows.append([name, f"{seconds * 1e3:.1f}", f"{least * 1e3:.1f}" if least else "", bound_by, *shares])
    title = f"A step of {case['users']} users at {case['context']:,} tokens: {case['seconds'] * 1e3:.0f} ms"
    note = "Light: measured. Dark: the least that this machine could need for the same bytes and products."
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "step.svg").write_text(bar_chart(title, note, bars))
    titles = ["part", "ms", "least", "bound by", "of the step", "least / measured"]
    return [f"![{title}, by part, beside the least](images/step.svg)", "", *table(titles, rows)]


# ---- Kernels ----


def kernels(result: Result) -> list[str]:
    lines: list[str] = []
    for each in result["instruction_sets"]:
        numbers = sorted({case["rows"] for case in each["cases"]})
        titles = ["", *(f"{rows} row{'s' * (rows > 1)}" for rows in numbers)]
        names = dict.fromkeys((case["format"], case["shape"]) for case in each["cases"])
        rows = [_kernel_row(form, shape, numbers, each["cases"]) for form, shape in names]
        lines += [f"**{each['instruction_set']}**: {each['limits']}", "", *table(titles, rows), ""]
    return [*lines, origin(result)]


def _kernel_row(form: str, shape: str, numbers: list[int], cases: list[Result]) -> list[str]:
    """Milliseconds, and the larger of the two shares."""
    found = {case["rows"]: case for case in cases if (case["format"], case["shape"]) == (form, shape)}
    cells = []
    for rows in numbers:
        if rows not in found:
            cells.append("")
            continue
        case = found[rows]
        name, share = max(("memory", case["share_of_memory"]), ("peak", case["share_of_products"]), key=lambda x: x[1])
        cells.append(f"{case['seconds'] * 1e3:.2f} ms, {share:.0%} of {name}")
    return [f"{form} {shape}", *cells]


# ---- Around the step ----


def step_overhead(result: Result) -> list[str]:
    rows = [[name, f"{value * 1e3:.1f}"] for name, value in result["seconds"].items()]
    rows += [
        [f"µs of processor time a token, {k}", f"{v * 1e6:.0f}"] for k, v in result["cpu_seconds_per_token"].items()
    ]
    case = result["case"]
    words = (
        f"{case['users']} users, {case['prompt']} tokens of prompt, {case['answer']} of answer. Around the kernels: "
        f"{result['around_the_kernels']:.1%} of the step through HTTP; between the engine's calls "
        f"{result['between_calls']:.1%}; the front's share of the server's processor time {result['front_share']:.1%}."
    )
    return [words, "", *table(["", "ms a step"], rows), "", origin(result)]


Table = tuple[str, Callable[[Result], list[str]]]  # a result's name, and what makes its lines

# By the name of the folder: what is written between which marks.
TABLES: dict[str, dict[str, Table]] = {
    "r1-zen4": {
        "side by side": ("side-by-side", side_by_side),
        "long contexts": ("side-by-side-long", side_by_side),
        "where the step goes": ("steps", step_roofline),
        "steps": ("steps", steps),
        "steps in AVX2": ("steps-avx2", steps),
        "around the step": ("step-overhead", step_overhead),
        "kernels": ("kernels", kernels),
    },
    "r1-emerald-rapids": {
        "AMX side by side": ("side-by-side", partial(side_by_side, image_name="users-amx.svg")),
        "AMX steps": ("steps-amx", steps),
        "AMX steps in AVX-512": ("steps-avx512", steps),
        "AMX kernels": ("kernels", kernels),
        "AVX-VNNI side by side": ("side-by-side-avxvnni", partial(side_by_side, image_name="users-avxvnni.svg")),
        "AVX-VNNI kernels": ("kernels-avx2", kernels),
    },
    "r1-zen3": {
        "AVX2 side by side": ("side-by-side", partial(side_by_side, image_name="users-avx2.svg")),
        "AVX2 kernels": ("kernels", kernels),
    },
}


def put(text: str, mark: str, lines: list[str]) -> str:
    """The document with what is between a mark and its end replaced."""
    before, rest = text.split(f"<!-- {mark} -->\n")
    return f"{before}<!-- {mark} -->\n" + "\n".join(lines) + "\n<!-- end -->" + rest.split("<!-- end -->", 1)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"one of {', '.join(TABLES)}")
    folder = parser.parse_args().folder
    text = DOCUMENT.read_text(encoding="utf-8")
    for mark, (name, lines) in TABLES[folder.name].items():
        path = folder / f"{name}.json"
        if path.exists():
            text = put(text, mark, lines(json.loads(path.read_text())))
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
