"""The report of a load test: one HTML file that needs nothing else, neither scripts nor a network.

What comes from a server (names, error texts) is escaped by Jinja, and its control characters are made visible. Every
figure of the tables is a `<data>` element that holds the exact value of `summary.json`, with its place there.
"""

from __future__ import annotations

import datetime
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from antiphon.bench import charts
from antiphon.bench.charts import Line, Mark
from antiphon.bench.distributions import distribution
from antiphon.bench.journal import current
from antiphon.bench.measured_requests import MeasuredRequest
from antiphon.bench.records import Record, RequestRecord, StageRecord
from antiphon.bench.summary import StageSummary, Summary, error_kind, requests_of
from antiphon.bench.svg import aligned, element, from_zero, shown
from antiphon.bench.timeline import Timeline, timeline
from antiphon.bench.verdict import METRICS, Conclusion, conclude
from antiphon.terminal import printable

_TIME = "seconds since the start"
_GIB = 1 << 30
PERCENTILES = ("mean", "p50", "p90", "p95", "p99", "maximum")


@dataclass(frozen=True)
class Chart:
    """A chart with its title; the title names the unit."""

    title: str
    drawing: Markup


@dataclass(frozen=True)
class Tile:
    """A key figure."""

    name: str
    value: str
    unit: str
    note: str = ""


@dataclass(frozen=True)
class CheckRow:
    """One kind of check over all stages."""

    name: str
    passed: bool
    compared: int
    lines: list[str]


@dataclass(frozen=True)
class Report:
    """What the template shows."""

    summary: Summary
    verdict: Conclusion
    tiles: list[Tile]
    by_stage: list[Chart]
    over_time: list[Chart]
    spread: list[Chart]
    timeline: Timeline | None
    when: str
    command: str
    checks: list[CheckRow] = field(default_factory=list)
    errors: list[tuple[str, int, str]] = field(default_factory=list)  # kind, how many, an example of its message


def render(summary: Summary, records: Sequence[Record]) -> str:
    """The report as HTML.

    Args:
        summary: the figures.
        records: the journal that they were computed from, for what is drawn of each request.
    """
    stages = [record for record in current(list(records)) if isinstance(record, StageRecord)]
    requests = [record for record in records if isinstance(record, RequestRecord)]
    groups = {stage.stage: requests_of(stage, requests) for stage in stages}
    everything = sorted((each for group in groups.values() for each in group), key=lambda each: each.start)
    started = datetime.datetime.fromtimestamp(summary.run.started_at, datetime.UTC)
    report = Report(
        summary=summary,
        verdict=conclude(summary),
        tiles=_tiles(summary),
        by_stage=_by_stage(summary),
        over_time=_over_time(summary, everything),
        spread=_spread(summary.stages, groups),
        timeline=timeline(everything),
        when=f"{started:%d %B %Y, %H:%M} UTC",
        command=shlex.join(summary.run.command),
        checks=_checks(summary),
        errors=_errors(everything),
    )
    return template("report.html").render(report=report, run=summary.run, summary=summary)


@cache
def template(name: str) -> jinja2.Template:
    """A page's template; whatever is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "plain": printable, "figure": _figure, "tied": _tied}
    environment.globals |= {
        "units": {"s": (1, " s"), "/s": (1, " /s"), "share": (100, " %")},
        "metrics": METRICS,
        "percentiles": PERCENTILES,
        "GIB": _GIB,
    }
    return environment.get_template(name)


def _figure(value: float | None, place: str, factor: float = 1.0) -> Markup:
    """A figure of the summary, shown times `factor` (1000 for milliseconds), with its exact value and place."""
    if value is None:
        return element("span", "–", class_="none")
    return element("data", aligned(value if factor == 1.0 else value * factor), value=repr(value), data_of=place)


def _tied(text: str) -> str:
    """No line ends between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(s|%|users?|output)\b|%)", "\u00a0", text)


