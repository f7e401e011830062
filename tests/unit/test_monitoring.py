"""`antiphon monitoring`: its files are what Prometheus and Grafana read, and name only what the server has."""

from __future__ import annotations

import enum
import json
import os
import re
import stat
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import run_antiphon
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import Runtime
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from hypothesis import given
from hypothesis import strategies as st
from programs import promtool
from promql import (
    LABELS_OF_PROMETHEUS,
    OF_PROMETHEUS,
    family_of,
    labels_of_result,
    names_in,
    registry,
    without_variables,
)

from antiphon.errors import ConfigError
from antiphon.monitoring import alertmanager, alerts
from antiphon.monitoring.bundle import files
from antiphon.monitoring.dashboard import NOT_SHOWN, ROWS, dashboard
from antiphon.monitoring.panels import COLUMNS, Panel
from antiphon.monitoring.prometheus import MonitoringSettings, configuration
from antiphon.monitoring.yaml_text import to_yaml

DOCS = Path(__file__).parents[2] / "docs"
FAMILIES = registry()
PANELS = {panel.title: panel for row in ROWS for panel in row.panels}


def expressions(panel: Panel) -> list[str]:
    return [without_variables(query.expression) for query in panel.queries]


def run(*arguments: str) -> Any:
    return run_antiphon("monitoring", *arguments)


# --- the dashboard


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_queries_only_metrics_and_labels_that_the_server_has(title: str):
    for expression in expressions(PANELS[title]):
        names = names_in(expression)
        families = {metric: family_of(metric, FAMILIES) for metric in names.metrics - OF_PROMETHEUS}
        assert not [metric for metric, family in families.items() if not family], expression
        known = LABELS_OF_PROMETHEUS.union(*(FAMILIES[family] for family in families.values()))
        assert names.labels <= known, expression


@pytest.mark.parametrize("title", PANELS)
def test_a_legend_names_only_labels_that_its_series_have(title: str):
    for query in PANELS[title].queries:
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= names_in(without_variables(query.expression)).labels


@pytest.mark.parametrize("title", PANELS)
def test_a_legend_tells_the_series_of_several_servers_apart(title: str):
    panel = PANELS[title]
    if panel.kind not in ("table", "heatmap"):
        for query in panel.queries:
            labels = labels_of_result(without_variables(query.expression))
            assert labels == set(re.findall(r"{{(\w+)}}", query.legend)), query.expression


def test_every_metric_is_in_some_panel_or_deliberately_in_none():
    queried = {metric for panel in PANELS.values() for each in expressions(panel) for metric in names_in(each).metrics}
    shown = {family_of(metric, FAMILIES) for metric in queried - OF_PROMETHEUS}
    assert FAMILIES.keys() - shown == NOT_SHOWN


def test_every_query_selects_the_servers_that_are_chosen():
    for panel in PANELS.values():
        for query in panel.queries:
            selectors = re.findall(r"{[^{}]*}", query.expression)
            assert selectors
            assert all('job=~"$job", instance=~"$instance"' in each for each in selectors), query.expression


