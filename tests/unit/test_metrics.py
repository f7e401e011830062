"""Every metric is documented, named as Prometheus wants it, and the accounts close."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from antiphon import errors
from antiphon.api.validation import _CODES
from antiphon.errors import AntiphonError, InvalidRequest
from antiphon.http.edge.body import ClientGone
from antiphon.metrics import REFUSALS, EngineFigures, Metrics
from antiphon.request import ThoughtClosed

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def families() -> dict[str, str]:
    """Name as scraped → type."""
    names = {}
    for family in Metrics("1", "m").registry.collect():
        names[family.name + ("_total" if family.type == "counter" else "")] = family.type
    return names


def test_every_metric_is_documented_with_its_type_and_nothing_else_is():
    rows = re.findall(r"^\| `(antiphon_\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert dict(rows) == families()
    assert len(rows) == len(dict(rows))


def test_units_are_base_units():
    assert not [name for name in families() if re.search(r"_(ms|milliseconds|mb|percent)\b", name)]


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
    elsewhere |= {"cross_site_request"}
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


def test_the_engine_is_asked_at_each_scrape():
    figures = [EngineFigures(), EngineFigures(ready=True, blocks_in_use=3)]
    metrics = Metrics("1", "m", lambda: figures[0])
    figures.pop(0)
    text = metrics.render().decode()
    assert "antiphon_engine_ready 1.0" in text
    assert 'antiphon_kv_blocks{state="in_use"} 3.0' in text
