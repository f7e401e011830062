"""The figures of a load test as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterable, Sequence

from antiphon.bench.distributions import Distribution
from antiphon.bench.measured_requests import measured_requests
from antiphon.bench.records import RequestRecord
from antiphon.bench.summary import StageSummary, Summary
from antiphon.bench.svg import aligned
from antiphon.bench.verdict import METRICS, conclude
from antiphon.terminal import printable

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#&])")
_NOT_IN_CSV = ("gaps_ms",)
_DERIVED = ("lateness", "first_token_latency", "first_answer_latency", "end_to_end", "time_per_token")


def escaped(text: str) -> str:
    """Text from outside as it is, in a cell of a Markdown table."""
    return _MARKDOWN.sub(r"\\\1", printable(" ".join(text.split())))


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; all columns but the first are aligned to the right."""
    lines = [titles, ["---", *(["---:"] * (len(titles) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def markdown(summary: Summary) -> str:
    """The result, the table of stages and what failed, to paste into a document or an issue."""
    verdict = conclude(summary)
    parts = [
        f"# Load test of {escaped(summary.run.name)}\n",
        f"**{verdict.word}.** {escaped(verdict.sentence)}\n",
        stage_table(summary.stages),
        "Times are in seconds. \\* Too few values for this percentile: it is the largest of them.\n",
    ]
    objectives = [[escaped(stage.label), escaped(each.objective), _number(each.value), "met" if each.met else "missed"]
                  for stage in summary.stages for each in stage.objectives]  # fmt: skip
    if objectives:
        parts.append(table(["stage", "objective", "measured", ""], objectives))
    if summary.users_within:
        rows = [
            [METRICS[each.metric], _number(each.limit), _count(each.users), _number(each.mean)]
            for each in summary.users_within
        ]
        parts.append(table(["mean of", "limit", "users within it", "mean there"], rows))
    errors = [
        [escaped(stage.label), escaped(kind), str(count)]
        for stage in summary.stages
        for kind, count in stage.errors.items()
    ]
    if errors:
        parts.append(table(["stage", "failure", "requests"], errors))
    labels = {stage.stage: stage.label for stage in summary.stages}
    checks = [
        [
            escaped(labels.get(each.stage, "all")),
            each.check,
            "passed" if each.passed else "failed",
            str(each.compared),
            escaped("; ".join([*each.differences, *([each.note] if each.note else [])])),
        ]
        for each in summary.checks
    ]
    if checks:
        parts.append(table(["stage", "check", "", "compared", "note"], checks))
    command = printable(shlex.join(summary.run.command))
    return "\n".join([*parts, f"    {command}\n"])


def stage_table(stages: Iterable[StageSummary]) -> str:
    """A row for each stage."""
    titles = [
        "stage",
        "requests",
        "answered",
        "first token mean",
        "P50",
        "P95",
        "first answer P50",
        "time per token P50",
    ]
    titles += ["end to end mean", "P95", "answers/s", "output tokens/s", "server cores", "server GiB"]
    rows = []
    for stage in stages:
        latency = stage.latency
        memory = stage.server.memory_bytes
        rows.append([
            escaped(stage.label) + (", interrupted" if stage.interrupted else ""),
            str(stage.requests),
            str(stage.ends.get("answered", 0)),
            *(_of(latency.first_token, name) for name in ("mean", "p50", "p95")),
            _of(latency.first_answer, "p50"),
            _of(latency.time_per_token, "p50"),
            *(_of(latency.end_to_end, name) for name in ("mean", "p95")),
            _number(stage.requests_per_second),
            _number(stage.output_tokens_per_second),
            _number(stage.server.cpu),
            _number(None if memory is None else memory / (1 << 30)),
        ])  # fmt: skip
    return table(titles, rows)


def requests_csv(requests: Sequence[RequestRecord]) -> str:
    """A line for each attempt of each request: the fields of its record, then its latencies in seconds.

    Latencies count from when the request was due or first sent, with the waiting between attempts; they are on the
    line of the last attempt. Text that a spreadsheet would read as a formula begins with an apostrophe.
    """
    names = [name for name in RequestRecord.__struct_fields__ if name not in _NOT_IN_CSV]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *_DERIVED])
    for each in measured_requests(requests):
        latencies = (each.lateness, each.first_token, each.first_answer, each.end_to_end, each.time_per_token)
        for attempt in each.attempts:
            derived = latencies if attempt is each.last else [None] * len(_DERIVED)
            writer.writerow([_cell(value) for value in (*(getattr(attempt, name) for name in names), *derived)])
    return out.getvalue()


def _cell(value: object) -> object:
    """A value for a spreadsheet; see https://owasp.org/www-community/attacks/CSV_Injection."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = printable(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


def _of(found: Distribution | None, name: str) -> str:
    return "–" if found is None else aligned(found.value(name)) + ("\\*" if name in found.few else "")


def _number(value: float | None) -> str:
    return "–" if value is None else aligned(value)


def _count(value: int | None) -> str:
    return "none" if value is None else str(value)