def test_panels_have_one_title_each_and_say_what_they_mean():
    assert len(PANELS) == sum(len(row.panels) for row in ROWS)
    for panel in PANELS.values():
        assert panel.meaning.endswith("."), panel.title
        assert not panel.title.endswith("."), panel.title


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = document.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return set(re.findall(r'<a id="([^"]+)">', text)) | {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("place", sorted({panel.document for panel in PANELS.values()}))
def test_what_a_panel_refers_to_in_the_documentation_exists(place: str):
    name, _, anchor = place.partition("#")
    assert (DOCS / name).is_file()
    assert not anchor or anchor in anchors(DOCS / name)


def test_grafanas_own_library_reads_the_dashboard_and_loses_nothing():
    """It drops what it does not know, so a misspelt field would be missing in what it writes."""
    register_default_plugins()
    written = dashboard("https://docs.example/antiphon")
    read = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    assert list(_lost(written, read, "")) == []


def _lost(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{path}.{key}"
            else:
                yield from _lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list):
        assert len(before) == len(after), path
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


def test_every_choice_is_one_that_grafana_has():
    register_default_plugins()
    written = dashboard()
    wrong = list(_not_in_their_enumeration(Dashboard.from_json(written), "dashboard"))
    assert wrong == []
    assert {panel["type"] for panel in written["panels"]} <= {"row", *Runtime().panelcfg_variants}
    known = {value for value in vars(units).values() if isinstance(value, str)}
    assert {panel.unit for panel in PANELS.values()} <= known


def _not_in_their_enumeration(part: Any, path: str) -> Iterator[str]:
    """The library reads any string where it declares an enumeration; these are not among its values."""
    if isinstance(part, list):
        for number, each in enumerate(part):
            yield from _not_in_their_enumeration(each, f"{path}[{number}]")
    elif type(part).__module__.startswith("grafana_foundation_sdk"):
        for name, kind in typing.get_type_hints(type(part)).items():
            value = getattr(part, name, None)
            for choice in (kind, *typing.get_args(kind)):
                if isinstance(choice, enum.EnumMeta) and value is not None and value not in list(choice):
                    yield f"{path}.{name}: {value!r}"
            if not isinstance(value, enum.Enum):
                yield from _not_in_their_enumeration(value, f"{path}.{name}")


def test_panels_fill_the_grid_without_overlapping():
    taken: set[tuple[int, int]] = set()
    ids = []
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells
        ids.append(panel["id"])
    assert len(set(ids)) == len(ids)


def test_links_lead_to_the_published_documentation_or_are_left_out():
    linked = dashboard("https://docs.example/antiphon/")
    urls = [link["url"] for panel in linked["panels"] for link in panel.get("links", ())]
    assert len(urls) == len(PANELS)
    assert all(url.startswith("https://docs.example/antiphon/") for url in urls)
    assert "https://" not in json.dumps(dashboard())


# --- Prometheus' configuration


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--target", "https://a.example:8000", "--target", "https://b.example", "--ca-file", "ca.pem"),
        ("--target", "[::1]:8000", "--credentials-file", "secrets/key", "--scrape-interval", "500ms"),
        ("--job", "r1-1.5b", "--alertmanager", "alertmanager:9093", "--target", "10.0.0.5:8000"),
    ],
    ids=str,
)
def test_promtool_accepts_the_configuration(tmp_path: Path, options: tuple[str, ...]):
    assert run(str(tmp_path / "out"), *options).exit_code == 0
    (tmp_path / "out" / "secrets").mkdir()
    for name in ("secrets/key", "ca.pem"):
        (tmp_path / "out" / name).touch()
    checked = subprocess.run(
        [promtool(), "check", "config", tmp_path / "out" / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout


def test_servers_keys_and_certificates_are_where_prometheus_looks_for_them():
    settings = MonitoringSettings(
        ("https://a:8000", "https://b:8000"), job="r1", credentials_file="key", ca_file="ca.pem", scrape_interval="5s"
    )
    found = configuration(settings)
    (job,) = found["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["a:8000", "b:8000"]}]
    assert (job["job_name"], job["scheme"], job["tls_config"]) == ("r1", "https", {"ca_file": "ca.pem"})
    assert job["authorization"] == {"type": "Bearer", "credentials_file": "key"}
    assert (found["global"]["scrape_interval"], found["global"]["scrape_timeout"]) == ("5s", "5s")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"targets": ()}, "--target"),
        ({"targets": ("ftp://a:8000",)}, "--target"),
        ({"targets": ("http://a:8000/metrics",)}, "without a path"),
        ({"targets": ("user:secret@a:8000",)}, "--target"),
        ({"targets": ("http://a:8000", "https://b:8000")}, "same scheme"),
        ({"targets": ("a:8000", "http://a:8000")}, "twice"),
        ({"ca_file": "ca.pem"}, "--ca-file"),
        ({"scrape_interval": "15"}, "--scrape-interval"),
        ({"scrape_interval": "0s"}, "--scrape-interval"),
        ({"job": 'a"b'}, "--job"),
        ({"alertmanager": "http://a:9093"}, "--alertmanager"),
        ({"prometheus_url": "localhost:9090"}, "--prometheus-url"),
        ({"docs_url": "docs/"}, "--docs-url"),
    ],
    ids=str,
)
def test_a_setting_that_would_not_work_is_refused_by_name(settings: dict[str, Any], named: str):
    with pytest.raises(ConfigError, match=named):
        MonitoringSettings(**settings)