def _tiles(summary: Summary) -> list[Tile]:
    """The few figures to remember: of the only stage, or of the one with the highest rate."""
    if not summary.stages:
        return []
    best = max(summary.stages, key=lambda stage: stage.output_tokens_per_second)
    where = "" if len(summary.stages) == 1 else f"at {best.label}"
    tiles = []
    if found := best.latency.first_token:
        tiles.append(Tile("First token, median", shown(found.p50), "s", where))
        tiles.append(Tile("First token, P95", shown(found.p95), "s", where))
    if speed := best.latency.time_per_token:
        tiles.append(Tile("Time per token, median", shown(speed.p50 * 1000), "ms", where))
    tiles.append(Tile("Output", shown(best.output_tokens_per_second), "tokens/s", where))
    tiles.append(Tile("Answers", shown(best.requests_per_second), "per second", where))
    if best.goodput is not None:
        tiles.append(Tile("Within the limits", shown(best.goodput * 100), "%", where))
    for each in summary.users_within:
        users, unit = ("none", "") if each.users is None else (str(each.users), "users")
        tiles.append(Tile(f"Users with mean {METRICS[each.metric]} ≤ {shown(each.limit)} s", users, unit))
    return tiles


def _chart(title: str, drawing: Markup | None) -> list[Chart]:
    return [] if drawing is None else [Chart(title, drawing)]


def _by_stage(summary: Summary) -> list[Chart]:
    """Charts over users or rates, if there are several."""
    stages = [(stage.users if stage.shape == "users" else stage.rate, stage) for stage in summary.stages]
    known = sorted(((x, stage) for x, stage in stages if x is not None), key=lambda each: each[0])
    if len({x for x, _ in known}) < 3:
        return []
    x_label = "users" if known[0][1].shape == "users" else "requests per second offered"

    def drawn(title: str, names: Sequence[tuple[str, str, int]], metric: str, factor: float = 1.0) -> list[Chart]:
        found = []
        for name, figure, color in names:
            values = [(x, getattr(stage.latency, metric)) for x, stage in known]
            points = [(float(x), value and value.value(figure) * factor) for x, value in values]
            found.append(Line(name, points, color))
        mark = _limit(summary, metric)
        return _chart(title, charts.lines(title, found, x_label, dots=True, mark=mark))

    usual = (("P95", "p95", 2), ("mean", "mean", 3), ("P50", "p50", 1))
    rates = [(float(x), stage.output_tokens_per_second) for x, stage in known]
    answers = [(float(x), stage.requests_per_second) for x, stage in known]
    failures = [(float(x), stage.error_rate * 100) for x, stage in known]
    title = "Output, tokens/s"
    output = charts.lines(title, [Line("", rates, 1)], x_label, dots=True)
    found = drawn("First token, s", usual, "first_token")
    if any(stage.tokens.thought for _, stage in known):
        found += drawn("First answer token, s", usual, "first_answer")
    found += drawn("End to end, s", usual, "end_to_end")
    found += drawn("Time per token, ms", usual, "time_per_token", 1000)
    found += _chart(title, output)
    found += _chart(
        "Answers per second",
        charts.lines("Answers per second", [Line("", answers, 1)], x_label, dots=True),
    )
    if any(share for _, share in failures):
        title = "Requests without an answer, %"
        found += _chart(title, charts.lines(title, [Line("", failures, 2)], x_label, dots=True))
    return found


def _limit(summary: Summary, metric: str) -> Mark | None:
    limit = summary.goodput_limits.get(metric)
    limit = next((each.limit for each in summary.users_within if each.metric == metric), limit)
    return None if limit is None or metric == "time_per_token" else Mark(limit, f"limit {shown(limit)} s")


