"""Under load new requests get lower limits: told in every API's shape, with the same bits, refused where forbidden."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from http_server import Served, events, named_events, serving, until
from rich.console import Console
from running_server import MODEL
from tiny_checkpoints import R1_TEMPLATE

from antiphon.api.degrading import Degrading
from antiphon.commands.conversation import ChatOptions, Conversation, _print_answer
from antiphon.degrade_rules import parse_rules
from antiphon.engine.admission import load_signals
from antiphon.http.edge.access_log import access_logger

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "Hello"}]
ALWAYS = "memory>0.1%"  # holds on every machine that runs
OFF = parse_rules("off")
# Path → (fields, where the answer's text is, where the `degraded` object is in a stream).
APIS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 100},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 100, "model": ""},
    "/api/chat": {"messages": HELLO},
    "/api/generate": {"prompt": "Hello"},
    "/completion": {"prompt": "Hello"},
    "/generate": {"prompt": "Hello"},
}
STREAMED = [path for path in APIS if path != "/generate"]


def degrading_of(server: Served) -> Degrading:
    return server.server.app.state.context.degrading


async def until_level(server: Served, level: int) -> None:
    """Send requests until the server has reached the level by itself."""
    while degrading_of(server).level != level:
        await server.complete(max_tokens=1, timeout=60)
        await asyncio.sleep(0.02)


def set_level(server: Served, level: int) -> None:
    """Hold a level, whatever is measured."""
    degrading = degrading_of(server)
    degrading._look = lambda: None
    degrading._ladder.level = level


@asynccontextmanager
async def held(folder: Path, rules: str, level: int = 1, **settings: Any) -> AsyncIterator[Served]:
    async with serving(folder, degrade=parse_rules(rules), **settings) as server:
        set_level(server, level)
        yield server
        await server.check_accounts()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server that has come to level 1 by what it measured: at most 8 tokens."""
    rules = parse_rules(f"{ALWAYS}: max_tokens=8,temperature=0.5")
    async with serving(tmp_path_factory.mktemp("model"), degrade=rules, degrade_stay=0.05) as server:
        await until_level(server, 1)
        yield server
        await server.check_accounts()


def completion_tokens(body: dict[str, Any]) -> int:
    usage = body.get("usage", body)
    names = ("completion_tokens", "output_tokens", "eval_count", "tokens_predicted")
    return next(usage[name] for name in names if name in usage)


@pytest.mark.parametrize("path", APIS)
async def test_every_api_lowers_the_limit_and_says_so(loaded: Served, path):
    reply = await loaded.http.post(path, json={**APIS[path], "stream": False} if path in STREAMED else APIS[path])
    assert reply.status_code == 200
    body = reply.json()
    assert completion_tokens(body) == 8
    assert body["degraded"] == {"level": 1, "max_tokens": 8, "temperature": 0.5}
    assert reply.headers["x-antiphon-degraded"] == "level=1; max_tokens=8; temperature=0.5"


@pytest.mark.parametrize("path", STREAMED)
async def test_every_stream_says_so_in_its_head_and_at_its_end(loaded: Served, path):
    reply = await loaded.http.post(path, json={**APIS[path], "stream": True})
    assert reply.headers["x-antiphon-degraded"] == "level=1; max_tokens=8; temperature=0.5"
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if "{" in line]
    told = [number for number, line in enumerate(lines) if '"degraded":{"level":1,"max_tokens":8' in line]
    end = len(lines) - 2 if path == "/v1/messages" else len(lines) - 1  # message_stop is the last
    assert told == [end]


async def test_with_usage_the_last_chunk_says_so(loaded: Served):
    for ask in (loaded.chat, loaded.complete):
        reply = await ask(stream=True, stream_options={"include_usage": True}, max_tokens=20)
        *others, last = events(reply.text)
        assert last["degraded"]["max_tokens"] == 8
        assert last["usage"]
        assert all("degraded" not in chunk for chunk in others)


async def test_a_request_within_the_limits_is_untouched(loaded: Served):
    before = (await loaded.metrics())['antiphon_degraded_requests_total{step="1"}']
    for fields in ({"max_tokens": 8, "temperature": 0.5}, {"max_tokens": 3, "temperature": 0, "degrade": "never"}):
        reply = await loaded.complete(**fields)
        assert completion_tokens(reply.json()) == fields["max_tokens"]
        assert "degraded" not in reply.text
        assert "x-antiphon-degraded" not in reply.headers
    metrics = await loaded.metrics()
    assert metrics['antiphon_degraded_requests_total{step="1"}'] == before
    assert metrics["antiphon_degrade_level"] == 1
    assert (await loaded.http.get("/v1/status")).json()["degrade_level"] == 1