# --- the folder


def test_every_file_is_what_its_name_says(tmp_path: Path):
    for path, text in files(tmp_path, MonitoringSettings(credentials_file="key")).items():
        assert text.endswith("\n")
        if path.endswith(".yml"):
            assert isinstance(yaml.safe_load(text), dict)
        elif path.endswith(".json"):
            assert json.loads(text)["uid"] == "antiphon"


def test_alerts_and_their_receiver_are_written_as_they_are_defined(tmp_path: Path):
    run(str(tmp_path), "--job", "r1", "--docs-url", "https://docs.example", "--webhook-url", "http://pager.example/")
    rules = yaml.safe_load((tmp_path / "rules" / "antiphon.yml").read_text())
    assert rules == alerts.rules(job="r1", docs_url="https://docs.example")
    sent = yaml.safe_load((tmp_path / "alertmanager.yml").read_text())
    assert sent == alertmanager.config(webhook_url="http://pager.example/")


def test_grafana_finds_the_dashboard_where_it_was_written_or_mounted(tmp_path: Path):
    run(str(tmp_path))
    provider = yaml.safe_load((tmp_path / "grafana/provisioning/dashboards/antiphon.yml").read_text())
    (path,) = (each["options"]["path"] for each in provider["providers"])
    assert (Path(path) / "antiphon.json").is_file()
    run(str(tmp_path), "--dashboards-path", "/dashboards", "--force")
    assert "path: /dashboards\n" in (tmp_path / "grafana/provisioning/dashboards/antiphon.yml").read_text()


def test_what_somebody_changed_is_only_replaced_by_force(tmp_path: Path):
    assert run(str(tmp_path)).exit_code == 0
    changed = tmp_path / "prometheus.yml"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    again = run(str(tmp_path))
    assert again.exit_code == 0
    assert {line.split()[0] for line in again.output.splitlines()} == {"unchanged"}
    changed.write_text("global: {}\n")
    (tmp_path / "README.md").unlink()
    refused = run(str(tmp_path))
    assert isinstance(refused.exception, ConfigError)
    assert "--force" in refused.exception.message
    assert not (tmp_path / "README.md").exists(), "nothing is written then"
    assert run(str(tmp_path), "--force").exit_code == 0
    assert {path: path.read_bytes() for path in before} == before


def test_files_may_be_read_by_prometheus(tmp_path: Path):
    """They contain no secret, and Prometheus and Grafana run as users of their own."""
    mask = os.umask(0o022)
    try:
        run(str(tmp_path))
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "prometheus.yml").stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "grafana").write_text("a file")
    refused = run(str(tmp_path))
    assert isinstance(refused.exception, ConfigError)
    assert str(tmp_path / "grafana") in refused.exception.message


# --- YAML

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"))
_TREES = st.recursive(
    _SCALARS
    | _TEXTS
    | st.sampled_from(["yes", "1e3", "2026-01-01", "- a", "a: b", "# c", "a\n b", "a\n\n", "\n", "~", "0x1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(_TREES)
def test_yaml_means_what_was_written(tree: Any):
    assert yaml.safe_load(to_yaml(tree)) == tree


def test_yaml_is_written_for_people():
    tree = {
        "groups": [{"name": "a", "rules": [{"expr": "up\n  == 0", "for": "5m", "labels": {}}]}],
        "names": ["node", "x y"],
    }
    assert (
        to_yaml(tree)
        == """groups:
  - name: a
    rules:
      - expr: |-
          up
            == 0
        for: 5m
        labels: {}
names:
  - node
  - x y
"""
    )
