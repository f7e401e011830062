"""Elements of SVG, and the axes that all charts share.

Everything that is put into an element is escaped, and control characters are made visible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isclose, log10

from markupsafe import Markup, escape

from antiphon.terminal import printable

WIDTH, HEIGHT = 360, 208  # of a chart, in CSS pixels on a phone
_LEFT, _TOP, _BOTTOM = 40, 12, 34


def element(name: str, *children: str, **attributes: object) -> Markup:
    """An element. Underscores in the names of attributes become hyphens, and a last one goes (`class_`). Numbers are
    rounded to a tenth of a pixel, and attributes that are None are left out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(printable(str(shown)))}"')
    content = "".join(child if isinstance(child, Markup) else escape(printable(child)) for child in children)
    return Markup("".join(parts) + (f">{content}</{name}>" if children else "/>"))  # noqa: S704  # escaped above


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """About so many round numbers, from at most `low` to at least `high`: 1, 2, 2.5 or 5 times a power of 10 apart."""
    if not high > low:
        high = low + 1
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def from_zero(begin: float, end: float) -> float:
    """Where an axis of time begins: at 0, if the values begin soon after it."""
    return 0.0 if 0 <= begin < 0.1 * end else begin


def time_ticks(begin: float, end: float, most: int = 7) -> list[float]:
    """Seconds to label on an axis of time: at most so many steps, of round numbers of seconds, minutes or hours."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((each for each in steps if (end - begin) / each <= most), steps[-1])
    return [number * step for number in range(ceil(begin / step), floor(end / step) + 1)]


def shown(value: float) -> str:
    """Three significant digits, without an exponent or superfluous zeros: 0.0123, 1.5, 210, 12,345."""
    text = aligned(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def aligned(value: float) -> str:
    """Like `shown`, but with zeros at the end, for columns of a table: 0.0123, 1.50, 210."""
    if isinstance(value, int):
        return f"{value:,}"
    if isclose(value, 0, abs_tol=1e-12):
        return "0"
    rounded = float(f"{value:.2e}")  # before the digits are counted: 9.999 is 10.0, not 10.00
    return f"{rounded:,.{max(0, 2 - floor(log10(abs(rounded))))}f}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(frozen=True)
class Frame:
    """The area of a chart, with its scales: data to pixels."""

    x_low: float
    x_high: float
    y_ticks: Sequence[float]
    right: int = 14  # room for labels of lines
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT

    def x(self, value: float) -> float:
        """Pixels from the left."""
        span = self.x_high - self.x_low or 1
        return self.left + (value - self.x_low) / span * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return _TOP + (1 - (value - low) / (high - low)) * (self.height - _TOP - _BOTTOM)

    @property
    def bottom(self) -> float:
        """Where the x axis is, in pixels from the top."""
        return self.height - _BOTTOM

    def axes(
        self,
        x_ticks: Sequence[float],
        x_label: str,
        y_shown: Callable[[float], str] = shown,
        x_shown: Callable[[float], str] = shown,
    ) -> list[Markup]:
        """Lines and labels of both axes."""
        parts = []
        for value in self.y_ticks:
            y = self.y(value)
            kind = "axis" if value == self.y_ticks[0] else "grid"
            parts.append(element("line", class_=kind, x1=self.left, x2=self.width - self.right, y1=y, y2=y))
            parts.append(element("text", y_shown(value), class_="tick", x=self.left - 6, y=y + 4, text_anchor="end"))
        for value in x_ticks:
            if self.x_low <= value <= self.x_high:
                x = self.x(value)
                parts.append(element("line", class_="axis", x1=x, x2=x, y1=self.bottom, y2=self.bottom + 4))
                label = element("text", x_shown(value), class_="tick", x=x, y=self.bottom + 16, text_anchor="middle")
                parts.append(label)
        middle = (self.left + self.width - self.right) / 2
        parts.append(element("text", x_label, class_="tick", x=middle, y=float(self.height - 4), text_anchor="middle"))
        return parts


def drawing(description: str, parts: Sequence[str], width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """A whole SVG image; `description` is for those who do not see it."""
    return element(
        "svg", element("title", description), *parts, viewBox=f"0 0 {width} {height}", role="img", class_="chart"
    )
