"""The figures of a load test, computed from its journal: the content of `summary.json`, and of every table and report.

Times are in seconds. Latencies are those of answered requests, unless stated otherwise. Only requests that started
after the warm-up are counted. Rates are over the measured time of a stage: from the end of its warm-up until no more
requests were sent (or to its very end, if sending took less than half of it). What arrives in this time counts,
whichever request it belongs to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from antiphon.bench.distributions import Distribution, distribution
from antiphon.bench.journal import current
from antiphon.bench.knee import RATE_STEPS, Knee, knee_of
from antiphon.bench.limits import Goodput, Objective, latency_figure
from antiphon.bench.measured_requests import MeasuredRequest, arrivals, measured_requests
from antiphon.bench.records import CheckRecord, Record, RequestRecord, RunRecord, SampleRecord, StageRecord
from antiphon.bench.server_load import ServerLoad, server_load
from antiphon.bench.windows import UsersWithin, Window, users_within, windows
from antiphon.errors import ConfigError

SCHEMA = 1  # grows when a field changes its meaning or goes
_KEPT = 0.05  # seconds: a client that waited this much less than Retry-After still counts


class Refusals(msgspec.Struct, frozen=True):
    """Attempts that were refused (429, 503, 529), and whether the server told the truth about when to retry."""

    attempts: int
    with_retry_after: int
    retried: int  # refused with a Retry-After and tried again later
    kept: int  # of those: the client waited as long as Retry-After said
    true: int  # of the kept ones: the server accepted the next attempt


class Latencies(msgspec.Struct, frozen=True):
    """Distributions over the answered requests of a stage, in seconds; None where nothing was measured."""

    first_token: Distribution | None
    first_answer: Distribution | None
    between_tokens: Distribution | None  # between the parts of streams, each of one or more tokens
    time_per_token: Distribution | None
    end_to_end: Distribution | None
    lateness: Distribution | None  # of sending, in open loops; over all requests


class Tokens(msgspec.Struct, frozen=True):
    """Tokens of the answered requests of a stage."""

    prompt: int
    cached: int
    thought: int
    answer: int
    estimated: bool  # the server told no usage for some requests, so their parts were counted


class Verdict(msgspec.Struct, frozen=True):
    """Whether a stage met a service level objective."""

    objective: str
    value: float | None  # what was measured; None: nothing, or infinite because too few requests were answered
    unit: str  # of the value: s, /s, or a share from 0 to 1
    met: bool


class StageSummary(msgspec.Struct, frozen=True):
    """The figures of one stage."""

    stage: int
    label: str
    shape: str
    users: int | None
    rate: float | None
    round: int
    started: float  # of the measured time, in seconds since the start of the run
    seconds: float  # of measured time
    requests: int  # that started in the measured time and were not stopped by the load test
    ends: dict[str, int]  # of these, how many ended how; only what happened
    stopped: int  # by the load test, at the end of the stage
    errors: dict[str, int]  # code or exception → how many of those that failed
    degraded: int  # answers whose limits the server lowered
    latency: Latencies
    tokens: Tokens
    requests_per_second: float  # answers that were completed
    output_tokens_per_second: float
    thought_tokens_per_second: float
    total_tokens_per_second: float  # output, and the prompts of completed answers
    error_rate: float  # the share of requests without an answer
    goodput: float | None  # the share of requests within the limits
    goodput_per_second: float | None
    refusals: Refusals
    client_cpu: float  # cores that the client used
    client_lag_p99: float
    client_lag_max: float
    server: ServerLoad
    objectives: list[Verdict] = []
    interrupted: bool = False  # Ctrl-C ended it early

    @property
    def is_good(self) -> bool:
        """Whether every objective was met. If nothing was measured, it was not."""
        return self.requests > 0 and all(verdict.met for verdict in self.objectives)


class Summary(msgspec.Struct, frozen=True):
    """All figures of a load test."""

    schema: int
    run: RunRecord
    goodput_limits: dict[str, float]
    stages: list[StageSummary]
    windows: list[Window]
    users_within: list[UsersWithin]  # the limit for mean latencies, if one was given
    checks: list[CheckRecord]
    knee: Knee | None = None  # if the run searched for it

    @property
    def passed(self) -> bool:
        """Whether every check passed and every objective was met. In a search for the knee some are missed: there it is
        enough that there is a knee.
        """
        if not all(check.passed for check in self.checks):
            return False
        if self.knee is not None:
            return self.knee.load is not None
        return all(verdict.met for stage in self.stages for verdict in stage.objectives)


def summarize(
    records: Sequence[Record],
    *,
    limits: Goodput | None = None,
    objectives: Sequence[Objective] = (),
    mean_limit: float | None = None,
) -> Summary:
    """Compute all figures of a journal. `mean_limit` is in seconds: up to how many users do means stay within it?

    A stage whose end is not in the journal is left out. One that Ctrl-C ended is in the figures, and marked.

    Raises:
        ConfigError: the journal has no record of the run.
    """
    run = next((record for record in records if isinstance(record, RunRecord)), None)
    if run is None:
        raise ConfigError("the journal does not begin with the record of a run")
    records = current(list(records))
    stages = [record for record in records if isinstance(record, StageRecord)]
    searched = bool(run.options.get("find_knee")) and bool(objectives)
    requests = [record for record in records if isinstance(record, RequestRecord)]
    samples = sorted((record for record in records if isinstance(record, SampleRecord)), key=lambda each: each.at)
    summaries = [summarize_stage(stage, requests, samples, limits, objectives) for stage in stages]
    return Summary(
        schema=SCHEMA,
        run=run,
        goodput_limits={} if limits is None else limits.limits,
        stages=summaries,
        users_within=_users_within(stages, requests, mean_limit),
        windows=windows(stages, measured_requests(requests), samples),
        checks=[record for record in records if isinstance(record, CheckRecord)],
        knee=_knee(run, summaries) if searched else None,
    )


def _knee(run: RunRecord, stages: Iterable[StageSummary]) -> Knee:
    """The result of a search for the knee. A rate is a load in steps of the highest rate that was allowed."""
    step = float(run.options["rate"]) / RATE_STEPS if "rate" in run.options else None
    loads = [(each.users if step is None else round((each.rate or 0.0) / step), each) for each in stages]
    return knee_of(((load, each.is_good) for load, each in loads if load and not each.interrupted), step)


def _users_within(
    stages: Sequence[StageRecord], requests: Sequence[RequestRecord], limit: float | None
) -> list[UsersWithin]:
    if limit is None:
        return []
    counted = [each for stage in stages for each in requests_of(stage, requests)]
    found = [users_within(counted, metric, limit) for metric in ("first_token", "end_to_end")]
    return [each for each in found if each is not None]


def measured_time(stage: StageRecord) -> tuple[float, float]:
    """From when to when the rates of a stage are measured, in seconds since the start of the run."""
    begin = stage.started + stage.warm_up
    enough = stage.sending_ended - begin >= (stage.ended - begin) / 2
    return begin, stage.sending_ended if enough else stage.ended


def requests_of(stage: StageRecord, requests: Iterable[RequestRecord]) -> list[MeasuredRequest]:
    """The requests that are in a stage's figures: those that started in its measured time."""
    begin = stage.started + stage.warm_up
    own = [record for record in requests if record.stage == stage.stage and record.sent >= stage.started]
    return [each for each in measured_requests(own) if begin <= each.start <= stage.ended]


