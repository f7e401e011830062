"""The alerting rules: their metrics exist, each fires and clears when it should, and each has a row that helps.

`test_alerts_fire.py` in tests/faults provokes them on a real server.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from alert_scenarios import SCENARIOS, Case, Scenario
from programs import amtool, promtool
from prometheus_client.parser import text_string_to_metric_families
from promql import ANY_GPU

from antiphon.errors import ConfigError
from antiphon.metrics import EnginesReport, Metrics
from antiphon.monitoring import alertmanager
from antiphon.monitoring.alert import MINUTE, Alert, Durations, Thresholds
from antiphon.monitoring.alerts import alerts, rules

DOCS = Path(__file__).parents[2] / "docs"
BEFORE = 60  # minutes of good times in a scenario
# Of Prometheus itself, for every target.
PROMETHEUS = {"up": {"job", "instance"}, "scrape_duration_seconds": {"job", "instance"}}
ALERTS = {alert.name: alert for members in alerts().values() for alert in members}


def known_series() -> dict[str, list[dict[str, str]]]:
    """Name → the labels of each series, as a server with TLS, an engine and a GPU has them."""
    metrics = Metrics("1", "m", EnginesReport)
    metrics.watch_certificate(lambda: 1.0)
    metrics.watch_gpus(lambda: [ANY_GPU])
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def selectors(node: Any, kept: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """The vector selectors of a parsed expression, each with the labels that the aggregations around it keep."""
    match node:
        case promql_parser.VectorSelector():
            yield node, kept
        case promql_parser.MatrixSelector():
            yield node.vector_selector, kept
        case promql_parser.BinaryExpr():
            yield from selectors(node.lhs, kept)
            yield from selectors(node.rhs, kept)
        case promql_parser.AggregateExpr():
            yield from selectors(node.expr, (*kept, *node.modifier.labels))
        case promql_parser.ParenExpr():
            yield from selectors(node.expr, kept)
        case promql_parser.Call():
            for argument in node.args:
                yield from selectors(argument, kept)
        case promql_parser.NumberLiteral():
            pass
        case _:
            raise AssertionError(f"the test knows no {type(node)}")


def test_every_metric_label_and_value_in_a_rule_exists():
    series = known_series()
    every = [rule for group in rules()["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in every if "record" in rule}
    used = set()
    for rule in every:
        for selector, kept in selectors(promql_parser.parse(rule["expr"])):
            used.add(selector.name)
            if selector.name in recorded | PROMETHEUS.keys():
                continue
            assert selector.name in series, rule
            for matcher in selector.matchers.matchers:
                if matcher.name == "job":
                    continue
                values = {labels[matcher.name] for labels in series[selector.name]}
                assert set(matcher.value.split("|")) <= values, f"{matcher} in {rule}"
            assert all({*kept} - {"job", "instance"} <= labels.keys() for labels in series[selector.name]), rule
    assert recorded <= used, "a recording that no alert reads"


@pytest.mark.parametrize("time_scale", [1.0, 0.01])
def test_promtool_accepts_the_rules(tmp_path: Path, time_scale: float):
    written = rules(docs_url="https://docs.example/", time_scale=time_scale)
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps(written))  # YAML contains JSON
    checked = subprocess.run([promtool(), "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{sum(len(group['rules']) for group in written['groups'])} rules found" in checked.stdout


def test_amtool_accepts_the_configuration_and_it_sends_every_alert_to_somebody(tmp_path: Path):
    file = tmp_path / "alertmanager.yml"
    file.write_text(json.dumps(alertmanager.config()))
    subprocess.run([amtool(), "check-config", file], capture_output=True, check=True)
    for alert in ALERTS.values():
        labels = [f"{name}={value}" for name, value in alert.labels.items()]
        command = [amtool(), "config", "routes", "test", f"--config.file={file}", *labels]
        routed = subprocess.run(command, capture_output=True, text=True, check=True)
        assert routed.stdout.strip() == alert.severity


def test_a_webhook_that_is_no_address_is_refused():
    with pytest.raises(ConfigError, match="webhook_url is 'nowhere'"):
        alertmanager.config(webhook_url="nowhere")


def test_inhibitions_name_alerts_and_labels_that_exist():
    labels = [{"alertname": alert.name, **alert.labels} for alert in ALERTS.values()]
    for rule in alertmanager.config()["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            name, pattern = re.fullmatch(r'(\w+)=~?"(.*)"', matcher).groups()
            found = [each for each in labels if re.fullmatch(pattern, each.get(name, ""))]
            assert found, matcher
            if "|" in pattern:
                assert len(found) == pattern.count("|") + 1


def test_every_alert_has_a_row_that_says_what_to_do():
    rows = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \|', (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert dict(rows) == {alert.anchor: alert.name for alert in ALERTS.values()}
    assert len(rows) == len(ALERTS)
    for group in rules()["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
                assert (path, anchor) == ("docs/troubleshooting.md", ALERTS[rule["alert"]].anchor)


def test_every_alert_is_in_the_table_of_the_document():
    text = (DOCS / "monitoring.md").read_text()
    rows = re.findall(
        r"^\| `(Antiphon\w+)` \| (\w+) \| .* \| \[row\]\(troubleshooting.md#(\w+)\) \|$", text, re.MULTILINE
    )
    assert rows == [(alert.name, alert.severity, alert.anchor) for alert in ALERTS.values()]


def test_links_go_to_the_published_documentation_where_there_is_one():
    (first, *_) = (rule for rule in rules(docs_url="https://docs.example/a/")["groups"][0]["rules"] if "alert" in rule)
    link = first["annotations"]["runbook_url"]
    assert link == "https://docs.example/a/troubleshooting.md#antiphonavailabilityfastburn"


def test_texts_are_sentences_with_values():
    for alert in ALERTS.values():
        assert alert.description.endswith("."), alert.name
        assert not alert.summary.endswith("."), alert.name
        assert "{{ $labels." in alert.description, alert.name
        left = re.sub(r"\{\{ [^{}]* \}\}", "", alert.summary + alert.description)
        assert not set("{}") & set(left), alert.name


@pytest.mark.parametrize(
    ("seconds", "scale", "written"),
    [(3600, 1, "1h"), (300, 1, "5m"), (90, 1, "90s"), (1800, 0.01, "18s"), (15, 0.01, "150ms"), (1, 1e-9, "1ms")],
)
def test_durations_are_written_as_prometheus_reads_them(seconds: float, scale: float, written: str):
    assert Durations(scale)(seconds) == written


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"availability": 1.0}, "availability is 1.0; it must be below 1"),
        ({"shed_share": 0.0}, "shed_share is 0.0; it must be above 0"),
        ({"kv_cache_share": float("nan")}, "kv_cache_share is nan"),
        ({"first_token_seconds": 9.0}, "first_token_seconds is 9; it must be one of"),
    ],
)
def test_thresholds_at_which_an_alert_never_or_always_fires_are_refused(values: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Thresholds(**values)


def test_an_objective_whose_budget_cannot_be_spent_fast_enough_is_refused():
    with pytest.raises(ConfigError, match=r"first_token is 0.9.*above 0.931"):
        rules(Thresholds(first_token_share=0.9))


# --- each alert under made-up series, evaluated by Prometheus itself


def test_every_alert_has_a_scenario():
    assert SCENARIOS.keys() == ALERTS.keys()


def test_every_alert_fires_after_its_time_and_clears_and_is_quiet_below_its_threshold(tmp_path: Path):
    """All scenarios pass at the same time, each on servers of its own."""
    series, expectations = [], []
    for name, scenario in SCENARIOS.items():
        cases = {"fires": Case(scenario.fires)} | {f"quiet, {case.why}": case for case in scenario.quiet}
        assert len(cases) == len(scenario.quiet) + 1
        for what, case in cases.items():
            series += _input(_place(ALERTS[name], what), scenario, case)
        expectations += _expectations(ALERTS[name], scenario)
    test = {"interval": "1m", "input_series": series, "promql_expr_test": expectations}
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "tests.yml").write_text(json.dumps(document))
    (tmp_path / "rules.yml").write_text(json.dumps(_evaluated_every_minute()))
    command = [promtool(), "test", "rules", "tests.yml"]
    tested = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _evaluated_every_minute() -> dict[str, Any]:
    groups = rules()["groups"]
    return {"groups": [{"name": group["name"], "rules": group["rules"]} for group in groups]}


def _place(alert: Alert, what: str) -> dict[str, str]:
    """The labels of the servers to which something happens."""
    if alert.slo:
        return {"job": f"{alert.name} {what}", "instance": "a"}
    return {"job": "antiphon", "instance": f"{alert.name} {what}"}


def _input(place: dict[str, str], scenario: Scenario, case: Case) -> list[dict[str, str]]:
    minutes = BEFORE, case.minutes or scenario.minutes, scenario.clears_after + 1
    found = []
    for series, of in case.series.items():
        name, _, labels = series.rstrip("}").partition("{")
        values = " ".join(f"{value:g}" for value in of.values(*minutes))
        found.append({"series": f"{name}{{{_text(place)}{',' + labels if labels else ''}}}", "values": values})
    return found


def _expectations(alert: Alert, scenario: Scenario) -> list[dict[str, Any]]:
    """It fires where it should when it has lasted for long enough, and never anywhere else."""
    hold, end = round(alert.hold / MINUTE), BEFORE + scenario.minutes
    place = {label: value for label, value in _place(alert, "fires").items() if label == "job" or not alert.slo}
    labels = {"alertname": alert.name, "alertstate": "firing", **alert.labels, **place, **scenario.labels}
    servers = f'{"job" if alert.slo else "instance"}=~"{alert.name} .*"'
    firing = f'ALERTS{{alertname="{alert.name}", alertstate="firing", {servers}}}'
    moments = [(BEFORE - 1, []), (BEFORE + hold - 1, []), (end - 1, [labels]), (end + scenario.clears_after, [])]
    found = [
        {
            "expr": firing,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f"ALERTS{{{_text(each)}}}", "value": 1} for each in expected],
        }
        for minute, expected in moments
    ]
    places = f"count by (job, instance) (count_over_time({firing}[1d]))"
    ever = [{"labels": f"{{{_text(place)}}}", "value": 1}]
    return [*found, {"expr": places, "eval_time": f"{end + scenario.clears_after}m", "exp_samples": ever}]


def _text(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
