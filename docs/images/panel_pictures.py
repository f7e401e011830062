"""Draws panels of the dashboard as SVG, as Grafana draws them in its dark theme."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from antiphon.monitoring.panels import COLUMNS, Panel, Row, arrange

Points = Sequence[tuple[float, float]]  # seconds since the start, value

WIDTH, UNIT, GAP = 1440, 26, 8  # of the picture, of the grid's rows, between panels, in pixels
PALETTE = (
    *("#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#37872D", "#FADE2A", "#447EBC"),
    *("#C15C17", "#890F02", "#0A437C", "#6D1F62"),
)
NAMED = {"green": "#73BF69", "orange": "#FF9830", "red": "#F2495C"}
_STYLE = """
  text { font: 12px Inter, system-ui, sans-serif; fill: #ccccdc }
  .row { font-size: 16px; font-weight: 500 } .title { font-size: 13px; font-weight: 500 }
  .axis { font-size: 10.5px; fill: #9a9ba8 } .number { font-size: 30px; font-weight: 500 }
  .panel { fill: #181b1f; stroke: #2c3235 } .grid { stroke: #2a2d33 } .line { fill: none; stroke-width: 1.5 }
"""


@dataclass(frozen=True)
class Shown:
    """A series of a panel, named as its legend says."""

    name: str
    labels: dict[str, str]
    points: Points

    @property
    def numbers(self) -> list[float]:
        return [value for _, value in self.points if math.isfinite(value)]

    @property
    def is_limit(self) -> bool:
        return re.match(r"(limit|target)([ ,(]|$)", self.name) is not None


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    x: float
    y: float
    w: float
    h: float


def draw(rows: Sequence[Row], found: dict[str, list[Shown]]) -> str:
    """The rows one below the other."""
    parts: list[str] = []
    y = 0.0
    for row in rows:
        parts.append(_text(GAP, y + 26, f"⌄  {row.title}", "row"))
        y += 38
        placed = list(arrange(row.panels, 0))
        for panel, place in placed:
            column = (WIDTH - GAP) / COLUMNS
            box = Box(
                GAP + place["x"] * column, y + place["y"] * UNIT, place["w"] * column - GAP, place["h"] * UNIT - GAP
            )
            parts += _panel(panel, found[panel.title], box)
        y += UNIT * max(place["y"] + place["h"] for _, place in placed)
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" role="img" '
    label = escape(", ".join(row.title for row in rows))
    background = f'<rect width="{WIDTH}" height="{y:.0f}" fill="#111217"/>'
    return "\n".join(
        [f'{opening}aria-label="Dashboard: {label}">', f"<style>{_STYLE}</style>", background, *parts, "</svg>\n"]
    )


def _panel(panel: Panel, series: list[Shown], box: Box) -> list[str]:
    frame = f'<rect class="panel" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.w:.1f}" height="{box.h:.1f}" rx="3"/>'
    parts = [frame, _text(box.x + 10, box.y + 20, panel.title, "title")]
    inner = Box(box.x + 10, box.y + 30, box.w - 20, box.h - 38)
    if not any(each.numbers for each in series):
        words = panel.no_value or "No data"
        return [*parts, _text(box.x + box.w / 2, box.y + box.h / 2 + 6, words, "axis", "middle")]
    drawing = {
        "stat": _stat,
        "heatmap": _heatmap,
        "state-timeline": _states,
        "table": _table,
    }.get(panel.kind, _lines)
    return parts + drawing(panel, series, inner)


# --- kinds of panels


def _lines(panel: Panel, series: list[Shown], box: Box) -> list[str]:
    several = len(series) > 6  # then those that are always 0 say nothing
    series = [each for each in series if each.numbers and (not several or max(each.numbers) > 0)] or series[:1]
    plot = Box(box.x + 46, box.y + 4, box.w - 54, box.h - 42)
    stacked = _stacked(series) if panel.stacked else [(each, [0.0] * len(each.points)) for each in series]
    tops = [
        value + below
        for each, base in stacked
        for (_, value), below in zip(each.points, base, strict=True)
        if math.isfinite(value)
    ]
    low, high = min([panel.lowest or 0.0, *tops]), max(tops)
    if panel.highest is not None:
        high = panel.highest
    size = 1024.0 ** max(0, math.floor(math.log(high, 1024))) if panel.unit == "bytes" and high > 0 else 1.0
    step = size * _nice((high - low or 1.0) / 4 / size)
    high = low + step * max(1, math.ceil((high - low) / step - 1e-9))
    begin, end = min(each.points[0][0] for each in series), max(each.points[-1][0] for each in series)

    def at(time: float, value: float) -> str:
        x = plot.x + plot.w * (time - begin) / (end - begin or 1.0)
        return f"{x:.1f} {plot.y + plot.h * (1 - (min(value, high) - low) / (high - low)):.1f}"

    parts = _axes(panel, plot, low, high, step, begin, end)
    for bound, colour in panel.thresholds[1:]:
        if bound is not None and 1e-6 < bound <= high:
            path = f"M{at(begin, bound)} L{at(end, bound)}"
            parts.append(
                f'<path class="line" d="{path}" stroke="{NAMED[colour]}" stroke-dasharray="8 6" opacity=".6"/>'
            )
    colours = _colours(series)
    for number, (each, base) in enumerate(stacked):
        colour = colours[number]
        dash = ' stroke-dasharray="8 6"' if each.is_limit else ""
        for run in _runs(each.points, base):
            line = " L".join(at(time, value + below) for time, value, below in run)
            if not each.is_limit:
                floor = " L".join(at(time, below if panel.stacked else low) for time, _, below in reversed(run))
                opacity = 0.3 if panel.stacked else 0.08
                parts.append(f'<path d="M{line} L{floor}Z" fill="{colour}" opacity="{opacity}"/>')
            parts.append(f'<path class="line" d="M{line}" stroke="{colour}"{dash}/>')
    return parts + _legend([each.name for each in series], colours, box)


def _stat(panel: Panel, series: list[Shown], box: Box) -> list[str]:
    width = box.w / len(series)
    parts = []
    for number, each in enumerate(series):
        last = each.numbers[-1]
        colour = NAMED[[name for bound, name in panel.thresholds if bound is None or last >= bound][-1]]
        x = box.x + width * number
        high = max(each.numbers) or 1.0
        step = width / max(1, len(each.points) - 1)
        line = " L".join(
            f"{x + step * index:.1f} {box.y + box.h - 22 * (value / high if math.isfinite(value) else 0):.1f}"
            for index, (_, value) in enumerate(each.points)
        )
        floor = f"{box.y + box.h:.1f}"
        path = f"M{x:.1f} {floor} L{line} L{x + width:.1f} {floor}Z"
        parts.append(f'<path d="{path}" fill="{colour}" opacity=".25"/>')
        middle = x + width / 2
        words = (
            f'<text x="{middle:.1f}" y="{box.y + 34:.1f}" class="number" text-anchor="middle" style="fill:{colour}">'
        )
        parts.append(f"{words}{escape(_show(last, panel.unit, panel.decimals))}</text>")
        if len(series) > 1:
            parts.append(_text(middle, box.y + 50, each.name, "axis", "middle"))
    return parts


def _heatmap(panel: Panel, series: list[Shown], box: Box) -> list[str]:
    """Prometheus' buckets count what is below their bound; a cell shows what is between two bounds."""
    ordered = sorted(series, key=lambda each: float(each.labels["le"].replace("+Inf", "inf")))
    counts = [[value for _, value in each.points] for each in ordered]
    cells = [
        [now - below for now, below in zip(row, before, strict=True)]
        for before, row in zip([[0.0] * len(counts[0]), *counts], counts, strict=False)
    ]
    used = [index for index, row in enumerate(cells) if max(row) > 1e-9]
    first, last = (min(used), max(used)) if used else (0, len(cells) - 1)
    bounds = [each.labels["le"] for each in ordered][first : last + 1]
    plot = Box(box.x + 46, box.y + 4, box.w - 54, box.h - 24)
    height, width = plot.h / len(bounds), plot.w / len(cells[0])
    most = max((value for row in cells for value in row), default=1.0) or 1.0
    parts = []
    for number, row in enumerate(cells[first : last + 1]):
        y = plot.y + plot.h - height * (number + 1)
        if len(bounds) <= 8 or number % 2 == 0:
            bound = bounds[number]
            words = "∞" if bound == "+Inf" else _show(float(bound), "s")
            parts.append(_text(plot.x - 6, y + height / 2 + 4, words, "axis", "end"))
        for index, value in enumerate(row):
            if value > 1e-9:
                strength = (value / most) ** 0.5
                cell = Box(plot.x + width * index, y, max(1.0, width - 1), max(1.0, height - 1))
                parts.append(_rectangle(cell, _orange(strength)))
    times = ordered[0].points
    return parts + _times(plot, times[0][0], times[-1][0])


def _states(panel: Panel, series: list[Shown], box: Box) -> list[str]:
    plot = Box(box.x + 96, box.y + 4, box.w - 104, box.h - 42)
    height = plot.h / len(series)
    begin, end = min(each.points[0][0] for each in series), max(each.points[-1][0] for each in series)
    parts = []
    for number, each in enumerate(series):
        y = plot.y + height * number
        parts.append(_text(plot.x - 6, y + height / 2 + 4, each.name, "axis", "end"))
        times = [time for time, _ in each.points] + [end]
        starts = [
            index for index, (_, value) in enumerate(each.points) if not index or value != each.points[index - 1][1]
        ]
        for index, following in zip(starts, [*starts[1:], len(each.points)], strict=True):
            time, value = each.points[index]
            colour = NAMED[panel.states[str(int(value))][1]]
            x = plot.x + plot.w * (time - begin) / (end - begin or 1.0)
            width = plot.w * (times[following] - time) / (end - begin or 1.0)
            parts.append(_rectangle(Box(x, y + 3, width - 1, height - 6), colour))
    names = [text for text, _ in panel.states.values()]
    return [
        *parts,
        *_times(plot, begin, end),
        *_legend(names, [NAMED[colour] for _, colour in panel.states.values()], box),
    ]


def _table(panel: Panel, series: list[Shown], box: Box) -> list[str]:
    names = sorted(series[0].labels)
    width = box.w / len(names)
    parts = []
    for column, name in enumerate(names):
        parts.append(_text(box.x + width * column, box.y + 16, name, "axis"))
        parts += [
            _text(box.x + width * column, box.y + 40 + 22 * line, each.labels.get(name, ""))
            for line, each in enumerate(series)
        ]
    return parts


# --- parts of them


def _stacked(series: list[Shown]) -> list[tuple[Shown, list[float]]]:
    """Each series with what is below it at each of its points."""
    heights: dict[float, float] = {}
    found = []
    for each in series:
        found.append((each, [heights.get(time, 0.0) for time, _ in each.points]))
        for time, value in each.points:
            heights[time] = heights.get(time, 0.0) + (value if math.isfinite(value) else 0.0)
    return found


def _runs(points: Points, base: list[float]) -> list[list[tuple[float, float, float]]]:
    """Parts of a line without gaps: time, value, what is below."""
    runs: list[list[tuple[float, float, float]]] = [[]]
    for (time, value), below in zip(points, base, strict=True):
        if math.isfinite(value):
            runs[-1].append((time, value, below))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _colours(series: list[Shown]) -> list[str]:
    free = iter(PALETTE * 4)
    return [NAMED["red"] if each.is_limit else next(free) for each in series]


def _axes(panel: Panel, plot: Box, low: float, high: float, step: float, begin: float, end: float) -> list[str]:
    parts = []
    for number in range(round((high - low) / step) + 1):
        y = plot.y + plot.h * (1 - number * step / (high - low))
        parts.append(f'<path class="grid" d="M{plot.x:.1f} {y:.1f}H{plot.x + plot.w:.1f}"/>')
        parts.append(_text(plot.x - 6, y + 4, _show(low + number * step, panel.unit), "axis", "end"))
    return parts + _times(plot, begin, end)


def _times(plot: Box, begin: float, end: float) -> list[str]:
    parts = []
    for minute in range(math.ceil(begin / 60), int(end / 60) + 1):
        x = plot.x + plot.w * (minute * 60 - begin) / (end - begin or 1.0)
        parts.append(_text(x, plot.y + plot.h + 15, f"{minute}:00", "axis", "middle"))
    return parts


def _legend(names: Sequence[str], colours: Sequence[str], box: Box) -> list[str]:
    parts = []
    x, y = box.x + 4, box.y + box.h - 3
    for name, colour in zip(names, colours, strict=True):
        width = 24 + 6.1 * len(name)
        if x + width > box.x + box.w:
            parts.append(_text(x, y, "…", "axis"))
            break
        parts.append(f'<rect x="{x:.1f}" y="{y - 6:.1f}" width="12" height="3" fill="{colour}"/>')
        parts.append(_text(x + 16, y, name, "axis"))
        x += width
    return parts


def _orange(strength: float) -> str:
    """From dark to light, as Grafana's scheme "Oranges" in the dark theme."""
    dark, light = (64, 38, 22), (255, 190, 120)
    return "#" + "".join(f"{round(a + (b - a) * strength):02x}" for a, b in zip(dark, light, strict=True))


def _nice(value: float) -> float:
    """1, 2 or 5 times a power of ten, at least `value`."""
    power = 10 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999)


def _show(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, as short as Grafana has it."""
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    if unit == "s" and value != 0:
        for size, name in ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
    if unit == "bytes":
        for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
    suffix = {"reqps": " req/s", "ops": " ops/s", "cps": " c/s", "bytes": " B", "s": " s"}.get(unit, "")
    if abs(value) >= 1000 and unit != "bytes":
        return f"{value / 1000:.3g} K{suffix}"
    return f"{value:.{decimals}f}{suffix}" if decimals is not None else f"{value:.3g}{suffix}"


def _rectangle(box: Box, colour: str) -> str:
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.w:.1f}" height="{box.h:.1f}"'
    return f'<rect {place} fill="{colour}"/>'


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
