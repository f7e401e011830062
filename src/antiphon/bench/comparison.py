"""Compares two servers: which is faster, by how much, and whether the measurements can tell.

Both get the same prompts in rounds, in the order A B B A A B B A …, so that each is first equally often and a drift of
the machine that goes on steadily favours neither. A round gives one figure for each metric and server. What is judged
is the logarithm of their ratio in each round, so only differences within a round matter:

- The interval of the ratio is Student's t interval of these logarithms. With 4 to 12 rounds it covers the true ratio as
  often as it says; a percentile bootstrap over so few rounds does not (Hesterberg, "What Teachers Should Know About
  the Bootstrap", The American Statistician 69, 2015).
- Several metrics are several chances to be wrong, so verdicts are corrected by Holm's method (Holm, "A Simple
  Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979): the chance of any wrong
  verdict between equal servers is at most 5 %. Each interval has the level at which its metric was judged, so it
  leaves out 1 exactly if there is a verdict.
- Where there is no verdict, the comparison says which difference it would have seen in 4 of 5 such comparisons.

Two folders of results were measured at different times. If both repeat their stages at least three times, the rounds
of each are compared as independent samples (Welch's t). Otherwise requests are resampled (a seeded bootstrap), which
knows nothing of the differences between two runs of the same server: such a verdict is about these runs only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from random import Random
from statistics import fmean, variance
from typing import Literal

import msgspec

from antiphon.bench.distributions import percentile
from antiphon.bench.measured_requests import MeasuredRequest
from antiphon.bench.records import CheckRecord, Record
from antiphon.bench.students_t import critical, two_sided_p
from antiphon.bench.summary import StageSummary
from antiphon.bench.svg import shown
from antiphon.bench.verdict import LATE_CLIENT

LEVEL = 0.05
ENOUGH_ROUNDS = 3
_POWER_T = 0.8416  # of a standard normal variable: 80 % are below
_RESAMPLES = 2000
Better = Literal["lower", "higher"]
Winner = Literal["A", "B", ""]


@dataclass(frozen=True)
class Metric:
    """A figure of a stage that is compared."""

    name: str
    better: Better
    latency: str = ""  # the latency's name, or empty for rates
    figure: str = ""

    def of(self, stage: StageSummary) -> float | None:
        """Its value; None if it was not measured or is zero, or says nothing new: without thoughts, the first answer
        token is the first token.
        """
        if self.latency == "first_answer" and not stage.tokens.thought:
            return None
        if self.latency:
            found = getattr(stage.latency, self.latency)
            value = None if found is None else found.value(self.figure)
        else:
            value = getattr(stage, self.figure)
        return value or None


METRICS = (
    Metric("first token, P50", "lower", "first_token", "p50"),
    Metric("first token, P95", "lower", "first_token", "p95"),
    Metric("first answer token, P50", "lower", "first_answer", "p50"),
    Metric("time per token, P50", "lower", "time_per_token", "p50"),
    Metric("end to end, P50", "lower", "end_to_end", "p50"),
    Metric("end to end, P95", "lower", "end_to_end", "p95"),
    Metric("output tokens/s", "higher", "", "output_tokens_per_second"),
    Metric("answers/s", "higher", "", "requests_per_second"),
)


class Estimate(msgspec.Struct, frozen=True):
    """A metric of one load, compared."""

    load: str  # label of the stages
    metric: str
    better: Better
    a: float  # geometric means over the rounds
    b: float
    ratio: float  # b / a
    low: float  # of the interval of the ratio
    high: float | None  # None: there are too few rounds for an interval
    p: float  # before the correction
    winner: Winner
    smallest: float | None  # ratio above 1 that would have been seen in 4 of 5 comparisons
    rounds: int
    ratios: list[float]  # of the rounds, if they were paired

    def in_words(self) -> str:
        """The verdict, as `A is better: 12 to 18 % less`."""
        if self.smallest is None or self.high is None:
            return "can't tell (too few rounds)"
        if not self.winner:
            return f"can't tell (a difference {_size(self.smallest)} would be seen)"
        ratios = sorted((self.low, self.high)) if self.winner == "B" else sorted((1 / self.low, 1 / self.high))
        if self.better == "higher" and ratios[1] < 2:
            change = f"{_range(ratios[0] - 1, ratios[1] - 1)} more"
        elif self.better == "higher":
            change = f"{_times(*ratios)} times as many"
        elif ratios[0] > 0.5:
            change = f"{_range(1 - ratios[1], 1 - ratios[0])} less"
        else:
            change = f"{_times(1 / ratios[1], 1 / ratios[0])} times as fast"
        return f"{self.winner} is better: {change}"


class Comparison(msgspec.Struct, frozen=True):
    """Two servers, compared."""

    schema: int
    a: str
    b: str
    method: Literal["paired rounds", "independent rounds", "resampled requests"]
    estimates: list[Estimate]
    failures: list[str]  # what speaks against comparing speeds: requests without an answer, a client that was late

    @property
    def sentence(self) -> str:
        """The result in a sentence."""
        wins = {winner: [each for each in self.estimates if each.winner == winner] for winner in ("A", "B")}
        names = {"A": self.a, "B": self.b}
        verb = "is" if self.method != "resampled requests" else "was, in these runs,"
        for winner, loser in (("A", "B"), ("B", "A")):
            if wins[winner] and not wins[loser]:
                count = f"{len(wins[winner])} of {len(self.estimates)}"
                return f"{names[winner]} {verb} faster than {names[loser]}, in {count} figures."
        if wins["A"]:
            return f"Each {verb} faster in some figures: {self.a} in {len(wins['A'])}, {self.b} in {len(wins['B'])}."
        if not self.estimates:
            return "There is nothing to compare: no load has figures of both."
        seen = [each.smallest for each in self.estimates if each.smallest is not None]
        if not seen:
            return f"Can't tell which is faster: that takes at least {ENOUGH_ROUNDS} rounds."
        least = min(seen)
        return f"Can't tell which is faster: a difference {_size(least)} would be seen in the best case."


def order(round_number: int) -> tuple[int, int]:
    """Which server is measured first in a round, 0 for A and 1 for B: the rounds are A B, B A, A B, B A …"""
    return (1, 0) if round_number % 2 else (0, 1)


def compare_rounds(
    a: str, b: str, pairs: Sequence[tuple[StageSummary, StageSummary]], metrics: Sequence[Metric] = METRICS
) -> Comparison:
    """Compare interleaved rounds. Pairs have one stage of each server, with the same load and number of round."""
    raw = []
    for load, group in _by_load(pairs).items():
        for metric in metrics:
            values = [(metric.of(left), metric.of(right)) for left, right in group]
            known = [(left, right) for left, right in values if left is not None and right is not None]
            if known and len(known) == len(group):  # what only some rounds have is not comparable
                raw.append(_paired(load, metric, known))
    return Comparison(1, a, b, "paired rounds", _judged(raw), _failures(a, b, pairs))


def compare_independent(
    a: str,
    b: str,
    stages: Sequence[tuple[StageSummary, Sequence[MeasuredRequest]]],
    others: Sequence[tuple[StageSummary, Sequence[MeasuredRequest]]],
    metrics: Sequence[Metric] = METRICS,
    seed: int = 0,
) -> Comparison:
    """Compare two runs that were not interleaved: stages of equal labels, with their requests."""
    loads = list(dict.fromkeys(stage.label for stage, _ in stages))
    groups = {
        load: ([each for each in stages if each[0].label == load], [each for each in others if each[0].label == load])
        for load in loads
    }
    groups = {load: group for load, group in groups.items() if group[1]}
    repeated = all(min(len(left), len(right)) >= ENOUGH_ROUNDS for left, right in groups.values())
    raw = []
    for load, (left, right) in groups.items():
        for metric in metrics:
            found = _welch(load, metric, left, right) if repeated else _resampled(load, metric, left, right, seed)
            raw += [] if found is None else [found]
    pairs = [(left[0][0], right[0][0]) for left, right in groups.values()]
    method: Literal["independent rounds", "resampled requests"] = (
        "independent rounds" if repeated else "resampled requests"
    )
    return Comparison(1, a, b, method, _judged(raw), _failures(a, b, pairs))


# ---- Estimates, before they are judged ----


@dataclass(frozen=True)
class _Raw:
    """An estimate without its interval. `interval(level)` gives that of the logarithm of the ratio."""

    load: str
    metric: Metric
    a: float
    b: float
    mean: float  # of the logarithm of b / a
    p: float
    interval: Callable[[float], tuple[float, float]]
    smallest: Callable[[float], float]
    rounds: int
    ratios: list[float]


def _paired(load: str, metric: Metric, values: Sequence[tuple[float, float]]) -> _Raw:
    logs = [log(right) - log(left) for left, right in values]
    count, mean = len(logs), fmean(logs)
    error = sqrt(variance(logs) / count) if count >= ENOUGH_ROUNDS else inf
    a, b = (exp(fmean(log(pair[side]) for pair in values)) for side in (0, 1))
    return _from_t(load, metric, (a, b), mean, error, count - 1, count, [exp(each) for each in logs])


def _welch(
    load: str,
    metric: Metric,
    stages: Sequence[tuple[StageSummary, object]],
    others: Sequence[tuple[StageSummary, object]],
) -> _Raw | None:
    """Welch's t for rounds that are not pairs, with Satterthwaite's degrees of freedom, rounded down."""
    left = [log(value) for stage, _ in stages if (value := metric.of(stage)) is not None]
    right = [log(value) for stage, _ in others if (value := metric.of(stage)) is not None]
    if min(len(left), len(right)) < ENOUGH_ROUNDS:
        return None
    parts = (variance(left) / len(left), variance(right) / len(right))
    spread = sum(parts)
    lesser = parts[0] ** 2 / (len(left) - 1) + parts[1] ** 2 / (len(right) - 1)
    degrees = max(1, int(spread * spread / lesser)) if lesser else len(left) + len(right) - 2
    means = (fmean(left), fmean(right))
    both = (exp(means[0]), exp(means[1]))
    return _from_t(load, metric, both, means[1] - means[0], sqrt(spread), degrees, min(len(left), len(right)), [])


def _from_t(
    load: str,
    metric: Metric,
    both: tuple[float, float],
    mean: float,
    error: float,
    degrees: int,
    rounds: int,
    ratios: list[float],
) -> _Raw:
    if error == inf:
        p = 1.0
    elif error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = two_sided_p(abs(mean) / error, degrees)

    def interval(level: float) -> tuple[float, float]:
        half = 0.0 if error == 0 else inf if error == inf else critical(level, degrees) * error
        return mean - half, mean + half

    def smallest(level: float) -> float:
        return inf if error == inf else (critical(level, degrees) + _POWER_T) * error

    return _Raw(load, metric, *both, mean, p, interval, smallest, rounds, ratios)


def _resampled(
    load: str,
    metric: Metric,
    stages: Sequence[tuple[StageSummary, Sequence[MeasuredRequest]]],
    others: Sequence[tuple[StageSummary, Sequence[MeasuredRequest]]],
    seed: int,
) -> _Raw | None:
    """A percentile bootstrap over requests; rates of a single run cannot be judged so, and are left out."""
    left, right = _latencies(metric, stages), _latencies(metric, others)
    if not metric.latency or min(len(left), len(right)) < 10:
        return None
    draw = Random(f"{seed}/{load}/{metric.name}")  # noqa: S311  # repeatable
    percent = int(metric.figure[1:])
    logs = sorted(_resample(draw, right, percent) - _resample(draw, left, percent) for _ in range(_RESAMPLES))
    a, b = percentile(left, percent), percentile(right, percent)
    beyond = min(sum(each <= 0 for each in logs), sum(each >= 0 for each in logs))
    spread = sqrt(variance(logs))

    def interval(level: float) -> tuple[float, float]:
        place = min(int(level / 2 * _RESAMPLES), _RESAMPLES // 2)
        return logs[place], logs[-1 - place]

    def smallest(level: float) -> float:
        return (critical(level, 1000) + _POWER_T) * spread

    p = min(1.0, 2 * (beyond + 1) / (_RESAMPLES + 1))
    return _Raw(load, metric, a, b, log(b / a), p, interval, smallest, 1, [])


def _latencies(metric: Metric, stages: Sequence[tuple[StageSummary, Sequence[MeasuredRequest]]]) -> list[float]:
    told = [requests for stage, requests in stages if metric.of(stage) is not None]
    answered = [each for requests in told for each in requests if each.answered]
    return sorted(value for each in answered if metric.latency and (value := getattr(each, metric.latency)))


def _resample(draw: Random, values: Sequence[float], percent: int) -> float:
    """The logarithm of a percentile of a resample of `values`, which are in ascending order.

    The value of rank k among n that are drawn with replacement is at the place n·B. B has a beta distribution with k
    and n - k + 1, that of the k-th of n uniform numbers. So no sample needs to be drawn and sorted.
    """
    count = len(values)
    rank = max(1, -(-percent * count // 100))
    place = int(count * draw.betavariate(rank, count - rank + 1))
    return log(values[min(place, count - 1)])


# ---- Verdicts ----


def _judged(raw: Sequence[_Raw]) -> list[Estimate]:
    """Verdicts by Holm's method, in the order of `raw`: from the least p, until one is not below its level."""
    levels: dict[int, float] = {}
    level, decided = LEVEL, True
    for rank, number in enumerate(sorted(range(len(raw)), key=lambda number: raw[number].p)):
        if decided:
            level = LEVEL / (len(raw) - rank)
            decided = raw[number].p <= level
        levels[number] = level if decided else -level
    return [_estimate(each, abs(levels[number]), levels[number] > 0) for number, each in enumerate(raw)]


