"""The metrics agree with each other in every scrape, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Mapping

from http_server import Served, serving, until
from prometheus_client.parser import text_string_to_metric_families
from scrapes import check_accounts, check_idle, samples

Series = tuple[str, tuple[tuple[str, str], ...]]  # name and labels

NUM_USERS, NUM_REQUESTS = 16, 9  # each
OVERLOADED = ("server_overloaded", "engine_unavailable")  # codes of refusals that are counted as shed


class Watcher:
    """Reads scrapes, and checks each by itself and against the one before."""

    def __init__(self) -> None:
        self.num_scrapes = 0
        self.seen_running = False
        self._before: Mapping[Series, float] = {}

    def take(self, text: str) -> None:
        growing: dict[Series, float] = {}
        now: dict[Series, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = (sample.name, tuple(sorted(sample.labels.items())))
                assert series not in now, "a series is there twice"
                now[series] = sample.value
                if family.type in ("counter", "histogram"):
                    growing[series] = sample.value
        self._check_growth(growing, now)
        by_name = samples(text)
        check_accounts(by_name)
        for endpoint in {labels["endpoint"] for labels in map(_labels, now) if "endpoint" in labels}:
            _check_endpoint(by_name, endpoint)
        _check_histograms(by_name)
        self.num_scrapes += 1
        self.seen_running |= by_name["antiphon_requests_running"] > 0

    def _check_growth(self, growing: Mapping[Series, float], now: Mapping[Series, float]) -> None:
        for series, value in self._before.items():
            name, labels = series
            if name == "antiphon_process_cpu_seconds_total":  # a process that is replaced begins again
                continue
            assert series in growing, f"{name} {labels} is gone"
            assert growing[series] >= value, f"{name} {labels} has fallen"
        self._before = growing


def _labels(series: Series) -> dict[str, str]:
    return dict(series[1])


def _check_endpoint(now: Mapping[str, float], endpoint: str) -> None:
    """The accounts close for each endpoint by itself, and its histogram counts what has ended."""

    def of(name: str) -> float:
        return now[f'antiphon_requests_{name}{{endpoint="{endpoint}"}}']

    refused = sum(
        value
        for name, value in now.items()
        if name.startswith("antiphon_requests_refused_total{") and f'endpoint="{endpoint}"' in name
    )
    ended = of("finished_total") + of("aborted_total") + of("failed_total")
    assert of("received_total") == refused + of("accepted_total") + of("arriving")
    assert of("accepted_total") == ended + of("running")
    assert now[f'antiphon_request_duration_seconds_count{{endpoint="{endpoint}"}}'] == ended


def _check_histograms(now: Mapping[str, float]) -> None:
    """Each is observed once for a request, or for a token, of those that are counted."""

    def of(name: str) -> float:
        return now[f"antiphon_{name}"]

    accepted, running = of("requests_accepted_total"), of("requests_running")
    refused = {name: value for name, value in now.items() if name.startswith("antiphon_requests_refused_total{")}
    overloaded = sum(value for name, value in refused.items() if any(f'code="{code}"' in name for code in OVERLOADED))
    dropped = of('shed_requests_total{reason="queue_timeout"}')  # after they were accepted
    assert of("shed_requests_total") == overloaded + dropped
    assert accepted <= of("predicted_wait_seconds_count") <= accepted + overloaded
    assert accepted - running <= of("queue_wait_seconds_count") <= accepted
    assert of("time_to_first_token_seconds_count") <= of("queue_wait_seconds_count")
    assert of("time_to_first_answer_seconds_count") <= of("time_to_first_token_seconds_count")
    assert of("deadline_missed_total") >= dropped
    for name in [name for name in now if name.endswith('_bucket{le="+Inf"}')]:
        assert now[name] == now[name.replace('_bucket{le="+Inf"}', "_count")]


async def _use(server: Served, random: random.Random, outcomes: Counter[str]) -> None:
    """Send one request of some kind, and count how it went."""
    kind = random.choice(
        ("chat", "chat", "complete", "several", "leave", "leave", "field", "model", "long", "impatient", "generate")
    )
    tokens = random.randint(1, 30)
    match kind:
        case "chat":
            reply = await server.chat(max_tokens=tokens)
        case "complete":
            reply = await server.complete(max_tokens=tokens, timeout=random.choice((0.05, 60)))
        case "several":
            reply = await server.complete(["a", "b"], n=2, max_tokens=tokens)
        case "leave":
            body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 4000}
            async with server.http.stream("POST", "/v1/chat/completions", json=body) as stream:
                if stream.status_code == 200:
                    outcomes["left"] += 1
                    await anext(stream.aiter_raw())
                    return
            reply = stream
        case "field":
            reply = await server.chat(temperature="hot")
        case "model":
            reply = await server.chat(model="another")
        case "long":
            reply = await server.chat("word " * 5000)
        case "impatient":
            reply = await server.chat(max_wait=0.001, max_tokens=tokens)
        case _:
            reply = await server.http.post("/generate", json={"prompt": "Hello", "max_tokens": tokens})
    outcomes["answered" if reply.status_code == 200 else "refused"] += 1


async def _load(server: Served, user: int, outcomes: Counter[str]) -> None:
    choices = random.Random(user)  # noqa: S311
    for _ in range(NUM_REQUESTS):
        await _use(server, choices, outcomes)


async def _watch(server: Served, watcher: Watcher) -> None:
    choices = random.Random(0)  # noqa: S311
    while True:
        watcher.take((await server.http.get("/metrics")).text)
        await asyncio.sleep(choices.uniform(0.0, 0.1))


async def _kill(server: Served, engine_id: int) -> None:
    """Kill an engine amid work, and wait until another has taken its place."""
    await _some_more(server)
    restarts, steps = server.engine.restarts, (await server.metrics())["antiphon_steps_total"]
    (pid,) = (each.pid for each in server.engine.engines() if each.id == engine_id)
    assert pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.engine.restarts > restarts)
    assert (await server.metrics())["antiphon_steps_total"] >= steps, "its work stays counted"


async def _some_more(server: Served) -> None:
    begun = server.engine.counters.accepted
    await until(lambda: server.engine.counters.accepted >= begun + 8)


async def test_every_scrape_under_load_closes_its_accounts(tmp_path):
    """Answers, aborts, refusals, requests that come too late, engines that are killed, added and removed."""
    watcher, outcomes = Watcher(), Counter[str]()
    fake = {"step_seconds": 0.005, "eos_token_id": -1}
    async with serving(tmp_path, fake=fake, engines=2, max_num_sequences=3, max_queued_requests=48) as server:
        await server.complete(max_tokens=10)  # now it knows its speed
        outcomes["answered"] += 1
        watching = asyncio.create_task(_watch(server, watcher))
        users = [asyncio.create_task(_load(server, user, outcomes)) for user in range(NUM_USERS)]
        await _kill(server, 1)
        await _kill(server, 2)
        added = await server.engine.operations.add_engine()
        await _some_more(server)
        await server.engine.operations.remove_engine(1)
        labels = f'{{engine="{added}"}}'
        now = await server.metrics()
        assert now[f"antiphon_engine_ready{labels}"] == 1
        assert 'antiphon_engine_ready{engine="1"}' not in now
        await asyncio.gather(*users)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        if not watching.cancelled():
            await watching
        await server.until_metric("antiphon_requests_running", 0)
        await server.until_metric("antiphon_sequences_running", 0)
        text = (await server.http.get("/metrics")).text
        watcher.take(text)
        now = samples(text)
    check_idle(now)
    assert watcher.num_scrapes > 10
    assert watcher.seen_running
    assert now["antiphon_engine_restarts_total"] == 2
    assert now["antiphon_requests_received_total"] == outcomes.total() == NUM_USERS * NUM_REQUESTS + 1
    assert now["antiphon_requests_finished_total"] >= outcomes["answered"]
    assert now["antiphon_requests_finished_total"] + now["antiphon_requests_aborted_total"] >= outcomes["left"]
    assert now["antiphon_requests_refused_total"] + now["antiphon_requests_failed_total"] == outcomes["refused"]
    assert now["antiphon_queue_wait_seconds_count"] == now["antiphon_requests_accepted_total"]
    assert now["antiphon_requests_arriving"] == 0
    assert min(outcomes["left"], outcomes["refused"]) > 10