def _over_time(summary: Summary, requests: Sequence[MeasuredRequest]) -> list[Chart]:
    """Charts of the course of the run."""
    found = summary.windows
    if len(found) < 4:
        return []
    span = (from_zero(found[0].start, end := found[-1].start + found[-1].seconds), end)

    def middle(name: str) -> list[tuple[float, float | None]]:
        return [(each.start + each.seconds / 2, getattr(each, name)) for each in found]

    def of_server(name: str, factor: float = 1.0) -> list[tuple[float, float | None]]:
        values = [(each, getattr(each.server, name)) for each in found]
        return [(each.start + each.seconds / 2, None if value is None else value * factor) for each, value in values]

    def line(title: str, *series: Line, mark: Mark | None = None, highest: float | None = None) -> list[Chart]:
        return _chart(title, charts.lines(title, series, _TIME, mark=mark, highest=highest, time=span))

    answered = [(each.start, each.first_token) for each in requests if each.answered]
    good = [(start, value) for start, value in answered if value is not None]
    bad = [each.start for each in requests if each.counts and not each.answered]
    failures = [(each.start, float(each.failed)) for each in found]
    output = [(each.start + each.seconds / 2, each.output_tokens_per_second) for each in found]
    result = line("Users", Line("", middle("users"), 1, "area"))
    result += _chart(
        "First token of each request, s", charts.dots("First token of each request", good, bad, _TIME, span)
    )
    result += line(
        "First token, s",
        Line("P95", middle("first_token_p95"), 2),
        Line("mean", middle("first_token_mean"), 3),
        mark=_limit(summary, "first_token"),
    )
    result += line(
        "End to end, s",
        Line("P95", middle("end_to_end_p95"), 2),
        Line("mean", middle("end_to_end_mean"), 3),
        mark=_limit(summary, "end_to_end"),
    )
    result += line("Output, tokens/s", Line("", list(output), 1, "area"))
    result += line("Answers per second", Line("", middle("requests_per_second"), 1))
    if bad:
        bars = Line("not answered", list(failures), 2, "bars", found[0].seconds)
        result += line("Requests without an answer", bars)
    result += line("Server: processor, cores", Line("", of_server("cpu"), 4, "area"))
    result += line("Server: memory, GiB", Line("", of_server("memory_bytes", 1 / _GIB), 4, "area"))
    result += line("Server: KV cache in use, %", Line("", of_server("kv_usage", 100), 4, "area"), highest=100)
    result += line(
        "Server: requests", Line("running", of_server("running"), 1), Line("waiting", of_server("waiting"), 2)
    )
    if any(each.server.degrade_level for each in found):
        result += line("Server: level of degradation", Line("", of_server("degrade_level"), 2, "area"), highest=4)
    return result


def _spread(stages: Sequence[StageSummary], groups: dict[int, list[MeasuredRequest]]) -> list[Chart]:
    """How much latencies differ between requests: histograms of a single stage, or a strip for each of several."""
    result = []
    metrics = ["first_token", "end_to_end"]
    if any(stage.tokens.thought for stage in stages):
        metrics.insert(1, "first_answer")
    for metric in metrics:
        rows = []
        for stage in stages[:24]:
            each = [request for request in groups[stage.stage] if request.answered]
            values = [value for request in each if (value := getattr(request, metric)) is not None]
            if found := distribution(values):
                rows.append((stage.label, values, found))
        title = f"{METRICS[metric].capitalize()}, s"
        if len(rows) == 1:
            _, values, found = rows[0]
            result.append(
                Chart(f"{title} (number of requests)", charts.distribution_chart(title, values, found, "seconds"))
            )
        else:
            result += _chart(title, charts.strips(title, rows, "seconds"))
    return result


def _checks(summary: Summary) -> list[CheckRow]:
    """What the checks found, with the stages in which they failed."""
    labels = {stage.stage: stage.label for stage in summary.stages}
    names = {
        "same": "Answers under load equal answers alone",
        "accounts": "The server's counters agree with the client's",
        "lag": "The client kept up",
    }
    rows = []
    for kind, name in names.items():
        found = [check for check in summary.checks if check.check == kind]
        lines = [check.note for check in found if check.note and (not check.passed or kind == "same")]
        for check in found:
            where = f"{labels[check.stage]}: " if check.stage in labels else ""
            lines += [where + text for text in check.differences]
        if found:
            passed = all(check.passed for check in found)
            rows.append(CheckRow(name, passed, sum(check.compared for check in found), list(dict.fromkeys(lines))))
    return rows


def _errors(requests: Sequence[MeasuredRequest]) -> list[tuple[str, int, str]]:
    """Kinds of failed attempts with their number and one message, the most frequent first."""
    found: dict[str, list[str]] = {}
    for each in requests:
        for attempt in each.attempts:
            if attempt.end not in ("answered", "cancelled"):
                found.setdefault(error_kind(attempt), []).append(attempt.message)
    rows = [(printable(kind), len(texts), printable(max(texts, key=len))) for kind, texts in found.items()]
    return sorted(rows, key=lambda row: -row[1])