def summarize_stage(
    stage: StageRecord,
    requests: Iterable[RequestRecord],
    samples: Iterable[SampleRecord] = (),
    limits: Goodput | None = None,
    objectives: Sequence[Objective] = (),
) -> StageSummary:
    """The figures of one stage; `requests` and `samples` may hold those of other stages too."""
    own = [record for record in requests if record.stage == stage.stage and record.sent >= stage.started]
    begin, end = measured_time(stage)
    everything = requests_of(stage, own)
    counted = [each for each in everything if each.counts]
    answered = [each for each in counted if each.answered]
    good = sum(limits.is_good(each) for each in counted) if limits else None
    seconds = max(end - begin, 1e-9)
    output, thought = _tokens_between(own, begin, end)
    completed = [record for record in own if record.end == "answered" and begin <= record.ended <= end]
    prompts = sum(record.prompt_tokens for record in completed)
    summary = StageSummary(
        stage=stage.stage,
        label=stage.label,
        shape=stage.shape,
        users=stage.users,
        rate=stage.rate,
        round=stage.round,
        started=begin,
        seconds=seconds,
        requests=len(counted),
        ends=dict(Counter(str(each.last.end) for each in counted)),
        stopped=len(everything) - len(counted),
        errors=dict(Counter(error_kind(each.last) for each in counted if not each.answered).most_common()),
        degraded=sum(each.last.degraded for each in answered),
        latency=_latencies(counted, answered),
        tokens=_tokens(answered),
        requests_per_second=len(completed) / seconds,
        output_tokens_per_second=output / seconds,
        thought_tokens_per_second=thought / seconds,
        total_tokens_per_second=(output + prompts) / seconds,
        error_rate=1 - len(answered) / len(counted) if counted else 0.0,
        goodput=None if good is None or not counted else good / len(counted),
        goodput_per_second=None if good is None else good / seconds,
        refusals=_refusals(everything),
        client_cpu=stage.client_cpu_seconds / max(stage.ended - stage.started, 1e-9),
        client_lag_p99=stage.lag_p99,
        client_lag_max=stage.lag_max,
        server=server_load(samples, begin, end),
        interrupted=stage.interrupted,
    )
    return msgspec.structs.replace(summary, objectives=[_verdict(each, summary, counted) for each in objectives])


