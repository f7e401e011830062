"""A comparison as a page, a table of Markdown, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import inf, log
from pathlib import Path

import msgspec
from markupsafe import Markup

from antiphon.bench.comparison import Comparison, Estimate
from antiphon.bench.report import template
from antiphon.bench.results import write_file
from antiphon.bench.svg import WIDTH, aligned, drawing, element, shown
from antiphon.bench.tables import escaped, table

METHODS = {
    "paired rounds": "Both servers were measured in turn, in interleaved rounds with the same prompts. The interval is "
    "that of Student's t for the logarithms of the ratios of the rounds.",
    "independent rounds": "The two results were measured at different times, so a difference of the servers cannot "
    "be told from one of the machine or its load between these times. Each has several rounds; the interval is "
    "that of Welch's t for the logarithms of their figures.",
    "resampled requests": "The two results were measured at different times, once each. Requests were resampled, which "
    "shows nothing of how much two runs of the same server differ: the verdict is about these runs only, and rates are "
    "not judged. Compare the servers themselves (antiphon bench compare URL URL), or repeat with --rounds.",
}
_ROW, _TOP, _LEFT, _RIGHT = 34, 10, 8, 12
_WIDEST = 64.0  # the axis reaches no further than this ratio


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write comparison.html, comparison.md and comparison.json to `folder`."""
    encoded = msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n"
    write_file(folder / "comparison.json", encoded)
    write_file(folder / "comparison.md", comparison_markdown(comparison).encode())
    write_file(folder / "comparison.html", comparison_html(comparison).encode())


def comparison_html(comparison: Comparison) -> str:
    """The page. It needs nothing else, neither scripts nor a network."""
    loads = [(load, list(group)) for load, group in groupby(comparison.estimates, key=lambda each: each.load)]
    charts = [(load, forest(f"{load}: {comparison.b} against {comparison.a}", group)) for load, group in loads]
    page = template("comparison.html")
    return page.render(
        comparison=comparison, charts=charts, method=METHODS[comparison.method], words=in_words(comparison)
    )


def in_words(comparison: Comparison) -> list[str]:
    """The verdicts with the servers' names instead of A and B."""
    names = {"A": comparison.a, "B": comparison.b}
    return [names.get(each.winner, "") + each.in_words()[bool(each.winner) :] for each in comparison.estimates]


def comparison_markdown(comparison: Comparison) -> str:
    """The sentence, and a row for each metric."""
    rows = [
        [
            escaped(each.load),
            each.metric,
            aligned(each.a),
            aligned(each.b),
            shown(each.ratio),
            interval(each),
            escaped(words),
        ]
        for each, words in zip(comparison.estimates, in_words(comparison), strict=True)
    ]
    titles = ["load", "metric", escaped(comparison.a), escaped(comparison.b), "ratio", "interval", "verdict"]
    parts = [f"**{escaped(comparison.sentence)}**\n", table(titles, rows), METHODS[comparison.method] + "\n"]
    return "\n".join([*parts, *(f"- {escaped(text)}" for text in comparison.failures)]) + "\n"


def interval(estimate: Estimate) -> str:
    """The interval of the ratio, in words."""
    return "–" if estimate.high is None else f"{shown(estimate.low)} to {shown(estimate.high)}"


def forest(description: str, estimates: Sequence[Estimate]) -> Markup:
    """A row for each metric: how many times as good B is as A, with its interval, and a dot for each round.

    Right of the line B is better, left of it A is, for latencies as for rates.
    """
    spans = [_span(each) for each in estimates]
    reach = min(
        _WIDEST, max([1.1, *(max(1 / low, high) for low, _, high in spans if low > 0 and high < _WIDEST)]) * 1.05
    )
    height = _TOP + _ROW * len(estimates) + 40
    middle = (_LEFT + WIDTH - _RIGHT) / 2

    def x(ratio: float) -> float:
        place = max(-1.0, min(1.0, log(max(ratio, 1e-9)) / log(reach)))
        return middle + place * (WIDTH - _LEFT - _RIGHT) / 2

    bottom = float(height - 34)
    parts = [element("line", class_="axis", x1=middle, x2=middle, y1=_TOP, y2=bottom)]
    for factor in _factors(reach):
        parts.append(element("line", class_="grid", x1=x(factor), x2=x(factor), y1=_TOP, y2=bottom))
        text = f"{shown(factor)}×" if factor > 1 else f"1/{shown(1 / factor)}×"
        parts.append(element("text", text, class_="tick", x=x(factor), y=bottom + 14, text_anchor="middle"))
    parts.append(element("text", "← A is better", class_="tick", x=float(_LEFT), y=bottom + 30))
    parts.append(
        element("text", "B is better →", class_="tick", x=float(WIDTH - _RIGHT), y=bottom + 30, text_anchor="end")
    )
    for number, (each, (low, ratio, high)) in enumerate(zip(estimates, spans, strict=True)):
        y = float(_TOP + _ROW * number + 24)
        color = 1 if each.winner else 0
        parts.append(element("text", each.metric, class_="label", x=float(_LEFT), y=y - 10))
        parts.append(element("line", class_=f"range{color}", x1=x(low), x2=x(high), y1=y, y2=y))
        for one in each.ratios:
            parts.append(element("circle", class_="round", cx=x(1 / one if each.better == "lower" else one), cy=y, r=2))
        title = element("title", f"{each.metric}: {shown(ratio)} times as good, {each.in_words()}")
        parts.append(element("circle", title, class_=f"fill{color}", cx=x(ratio), cy=y, r=4.5))
    return drawing(description, parts, height=height)


def _span(estimate: Estimate) -> tuple[float, float, float]:
    """How many times as good B is: the interval's ends, with the estimate between them."""
    low, high = (0.0, inf) if estimate.high is None else (estimate.low, estimate.high)
    if estimate.better == "higher":
        return low, estimate.ratio, high
    return 1 / high, 1 / estimate.ratio, inf if low == 0 else 1 / low


def _factors(reach: float) -> list[float]:
    """Ratios to label on both sides of 1."""
    steps = next(
        (each for each in ((1.05, 1.1), (1.1, 1.2), (1.25, 1.5), (1.5, 2), (2, 4), (4, 16)) if each[1] ** 1.5 > reach),
        (4, 16),
    )
    return [factor for step in steps if step <= reach for factor in (1 / step, step)]