def _estimate(raw: _Raw, level: float, decided: bool) -> Estimate:
    low, high = raw.interval(level)
    winner: Winner = ""
    if decided:
        winner = "A" if (raw.mean > 0) == (raw.metric.better == "lower") else "B"
    return Estimate(
        load=raw.load,
        metric=raw.metric.name,
        better=raw.metric.better,
        a=raw.a,
        b=raw.b,
        ratio=exp(raw.mean),
        low=exp(low),
        high=_exp(high),
        p=raw.p,
        winner=winner,
        smallest=_exp(raw.smallest(level)),
        rounds=raw.rounds,
        ratios=raw.ratios,
    )


def _exp(value: float) -> float | None:
    return None if value > 700 else exp(value)


def _by_load(
    pairs: Sequence[tuple[StageSummary, StageSummary]],
) -> dict[str, list[tuple[StageSummary, StageSummary]]]:
    found: dict[str, list[tuple[StageSummary, StageSummary]]] = {}
    for pair in pairs:
        found.setdefault(pair[0].label, []).append(pair)
    return found


def _failures(a: str, b: str, pairs: Sequence[tuple[StageSummary, StageSummary]]) -> list[str]:
    """Requests without an answer, which latencies leave out."""
    found = []
    for side, name in enumerate((a, b)):
        stages = [pair[side] for pair in pairs]
        total = sum(stage.requests for stage in stages)
        answered = sum(stage.ends.get("answered", 0) for stage in stages)
        if answered < total:
            found.append(
                f"{name}: {total - answered:,} of {total:,} requests were not answered. Latencies are those of the "
                "others."
            )
    return found


def with_late_clients(comparison: Comparison, runs: Sequence[Sequence[Record]]) -> Comparison:
    """The comparison, with a failure for each of the two runs in which the client was too slow itself."""
    late = []
    for name, records in zip((comparison.a, comparison.b), runs, strict=True):
        checks = [each for each in records if isinstance(each, CheckRecord) and each.check == "lag"]
        failed = sum(not each.passed for each in checks)
        if failed:
            late.append(f"{name}: not valid in {failed} of {len(checks)} stages. {LATE_CLIENT}")
    return msgspec.structs.replace(comparison, failures=[*late, *comparison.failures])


def _size(ratio: float) -> str:
    return f"of {(ratio - 1) * 100:.2g} %" if ratio < 1.995 else f"by a factor of {shown(ratio)}"


def _range(low: float, high: float) -> str:
    ends = [f"{share * 100:.2g}" for share in (low, high)]
    return f"about {ends[0]} %" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} %"


def _times(low: float, high: float) -> str:
    ends = [f"{ratio:.3g}" for ratio in (low, high)]
    return f"about {ends[0]}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
