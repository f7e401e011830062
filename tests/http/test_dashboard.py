"""A real Prometheus scrapes a real server under load, and every panel of the dashboard has something to show."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import httpx2
import pytest
import pytest_asyncio
from certificates import certificate
from dashboard import PICTURES, shown
from fake_nvml import GPU, build, use
from http_server import Served, serving, until
from mixed_load import MixedLoad
from panel_pictures import draw
from patience import PATIENCE
from prometheus_server import PrometheusServer, Series, running_prometheus
from promql import without_variables
from tiny_checkpoints import R1_TEMPLATE

from antiphon.api_keys import read_api_keys
from antiphon.degrade_rules import parse_rules
from antiphon.monitoring import alerts
from antiphon.monitoring.bundle import files, write
from antiphon.monitoring.dashboard import ROWS, dashboard
from antiphon.monitoring.panels import Panel
from antiphon.monitoring.prometheus import MonitoringSettings
from antiphon.monitoring.yaml_text import to_yaml

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ALICE, BOB, SCRAPER = (f"{name}-0123456789abcdef" for name in ("alice", "bob", "scraper"))
PANELS = {panel.title: panel for row in ROWS for panel in row.panels}
# What the load and the killed engine must make visible.
RISEN = (
    *("Requests by outcome", "Refusals by code", "Retries", "Missed deadlines", "Tokens in thoughts and answers"),
    *(
        "Time to the first answer",
        "Time until the certificate expires",
        "Finish reasons",
        "Thoughts closed by the server",
        "Degrade level",
        "Shed requests",
    ),
    *("Degraded requests", "Requests by key", "Tokens by key", "Requests over a rate limit", "Engine restarts"),
    *("Requests without a valid key", "Prefix cache hits", "Stored responses", "Server errors", "Busy engines"),
)


@dataclass(frozen=True)
class Watched:
    """A server under load, and the Prometheus that scrapes it."""

    http: httpx2.AsyncClient  # of the server
    prometheus: PrometheusServer
    started_at: float  # seconds since 1970

    async def another_scrape(self) -> None:
        """Wait for about one."""
        await asyncio.sleep(0.5)

    async def shown(self, panel: Panel) -> list[list[Series]]:
        """The series of each of a panel's queries since the start."""
        now = time.time()
        return [
            await self.prometheus.range(
                without_variables(query.expression, __rate_interval="10s"), self.started_at, now, 1.0
            )
            for query in panel.queries
        ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """The configuration is that of `antiphon monitoring`, but for scrapes and alerts, which come sooner."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(build(folder), monkeypatch, folder / "gpu")
        async with _watched(folder) as watched:
            yield watched


@asynccontextmanager
async def _watched(folder: Path) -> AsyncIterator[Watched]:
    keys = read_api_keys([], str(_key_file(folder)))
    cert, key = certificate(folder)
    async with serving(
        folder,
        template=R1_TEMPLATE,
        script="I count them.</think>It is 4.<｜end▁of▁sentence｜>",
        fake={"step_seconds": 0.005, "gpu": GPU, "gpu_memory": (10 << 30, 24 << 30)},
        engine={"gpu_bytes": 8 << 30, "memory_reserve": 2 << 30},
        engines=2,
        api_keys=keys,
        degrade=parse_rules("memory>0.1%: max_tokens=200"),
        degrade_stay=0.5,
        max_queued_requests=16,
        metrics_aliases="vllm",
        ssl_certfile=str(cert),
        ssl_keyfile=str(key),
    ) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        (folder / "key").write_text(SCRAPER)
        settings = MonitoringSettings((url,), scrape_interval="500ms", credentials_file="key", ca_file="cert.pem")
        write(folder, files(folder, settings))
        (folder / "rules" / "antiphon.yml").write_text(to_yaml(alerts.rules(time_scale=0.05)))
        started = time.time()
        trust = ssl.create_default_context(cafile=str(cert))
        async with (
            httpx2.AsyncClient(base_url=url, verify=trust, timeout=PATIENCE, trust_env=False) as http,
            running_prometheus(folder / "prometheus.yml", folder / "data") as prometheus,
            MixedLoad(http, (ALICE, BOB), f"limited-{BOB}", pause=0.5, tokens=60).running(4),
        ):
            watched = Watched(http, prometheus, started)
            async with asyncio.timeout(PATIENCE):
                while not await prometheus.now("antiphon_engine_restarts_total"):  # what came before is no increase
                    await watched.another_scrape()
            await _kill_an_engine(server)
            yield watched


def _key_file(folder: Path) -> Path:
    path = folder / "keys"
    path.write_text(
        f"alice: {ALICE}\nbob: {BOB}\nprometheus: {SCRAPER}\nlimited: limited-{BOB} requests-per-minute=2\n"
    )
    path.chmod(0o600)
    return path


async def _kill_an_engine(server: Served) -> None:
    restarts = server.engine.restarts
    await until(lambda: server.engine.counters.accepted > 5)
    pid = server.engine.engines()[0].pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.engine.restarts > restarts)


@pytest.mark.parametrize("title", PANELS)
async def test_every_query_of_every_panel_returns_data(watched: Watched, title: str):
    panel = PANELS[title]
    async with asyncio.timeout(PATIENCE):
        while any(not any(each.values for each in found) for found in await watched.shown(panel)):
            await watched.another_scrape()


@pytest.mark.parametrize("title", RISEN)
async def test_a_panel_shows_what_happened(watched: Watched, title: str):
    panel = PANELS[title]
    async with asyncio.timeout(PATIENCE):
        while not any(max(each.values, default=0) > 0 for found in await watched.shown(panel) for each in found):
            await watched.another_scrape()


@pytest.mark.parametrize("title", PANELS)
async def test_every_series_of_a_panel_has_a_name_of_its_own(watched: Watched, title: str):
    """As its legend makes it; two that are called alike cannot be told apart."""
    names: list[str] = []
    for query, found in zip(PANELS[title].queries, await watched.shown(PANELS[title]), strict=True):
        legend = query.legend or "{{instance}}"
        for series in found:
            name = legend
            for label, value in series.labels.items():
                name = name.replace(f"{{{{{label}}}}}", value)
            names.append(re.sub(r"{{\w+}}", "", name))
    assert len(set(names)) == len(names), names


async def test_the_variables_of_the_dashboard_find_the_server(watched: Watched):
    for variable in dashboard()["templating"]["list"][1:]:
        query = without_variables(variable["query"]["query"])
        selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
        values = await watched.prometheus.label_values(label, selector)
        assert (
            values
            == {"job": ["antiphon"], "instance": [str(watched.http.base_url).removeprefix("https://").strip("/")]}[
                variable["name"]
            ]
        )


async def test_a_server_that_is_not_chosen_is_in_no_panel(watched: Watched):
    for panel in PANELS.values():
        for query in panel.queries:
            assert await watched.prometheus.now(without_variables(query.expression, instance="another:8000")) == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("antiphon_sequences_running", "vllm:num_requests_running"),
        ("antiphon_kv_cache_usage_ratio", "vllm:kv_cache_usage_perc"),
        ("antiphon_generated_tokens_total", "vllm:generation_tokens_total"),
        ("antiphon_time_to_first_token_seconds_bucket", "vllm:time_to_first_token_seconds_bucket"),
    ],
)
async def test_values_under_vllms_names_are_the_same_in_every_scrape(watched: Watched, ours: str, theirs: str):
    found = await watched.prometheus.range(
        f"{ours} - ignoring (model_name) {theirs}", watched.started_at, time.time(), 1
    )
    assert found
    assert {value for each in found for value in each.values} == {0.0}


async def test_the_documentations_pictures_can_be_drawn(watched: Watched):
    without = {"GPUs"}  # the pictures are those of a server on a CPU
    assert {row.title for row in ROWS} - without == {title for titles in PICTURES.values() for title in titles}
    texts = {"No data"}
    async with asyncio.timeout(PATIENCE):
        while "No data" in texts:
            await watched.another_scrape()
            picture = ElementTree.fromstring(draw(ROWS, await shown(watched.prometheus, watched.started_at)))  # noqa: S314
            texts = {each.text or "" for each in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert not PANELS.keys() - texts


async def test_prometheus_came_with_its_key(watched: Watched):
    reply = await watched.http.get("/metrics")
    assert reply.status_code == 401
    (up,) = await watched.prometheus.now("max_over_time(up[1h])")  # one scrape may be late on a busy machine
    assert up.values == [1.0]
