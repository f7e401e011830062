"""The course of a load test: its figures in windows of time, and how many users it stays fast for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil

import msgspec

from antiphon.bench.distributions import distribution
from antiphon.bench.measured_requests import MeasuredRequest, arrivals
from antiphon.bench.records import SampleRecord, StageRecord
from antiphon.bench.server_load import ServerLoad, server_load

_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)  # seconds
_MOST = 40  # windows
_ENOUGH = 3  # requests that a number of users needs for its mean to be used


class Window(msgspec.Struct, frozen=True):
    """Figures of an interval. Latencies are of the requests that started in it, rates of what arrived in it."""

    start: float
    seconds: float
    users: float | None  # present, mean
    started: int
    answered: int  # of the started
    failed: int  # of the started
    first_token_mean: float | None
    first_token_p95: float | None
    end_to_end_mean: float | None
    end_to_end_p95: float | None
    requests_per_second: float  # answers that were completed
    output_tokens_per_second: float
    server: ServerLoad


class UsersWithin(msgspec.Struct, frozen=True):
    """Up to how many users the mean of a latency stays within a limit."""

    metric: str
    limit: float  # seconds
    users: int | None  # None: not even for the fewest
    most_tried: int
    mean: float | None  # at this number of users
    first_beyond: int | None  # the fewest users at which it does not; None: it did for all that were tried


def width_for(seconds: float) -> float:
    """A round width of windows, so that there are at most 40."""
    longest = _WIDTHS[-1]
    return float(
        next((width for width in _WIDTHS if seconds / width <= _MOST), ceil(seconds / _MOST / longest) * longest)
    )


def windows(
    stages: Sequence[StageRecord], requests: Sequence[MeasuredRequest], samples: Sequence[SampleRecord]
) -> list[Window]:
    """The whole run in windows of one width, from the start of the first stage to the end of the last."""
    if not stages:
        return []
    begin, end = min(stage.started for stage in stages), max(stage.ended for stage in stages)
    width = width_for(end - begin)
    count = max(1, round((end - begin) / width))  # the last one is up to half longer or shorter

    def place(moment: float) -> int:
        number = int((moment - begin) // width)
        return count - 1 if number >= count and moment <= end else number

    started: dict[int, list[MeasuredRequest]] = defaultdict(list)
    completed: dict[int, int] = defaultdict(int)
    tokens: dict[int, float] = defaultdict(float)
    for each in requests:
        if each.counts:
            started[place(each.start)].append(each)
        if each.answered:
            completed[place(each.last.ended)] += 1
        for moment, share in arrivals(each.last):
            tokens[place(moment)] += share
    found = []
    for number in range(count):
        start = begin + number * width
        seconds = width if number < count - 1 else end - start
        load = server_load(samples, start, start + seconds)
        window = _window(start, seconds, started[number], completed[number], tokens[number], load)
        present = [sample.users for sample in samples if start <= sample.at < start + seconds]
        if any(present):
            window = msgspec.structs.replace(window, users=sum(present) / len(present))
        found.append(window)
    return found


def users_within(
    requests: Iterable[MeasuredRequest], metric: str, limit: float, enough: int = _ENOUGH
) -> UsersWithin | None:
    """The most users for whom, and for all fewer, the mean of `metric` is at most `limit` seconds.

    Requests are grouped by how many users were present when they were sent. Groups of fewer than `enough` requests say
    too little and are skipped. A request that was not answered puts its group beyond the limit. None if no group is
    large enough.
    """
    groups: dict[int, list[MeasuredRequest]] = defaultdict(list)
    for each in requests:
        if each.counts and each.first.users:
            groups[each.first.users].append(each)
    within: int | None = None
    mean_within: float | None = None
    sizes = sorted(users for users, group in groups.items() if len(group) >= enough)
    for users in sizes:
        mean = _mean(groups[users], metric)
        if mean is None or mean > limit or not all(each.answered for each in groups[users]):
            return UsersWithin(metric, limit, within, sizes[-1], mean_within, users)
        within, mean_within = users, mean
    return UsersWithin(metric, limit, within, sizes[-1], mean_within, None) if sizes else None


def _mean(requests: Iterable[MeasuredRequest], metric: str) -> float | None:
    found = distribution(value for each in requests if each.answered and (value := getattr(each, metric)) is not None)
    return None if found is None else found.mean


def _window(
    start: float, seconds: float, requests: Sequence[MeasuredRequest], completed: int, tokens: float, load: ServerLoad
) -> Window:
    answered = [each for each in requests if each.answered]
    first = distribution(value for each in answered if (value := each.first_token) is not None)
    whole = distribution(each.end_to_end for each in answered)
    present = [each.first.users for each in requests if each.first.users]
    return Window(
        start=start,
        seconds=seconds,
        users=sum(present) / len(present) if present else None,
        started=len(requests),
        answered=len(answered),
        failed=len(requests) - len(answered),
        first_token_mean=first.mean if first else None,
        first_token_p95=first.p95 if first else None,
        end_to_end_mean=whole.mean if whole else None,
        end_to_end_p95=whole.p95 if whole else None,
        requests_per_second=completed / seconds,
        output_tokens_per_second=tokens / seconds,
        server=load,
    )
