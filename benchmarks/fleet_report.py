"""The tables of a simulated fleet, in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def markdown(result: Row) -> str:
    """All tables of a result of `fleet.py`."""
    runs = result["runs"]
    parts = [
        table(
            ["engines", "load", "requests", "first token p50, s", "p95", "p99", "between tokens p50 / p99, ms",
             "tokens/s", "an engine", "prefix hits", "refused"],
            [_waiting(row) for row in runs if row["run"] != "death"],
        ),
        table(
            ["engines", "load", "Jain", "of its share: heavy key", "least of the others", "first token p95, s: heavy",
             "others", "refused: heavy", "others"],
            [_fairness(row) for row in runs if row["run"] != "death"],
        ),
        table(
            ["engines", "requests it had", "lost", "tokens known", "computed again", "pause p50, s", "longest"],
            [_death(row) for row in runs if row["death"]],
        ),
        table(
            ["engines", "load", "a decision p50 / p99, ms", "decisions/s of a core", "asked for/s",
             "delivering a token, µs", "scheduling a step, µs", "simulated, s", "in, s"],
            [_front(row) for row in runs if row["run"] != "death"],
        ),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def check_markdown(result: Row) -> str:
    """The table of a result of `fleet.py --check`: real, simulated, and the difference."""
    names = {
        "tokens_per_second": "tokens/s",
        "first_mean": "first token, mean, s",
        "first_p95": "p95, s",
        "end_mean": "whole answer, mean, s",
        "end_p95": "p95, s",
    }
    rows = []
    for load in result["loads"]:
        cells = [f"{load['rate']:g}", f"{load['requests']}"]
        for name in names:
            digits = 1 if name == "tokens_per_second" else 3
            real, simulated = (f"{load[side][name]:.{digits}f}" for side in ("real", "simulated"))
            cells.append(f"{real} / {simulated} ({load['off'][name]:+.1%})")
        rows.append(cells)
    return table(["requests/s", "requests", *names.values()], rows) + "\n"


def sizing_markdown(result: Row) -> str:
    """The table of a result of `fleet.py --sizing`: what one engine can be asked for."""
    head = ["answer, tokens", "requests an hour", "answers at once", "tokens/s", "first token p50 / p95, s",
            "between tokens p50 / p99, ms"]  # fmt: skip
    rows = []
    for size in result["sizes"]:
        found = size["figures"]
        if found is None:
            rows.append([f"{size['answer']:,.0f}", *["–"] * (len(head) - 1)])
            continue
        first, between = found["first_token"], found["between_tokens"]
        rows.append(
            [
                f"{size['answer']:,.0f}",
                f"{3600 * found['requests_per_second'] / found['engines']:,.0f}",
                f"{found['running'] / found['engines']:.1f}",
                f"{found['tokens_per_second'] / found['engines']:.0f}",
                f"{_number(first['p50'], 1)} / {_number(first['p95'], 1)}",
                f"{_number(between['p50'], 0, 1e3)} / {_number(between['p99'], 0, 1e3)}",
            ]
        )
    return table(head, rows) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _waiting(row: Row) -> list[str]:
    first, between = row["first_token"], row["between_tokens"]
    return [
        f"{row['engines']:,}",
        row["run"],
        f"{row['requests']:,}",
        *(_number(first[name], 1) for name in ("p50", "p95", "p99")),
        f"{_number(between['p50'], 0, 1e3)} / {_number(between['p99'], 0, 1e3)}",
        f"{row['tokens_per_second']:,.0f}",
        f"{row['tokens_per_second'] / row['engines']:.0f}",
        f"{row['prefix_hits']:.0%}",
        f"{row['refused']:.1%}",
    ]


def _fairness(row: Row) -> list[str]:
    fair = row["fairness"]
    sides = [fair["heavy_waits"], fair["others_wait"]]
    return [
        f"{row['engines']:,}",
        row["run"],
        *(_number(fair[name], 2) for name in ("jain", "heavy", "least_of_others")),
        *(_number(side["first_token"]["p95"], 1) for side in sides),
        *(f"{side['refused']:.1%}" for side in sides),
    ]


def _death(row: Row) -> list[str]:
    death = row["death"]
    counts = [f"{death[name]:,}" for name in ("requests", "lost", "known_tokens", "recomputed_tokens")]
    return [f"{row['engines']:,}", *counts, *(_number(death[name], 1) for name in ("pause_p50", "pause_max"))]


def _front(row: Row) -> list[str]:
    front = row["front"]
    return [
        f"{row['engines']:,}",
        row["run"],
        f"{front['decision_p50'] * 1e3:.2f} / {front['decision_p99'] * 1e3:.2f}",
        f"{1 / front['decision_mean']:,.0f}",
        f"{row['rate'] * row['engines']:,.1f}",
        f"{front['token'] * 1e6:.0f}",
        f"{front['step'] * 1e6:.0f}",
        f"{row['seconds']:.0f}",
        f"{row['run_seconds']:.0f}",
    ]


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "–" if value is None else f"{value * factor:,.{digits}f}"