def _latencies(counted: Sequence[MeasuredRequest], answered: Sequence[MeasuredRequest]) -> Latencies:
    return Latencies(
        first_token=distribution(value for each in answered if (value := each.first_token) is not None),
        first_answer=distribution(value for each in answered if (value := each.first_answer) is not None),
        between_tokens=distribution(gap / 1000 for each in answered for gap in each.last.gaps_ms),
        time_per_token=distribution(value for each in answered if (value := each.time_per_token) is not None),
        end_to_end=distribution(each.end_to_end for each in answered),
        lateness=distribution(value for each in counted if (value := each.lateness) is not None),
    )


def _tokens(answered: Sequence[MeasuredRequest]) -> Tokens:
    last = [each.last for each in answered]
    return Tokens(
        prompt=sum(record.prompt_tokens for record in last),
        cached=sum(record.cached_tokens for record in last),
        thought=sum(record.thought_tokens for record in last),
        answer=sum(record.answer_tokens for record in last),
        estimated=any(record.tokens_estimated for record in last),
    )


def _tokens_between(requests: Iterable[RequestRecord], begin: float, end: float) -> tuple[float, float]:
    """Tokens that arrived in an interval, and how many of them were thoughts."""
    output = thought = 0.0
    for request in requests:
        arrived = sum(tokens for moment, tokens in arrivals(request) if begin <= moment <= end)
        tokens = request.thought_tokens + request.answer_tokens
        output += arrived
        thought += arrived * request.thought_tokens / tokens if tokens else 0
    return output, thought


def _refusals(requests: Iterable[MeasuredRequest]) -> Refusals:
    attempts = with_retry_after = retried = kept = true = 0
    for each in requests:
        for number, attempt in enumerate(each.attempts):
            if attempt.end != "refused":
                continue
            attempts += 1
            if attempt.retry_after is None:
                continue
            with_retry_after += 1
            following = each.attempts[number + 1] if number + 1 < len(each.attempts) else None
            if following is None or following.end == "cancelled":
                continue
            retried += 1
            if (following.waited or 0.0) >= attempt.retry_after - _KEPT:
                kept += 1
                true += following.end not in ("refused", "connection")
    return Refusals(attempts, with_retry_after, retried, kept, true)


def error_kind(request: RequestRecord) -> str:
    """The kind of a failure, for counting: how it ended, the status, and the code or exception."""
    parts = [request.end, "" if request.status in (None, 200) else str(request.status), request.code]
    return " ".join(dict.fromkeys(part for part in parts if part))


def _verdict(objective: Objective, stage: StageSummary, counted: Sequence[MeasuredRequest]) -> Verdict:
    if objective.is_latency:
        value = latency_figure(objective.figure, objective.metric, counted)
    else:
        value = getattr(stage, objective.metric)
    return Verdict(objective.text, None if value == inf else value, objective.unit, objective.is_met(value))