@pytest.mark.parametrize("path", APIS)
async def test_a_request_that_forbids_it_is_refused(loaded: Served, path):
    before = (await loaded.metrics())['antiphon_shed_requests_total{reason="degraded"}']
    reply = await loaded.http.post(path, json={**APIS[path], "degrade": "never"})
    assert reply.status_code == (529 if path == "/v1/messages" else 503)
    assert "max_tokens=8" in reply.text
    assert int(reply.headers["retry-after"]) >= 1
    assert (await loaded.metrics())['antiphon_shed_requests_total{reason="degraded"}'] == before + 1
    allowed = await loaded.http.post(path, json={**APIS[path], "degrade": "allow"})
    assert allowed.status_code == 200
    wrong = await loaded.http.post(path, json={**APIS[path], "degrade": "maybe"})
    assert wrong.status_code == 400
    assert "degrade" in wrong.text


async def test_the_access_log_has_the_level(loaded: Served, caplog):
    caplog.set_level(logging.INFO, access_logger.name)
    for fields in ({}, {"max_tokens": 2, "temperature": 0}):
        await loaded.chat(**fields)
    await until(lambda: len(caplog.records) >= 2)
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == access_logger.name]
    assert [line["degraded"] for line in lines] == [1, None]


async def test_chat_on_a_terminal_says_so_and_forgets_it_with_the_next_answer(loaded: Served):
    for max_tokens, says in ((20, "limited this answer: max_tokens=8"), (4, None)):
        output = io.StringIO()
        conversation = Conversation(loaded.http, MODEL, ChatOptions(max_tokens=max_tokens, temperature=0))
        await _print_answer(conversation, "Hello", Console(file=output))
        assert (says in output.getvalue()) if says else output.getvalue() == ""


async def test_chat_through_a_pipe_says_so_beside_the_answer(loaded: Served):
    command = [
        sys.executable,
        "-m",
        "antiphon",
        "chat",
        "--url",
        loaded.url,
        "--max-tokens",
        "20",
        "--temperature",
        "0",
    ]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    answer, note = await process.communicate(b"Hello")
    assert process.returncode == 0
    assert note.decode() == "(The server is busy and limited this answer: max_tokens=8)\n"
    assert b"busy" not in answer
    assert len(answer) > 1


async def test_the_limit_never_goes_below_the_least_that_a_request_wants(loaded: Served):
    body = (await loaded.complete(max_tokens=50, min_tokens=20, temperature=0)).json()
    assert completion_tokens(body) == 20
    assert body["degraded"] == {"level": 1, "max_tokens": 20}


async def test_each_item_of_a_batch_says_so(loaded: Served):
    reply = await loaded.http.post("/generate-batch", json=[{"prompt": "a"}, {"prompt": "b", "max_tokens": 2}])
    first, second = reply.json()["results"]
    assert first["degraded"]["max_tokens"] == first["completion_tokens"] == 8
    assert second["degraded"] == {"level": 1, "temperature": 0.5}


