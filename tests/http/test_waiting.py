"""How long a request waits: fields, headers and the setting; refusals, tickets and time-outs in every API's shape."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from http_server import Served, events, named_events, serving, until
from patience import PATIENCE

from antiphon.engine.admission.tickets import Tickets

HELLO = [{"role": "user", "content": "Hello"}]
SLOW = {"step_seconds": 0.02, "eos_token_id": -1}
APIS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 4000},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 4000, "model": ""},
    "/api/chat": {"messages": HELLO, "stream": False},
    "/api/generate": {"prompt": "Hello", "stream": False},
    "/completion": {"prompt": "Hello"},
    "/generate": {"prompt": "Hello"},
}


@asynccontextmanager
async def busy(folder: Path, *, running: int = 400, **settings: Any) -> AsyncIterator[Served]:
    """A server with one place, which an answer of so many tokens has taken; a step's cost is known."""
    async with serving(folder, fake=SLOW, max_num_sequences=1, **settings) as server:
        await server.complete(max_tokens=25)
        task = asyncio.create_task(server.complete(max_tokens=running))
        await until(lambda: server.engine.stats.running == 1)
        yield server
        task.cancel()
        await until(lambda: server.engine.counters.running == 0)
        await server.check_accounts()


@pytest.mark.parametrize("path", APIS)
async def test_a_request_that_would_wait_longer_than_its_field_says_is_refused(tmp_path, path):
    async with busy(tmp_path) as server:
        reply = await server.http.post(path, json={**APIS[path], "max_wait": 0.5})
        assert reply.status_code == (529 if path == "/v1/messages" else 503)
        assert "seconds, which is too late" in reply.text
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert 0 <= int(reply.headers["retry-after"]) * 1000 - int(reply.headers["retry-after-ms"]) < 1000
        metrics = await server.metrics()
        assert metrics['antiphon_shed_requests_total{reason="predicted_wait"}'] == 1
        assert metrics["antiphon_predicted_wait_seconds_count"] == 3
        assert metrics["antiphon_tokens_owed"] > 10


async def test_a_deadline_header_refuses_like_the_field(tmp_path):
    headers = {
        "x-request-timeout": "0.5",
        "x-envoy-expected-rq-timeout-ms": "500",
        "x-stainless-read-timeout": "0.5",
        "x-stainless-timeout": "0.5",
    }
    async with busy(tmp_path, running=4000) as server:
        for header, value in headers.items():
            for body in ({"stream": True}, {"stream": False}):
                reply = await server.http.post(
                    "/v1/chat/completions", json={"messages": HELLO, **body}, headers={header: value}
                )
                assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded"), header


async def test_what_a_client_waits_for_bytes_limits_a_whole_answer_but_not_a_stream(tmp_path):
    """The queue takes a second, the answer twenty; a stream is never silent for long."""
    async with busy(tmp_path, running=50) as server:
        fields = {"prompt": "Hello", "max_tokens": 2000, "ignore_eos": True}
        for _ in range(30):  # so that long answers are expected
            server.engine._admission.lengths.plain.observe(2000, is_complete=True)
        headers = {"x-stainless-read-timeout": "10"}
        whole = await server.http.post("/v1/completions", json=fields, headers=headers)
        assert whole.status_code == 503
        server.engine._admission._tickets = Tickets()  # else the stream would wait for the refused request
        async with server.http.stream(
            "POST", "/v1/completions", json={**fields, "stream": True}, headers=headers
        ) as stream:
            assert stream.status_code == 200


async def test_the_setting_applies_where_nothing_is_said(tmp_path):
    async with busy(tmp_path, max_wait=0.5) as server:
        assert (await server.chat()).status_code == 503
        assert (await server.chat(max_wait=1000)).status_code == 503


async def test_bad_deadlines_are_refused_by_name_and_junk_of_sdks_is_ignored(tmp_path):
    async with serving(tmp_path) as server:
        for field, value in (("max_wait", -1), ("max_wait", "5"), ("timeout", 0), ("timeout", 1e9), ("timeout", [])):
            reply = await server.chat(**{field: value})
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
        for value in ("soon", "-1", "0", "nan"):
            reply = await server.http.post(
                "/v1/chat/completions", json={"messages": HELLO}, headers={"x-request-timeout": value}
            )
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "x-request-timeout")
        junk = {
            "x-stainless-read-timeout": "NOT_GIVEN",
            "x-stainless-retry-count": b"\xb2",
            "x-envoy-expected-rq-timeout-ms": "x",
        }
        reply = await server.http.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 2}, headers=junk)
        assert reply.status_code == 200


async def test_a_request_whose_turn_does_not_come_ends_with_503_whole_or_streamed(tmp_path):
    """It is accepted, since nothing is measured yet: the engine is stopped until all are accepted."""
    async with serving(tmp_path, fake=SLOW, max_num_sequences=1, hang_timeout=PATIENCE) as server:
        os.kill(server.engine.engine_pid, signal.SIGSTOP)
        running = asyncio.create_task(server.complete(max_tokens=4000))
        await until(lambda: server.engine.counters.accepted == 1)
        late = asyncio.create_task(server.chat(max_wait=0.1))
        streamed = asyncio.create_task(server.chat(max_wait=0.1, stream=True))
        await until(lambda: server.engine.counters.accepted == 3)
        os.kill(server.engine.engine_pid, signal.SIGCONT)
        reply = await late
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded")
        assert "retry-after-ms" in reply.headers
        last = events((await streamed).text)[-1]
        assert last["error"]["code"] == "server_overloaded"
        metrics = await server.metrics()
        assert metrics['antiphon_shed_requests_total{reason="queue_timeout"}'] == 2
        assert metrics["antiphon_deadline_missed_total"] == 2
        running.cancel()
        await until(lambda: server.engine.counters.running == 0)
        await server.check_accounts()


