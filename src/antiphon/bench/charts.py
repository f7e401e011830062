"""The kinds of charts in a report: lines, dots, a histogram, strips and a timeline. Each is one inline SVG.

Lines and marks are labelled where they are. Colours and fonts come from the page's style sheet by class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from antiphon.bench.distributions import Distribution, histogram
from antiphon.bench.svg import Frame, drawing, element, shown, ticks, time_ticks

_LABEL_GAP = 12  # pixels between labels of lines
_MOST_DOTS = 4000

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Line:
    """A line of a chart. A point without a value leaves a gap."""

    name: str  # shown at its end
    points: Sequence[Point]
    color: int = 1  # which of the page's colours
    style: str = ""  # "", "dashed", "area" or "bars"
    width: float = 0.0  # of bars, in the unit of x


@dataclass(frozen=True)
class Mark:
    """A horizontal line at a value that matters, with its name."""

    value: float
    name: str


def lines(
    description: str,
    series: Sequence[Line],
    x_label: str,
    *,
    y_shown: Callable[[float], str] = shown,
    mark: Mark | None = None,
    dots: bool = False,
    highest: float | None = None,
    time: tuple[float, float] | None = None,
) -> Markup | None:
    """Lines over one x axis, from 0 upwards; None if there is nothing to draw.

    Args:
        dots: mark each point.
        highest: of the y axis, whatever the values.
        time: from when to when the x axis reaches, if it is time; otherwise it begins at 0.
    """
    values = [y for line in series for _, y in line.points if y is not None]
    if not values:
        return None
    xs = [x for line in series for x, _ in line.points]
    top = max([*values, mark.value if mark and mark.value < 3 * max(values) else 0, 0])
    begin, end = time or (0.0, max(xs))
    x_labels = time_ticks(begin, end) if time else ticks(begin, end, 5)
    longest = max((len(line.name) for line in series if line.style != "bars"), default=0)
    counts = series[0].style == "bars" and top < 4  # whole numbers
    y_ticks = ticks(0, 4, 4)[: int(top) + 2] if counts else ticks(0, highest or top)
    frame = Frame(begin, end, y_ticks, right=14 + longest * 7)
    parts = frame.axes(x_labels, x_label, y_shown)
    if mark and mark.value <= frame.y_ticks[-1]:
        y = frame.y(mark.value)
        parts.append(element("line", class_="mark", x1=frame.left, x2=frame.width - frame.right, y1=y, y2=y))
        parts.append(element("text", mark.name, class_="note", x=frame.left + 4, y=y - 4))
    for line in series:
        parts += _line(frame, line, x_label, y_shown, dots)
    return drawing(description, parts + _names(frame, series))


def _line(frame: Frame, line: Line, x_label: str, y_shown: Callable[[float], str], dots: bool) -> list[Markup]:
    parts = []
    if line.style == "bars":
        for x, y in line.points:
            if y:
                left, right = frame.x(x), frame.x(min(x + line.width, frame.x_high))
                top = frame.y(y)
                title = element("title", f"{x_label} {shown(x)}: {y_shown(y)} {line.name}")
                size = {"width": max(1.0, right - left - 1), "height": frame.bottom - top}
                parts.append(element("rect", title, class_=f"fill{line.color}", x=left, y=top, **size))
        return parts
    for known, group in groupby(line.points, key=lambda point: point[1] is not None):
        if not known:
            continue
        places = [(frame.x(x), frame.y(y)) for x, y in group if y is not None]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        if line.style == "area":
            area = f"{path}L{places[-1][0]:.1f} {frame.bottom:.1f}L{places[0][0]:.1f} {frame.bottom:.1f}Z"
            parts.append(element("path", class_=f"area{line.color}", d=area))
        parts.append(
            element("path", class_=f"line{line.color} {line.style}".strip(), d=path + ("h.1" * (len(places) == 1)))
        )
    for x, y in line.points:
        if y is not None:
            title = element("title", f"{x_label} {shown(x)}: {line.name} {y_shown(y)}")
            radius = 3 if dots else 6  # invisible ones are only for the pointer
            kind = f"fill{line.color}" if dots else "hover"
            parts.append(element("circle", title, class_=kind, cx=frame.x(x), cy=frame.y(y), r=radius))
    return parts


def _names(frame: Frame, series: Sequence[Line]) -> list[Markup]:
    """Names at the ends of lines, moved apart where they would overlap."""
    ends = []
    for line in series:
        known = [point for point in line.points if point[1] is not None]
        if known and line.name and line.style != "bars":
            ends.append((frame.y(known[-1][1] or 0.0) + 4, line))
    ends.sort(key=lambda each: each[0])
    parts, lowest = [], 0.0
    overlap = _LABEL_GAP * (len(ends) - 1)
    for number, (y, line) in enumerate(ends):
        place = max(lowest, min(y, frame.bottom + 4 - overlap + _LABEL_GAP * number))
        parts.append(
            element("text", line.name, class_=f"name{line.color}", x=float(frame.width - frame.right + 6), y=place)
        )
        lowest = place + _LABEL_GAP
    return parts


def dots(
    description: str, good: Sequence[tuple[float, float]], bad: Sequence[float], x_label: str, span: tuple[float, float]
) -> Markup | None:
    """A dot for each value over time, and a tick at the top for each moment of `bad`."""
    if not good and not bad:
        return None
    thinned = good[:: -(-len(good) // _MOST_DOTS)] if good else []
    frame = Frame(*span, ticks(0, max((y for _, y in good), default=1.0)))
    path = "".join(f"M{frame.x(x):.1f} {frame.y(y):.1f}h0" for x, y in thinned)
    parts = [*frame.axes(time_ticks(*span), x_label), element("path", class_="dots", d=path)]
    if bad:
        path = "".join(f"M{frame.x(x):.1f} 3v9" for x in bad)
        parts.append(element("path", element("title", f"{len(bad)} not answered"), class_="bad", d=path))
    return drawing(description, parts)


def distribution_chart(
    description: str, values: Sequence[float], found: Distribution, x_label: str, bars: int = 30
) -> Markup:
    """A histogram with its median and 95th percentile. Values far beyond the 99th percentile are in the last bar."""
    top = found.maximum if found.maximum < 1.5 * found.p99 else 1.2 * found.p99
    axis = ticks(min(0.0, found.minimum), top, 5)
    step = (axis[-1] - axis[0]) / bars
    edges = [axis[0] + number * step for number in range(bars + 1)]
    counts = histogram([min(value, axis[-1]) for value in values], edges)
    frame = Frame(axis[0], axis[-1], ticks(0, max(counts) * 1.12, 3))
    bars_drawn = Line("requests", list(zip(edges, counts, strict=False)), 1, "bars", step)
    parts = frame.axes(axis, x_label) + _line(frame, bars_drawn, f"from {x_label}", shown, False)
    for name, value in (("P50", found.p50), ("P95", found.p95)):
        x = frame.x(min(value, axis[-1]))
        parts.append(element("line", class_="mark", x1=x, x2=x, y1=frame.y(frame.y_ticks[-1]), y2=frame.bottom))
        late = x > frame.width - 90
        anchor, place = ("end", x - 4) if late else ("start", x + 4)
        y = 20 if name == "P50" else 34
        parts.append(element("text", f"{name} {shown(value)}", class_="note", x=place, y=y, text_anchor=anchor))
    return drawing(description, parts)


def strips(description: str, rows: Sequence[tuple[str, Sequence[float], Distribution]], x_label: str) -> Markup | None:
    """A row for each group: a thin stroke for each value, a thick one for the median, and a ring for P95."""
    if not rows:
        return None
    height = 24 * len(rows) + 56
    top = max(found.p99 for _, _, found in rows) * 1.05
    frame = Frame(0.0, ticks(0, top, 5)[-1], [0.0, 1.0], left=76, height=height)
    parts = []
    for value in ticks(0, top, 5):
        x = frame.x(value)
        parts.append(element("line", class_="grid", x1=x, x2=x, y1=12, y2=frame.bottom))
        parts.append(element("text", shown(value), class_="tick", x=x, y=frame.bottom + 16, text_anchor="middle"))
    parts.append(element("text", x_label, class_="tick", x=218, y=height - 4, text_anchor="middle"))
    for number, (name, values, found) in enumerate(rows):
        y = 16 + 24 * number
        strokes = "".join(f"M{frame.x(min(value, frame.x_high)):.1f} {y}v14" for value in values[:_MOST_DOTS])
        title = f"{name}: P50 {shown(found.p50)}, P95 {shown(found.p95)}, {found.count} requests"
        label = name if len(name) <= 12 else f"{name[:11]}…"
        parts += [
            element("text", label, class_="tick", x=70, y=y + 11, text_anchor="end"),
            element("path", element("title", title), class_="strip", d=strokes),
            element("rect", class_="fill1", x=frame.x(found.p50) - 1.5, y=y - 2, width=3, height=18),
            element("circle", class_="ring", cx=frame.x(min(found.p95, frame.x_high)), cy=y + 7, r=4),
        ]
    return drawing(description, parts, height=height)