async def test_a_response_in_the_background_says_so(loaded: Served):
    reply = await loaded.http.post("/v1/responses", json={"input": "Hello", "background": True})
    assert "max_tokens=8" in reply.headers["x-antiphon-degraded"]
    path = f"/v1/responses/{reply.json()['id']}"
    while (body := (await loaded.http.get(path)).json())["status"] in ("queued", "in_progress"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert body["degraded"]["max_tokens"] == body["usage"]["output_tokens"] == 8


# --- thoughts


ENDLESS = "and so on, "
THINKING = {"template": R1_TEMPLATE, "script": ENDLESS, "loop_guard": False}


def reasoning_tokens(reply: dict[str, Any]) -> int:
    return reply["usage"]["completion_tokens_details"]["reasoning_tokens"]


async def test_a_thought_is_shorter_unless_the_request_says_how_long_it_may_be(tmp_path):
    async with held(tmp_path, "thinking_budget=16", **THINKING) as server:
        reply = (await server.chat(max_tokens=100)).json()
        assert reply["degraded"] == {"level": 1, "thinking_token_budget": 16}
        assert reply["choices"][0]["thought_closed"] == "budget"
        assert 16 <= reasoning_tokens(reply) <= 18
        for named in (
            {"thinking_token_budget": 40},
            {"reasoning_effort": "max"},
            {"reasoning_effort": "low"},
            {"enable_thinking": False},
            {"thinking_token_budget": 9},
        ):
            reply = (await server.chat(max_tokens=100, **named)).json()
            assert "degraded" not in reply, named
        reply = (await server.chat(max_tokens=16)).json()  # room for 12 at most anyway
        assert "degraded" not in reply


async def test_where_both_are_limited_there_is_an_answer_after_the_thought(tmp_path):
    for number, (rules, budget) in enumerate({"max_tokens=40": None, "thinking_budget=8,max_tokens=40": 8}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with held(folder, rules, **THINKING) as server:
            for fields in ({}, {"thinking_token_budget": 1000}):
                reply = (await server.chat(**fields)).json()
                assert reply["usage"]["completion_tokens"] == 40
                assert reply["choices"][0]["message"]["content"]
                assert reply["usage"]["completion_tokens"] - reasoning_tokens(reply) >= 10
                expected = {"level": 1, "max_tokens": 40}
                if budget and not fields:
                    expected["thinking_token_budget"] = budget
                assert reply["degraded"] == expected


# --- the same bits


@asynccontextmanager
async def pair(folder: Path, rules: str, **settings: Any) -> AsyncIterator[tuple[Served, Served]]:
    """A server that degrades, and one with the same model that never does."""
    folders = [folder / name for name in ("degrading", "plain")]
    for each in folders:
        each.mkdir()
    async with (
        serving(folders[0], degrade=parse_rules(rules), **settings) as one,
        serving(folders[1], degrade=OFF, **settings) as other,
    ):
        yield one, other


def answer_of(reply: Any) -> Any:
    (choice,) = reply.json()["choices"]
    return [choice.get(name) for name in ("message", "text", "finish_reason", "thought_closed", "token_ids")]


@pytest.mark.parametrize("thinks", [False, True])
async def test_the_effective_limits_written_out_give_the_same_bits(tmp_path, thinks):
    rules = "thinking_budget=30; thinking_budget=12,max_tokens=40; temperature=0.3"
    settings = {"template": R1_TEMPLATE, "loop_guard": False} if thinks else {}
    async with pair(tmp_path, rules, **settings) as (degrading, plain):
        for level in (1, 2, 3):
            set_level(degrading, level)
            for ask, other in ((degrading.chat, plain.chat), (degrading.complete, plain.complete)):
                fields = {"seed": 7, "temperature": 0.9, "max_tokens": 90, "return_token_ids": True}
                reply = await ask("What is it?", **fields)
                effective = reply.json().get("degraded", {})
                effective.pop("level", None)
                assert answer_of(reply) == answer_of(await other("What is it?", **fields | effective))
        assert effective == {"max_tokens": 40, "temperature": 0.3}  # of a plain completion at the last level


async def test_a_change_of_the_level_affects_new_requests_only(tmp_path):
    """Requests at changing levels, computed together, have the text that each has alone."""
    rules = "max_tokens=60; max_tokens=40,temperature=0.4; max_tokens=20,temperature=0.1"
    async with pair(tmp_path, rules, fake={"step_seconds": 0.002}) as (degrading, plain):
        tasks, asked = [], []
        for number, level in enumerate([0, 1, 2, 3, 0, 2, 1, 3, 0, 3]):
            set_level(degrading, level)
            fields = {"seed": number, "temperature": 0.8, "max_tokens": 80, "return_token_ids": True}
            asked.append((level, fields))
            tasks.append(asyncio.create_task(degrading.complete(f"Request {number}", **fields)))
            accepted = number + 1
            await until(lambda accepted=accepted: degrading.engine.counters.accepted >= accepted)
        for number, ((level, fields), reply) in enumerate(zip(asked, await asyncio.gather(*tasks), strict=True)):
            effective = reply.json().get("degraded", {"level": 0})
            assert effective.pop("level") == level
            alone = await plain.complete(f"Request {number}", **fields | effective)
            assert answer_of(reply) == answer_of(alone)


# --- refusing


async def test_flex_requests_are_refused_first(tmp_path):
    async with held(tmp_path, "shed=flex") as server:
        for ask in (server.chat, server.complete):
            reply = await ask(max_tokens=2, service_tier="flex")
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded")
            assert "flex" in reply.json()["error"]["message"]
            assert (await ask(max_tokens=2)).status_code == 200
            assert (await ask(max_tokens=2, service_tier="auto")).status_code == 200


async def test_then_all_are_refused_before_their_bodies_are_read_and_told_different_times(tmp_path):
    async with held(tmp_path, "shed=all") as server:
        waits = set()
        for _ in range(4):
            reply = await server.http.post("/v1/chat/completions", content=b"{this is no JSON")
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded")
            waits.add(int(reply.headers["retry-after-ms"]))
        assert len(waits) == 4
        assert all(5_000 <= wait <= 25_000 for wait in waits)
        for path, fields in APIS.items():
            assert (await server.http.post(path, json=fields)).status_code in (503, 529)
        batch = await server.http.post("/generate-batch", json=[{"prompt": "a"}])
        assert batch.json()["results"][0]["error"]["code"] == "server_overloaded"
        metrics = await server.metrics()
        assert metrics['antiphon_shed_requests_total{reason="degraded"}'] == 4 + len(APIS) + 1
        assert (await server.http.get("/health")).status_code == 200


async def test_deadlines_missed_in_a_row_close_the_server_and_one_request_opens_it_again(tmp_path, monkeypatch):
    monkeypatch.setattr(load_signals, "LEAST_DEADLINE", 0.01)
    monkeypatch.setattr(load_signals, "RECENT", 2.0)
    rules = parse_rules("timeouts>=3: shed=all")
    slow = {"step_seconds": 0.01, "eos_token_id": -1}
    async with serving(tmp_path, fake=slow, degrade=rules, degrade_stay=0.3) as server:
        while degrading_of(server).level == 0:
            reply = await server.complete(max_tokens=4000, timeout=0.1)
            assert reply.status_code in (200, 503)
        assert (await server.complete(max_tokens=2)).status_code == 503
        await until(lambda: degrading_of(server)._ladder.allows_probe)
        ends = await asyncio.gather(*(server.complete(max_tokens=50) for _ in range(8)))
        statuses = [reply.status_code for reply in ends]
        assert statuses.count(200) >= 1
        await until(lambda: degrading_of(server).level == 0)
        assert (await server.complete(max_tokens=2)).status_code == 200
        assert (await server.metrics())["antiphon_degrade_level"] == 0
        await server.check_accounts()


async def test_a_full_kv_cache_raises_the_level_and_an_empty_one_lowers_it(tmp_path):
    rules = parse_rules("kv>0.01%: max_tokens=5")
    slow = {"step_seconds": 0.01, "eos_token_id": -1}
    async with serving(tmp_path, fake=slow, degrade=rules, degrade_stay=0.3) as server:
        task = asyncio.create_task(server.complete(max_tokens=4000))
        await until(lambda: degrading_of(server).level == 1)
        assert (await server.complete(max_tokens=9)).json()["degraded"] == {"level": 1, "max_tokens": 5}
        assert not task.done()
        task.cancel()
        await until(lambda: degrading_of(server).level == 0)
        assert "degraded" not in (await server.complete(max_tokens=9)).text


async def test_the_wait_of_clients_raises_the_level_before_they_are_refused(tmp_path):
    rules = parse_rules("wait>20%: max_tokens=5")
    slow = {"step_seconds": 0.01, "eos_token_id": -1}
    async with serving(
        tmp_path, fake=slow, max_num_sequences=1, max_wait=60.0, degrade=rules, degrade_stay=0.3
    ) as server:
        await server.complete(max_tokens=20)
        for _ in range(20):  # answers are long
            server.engine._admission.lengths.plain.observe(4000, is_complete=True)
        tasks = [asyncio.create_task(server.complete(max_tokens=2000)) for _ in range(2)]
        await until(lambda: degrading_of(server).level == 1)
        assert (await server.metrics())['antiphon_shed_requests_total{reason="predicted_wait"}'] == 0
        for task in tasks:
            task.cancel()
        await until(lambda: degrading_of(server).level == 0)


async def test_an_engine_that_dies_counts(tmp_path):
    rules = parse_rules("engine_deaths>=1: max_tokens=5")
    async with serving(tmp_path, degrade=rules, degrade_stay=0.1) as server:
        pid = server.engine.engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: server.engine.restarts == 1)
        await until_level(server, 1)
        assert (await server.complete(max_tokens=9)).json()["degraded"] == {"level": 1, "max_tokens": 5}


async def test_other_rules_take_effect_while_serving_and_begin_at_level_0(tmp_path):
    async with held(tmp_path, "max_tokens=5") as server:
        degrading = degrading_of(server)
        assert "degraded" in (await server.complete()).json()
        degrading.configure(parse_rules("max_tokens=5"), 10.0)
        assert degrading.level == 1, "the same rules"
        degrading.configure(parse_rules("max_tokens=4; max_tokens=3"), 10.0)
        assert degrading.level == 0
        degrading._ladder.level = 2
        assert (await server.complete()).json()["degraded"] == {"level": 2, "max_tokens": 3}
        assert (await server.metrics())['antiphon_degraded_requests_total{step="2"}'] == 1


async def test_when_switched_off_nothing_is_measured_or_changed(tmp_path):
    async with serving(tmp_path, degrade=OFF) as server:
        reply = await server.complete(max_tokens=30, degrade="never")
        assert completion_tokens(reply.json()) == 30
        assert degrading_of(server)._timer is None
        assert not [name for name in await server.metrics() if name.startswith("antiphon_degraded_requests_total")]


async def test_messages_say_it_beside_the_usage(loaded: Served):
    reply = await loaded.http.post("/v1/messages", json={**APIS["/v1/messages"], "stream": True})
    (delta,) = [payload for name, payload in named_events(reply.text) if name == "message_delta"]
    assert delta["degraded"]["max_tokens"] == delta["usage"]["output_tokens"] == 8
    assert json.dumps(delta).count("degraded") == 1
