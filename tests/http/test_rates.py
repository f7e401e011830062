"""Rates of each key, over HTTP: what is let in, what is refused, what clients and metrics are told."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from http_server import Served, serving, until
from patience import PATIENCE

from antiphon.api_keys import ApiKey, read_api_keys
from antiphon.rates import Rates

CHAT = "/v1/chat/completions"
_HI = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets do not fill while a slow machine is at it."""
    monkeypatch.setattr("antiphon.api.context.Rates", partial(Rates, clock=lambda: 0.0))


def keys(tmp_path: Path) -> tuple[ApiKey, ...]:
    path = tmp_path / "keys"
    path.write_text("ann: k1 requests-per-minute=3\nbob: k2 tokens-per-minute=2000\neve: k3\n")
    return read_api_keys([], str(path))


async def ask(server: Served, key: str, **fields: Any) -> Any:
    body = {"messages": _HI, "max_tokens": 5, **fields}
    return await server.http.post(CHAT, json=body, headers={"x-api-key": key})


async def value(server: Served, name: str) -> float:
    text = (await server.http.get("/metrics", headers={"x-api-key": "k3"})).text
    return float(text.partition(f"\n{name} ")[2].partition("\n")[0])


async def test_requests_are_counted_by_key_and_refused_before_they_are_read(tmp_path):
    async with serving(tmp_path, api_keys=keys(tmp_path)) as server:
        replies = [await ask(server, "k1", **({} if number else {"temperature": 9})) for number in range(3)]
        assert [reply.status_code for reply in replies] == [400, 200, 200]
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["2", "1", "0"]
        assert replies[0].headers["x-ratelimit-limit-requests"] == "3"
        refused = await server.http.post(CHAT, content=b"no JSON", headers={"x-api-key": "k1"})
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        assert "'ann' is at its limit of 3 requests a minute" in error["message"]
        assert refused.headers["retry-after"] == "20"
        assert refused.headers["x-ratelimit-reset-requests"] == "1m0s"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        anthropics = await server.http.post("/v1/messages", json={}, headers={"x-api-key": "k1"})
        assert anthropics.json()["error"]["type"] == "rate_limit_error"
        # Looking is no asking, and others have their own.
        assert (await server.http.get("/v1/models", headers={"x-api-key": "k1"})).status_code == 200
        other = await ask(server, "k3")
        assert other.status_code == 200
        assert not [name for name in other.headers if name.startswith("x-ratelimit")]
        assert await value(server, 'antiphon_key_rate_limited_total{key="ann",limit="requests"}') == 2
        assert await value(server, 'antiphon_key_requests_total{key="ann"}') == 6


async def test_tokens_are_set_aside_while_a_request_runs_and_settled_at_its_end(tmp_path):
    async with serving(tmp_path, fake={"step_seconds": 0.02}, api_keys=keys(tmp_path)) as server:
        running = [asyncio.create_task(ask(server, "k2", max_tokens=4000)) for _ in range(3)]
        await until(lambda: server.engine.counters.running == 3)
        refused = await ask(server, "k2", max_tokens=600)
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "tokens"
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert 0 < int(refused.headers["x-ratelimit-remaining-tokens"]) < 500
        for task in running:
            task.cancel()
        await until(lambda: server.engine.counters.running == 0)
        reply = await ask(server, "k2", max_tokens=60, stream=True)
        assert reply.status_code == 200
        assert int(reply.headers["x-ratelimit-limit-tokens"]) == 2000
        too_long = await ask(server, "k2", messages=[{"role": "user", "content": "zq " * 1000}])
        assert too_long.status_code == 400
        assert "the limit is 2,000 tokens a minute" in too_long.json()["error"]["message"]
        assert await value(server, 'antiphon_key_rate_limited_total{key="bob",limit="tokens"}') == 1
        assert await value(server, 'antiphon_key_tokens_total{key="bob",kind="generated"}') >= 60
        assert await value(server, 'antiphon_key_tokens_total{key="ann",kind="generated"}') == 0
        refusals = 'antiphon_requests_refused_total{code="rate_limit_exceeded",endpoint="chat"}'
        assert await value(server, refusals) == 1


async def test_an_engine_that_refuses_gives_the_tokens_back(tmp_path):
    async with serving(tmp_path, tokens_per_minute=1000, max_queued_requests=1, fake={"step_seconds": 0.02}) as server:
        running = asyncio.create_task(server.chat(max_tokens=4000))
        await until(lambda: server.engine.counters.running == 1)
        before = await server.chat(max_tokens=5)
        after = await server.chat(max_tokens=5)
        assert before.json()["error"]["code"] == "server_overloaded"
        name = "x-ratelimit-remaining-tokens"
        assert int(after.headers[name]) == int(before.headers[name])
        running.cancel()


async def test_without_keys_all_share_one_rate(tmp_path):
    async with serving(tmp_path, requests_per_minute=2) as server:
        assert [(await server.chat(max_tokens=1)).status_code for _ in range(3)] == [200, 200, 429]
        assert "This server is at its limit" in (await server.chat()).json()["error"]["message"]
        assert (await server.http.get("/ready")).status_code == 200


async def test_each_item_of_a_batch_is_a_request(tmp_path):
    async with serving(tmp_path, requests_per_minute=3) as server:
        reply = await server.http.post("/generate-batch", json=[{"prompt": "x", "max_tokens": 1}] * 5)
        assert reply.status_code == 200
        codes = [result.get("error", {}).get("code") for result in reply.json()["results"]]
        assert sorted(codes, key=str) == [None, None, None, "rate_limit_exceeded", "rate_limit_exceeded"]
        await server.check_accounts()


async def test_openais_client_knows_a_rate_limit(tmp_path):
    async with serving(tmp_path, requests_per_minute=1) as server:
        client = server.openai.with_options(timeout=PATIENCE)
        await client.completions.create(model="tiny", prompt="x", max_tokens=1)
        with pytest.raises(openai.RateLimitError) as error:
            await client.completions.create(model="tiny", prompt="x", max_tokens=1)
        assert error.value.code == "rate_limit_exceeded"
