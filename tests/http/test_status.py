"""`GET /v1/status`: how busy the server is, in every state, and what it never says."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from http_server import Served, serving, until
from patience import PATIENCE

from antiphon import __version__
from antiphon.api_keys import read_api_keys
from antiphon.engine.client import EngineState
from antiphon.text import TextModel

SLOW = {"step_seconds": 0.01}


async def status(server: Served, **headers: str) -> dict[str, Any]:
    reply = await server.http.get("/v1/status", headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["cache-control"] == "no-store"
    return reply.json()


async def test_an_idle_server_says_what_it_serves_and_makes_up_no_speed(tmp_path):
    async with serving(tmp_path, defaults={"temperature": 0.6, "top_p": 0.95}, max_num_sequences=7) as server:
        assert await status(server) == {
            "state": "ready",
            "loading": None,
            "model": "tiny",
            "thinks": server.text.thinks,
            "sampling": {"temperature": 0.6, "top_p": 0.95},
            "context_length": server.engine.info.context_length,
            "max_num_seqs": 7,
            "running": 0,
            "waiting": 0,
            "kv_cache_usage": 0.0,
            "engines": [{"id": 1, "state": "ready", "running": 0, "waiting": 0, "kv_cache_usage": 0.0}],
            "degrade_level": 0,
            "tokens_per_second": 0.0,
            "tokens_per_second_per_answer": None,
            "requires_key": False,
            "version": __version__,
        }


async def test_the_share_of_the_cache_is_that_of_all_engines(tmp_path):
    async with serving(tmp_path, fake=SLOW, engines=2) as server:
        asking = [asyncio.create_task(server.complete(f"{n}" * 50, max_tokens=4000)) for n in range(4)]
        async with asyncio.timeout(PATIENCE):
            while (said := await status(server))["running"] < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        each = said["engines"]
        assert [engine["id"] for engine in each] == [1, 2]
        assert [engine["running"] for engine in each] == [2, 2]
        assert min(engine["kv_cache_usage"] for engine in each) > 0
        assert said["kv_cache_usage"] <= max(engine["kv_cache_usage"] for engine in each)
        for task in asking:
            task.cancel()


@pytest.mark.parametrize("thinks", [True, False])
async def test_whether_the_model_thinks_is_said(tmp_path, monkeypatch, thinks):
    monkeypatch.setattr(TextModel, "thinks", thinks)
    async with serving(tmp_path) as server:
        assert (await status(server))["thinks"] is thinks


async def test_a_busy_server_says_how_many_run_and_wait_and_how_fast(tmp_path):
    async with serving(tmp_path, fake=SLOW, max_num_sequences=2) as server:
        asking = [asyncio.create_task(server.complete(f"{n}", max_tokens=4000)) for n in range(5)]
        async with asyncio.timeout(PATIENCE):
            while (said := await status(server))["tokens_per_second_per_answer"] is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (said["running"], said["waiting"]) == (2, 3)
        assert 0 < said["kv_cache_usage"] <= 1
        # Two answers, with one token each in a step that takes at least 10 ms.
        assert 0 < said["tokens_per_second"] <= 200
        assert 0 < said["tokens_per_second_per_answer"] <= 120  # 100, predicted
        for task in asking:
            task.cancel()
        await until(lambda: server.engine.counters.running == 0)
        await until(lambda: server.engine.stats.running == 0)
        after = await status(server)
        assert (after["running"], after["waiting"], after["tokens_per_second"]) == (0, 0, 0.0)
        assert after["tokens_per_second_per_answer"] > 0  # the machine is as fast as it was


async def test_while_loading_it_answers_with_the_progress(tmp_path):
    async with serving(tmp_path, wait=False) as server:
        said = await status(server)
        assert said["state"] in ("loading", "ready")
        if said["state"] == "loading":
            assert (said["context_length"], said["kv_cache_usage"]) == (None, None)
        await server.engine.wait_ready()
        assert (await status(server))["state"] == "ready"


async def test_between_two_engines_those_who_were_accepted_wait(tmp_path):
    async with serving(tmp_path, fake=SLOW) as server:
        asking = [asyncio.create_task(server.complete(f"{n}", max_tokens=4000)) for n in range(3)]
        await until(lambda: server.engine.stats.running == 3)
        os.kill(server.engine.engine_pid, signal.SIGKILL)
        await until(lambda: server.engine.state is EngineState.RESTARTING)
        said = await status(server)
        if server.engine.state is EngineState.RESTARTING:  # the next one is not there yet
            assert said["state"] == "restarting"
            assert (said["running"], said["waiting"], said["tokens_per_second"]) == (0, 3, 0.0)
            assert said["context_length"] == server.engine.info.context_length
        await until(lambda: server.engine.stats.running == 3)
        assert (await status(server))["state"] == "ready"
        for task in asking:
            task.cancel()


async def test_a_draining_server_says_so(tmp_path):
    async with serving(tmp_path) as server:
        await server.engine.drain(0)
        assert (await status(server))["state"] == "draining"


async def test_it_needs_a_key_where_there_are_keys_and_never_says_one(tmp_path):
    keys = read_api_keys(["alice:sk-very-secret"])
    async with serving(tmp_path, fake=SLOW, api_keys=keys) as server:
        key = {"authorization": "Bearer sk-very-secret"}
        body = {"prompt": "a private question", "max_tokens": 2000, "user": "somebody"}
        asking = asyncio.create_task(server.http.post("/v1/completions", json=body, headers=key))
        await until(lambda: server.engine.stats.running == 1)
        assert (await server.http.get("/v1/status")).status_code == 401
        text = (await server.http.get("/v1/status", headers=key)).text
        assert '"requires_key":true' in text
        for secret in ("secret", "alice", "private", "somebody", "127.0.0.1", str(tmp_path)):
            assert secret not in text
        asking.cancel()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_it_can_be_closed(tmp_path, method):
    async with serving(tmp_path, status=False) as server:
        reply = await server.http.request(method, "/v1/status")
        assert reply.status_code == 404
        unknown = await server.http.request(method, "/v1/nothing")
        assert reply.text.replace("status", "nothing") == unknown.text
