"""`--metrics-aliases vllm`: the same values in the same scrape, under the names that vLLM's dashboards query."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from programs import promtool
from prometheus_client.parser import text_string_to_metric_families

from antiphon.metrics import EngineCounts, EngineFigures, EngineLimits, EnginesReport, Metrics
from antiphon.metrics.vllm_names import ALIASES

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
# What the endpoint picker reads, and its type.
PICKED = {
    "vllm:num_requests_waiting": "gauge",
    "vllm:num_requests_running": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:gpu_cache_usage_perc": "gauge",
    "vllm:cache_config_info": "gauge",
    "vllm:lora_requests_info": "gauge",
}


def used() -> Metrics:
    """Metrics after two requests, one of them aborted, with two engines."""
    engines = [
        EngineFigures("1", ready=True, running=3, waiting=2, blocks_free=5, blocks_cached=2, blocks_in_use=3),
        EngineFigures("4", ready=True, running=1, blocks_free=10),
    ]
    counts = EngineCounts(preemptions=2, prefix_queries=50, prefix_hits=32)
    report = EnginesReport(engines, counts, EngineLimits(kv_block_tokens=32))
    metrics = Metrics("1", "owner/model", lambda: report, vllm_names=True)
    for endpoint, outcome in (("chat", "finished"), ("completions", "aborted")):
        with metrics.request(endpoint) as account:
            account.accept(0.5)
        account.observe_first_token(1e9)
        account.count_token()
        account.observe_gap(0.02)
        account.end(outcome)
    metrics.choices_finished.labels("stop").inc(4)
    metrics.choices_finished.labels("tool_calls").inc(3)
    metrics.choices_finished.labels("length").inc()
    return metrics


def scrape(metrics: Metrics) -> dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]:
    """Family → suffix and labels, without the name of the model → value."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        series = {}
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "model_name"}
            series[sample.name.removeprefix(family.name), tuple(sorted(labels.items()))] = sample.value
        found[family.name] = series
    return found


def test_values_are_those_of_the_metrics_of_the_same_scrape():
    found = scrape(used())
    for alias in ALIASES:
        if alias.source != "request_duration_seconds":
            assert found[f"vllm:{alias.name}"] == found[f"antiphon_{alias.source}"], alias.name
    assert found["vllm:num_requests_running"] == {("", (("engine", "1"),)): 3, ("", (("engine", "4"),)): 1}


def test_durations_are_those_of_all_endpoints():
    found = scrape(used())
    ours, theirs = found["antiphon_request_duration_seconds"], found["vllm:e2e_request_latency_seconds"]
    for (suffix, labels), value in theirs.items():
        bound = dict(labels).get("le")
        assert value == sum(
            each for (name, of), each in ours.items() if name == suffix and dict(of).get("le") == bound
        ), (suffix, bound)
    assert theirs["_count", ()] == 2
    assert theirs["_bucket", (("le", "+Inf"),)] == 2


def test_ends_are_counted_under_vllms_reasons():
    found = scrape(used())["vllm:request_success"]
    assert {dict(labels)["finished_reason"]: value for (_, labels), value in found.items()} == {
        "stop": 7,
        "length": 1,
        "abort": 1,
        "error": 0,
    }


def test_the_endpoint_picker_finds_what_it_reads():
    families = {family.name: family for family in text_string_to_metric_families(used().render().decode())}
    assert {name: families[name].type for name in PICKED} == PICKED
    sizes = {sample.labels["engine"]: sample.labels for sample in families["vllm:cache_config_info"].samples}
    assert [sizes[engine]["block_size"] for engine in ("1", "4")] == ["32", "32"]
    assert [sizes[engine]["num_gpu_blocks"] for engine in ("1", "4")] == ["10", "10"]
    (adapters,) = families["vllm:lora_requests_info"].samples
    assert adapters.labels == {"max_lora": "0", "running_lora_adapters": "", "waiting_lora_adapters": ""}


def test_the_model_is_named_as_clients_name_it():
    metrics = used()
    metrics.set_model("another", tuple)
    text = metrics.render().decode()
    assert set(re.findall(r'model_name="([^"]*)"', text)) == {"another"}


def test_promtool_dislikes_only_the_colon_in_the_names():
    """Prometheus keeps it for rules; vLLM uses it all the same."""
    checked = subprocess.run([promtool(), "check", "metrics"], input=used().render(), capture_output=True, check=False)
    complaints = (checked.stdout + checked.stderr).decode().splitlines()
    assert complaints
    assert not [line for line in complaints if not re.fullmatch(r"vllm:\w+ metric names should not contain ':'", line)]


def test_there_are_none_unless_they_are_asked_for():
    metrics = used()
    metrics.vllm_names = False
    assert b"vllm:" not in metrics.render()


def test_the_document_lists_all_of_them():
    names = set(
        re.findall(
            r"`(vllm:\w+)`",
            DOCUMENT.read_text().partition("## Under vLLM's names")[2].partition("| vLLM")[2].partition("\n\n")[0],
        )
    )
    families = [family for family in text_string_to_metric_families(used().render().decode()) if "vllm:" in family.name]
    assert names == {family.name + ("_total" if family.type == "counter" else "") for family in families}
