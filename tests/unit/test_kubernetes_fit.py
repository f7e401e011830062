"""deploy/kubernetes agrees with the server: its routes, options, times, metrics and alerts."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from command_line import commands
from kubernetes import FOLDER, KUBECTL, OVERLAYS, ROOT, Object, Pod, container, of_kind, overlay, pods, server
from programs import promtool
from promql import LABELS_OF_PROMETHEUS, family_of, names_in, registry

from antiphon import __version__
from antiphon.config import ServerConfig
from antiphon.footprint import PROCESS_BYTES, WeightBytes, kv_capacity
from antiphon.http.edge.authentication import OPEN_PATHS
from antiphon.http.routes.operations import METRICS_PATH, router

PLACE = "/etc/antiphon/antiphon.toml"  # where the settings are mounted
FLUSH_SECONDS = 5  # after the drain, for answers that are complete but not sent yet
DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
ADAPTER = yaml.safe_load((FOLDER / "components" / "autoscaling" / "prometheus-adapter.yaml").read_text())


def settings_text(objects: list[Object]) -> str:
    (found,) = [each for name, each in of_kind(objects, "ConfigMap").items() if name.startswith("antiphon-settings-")]
    return found["data"]["antiphon.toml"]


def environment(objects: list[Object], pod: Pod, of: str) -> dict[str, str]:
    """The environment of a container, with the values of ConfigMaps."""
    found = {}
    for each in container(pod, of)["env"]:
        source = each.get("valueFrom", {}).get("configMapKeyRef")
        if source:
            found[each["name"]] = of_kind(objects, "ConfigMap")[source["name"]]["data"][source["key"]]
        elif "value" in each:
            found[each["name"]] = each["value"]
    return found


def command_line(objects: list[Object], pod: Pod, of: str) -> list[str]:
    """The arguments of a container as the program gets them."""
    values = environment(objects, pod, of)
    return [re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], each) for each in container(pod, of)["args"]]


def parsed(arguments: list[str], values: dict[str, str], folder: Path, settings: str) -> click.Context:
    """A command line of ours as the program understands it, with the settings in a file of `folder`."""
    (folder / "antiphon.toml").write_text(settings)
    name, *rest = [each.replace(PLACE, str(folder / "antiphon.toml")) for each in arguments]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in values.items():
            patch.setenv(key, value)
        return commands().commands[name].make_context(name, rest)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_servers_options_files_and_environment_are_understood(name: str, tmp_path: Path):
    objects = overlay(name)
    pod = server(objects)
    values = environment(objects, pod, "server")
    known = {f"ANTIPHON_{field.upper()}" for field in ServerConfig.__dataclass_fields__}
    assert values.keys() - {"MODEL"} <= known
    understood = parsed(command_line(objects, pod, "server"), values, tmp_path, settings_text(objects)).params
    assert understood["model"] == values["MODEL"]
    assert understood["offline"] is True
    (mounted,) = [each for each in container(pod, "server")["volumeMounts"] if each["name"] == "settings"]
    assert f"{mounted['mountPath']}/antiphon.toml" == PLACE
    (keys,) = [each for each in container(pod, "server")["volumeMounts"] if each["name"] == "keys"]
    assert understood["api_key_file"] == f"{keys['mountPath']}/api-keys"
    for field, value in (("metrics_aliases", "vllm"), ("public_metrics", True)):
        assert (understood[field] == value) is (name == "inference-gateway")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_download_is_of_the_model_that_is_served_into_where_servers_look(name: str, tmp_path: Path):
    objects = overlay(name)
    (pull,) = [pod for pod in pods(objects) if pod.owner == "antiphon-pull"]
    understood = parsed(command_line(objects, pull, "pull"), {}, tmp_path, "").params
    assert understood["model"] == environment(objects, server(objects), "server")["MODEL"]
    cache = re.search(r"ANTIPHON_CACHE=(\S+)", CONTAINERFILE)
    assert cache
    for pod in (pull, server(objects)):
        for each in pod.containers:
            (mount,) = [mount for mount in each["volumeMounts"] if mount["name"] == "models"]
            assert mount["mountPath"] == cache[1]
            assert mount.get("readOnly", False) is (pod is not pull)
    waiting = container(server(objects), "wait-for-model")["command"][-1]
    assert '"$MODEL" --offline' in waiting


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_ask_routes_that_need_no_key(name: str):
    pod = server(overlay(name))
    serving = container(pod, "server")
    routes = {route.path for route in router.routes}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = serving[probe]["httpGet"]
        assert asked["path"] in routes & OPEN_PATHS
        assert asked["port"] in pod.ports()
    assert serving["livenessProbe"]["httpGet"]["path"] == "/health"  # an engine that is restarted is no reason to
    assert serving["readinessProbe"]["httpGet"]["path"] == "/ready"
    starting = serving["startupProbe"]
    assert starting["httpGet"]["path"] == "/ready"
    waits = starting["periodSeconds"] * starting["failureThreshold"]
    assert waits >= 1800  # as the image's own health check does
    assert of_kind(overlay(name), "Deployment")["antiphon"]["spec"]["progressDeadlineSeconds"] > waits


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_get_longer_to_stop_than_answers_get_to_finish(name: str):
    objects = overlay(name)
    drain = tomllib.loads(settings_text(objects))["drain-timeout"]
    pod = server(objects)
    pause = container(pod, "server")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod.spec["terminationGracePeriodSeconds"] >= pause + drain + FLUSH_SECONDS
    probe = container(pod, "server")["readinessProbe"]
    assert pause >= probe["periodSeconds"] * probe["failureThreshold"]
    assert f"`drain-timeout` ({drain} seconds)" in DOCUMENT
    assert f"`terminationGracePeriodSeconds` ({pod.spec['terminationGracePeriodSeconds']})" in DOCUMENT


@pytest.mark.parametrize("name", OVERLAYS)
def test_images_and_ports_are_those_of_this_version(name: str):
    for pod in pods(overlay(name)):
        for each in pod.containers:
            if "antiphon" in each["image"]:
                assert each["image"].rpartition(":")[2] == __version__
    assert list(server(overlay(name)).ports().values()) == [ServerConfig.__dataclass_fields__["port"].default]
    user = server(overlay(name)).spec["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in CONTAINERFILE


def test_the_documents_limit_of_memory_has_room_for_its_tokens():
    assert "(memory.resident + memory.processes + tokens × kv_cache.int8.bytes_per_token) / 0.9" in DOCUMENT
    tokens, per_token = 64 * 2048, 15_000
    weights = WeightBytes(w4=900 << 20, w8=300 << 20, vectors=1 << 20, embedding=200 << 20, mapped_embedding=0)
    limit = (weights.resident + PROCESS_BYTES + tokens * per_token) / 0.9
    assert kv_capacity(math.ceil(limit), weights, per_token) == tokens


def adapter_query(pod: str) -> str:
    """The query that the adapter makes of its rule, for pods that match."""
    (rule,) = ADAPTER["rules"]["custom"]
    series, query = rule["seriesQuery"].partition("{")[0], rule["metricsQuery"]
    for placeholder, text in (("Series", series), ("LabelMatchers", f'namespace="a",pod=~"{pod}"'), ("GroupBy", "pod")):
        query = query.replace(f"<<.{placeholder}>>", text)
    assert "<<" not in query
    return query


def test_the_autoscalers_metric_is_made_of_one_that_the_server_has():
    (rule,) = ADAPTER["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    names = names_in(adapter_query("b|c"))
    assert names.metrics == {series}
    assert names.labels <= LABELS_OF_PROMETHEUS | {"namespace", "pod"}
    assert family_of(series, registry()) == "antiphon_predicted_wait_seconds"
    (autoscaler,) = of_kind(overlay("several"), "HorizontalPodAutoscaler").values()
    (metric,) = autoscaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == re.sub(rule["name"]["matches"], rule["name"]["as"], series)


def test_the_autoscalers_metric_is_the_wait_of_nine_in_ten_and_zero_without_requests(tmp_path: Path):
    """Ten requests a minute to one pod: eight within 1 s, two within 10 s. None to another."""
    bounds = (("1.0", 8), ("10.0", 10), ("+Inf", 10))
    series = [
        {
            "series": f'antiphon_predicted_wait_seconds_bucket{{namespace="a",pod="{pod}",le="{bound}"}}',
            "values": f"0+{number * per_minute}x10",
        }
        for pod, per_minute in (("busy", 1), ("idle", 0))
        for bound, number in bounds
    ]
    expected = [{"labels": '{pod="busy"}', "value": 5.5}, {"labels": '{pod="idle"}', "value": 0}]
    query = {"expr": adapter_query(".*"), "eval_time": "10m", "exp_samples": expected}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [query]}
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    tested = subprocess.run(
        [promtool(), "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_alerts_are_those_of_antiphon_monitoring(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import prometheus_rule

    written = prometheus_rule.FILE.read_text(encoding="utf-8")
    assert written == prometheus_rule.text(), "run `make kubernetes-rules`"
    del sys.modules["prometheus_rule"]


def test_the_documents_commands_make_the_secrets_that_are_read(tmp_path: Path):
    for file in ("api-keys", "metrics-key", "token"):
        (tmp_path / file).write_text("x")
    made: dict[str, set[str]] = {}
    for line in re.findall(r"^kubectl .* create secret generic .*?(?= --dry-run|$)", DOCUMENT, re.M):
        command = [KUBECTL, *line.split()[1:], "--dry-run=client", "--output=json"]
        secret = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout)
        assert secret["metadata"]["namespace"] == "antiphon"
        made[secret["metadata"]["name"]] = set(secret["data"])
    settings = tomllib.loads(settings_text(overlay("several")))
    assert made["antiphon-keys"] == {Path(settings["api-key-file"]).name}
    (monitor,) = of_kind(overlay("several"), "ServiceMonitor").values()
    (endpoint,) = monitor["spec"]["endpoints"]
    credentials = endpoint["authorization"]["credentials"]
    assert made[credentials["name"]] == {credentials["key"]}
    assert endpoint["path"] == METRICS_PATH
    assert METRICS_PATH not in OPEN_PATHS


def test_the_documents_commands_are_shell():
    for block in re.findall(r"^( *)```bash\n(.*?)^ *```", DOCUMENT, re.M | re.S):
        checked = subprocess.run(["bash", "-n"], input=block[1], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, ""), block[1]


def test_the_route_leads_to_the_apis_and_neither_to_metrics_nor_to_administration():
    (route,) = of_kind(overlay("inference-gateway"), "HTTPRoute").values()
    prefixes = [match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    assert prefixes == ["/v1"]
    for closed in (METRICS_PATH, "/admin"):
        assert not any(closed == prefix or closed.startswith(f"{prefix}/") for prefix in prefixes)
