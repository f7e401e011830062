"""Panels and rows of the dashboard, and what they are in Grafana's JSON.

The format is that of Grafana 10.1 and later, which newer versions read too. Tests check it with Grafana's own library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

COLUMNS = 24  # of Grafana's grid
HEIGHT = 8  # of a panel, in the grid's rows
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "heatmap", "state-timeline", "table"]
# Colours from a value on; None: from below all others.
Thresholds = tuple[tuple[float | None, str], ...]

GOOD: Thresholds = ((None, "green"),)
BAD_ABOVE_ZERO: Thresholds = ((None, "green"), (1e-9, "red"))


def limits(warning: float, critical: float) -> Thresholds:
    """Green, orange from `warning` on, red from `critical` on."""
    return ((None, "green"), (warning, "orange"), (critical, "red"))


@dataclass(frozen=True)
class Query:
    """An expression, and how its series are called: `{{label}}` is the value of a label."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    meaning: str  # what it shows and what to do about it, for people who see it for the first time
    queries: Sequence[Query]
    unit: str = "short"  # as Grafana names it: "s", "bytes", "percentunit", "reqps" …
    kind: Kind = "timeseries"
    width: int = 8  # of COLUMNS
    height: int = HEIGHT
    thresholds: Thresholds = GOOD
    stacked: bool = False
    lowest: float | None = 0
    highest: float | None = None
    decimals: int | None = None
    no_value: str = ""  # shown instead of "No data" where it is normal that there is none
    states: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # value → (text, colour)
    document: str = "metrics.md"  # what explains it, in the documentation


@dataclass(frozen=True)
class Row:
    """A row of panels under a heading."""

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


def to_grafana(rows: Sequence[Row], docs_url: str = "") -> list[Json]:
    """The rows' panels as Grafana has them, placed from left to right and top to bottom.

    `docs_url` is where the documentation is published; without it the panels name its files and have no links.
    """
    found: list[Json] = []
    y = 0
    for row in rows:
        heading: Json = {"type": "row", "title": row.title, "collapsed": row.collapsed, "panels": []}
        heading["gridPos"] = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        found.append(heading)
        y += 1
        placed = list(arrange(row.panels, y))
        panels = [_panel(panel, position, docs_url) for panel, position in placed]
        (heading["panels"] if row.collapsed else found).extend(panels)
        y = max((position["y"] + position["h"] for _, position in placed), default=y)
    for number, each in enumerate(_all(found), start=1):
        each["id"] = number
    return found


def _all(panels: Sequence[Json]) -> Iterator[Json]:
    """The panels, and those inside collapsed rows."""
    for each in panels:
        yield each
        yield from each.get("panels", ())


def arrange(panels: Sequence[Panel], y: int) -> Iterator[tuple[Panel, dict[str, int]]]:
    """Each panel with its place; a line of panels is as high as its highest."""
    x = line_height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y, line_height = 0, y + line_height, 0
        yield panel, {"x": x, "y": y, "w": panel.width, "h": panel.height}
        x += panel.width
        line_height = max(line_height, panel.height)


def _panel(panel: Panel, position: dict[str, int], docs_url: str) -> Json:
    described = f"{panel.meaning}\n\nDocumentation: docs/{panel.document}"
    found: Json = {
        "type": panel.kind,
        "title": panel.title,
        "description": described,
        "datasource": DATASOURCE,
        "gridPos": position,
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {
            "defaults": _defaults(panel),
            "overrides": [_LIMITS_DASHED] if panel.kind == "timeseries" else [],
        },
        "options": _OPTIONS[panel.kind],
    }
    if docs_url:
        found["links"] = [link("Documentation", f"{docs_url.rstrip('/')}/{panel.document}")]
    return found


def link(title: str, url: str) -> Json:
    """A link to a web page."""
    return {
        "title": title,
        "type": "link",
        "icon": "doc",
        "tooltip": "",
        "url": url,
        "tags": [],
        "asDropdown": False,
        "targetBlank": True,
        "includeVars": False,
        "keepTime": False,
    }


def _target(panel: Panel, query: Query, index: int) -> Json:
    now = panel.kind == "table"
    forms = {"heatmap": "heatmap", "table": "table"}
    return {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": "{{le}}" if panel.kind == "heatmap" else query.legend,
        "format": forms.get(panel.kind, "time_series"),
        "instant": now,
        "range": not now,
        "editorMode": "code",
    }


def _defaults(panel: Panel) -> Json:
    steps = [{"value": value, "color": colour} for value, colour in panel.thresholds]
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "custom": _custom(panel),
    }
    for key, value in (("min", panel.lowest), ("max", panel.highest), ("decimals", panel.decimals)):
        if value is not None:
            defaults[key] = value
    if panel.no_value:
        defaults["noValue"] = panel.no_value
    if panel.states:
        states = {value: {"text": text, "color": colour} for value, (text, colour) in panel.states.items()}
        defaults["mappings"] = [{"type": "value", "options": states}]
    return defaults


def _custom(panel: Panel) -> Json:
    """Options of the kind of panel, for each of its series."""
    if panel.kind == "state-timeline":
        return {"fillOpacity": 70, "lineWidth": 0}
    if panel.kind != "timeseries":
        return {}
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if len(panel.thresholds) > 1 else "off"},
    }


# Series that are limits: dashed, without an area below them.
_LIMITS_DASHED: Json = {
    "matcher": {"id": "byRegexp", "options": "^(limit|target)([ ,(].*)?$"},
    "properties": [
        {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
        {"id": "custom.fillOpacity", "value": 0},
        {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
    ],
}
_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_TOOLTIP = {"mode": "multi", "sort": "desc"}
_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: Mapping[Kind, Json] = {
    "timeseries": {"legend": _LEGEND, "tooltip": _TOOLTIP},
    "stat": {
        "graphMode": "area",
        "colorMode": "value",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
        "reduceOptions": _LAST,
    },
    "heatmap": {
        "calculate": False,
        "color": {
            "mode": "scheme",
            "scheme": "Oranges",
            "fill": "dark-orange",
            "scale": "exponential",
            "exponent": 0.5,
            "steps": 64,
            "reverse": False,
        },
        "cellGap": 1,
        "showValue": "never",
        "filterValues": {"le": 1e-9},
        "rowsFrame": {"layout": "auto"},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
        "legend": {"show": True},
        "tooltip": {"show": True, "yHistogram": False},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
    },
    "state-timeline": {
        "showValue": "auto",
        "rowHeight": 0.9,
        "mergeValues": True,
        "alignValue": "left",
        "legend": _LEGEND,
        "tooltip": _TOOLTIP,
    },
    "table": {"showHeader": True, "cellHeight": "sm", "frameIndex": 0},
}
