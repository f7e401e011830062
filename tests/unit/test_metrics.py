"""Every metric is documented, named as Prometheus wants it, and the accounts close."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from open_files import no_descriptor_left
from programs import promtool
from promql import ANY_GPU

from antiphon import errors
from antiphon.api.validation import _CODES
from antiphon.errors import AntiphonError, InvalidRequest, Overloaded
from antiphon.http.edge.body import ClientGone
from antiphon.http.loop_lag import LoopLag
from antiphon.metrics import REFUSALS, ChildProcess, EngineCounts, EngineFigures, EnginesReport, Metrics
from antiphon.metrics.resources import ResourceCollector
from antiphon.request import ThoughtClosed

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def families() -> dict[str, str]:
    """Name as scraped → type."""
    names = {}
    for family in Metrics("1", "m").registry.collect():
        names[family.name + ("_total" if family.type == "counter" else "")] = family.type
    return names


def test_every_metric_is_documented_with_its_type_and_nothing_else_is():
    rows = re.findall(r"^\| `((?:antiphon|process)_\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert dict(rows) == families()
    assert len(rows) == len(dict(rows))


def test_units_are_base_units():
    assert not [name for name in families() if re.search(r"_(ms|milliseconds|minutes|kb|mb|gib|percent)(_|$)", name)]


def test_only_counters_end_with_total():
    for family in Metrics("1", "m").registry.collect():
        assert not re.search("_(total|count|sum|bucket|info)$", re.sub("_(build|engine|gpu)_info$", "", family.name)), (
            family.name
        )
        assert family.documentation.endswith("."), family.name


def test_promtool_has_nothing_to_object_to():
    """Prometheus' own check of names, units and help."""
    metrics = Metrics("1", "m", key_names=["a"])
    metrics.watch_gpus(lambda: [ANY_GPU])
    checked = subprocess.run([promtool(), "check", "metrics"], input=metrics.render(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_every_query_in_the_document_is_valid(tmp_path):
    queries = DOCUMENT.read_text().partition("## Queries")[2]
    lines = [line[4:] for line in queries.splitlines() if line.startswith("    ")]
    expressions = re.sub(r"\n  +", " ", "\n".join(lines)).splitlines()
    assert len(expressions) > 10
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))  # YAML contains JSON
    checked = subprocess.run([promtool(), "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


def test_every_name_in_the_document_is_that_of_a_metric():
    """Also those in its queries."""
    known = {family.name for family in Metrics("1", "m").registry.collect()}
    named = set(re.findall(r"\b((?:antiphon|process)_[a-z_]+)", DOCUMENT.read_text()))
    assert {re.sub("_(total|bucket|count|sum)$", "", name) for name in named} == known


def test_a_refused_request_is_counted_under_its_code():
    metrics = Metrics("1", "m")
    with pytest.raises(InvalidRequest), metrics.request("chat"):
        raise InvalidRequest("no")
    labels = {"endpoint": "chat", "code": "invalid_request_error"}
    assert metrics.registry.get_sample_value("antiphon_requests_refused_total", labels) == 1
    assert metrics.registry.get_sample_value("antiphon_requests_accepted_total", {"endpoint": "chat"}) == 0


def test_only_the_first_end_counts():
    metrics = Metrics("1", "m")
    with metrics.request("chat") as account:
        account.accept()
    account.end("finished")
    account.end("aborted")
    value = metrics.registry.get_sample_value
    assert value("antiphon_requests_finished_total", {"endpoint": "chat"}) == 1
    assert value("antiphon_requests_aborted_total", {"endpoint": "chat"}) == 0
    assert value("antiphon_requests_running", {"endpoint": "chat"}) == 0


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize(
    "name",
    [
        "requests_received_total",
        "requests_accepted_total",
        "requests_finished_total",
        "requests_aborted_total",
        "requests_failed_total",
        "requests_arriving",
        "requests_running",
        "request_duration_seconds_count",
    ],
)
def test_series_begin_at_zero_before_anything_happens(name: str, endpoint: str):
    assert Metrics("1", "m").registry.get_sample_value(f"antiphon_{name}", {"endpoint": endpoint}) == 0


def test_refusals_begin_at_zero_for_every_code():
    value = Metrics("1", "m").registry.get_sample_value
    assert {value("antiphon_requests_refused_total", {"endpoint": "chat", "code": code}) for code in REFUSALS} == {0}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AntiphonError)]
    every = {*_CODES.values(), ClientGone.code, *(kind.code or kind.type for kind in kinds)}
    # Of generations that were accepted, of connections and of other routes.
    elsewhere = {"engine_error", "engine_died", "invalid_api_key", "slow_reader", "too_many_connections", "not_found"}
    elsewhere |= {"cross_site_request", "operation_refused", "operation_in_progress"}
    assert every - elsewhere == set(REFUSALS)


def test_thoughts_closed_begin_at_zero_for_every_reason():
    value = Metrics("1", "m").registry.get_sample_value
    assert [value("antiphon_thoughts_closed_total", {"reason": reason.value}) for reason in ThoughtClosed] == [0, 0]


def test_the_first_token_is_timed_once_a_request():
    metrics = Metrics("1", "m")
    account = metrics.request("chat")
    account.observe_first_token(1e12)
    account.observe_first_token(1e12)
    assert metrics.registry.get_sample_value("antiphon_time_to_first_token_seconds_count") == 1


