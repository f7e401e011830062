"""Compares what the client counted with what the server counted meanwhile.

Every request that was sent must be in the server's counters exactly once, and so must every token in a `usage`. Where
the client cannot know whether a request reached the server or how many tokens it got (its connection broke, or it was
cancelled), there is a range. A count outside of it is an error of the server or of the client, unless somebody else
used the server too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from antiphon.bench.records import CheckRecord, RequestRecord
from antiphon.bench.requests import REFUSALS

# With these, a server may have refused a request before it counted it as received.
_NOT_RECEIVED = (401, 403, 404, 405, 408, 411, 413, 415, 421, 431)
_UNCOUNTED_CODES = ("too_many_connections", "rate_limit_exceeded", "requests", "tokens")
_OK, _BAD_REQUEST, _SERVER_ERROR = 200, 400, 500


@dataclass
class Range:
    """How often something must have happened, and how often it may have."""

    least: float = 0.0
    most: float = 0.0

    def add(self, number: float, certain: bool = True) -> None:
        """It happened `number` times more, or may have if it is not `certain`."""
        self.most += number
        if certain:
            self.least += number


def expected(requests: Sequence[RequestRecord], counters: Mapping[str, float]) -> dict[str, Range]:
    """What a server must have counted, by our names of its counters. *unanswered*: refused, failed or aborted."""
    names = ("received", "unanswered", "finished", "prompt_tokens", "generated_tokens", "reasoning_tokens")
    ranges = {name: Range() for name in names}
    refusals = sum(request.status in REFUSALS and not _is_uncounted(request) for request in requests)
    # A request that was accepted and then dropped while it waited is answered with a refusal too.
    all_refused_at_once = counters.get("refused", inf) >= refusals
    for request in requests:
        reached = request.status is not None and not _is_uncounted(request)
        ranges["received"].add(1, reached)
        if request.end != "answered":
            ranges["unanswered"].add(1, reached and (request.status != _OK or request.end == "failed"))
        if request.status is None or (request.status == _OK and request.end != "failed"):
            ranges["finished"].add(1, request.end == "answered")
        _add_tokens(ranges, request, all_refused_at_once)
    return ranges


def _is_uncounted(request: RequestRecord) -> bool:
    return request.status in _NOT_RECEIVED or request.code in _UNCOUNTED_CODES


def _add_tokens(ranges: dict[str, Range], request: RequestRecord, all_refused_at_once: bool) -> None:
    if request.end == "answered" and not request.tokens_estimated:
        ranges["prompt_tokens"].add(request.prompt_tokens)
        ranges["generated_tokens"].add(request.thought_tokens + request.answer_tokens)
        ranges["reasoning_tokens"].add(request.thought_tokens, not request.split_estimated)
        if request.split_estimated:
            ranges["reasoning_tokens"].most += request.answer_tokens
        return
    was_refused = request.status is not None and _BAD_REQUEST <= request.status < _SERVER_ERROR
    if not was_refused and not (request.status in REFUSALS and all_refused_at_once):
        for name in ("prompt_tokens", "generated_tokens", "reasoning_tokens"):
            ranges[name].most = inf  # tokens may have been computed


def reconcile(
    stage: int, requests: Sequence[RequestRecord], counters: Mapping[str, float], *, shared: bool = False
) -> CheckRecord:
    """The verdict on one stage.

    `counters`: by how much the server's grew. `shared`: others used the server, so it may have counted more.
    """
    ranges = expected(requests, counters)
    checked = [name for name in ranges if name in counters]
    differences = []
    for name in checked:
        counted, found = counters[name], ranges[name]
        if counted < found.least or (counted > found.most and not shared):
            differences.append(f"{name}: the server counted {counted:,.0f}, the client {_words(found)}")
    if any(value < 0 for value in counters.values()):
        differences = ["the server's counters decreased: it was restarted during the stage"]
    note = "" if checked else "the server has no counters to compare with"
    if shared and checked:
        note = "others may have used the server, so it was only checked that nothing is missing"
    return CheckRecord(stage, "accounts", not differences, len(checked), differences, note)


def _words(found: Range) -> str:
    if found.least == found.most:
        return f"{found.least:,.0f}"
    return f"at least {found.least:,.0f}" if found.most == inf else f"{found.least:,.0f} to {found.most:,.0f}"
