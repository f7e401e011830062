"""What a PromQL expression names: its metrics and labels, found by parsing it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import promql_parser

from antiphon.metrics import EngineFigures, EnginesReport, GpuFigures, Metrics

# What Grafana puts in place of its variables.
_VARIABLES = {"$job": ".*", "$instance": ".*", "$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
# What Prometheus itself adds to the series of a server.
OF_PROMETHEUS = {"up", "scrape_duration_seconds", "ALERTS"}
# A GPU of which everything is known.
ANY_GPU = GpuFigures("0", "a", "NVIDIA A40", "nvml", 1, 4, 2, 1, 0.5, 60.0, 95.0, 100.0, 300.0)
LABELS_OF_PROMETHEUS = {"job", "instance", "le", "alertname", "alertstate", "severity"}


def without_variables(expression: str, **values: str) -> str:
    """The expression as Grafana sends it to Prometheus, with these values of its variables (without the dollar)."""
    variables = _VARIABLES | {f"${name}": value for name, value in values.items()}
    for name in sorted(variables, key=len, reverse=True):
        expression = expression.replace(name, variables[name])
    assert "$" not in expression, expression
    return expression


@dataclass(frozen=True)
class Names:
    """The metrics that an expression selects, and the labels that it uses."""

    metrics: frozenset[str]
    labels: frozenset[str]


def names_in(expression: str) -> Names:
    """Parse the expression; raises ValueError if it is not PromQL."""
    metrics: set[str] = set()
    labels: set[str] = set()
    for part in _parts(promql_parser.parse(expression)):
        if isinstance(part, promql_parser.VectorSelector):
            assert part.name, f"a selector without a metric: {expression}"
            metrics.add(part.name)
            labels.update(matcher.name for matcher in part.matchers.matchers)
    for listed in re.findall(r"\b(?:on|ignoring|by|without|group_left|group_right) ?\(([^)]*)\)", expression):
        labels.update(each.strip() for each in listed.split(","))
    return Names(frozenset(metrics), frozenset(labels - {""}))


def labels_of_result(expression: str) -> frozenset[str]:
    """The labels that tell the series of its result apart, by its outermost aggregation."""
    return _result(promql_parser.parse(expression))


def _result(part: object) -> frozenset[str]:
    if isinstance(part, promql_parser.AggregateExpr):
        return frozenset(part.modifier.labels if part.modifier else ())
    if isinstance(part, promql_parser.BinaryExpr):
        return _result(part.lhs) | _result(part.rhs)
    if isinstance(part, promql_parser.ParenExpr):
        return _result(part.expr)
    if isinstance(part, promql_parser.Call):
        inner = frozenset(label for argument in part.args for label in _result(argument))
        return inner - {"le"} if part.func.name == "histogram_quantile" else inner
    assert not isinstance(part, promql_parser.VectorSelector), "all series of a metric, with all their labels"
    return frozenset()


def _parts(expression: object) -> Iterator[object]:
    """The expression and all expressions inside it."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
        inner = getattr(expression, name, None)
        if inner is not None and not isinstance(inner, str):
            yield from _parts(inner)
    for argument in getattr(expression, "args", None) or ():
        yield from _parts(argument)


def registry() -> dict[str, frozenset[str]]:
    """Each family of the server's real registry → the labels of its series; a histogram's have `le` too."""
    metrics = Metrics("1", "m", lambda: EnginesReport([EngineFigures("1")]), key_names=["a"])
    metrics.watch_gpus(lambda: [ANY_GPU])
    found = {}
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels}
        # While it has no samples: those that it was defined with, or that it has where the kernel measures it.
        labels.update(getattr(metrics.registry._names_to_collectors.get(family.name), "_labelnames", ()))
        labels.update({"resource"} if family.name.startswith("antiphon_pressure_") else ())
        found[family.name] = frozenset(labels)
    return found


def family_of(metric: str, families: Iterable[str]) -> str:
    """The family that a name belongs to, as scraped: counters end with _total, histograms have three series."""
    known = set(families)
    if metric in known:
        return metric
    bare = re.sub("_(total|bucket|count|sum)$", "", metric)
    return bare if bare in known else ""