def test_the_engines_are_asked_at_each_scrape():
    reports = [EnginesReport(), EnginesReport([EngineFigures("1", ready=True, blocks_in_use=3, blocks_free=1)])]
    metrics = Metrics("1", "m", lambda: reports[0])
    reports.pop(0)
    text = metrics.render().decode()
    assert 'antiphon_engine_ready{engine="1"} 1.0' in text
    assert 'antiphon_kv_blocks{engine="1",state="in_use"} 3.0' in text
    assert 'antiphon_kv_cache_usage_ratio{engine="1"} 0.75' in text


def test_each_engine_has_its_series_and_counts_are_of_all_of_them():
    engines = [EngineFigures("1", running=2), EngineFigures("3", running=5)]
    metrics = Metrics("1", "m", lambda: EnginesReport(engines, EngineCounts(preemptions=7)))
    value = metrics.registry.get_sample_value
    assert [value("antiphon_sequences_running", {"engine": engine}) for engine in ("1", "3")] == [2, 5]
    assert value("antiphon_preemptions_total") == 7


def test_a_request_that_the_engine_never_began_waited_until_its_end():
    metrics = Metrics("1", "m")
    account = metrics.request("chat")
    account.accept()
    account.end("aborted")
    assert metrics.registry.get_sample_value("antiphon_queue_wait_seconds_count") == 1


def test_a_request_of_several_choices_is_dropped_once():
    """Each of its choices ends with an error of its own."""
    metrics = Metrics("1", "m")
    account = metrics.request("chat")
    account.accept(2.0)
    for _ in range(3):
        account.count_dropped(Overloaded("late", reason="queue_timeout", predicted_wait=9.0))
    value = metrics.registry.get_sample_value
    assert value("antiphon_shed_requests_total", {"reason": "queue_timeout"}) == 1
    assert value("antiphon_deadline_missed_total") == 1
    assert value("antiphon_predicted_wait_seconds_count") == 1, "predicted at its arrival, once"


def test_every_overload_that_refuses_a_request_is_counted():
    metrics = Metrics("1", "m")
    with pytest.raises(Overloaded), metrics.request("responses"):
        raise Overloaded("too many long texts")
    assert metrics.registry.get_sample_value("antiphon_shed_requests_total", {"reason": "queue_full"}) == 1
    assert metrics.registry.get_sample_value("antiphon_requests_arriving", {"endpoint": "responses"}) == 0


@pytest.fixture
def child() -> Iterator[subprocess.Popen]:
    """A process of ours that runs until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_each_process_has_its_series_until_it_ends(child):
    children = [ChildProcess("engine", child.pid, engine="1"), ChildProcess("renderer", child.pid)]
    value = Metrics("1", "m", children=lambda: children).registry.get_sample_value
    name, labels = "antiphon_process_resident_memory_bytes", {"process": "engine", "engine": "1"}
    assert value(name, labels) > 1_000_000
    assert value(name, {"process": "renderer", "engine": ""}) > 1_000_000
    start = value("antiphon_process_start_time_seconds", labels)
    assert abs(start - time.time()) < 3600
    child.kill()
    child.wait()
    assert value(name, labels) is None
    assert value(name, {"process": "front", "engine": ""}) > 1_000_000


def test_a_process_that_is_no_child_of_ours_has_no_series():
    """The id of a child that ended may be given to another program."""
    value = Metrics("1", "m", children=lambda: [ChildProcess("engine", os.getppid())]).registry.get_sample_value
    assert value("antiphon_process_threads", {"process": "engine", "engine": ""}) is None


def test_the_front_is_described_by_the_standard_names():
    value = Metrics("1", "m").registry.get_sample_value
    assert value("process_resident_memory_bytes") > 1_000_000
    assert value("process_open_fds") > 2


def test_a_scrape_has_no_creation_times():
    metrics = Metrics("1", "m")
    with pytest.raises(InvalidRequest), metrics.request("chat"):
        raise InvalidRequest("no")
    assert "_created" not in metrics.render().decode()


def test_reading_what_processes_use_costs_little(child):
    """Some milliseconds of processor time at most, generously: it happens on the event loop."""
    children = [ChildProcess("engine", child.pid, engine=str(engine)) for engine in range(4)]
    collector = ResourceCollector(lambda: children)
    began = time.process_time()
    for _ in range(20):
        list(collector.collect())
    assert (time.process_time() - began) / 20 < 0.02


def test_a_process_that_may_open_no_more_files_still_has_metrics():
    metrics = Metrics("1", "m", children=lambda: [ChildProcess("engine", os.getpid())])
    with pytest.raises(InvalidRequest), metrics.request("chat"):
        raise InvalidRequest("no")
    with no_descriptor_left():
        text = metrics.render().decode()
    labels = 'endpoint="chat"'
    assert f"antiphon_requests_received_total{{{labels}}} 1.0" in text
    assert "antiphon_process_threads{" not in text, "what cannot be read is left out"
    assert "\nantiphon_memory_limit_bytes" not in text


async def test_what_blocks_the_event_loop_is_seen():
    lags: list[float] = []
    lag = LoopLag(lags.append, interval=0.01)
    lag.start()
    while not lags:  # noqa: ASYNC110  # a timer's turn
        await asyncio.sleep(0.001)
    time.sleep(0.2)  # noqa: ASYNC251  # this is what is measured
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lag.stop()
    assert max(lags) > 0.15
    seen = len(lags)
    await asyncio.sleep(0.05)
    assert len(lags) == seen