async def test_after_its_timeout_an_answer_has_what_was_generated_and_says_why(tmp_path):
    async with serving(tmp_path, fake=SLOW) as server:
        asking = [server.http.post(path, json={**body, "timeout": 2.0}) for path, body in APIS.items()]
        for path, reply in zip(APIS, await asyncio.gather(*asking), strict=True):
            assert reply.status_code == 200, path
            body = reply.json()
            part = body["choices"][0] if "choices" in body else body.get("incomplete_details") or body
            assert part["ended_by"] == "timeout", path
            names = ("finish_reason", "stop_reason", "reason", "done_reason", "stop_type")
            said = next(part[name] for name in names if part.get(name))
            assert said in ("length", "max_tokens", "max_output_tokens", "limit"), path
        metrics = await server.metrics()
        assert metrics["antiphon_deadline_missed_total"] == len(APIS)
        assert 1 <= metrics["antiphon_generated_tokens_total"] < 200 * len(APIS)
        await until(lambda: server.engine.stats.running == 0)
        await server.check_accounts()


async def test_after_its_timeout_no_choice_is_lost_although_one_has_not_begun(tmp_path):
    async with serving(tmp_path, fake=SLOW, max_num_sequences=1) as server:
        reply = await server.complete(n=2, max_tokens=4000, timeout=1.5)
        assert reply.status_code == 200
        first, second = reply.json()["choices"]
        assert (first["finish_reason"], first["ended_by"]) == ("length", "timeout")
        assert (second["finish_reason"], second["ended_by"], second["text"]) == ("length", "timeout", "")
        assert first["text"]
        assert (await server.metrics())["antiphon_deadline_missed_total"] == 1
        await server.check_accounts()


async def test_streams_say_in_their_last_part_that_the_time_was_up(tmp_path):
    paths = ("/v1/chat/completions", "/v1/completions", "/completion")
    async with serving(tmp_path, fake=SLOW) as server:
        asking = [server.http.post(path, json={**APIS[path], "timeout": 1.0, "stream": True}) for path in paths]
        for reply in await asyncio.gather(*asking):
            payloads = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line.startswith("data: {")]
            assert '"ended_by":"timeout"' in payloads[-1]
            assert all("ended_by" not in payload for payload in payloads[:-1])


async def test_streams_of_messages_say_it_with_their_stop_reason(tmp_path):
    async with serving(tmp_path, fake=SLOW) as server:
        reply = await server.http.post("/v1/messages", json={**APIS["/v1/messages"], "timeout": 1.0, "stream": True})
        (delta,) = [payload["delta"] for name, payload in named_events(reply.text) if name == "message_delta"]
        assert (delta["stop_reason"], delta["ended_by"]) == ("max_tokens", "timeout")


async def test_an_answer_that_ends_in_time_says_nothing_of_it(tmp_path):
    async with serving(tmp_path) as server:
        reply = await server.chat(timeout=60, max_tokens=3)
        assert reply.json()["choices"][0]["finish_reason"] == "length"
        assert "ended_by" not in reply.text
        assert (await server.metrics())["antiphon_deadline_missed_total"] == 0


async def test_where_there_is_no_place_within_a_minute_a_client_is_told_to_give_up(tmp_path):
    async with busy(tmp_path, running=4000) as server:
        for _ in range(300):
            server.engine._admission.lengths.plain.observe(4000, is_complete=False)
        reply = await server.chat(max_wait=1)
        assert reply.status_code == 503
        assert reply.headers["x-should-retry"] == "false"
        assert "retry-after" not in reply.headers


async def test_the_stock_client_comes_back_by_itself_and_is_answered(tmp_path):
    """With its two retries, since the time that it is told is right: the running answer's length is known."""
    async with busy(tmp_path, running=100) as server:
        for _ in range(300):
            server.engine._admission.lengths.plain.observe(100, is_complete=True)
        client = server.openai.with_options(max_retries=2)  # its default
        answer = await client.completions.create(model="", prompt="Hi", max_tokens=5, extra_body={"max_wait": 0.5})
        assert answer.usage.completion_tokens == 5
        metrics = await server.metrics()
        assert metrics["antiphon_retries_seen_total"] >= 1
        assert metrics['antiphon_shed_requests_total{reason="predicted_wait"}'] >= 1


@pytest.mark.parametrize("num_words", [50, 50_000])
async def test_a_refusal_costs_little_processor_time_however_long_the_body_is(tmp_path, monkeypatch, num_words):
    """The body is not even decoded; the test's own client is in this process too."""
    async with busy(tmp_path, running=4000, max_wait=0.5) as server:
        monkeypatch.setattr("antiphon.http.context.decode_json", None)
        body = json.dumps({"messages": [{"role": "user", "content": "Hello " * num_words}]})
        headers = {"content-type": "application/json"}
        began, num_refused = time.process_time(), 40
        for number in range(num_refused):
            content = f"{body[:-1]}{' ' * number}}}"  # another request
            reply = await server.http.post("/v1/chat/completions", content=content, headers=headers)
            assert reply.status_code == 503
        assert (time.process_time() - began) / num_refused < 0.05
        metrics = await server.metrics()
        assert metrics['antiphon_shed_requests_total{reason="predicted_wait"}'] == num_refused
