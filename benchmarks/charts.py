"""Two charts as SVG, drawn by hand: they follow the reader's light or dark theme, and a diff of them can be read.

Owns how charts look and nothing else; report.py says what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #374151 }
  .title { font-weight: 600; font-size: 15px; fill: #111827 } .small { font-size: 11px; fill: #6b7280 }
  .grid { stroke: #e5e7eb } .axis { stroke: #9ca3af } .line { fill: none; stroke-width: 2 }
  .s0 { stroke: #2563eb; fill: #2563eb; stroke-width: 3 } .s1 { stroke: #d97706; fill: #d97706 }
  .s2 { stroke: #059669; fill: #059669 } .s3 { stroke: #7c3aed; fill: #7c3aed } .s4 { stroke: #db2777; fill: #db2777 }
  .line { fill: none } text.s0, text.s1, text.s2, text.s3, text.s4 { stroke: none }
  .bar { fill: #bfdbfe } .least { fill: #2563eb }
  @media (prefers-color-scheme: dark) {
    text { fill: #d1d5db } .title { fill: #f9fafb } .small { fill: #9ca3af }
    .grid { stroke: #374151 } .axis { stroke: #6b7280 } .bar { fill: #1e3a8a } .least { fill: #60a5fa }
    .s0 { stroke: #60a5fa; fill: #60a5fa } .s1 { stroke: #fbbf24; fill: #fbbf24 } .s2 { stroke: #34d399; fill: #34d399 }
    .s3 { stroke: #a78bfa; fill: #a78bfa } .s4 { stroke: #f472b6; fill: #f472b6 } .line { fill: none }
  }
"""


@dataclass(frozen=True)
class Line:
    """A named series of points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A length, the least it could be, and what to write beside it."""

    name: str
    value: float
    least: float
    label: str


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">'
    )
    return "\n".join([opening, f"<style>{_STYLE}</style>", _text(16, 26, title, "title"), *parts, "</svg>\n"])


def line_chart(title: str, x_name: str, lines: Sequence[Line]) -> str:
    """Lines over a linear x, named where they end; values are written at the first line's points."""
    left, right, top, bottom = 56, WIDTH - 170, 48, 330
    xs = sorted({x for line in lines for x, _ in line.points})
    ticks = nice_ticks(max(y for line in lines for _, y in line.points))

    def across(x: float) -> float:
        return left + (right - left) * x / xs[-1]

    def up(y: float) -> float:
        return bottom - (bottom - top) * y / ticks[-1]

    parts = [f'<path d="M{left} {up(tick):.1f}H{right}" class="grid"/>' for tick in ticks]
    parts += [_text(left - 8, up(tick) + 4, f"{tick:g}", "small", "end") for tick in ticks]
    parts += [_text(across(x), bottom + 18, f"{x:g}", "small", "middle") for x in xs]
    parts.append(_text((left + right) / 2, bottom + 38, x_name, "small", "middle"))
    labels = _apart([up(line.points[-1][1]) for line in lines], 17)
    for number, line in reversed(list(enumerate(lines))):
        path = "L".join(f"{across(x):.1f} {up(y):.1f}" for x, y in line.points)
        parts.append(f'<path d="M{path}" class="line s{number % 5}"/>')
        parts += [
            f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.5" class="s{number % 5}"/>' for x, y in line.points
        ]
        parts.append(_text(right + 12, labels[number] + 4, f"{line.name}  {line.points[-1][1]:.0f}", f"s{number % 5}"))
    parts += [_text(across(x), up(y) - 10, f"{y:.0f}", "small", "middle") for x, y in lines[0].points[:-1]]
    return _svg(bottom + 50, title, parts)


def bar_chart(title: str, note: str, bars: Sequence[Bar]) -> str:
    """Bars, with the least of each drawn inside."""
    left, right, top, step = 96, WIDTH - 210, 66, 34
    longest = max(bar.value for bar in bars)
    parts = [_text(16, 46, note, "small")]
    for number, bar in enumerate(bars):
        y = top + step * number
        width, least = ((right - left) * length / longest for length in (bar.value, bar.least))
        parts.append(_text(left - 10, y + 15, bar.name, "", "end"))
        parts.append(f'<rect x="{left}" y="{y}" width="{max(width, 1):.1f}" height="21" rx="3" class="bar"/>')
        if bar.least:
            parts.append(f'<rect x="{left}" y="{y + 5}" width="{least:.1f}" height="11" rx="2" class="least"/>')
        parts.append(_text(left + max(width, least) + 8, y + 15, bar.label, "small"))
    return _svg(top + step * len(bars) + 8, title, parts)


def nice_ticks(most: float) -> list[float]:
    """From 0 to at least `most`, in four to eight steps of 1, 2 or 5 times a power of ten."""
    sizes = (factor * 10.0**power for power in range(-3, 7) for factor in (1, 2, 5))
    size = next(size for size in sizes if most / size <= 8)
    return [size * i for i in range(int(-(-most // size)) + 1)]


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved downwards until none is closer to another than `gap`."""
    placed: list[float] = list(heights)
    previous = float("-inf")
    for index in sorted(range(len(heights)), key=lambda i: heights[i]):
        placed[index] = previous = max(heights[index], previous + gap)
    return placed
