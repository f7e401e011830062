"""A timeline of requests: a bar for each, with its waiting, its thought and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from antiphon.bench.measured_requests import MeasuredRequest
from antiphon.bench.svg import Frame, drawing, element, from_zero, shown, time_ticks

MOST = 700  # requests
_WIDTH, _LANE, _MOST_LANES = 1040, 11, 48


@dataclass(frozen=True)
class Timeline:
    """The chart, and from when to when it reaches, in seconds since the start of the run."""

    chart: Markup
    begin: float
    end: float
    total: int  # requests of the run
    drawn: int


def timeline(requests: Sequence[MeasuredRequest]) -> Timeline | None:
    """A timeline of `requests`, or of those in the middle of the run if there are very many."""
    if not requests:
        return None
    first = max(0, (len(requests) - MOST) // 2)
    part = requests[first : first + MOST]
    end = max(each.last.ended for each in part)
    begin = from_zero(min(each.start for each in part), end)
    lanes = _lanes(part)
    shown_lanes = min(_MOST_LANES, 1 + max(lanes))
    height = shown_lanes * _LANE + 52
    frame = Frame(begin, end, [0.0, 1.0], left=12, width=_WIDTH, height=height)
    parts = []
    for value in time_ticks(begin, end, 14):
        x = frame.x(value)
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=8, y2=frame.bottom))
        parts.append(element("text", shown(value), class_="tick", x=x, y=frame.bottom + 16, text_anchor="middle"))
    middle = {"x": _WIDTH // 2, "y": height - 4, "text_anchor": "middle"}
    parts.append(element("text", "seconds since the start", class_="tick", **middle))
    drawn = [(each, lane) for each, lane in zip(part, lanes, strict=True) if lane < shown_lanes]
    parts += [_bar(frame, each, 12.0 + lane * _LANE) for each, lane in drawn]
    chart = drawing("Timeline of requests: waiting, thought and answer", parts, _WIDTH, height)
    return Timeline(chart, begin, end, len(requests), len(drawn))


def _lanes(requests: Sequence[MeasuredRequest]) -> list[int]:
    """A lane for each request, so that none overlap: that of its user, or else the first that is free."""
    users = sorted({each.first.user for each in requests})
    free: list[float] = []  # until when each lane is taken
    usual = {user: number for number, user in enumerate(users)}
    lanes = []
    for each in requests:
        lane = usual[each.first.user] if len(users) > 1 else 0
        if lane >= len(free):
            free += [0.0] * (lane + 1 - len(free))
        if free[lane] > each.start:
            lane = next((number for number, until in enumerate(free) if until <= each.start), len(free))
        if lane == len(free):
            free.append(0.0)
        free[lane] = each.last.ended
        lanes.append(lane)
    return lanes


def _bar(frame: Frame, each: MeasuredRequest, y: float) -> Markup:
    """One request: until its first token, its thought, its answer; a failure is a bar of its own colour."""
    last = each.last
    first = min(last.first_token or last.ended, last.ended)
    answer = min(last.first_answer or (last.ended if last.thought_tokens else first), last.ended)
    parts = [("wait", each.start, first), ("thought", first, answer), ("answer", answer, last.ended)]
    if not each.answered and each.counts:
        parts = [("failed", each.start, last.ended)]
    bars = []
    for kind, begin, end in parts:
        if end > begin:
            left, width = frame.x(begin), max(frame.x(end) - frame.x(begin), 0.6)
            bars.append(element("rect", class_=kind, x=left, y=y, width=width, height=_LANE - 3))
    if not each.answered and each.counts:
        bars.append(element("rect", class_="failed", x=frame.x(last.ended) - 2, y=y, width=4, height=_LANE - 3))
    return element("g", element("title", _in_words(each)), *bars, class_=None if each.counts else "stopped")


def _in_words(each: MeasuredRequest) -> str:
    parts = [f"request {each.first.number}, user {each.first.user}: {each.last.end} after {shown(each.end_to_end)} s"]
    if each.first_token is not None:
        parts.append(f"first token {shown(each.first_token)} s")
    if each.first_answer is not None:
        parts.append(f"first answer token {shown(each.first_answer)} s")
    if each.tokens:
        parts.append(f"{each.last.thought_tokens} + {each.last.answer_tokens} tokens")
    return ", ".join(parts)
