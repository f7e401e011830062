"""`antiphon bench report`, and the results that every load test writes and prints at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from antiphon.terminal import console_on, printable

if TYPE_CHECKING:
    from antiphon.bench.summary import Summary

MISSED = 3  # exit status: a check has failed or an objective was missed

GOODPUT_HELP = (
    "Limits in milliseconds that a request must keep to count as good: 'ttft:2000 tpot:100 e2el:8000'; ttfa is the "
    "first token of the answer."
)
SLO_HELP = "Objective of each stage: 'p95 first_token < 2s', 'error_rate < 1%'. If one is missed, the exit status is 3."
MEAN_LIMIT_HELP = "Limit in seconds: report up to how many users the mean latencies stay within it."


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a load test, or its journal.jsonl.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results.", show_default="DIR")
    ] = None,
    goodput: Annotated[list[str] | None, typer.Option(help=GOODPUT_HELP, show_default="those of the run")] = None,
    slo: Annotated[list[str] | None, typer.Option(help=SLO_HELP, show_default="those of the run")] = None,
    mean_limit: Annotated[float, typer.Option(min=0, help=MEAN_LIMIT_HELP, show_default="that of the run")] = 0.0,
) -> None:
    """Write the report of a load test again, with other limits if you like.

    It is made from the journal alone: report.html, report.md, summary.json and requests.csv.
    """
    from antiphon.bench.limits import goodput as read_goodput
    from antiphon.bench.limits import objective
    from antiphon.bench.results import read_records, write_results

    records = read_records(folder)
    out = output or (folder if folder.is_dir() else folder.parent)
    out.mkdir(parents=True, exist_ok=True)
    summary = write_results(
        out,
        records,
        limits=read_goodput(goodput or []),
        objectives=[objective(text) for text in slo] if slo else None,
        mean_limit=mean_limit or None,
    )
    _tell(summary, out, console_on(stderr=False))
    if not summary.passed:
        raise typer.Exit(MISSED)


def check_limits(goodput: Sequence[str], slo: Sequence[str]) -> None:
    """Raise ConfigError for limits that cannot be read, before anything is measured."""
    from antiphon.bench.limits import goodput as read_goodput
    from antiphon.bench.limits import objective

    read_goodput(goodput)
    for text in slo:
        objective(text)


def write_and_tell(folder: Path, console: Console) -> bool:
    """Write the results of a run that has ended, and print the most important; returns whether everything passed."""
    from antiphon.bench.results import read_records, write_results

    summary = write_results(folder, read_records(folder))
    _tell(summary, folder, console)
    return summary.passed


def _tell(summary: Summary, folder: Path, console: Console) -> None:
    from antiphon.bench.verdict import conclude

    console.print(_stages(summary))
    verdict = conclude(summary)
    style = {"good": "green", "bad": "red", "doubtful": "yellow"}.get(verdict.kind, "")
    console.print(f"{verdict.word}: {printable(verdict.sentence)}", style=style, soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def _stages(summary: Summary) -> Table:
    """A line for each stage, narrow enough for a terminal of 80 columns."""
    from antiphon.bench.svg import aligned

    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for title in ("answered", "first token\nP50, s", "\nP95, s", "end to end\nmean, s", "\nP95, s", "output\ntokens/s"):
        table.add_column(title, justify="right")
    for stage in summary.stages:
        first, whole = stage.latency.first_token, stage.latency.end_to_end
        pairs = ((first, "p50"), (first, "p95"), (whole, "mean"), (whole, "p95"))
        cells = [aligned(found.value(name)) if found else "–" for found, name in pairs]
        cells.append(aligned(stage.output_tokens_per_second))
        table.add_row(printable(stage.label), f"{stage.ends.get('answered', 0)}/{stage.requests}", *cells)
    return table
