"""How requests end: by themselves, because the client left, because the engine failed, because the server stops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from http_server import Served, events, joined, serving, until
from open_files import no_descriptor_left
from patience import PATIENCE

from antiphon.engine.client import EngineClient
from antiphon.errors import NotReady

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SLOW = {"step_seconds": 0.02}


async def test_a_client_that_leaves_a_stream_aborts_it(tmp_path):
    async with serving(tmp_path, fake=_SLOW) as server:
        body = {"prompt": "x", "max_tokens": 4000, "stream": True}
        async with server.http.stream("POST", "/v1/completions", json=body) as reply:
            await anext(reply.aiter_lines())
        await until(lambda: server.engine.counters.aborted == 1)
        await until(lambda: server.engine.stats.running == 0)
        await server.until_metric("antiphon_requests_aborted_total", 1)
        await server.until_metric("antiphon_requests_running", 0)
        await server.check_accounts()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server whose answers take their time, for tests that leave nothing behind."""
    async with serving(tmp_path_factory.mktemp("model"), fake=_SLOW, hang_timeout=PATIENCE) as server:
        yield server


_AHEAD = [b"", b"G", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2, b"x" * 60_000]


@pytest.mark.parametrize("ahead", _AHEAD, ids=["nothing", "a byte", "two requests", "60 kB"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("header", ["", "Upgrade: h2c\r\nConnection: Upgrade\r\n"], ids=["plain", "upgrade"])
async def test_for_a_client_that_left_no_more_than_two_steps_are_computed(slow, ahead, stream, header):
    """Whatever it has sent ahead, of the next request or of none. Counted in the engine's steps: it is stopped while
    the front learns that the client left, and what it does after that is seen in their number."""
    engine, aborted, begun = slow.engine, slow.engine.counters.aborted, slow.engine.stats.step
    host, port = slow.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = b'{"prompt": "x", "max_tokens": 4000, "stream": %s}' % str(stream).lower().encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await until(lambda: engine.stats.step > begun + 3)
    writer.write(ahead)
    await writer.drain()
    await until(lambda step=engine.stats.step: engine.stats.step > step + 2)
    os.kill(engine.engine_pid, signal.SIGSTOP)
    writer.close()
    await until(lambda: engine.counters.aborted == aborted + 1)
    step = engine.stats.step
    os.kill(engine.engine_pid, signal.SIGCONT)
    await until(lambda: engine.stats.running == 0)
    assert engine.stats.step <= step + 2
    await slow.check_accounts()


async def test_a_client_that_sends_too_much_ahead_is_disconnected(tmp_path):
    async with serving(tmp_path, fake=_SLOW) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = b'{"prompt": "x", "max_tokens": 4000}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: server.engine.counters.running == 1)
        writer.write(b"x" * 1_000_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        await until(lambda: server.engine.counters.aborted == 1)
        writer.close()


async def test_requests_that_were_sent_ahead_are_answered_in_their_turn(tmp_path):
    async with serving(tmp_path, fake=_SLOW) as server:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = b'{"prompt": "x", "max_tokens": 10}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: server.engine.counters.running == 1)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /version HTTP/1.1\r\nHost: localhost\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"Connection: close\r\n\r\n")
        answers = (await reader.read()).decode()
        writer.close()
        assert answers.count("HTTP/1.1 200 OK") == 3
        assert answers.index("text_completion") < answers.index('"status":"ok"') < answers.index('"version"')


async def test_a_client_that_leaves_while_waiting_aborts_every_choice(tmp_path):
    async with serving(tmp_path, fake=_SLOW) as server:
        waiting = asyncio.create_task(server.complete(max_tokens=4000, n=3))
        await until(lambda: server.engine.stats.running == 3)
        waiting.cancel()
        await until(lambda: server.engine.counters.aborted == 3)
        await until(lambda: server.engine.stats.running == 0)
        await server.until_metric("antiphon_requests_aborted_total", 1)


async def test_a_client_that_leaves_while_sending_is_counted_and_no_error(tmp_path, caplog):
    async with serving(tmp_path) as server:
        host, port = server.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        writer.write(head.encode() + b'{"prompt"')
        await writer.drain()
        await server.until_metric("antiphon_requests_received_total", 1)
        writer.close()
        await server.until_metric('antiphon_requests_refused_total{code="client_gone",endpoint="completions"}', 1)
        assert "unexpected" not in caplog.text


async def test_more_choices_than_the_cap_are_a_mistake_and_no_overload(tmp_path):
    async with serving(tmp_path, max_queued_requests=4) as server:
        for reply, param in (
            (await server.chat(n=5), "n"),
            (await server.complete(["a", "b", "c"], n=2), "n"),
            (await server.complete(["a"] * 5), "prompt"),
        ):
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == param
            assert "4 unfinished" in reply.json()["error"]["message"]
        assert server.engine.counters.received == 0
        assert (await server.chat(n=4, max_tokens=2)).status_code == 200


async def test_the_cap_on_unfinished_requests_takes_all_choices_or_none(tmp_path):
    async with serving(tmp_path, fake=_SLOW, max_queued_requests=4) as server:
        running = asyncio.create_task(server.complete(max_tokens=4000, n=2))
        await until(lambda: server.engine.counters.running == 2)
        reply = await server.complete(n=3)
        error = reply.json()["error"]
        assert (reply.status_code, error["type"], error["code"]) == (503, "server_error", "server_overloaded")
        assert int(reply.headers["retry-after"]) >= 1
        assert server.engine.counters.running == 2
        assert (await server.complete(n=2, max_tokens=2)).status_code == 200
        running.cancel()
        await until(lambda: server.engine.counters.running == 0)
        await server.check_accounts()


async def test_a_full_server_says_so_in_the_shape_of_each_api(tmp_path):
    """Not with 429, which means that a key is over its rate and that another server would refuse the request too."""
    hello = [{"role": "user", "content": "Hello"}]
    async with serving(tmp_path, fake=_SLOW, max_queued_requests=1) as server:
        running = asyncio.create_task(server.complete(max_tokens=4000))
        await until(lambda: server.engine.counters.running == 1)
        anthropics = await server.http.post("/v1/messages", json={"messages": hello, "max_tokens": 5, "model": ""})
        assert (anthropics.status_code, anthropics.json()["error"]["type"]) == (529, "overloaded_error")
        proxied = {"X-Overloaded-Status": "503"}  # proxies try another server after this status only
        again = await server.http.post("/v1/messages", json={"messages": hello, "max_tokens": 5}, headers=proxied)
        assert (again.status_code, again.headers["x-overloaded-status"]) == (503, "529")
        assert again.json()["error"]["type"] == "overloaded_error"
        ollamas = await server.http.post("/api/chat", json={"messages": hello, "model": ""})
        assert ollamas.status_code == 503
        assert isinstance(ollamas.json()["error"], str)
        responses = await server.http.post("/v1/responses", json={"input": "Hello"})
        assert (responses.status_code, responses.json()["error"]["code"]) == (503, "server_overloaded")
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in (anthropics, ollamas, responses))
        running.cancel()


async def test_lower_priorities_go_first_where_the_server_allows_it(tmp_path):
    async with serving(
        tmp_path, fake={**_SLOW, "eos_token_id": -1}, scheduling_policy="priority", max_num_sequences=1
    ) as server:
        ended: list[int] = []

        async def ask(priority: int) -> None:
            ask = server.chat if priority % 2 else server.complete
            assert (await ask(max_tokens=3, priority=priority)).status_code == 200
            ended.append(priority)

        running = asyncio.create_task(server.complete(max_tokens=20))
        await until(lambda: server.engine.counters.running == 1)
        tasks = []
        for number, priority in enumerate((5, 2, -1, 4), 2):
            tasks.append(asyncio.create_task(ask(priority)))
            await until(lambda number=number: server.engine.counters.running == number)
        await asyncio.gather(running, *tasks)
        assert ended == [-1, 2, 4, 5]


async def test_a_priority_is_refused_where_it_would_have_no_effect(tmp_path):
    async with serving(tmp_path) as server:
        for ask in (server.chat, server.complete):
            reply = await ask(priority=1)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "priority")
            assert "--scheduling-policy" in reply.json()["error"]["message"]
            assert (await ask(priority=0, max_tokens=1)).status_code == 200
            assert (await ask(priority=1 << 31)).json()["error"]["param"] == "priority"


async def test_an_engine_that_fails_a_request_fails_it_alone(tmp_path):
    poison = 77
    async with serving(tmp_path, fake={"fail_on": poison}) as server:
        good = asyncio.create_task(server.complete("good", max_tokens=100, seed=1))
        reply = await server.complete([poison, 1])
        assert reply.status_code == 500
        assert reply.json()["error"]["code"] == "engine_error"
        chunks = events((await server.complete([poison, 1], stream=True)).text)
        assert chunks[-1]["error"]["code"] == "engine_error"
        assert (await good).status_code == 200
        await server.until_metric("antiphon_requests_failed_total", 2)
        await server.check_accounts()


async def test_an_unexpected_error_says_nothing_of_itself(tmp_path, monkeypatch, caplog):
    async with serving(tmp_path) as server:

        def fail(*args, **kwargs):
            raise RuntimeError("the secret")

        monkeypatch.setattr("antiphon.api.completions.answer.start_generation", fail)
        reply = await server.complete()
        assert reply.status_code == 500
        assert reply.json()["error"]["type"] == "server_error"
        assert "secret" not in reply.text
        assert "the secret" in caplog.text
        monkeypatch.undo()
        monkeypatch.setattr("antiphon.api.choice.Choice.receive", fail)
        assert "secret" not in (await server.complete()).text
        assert "secret" not in (await server.complete(stream=True)).text
        monkeypatch.undo()
        assert (await server.complete()).status_code == 200
        await server.check_accounts()


async def test_not_ready_until_loaded(tmp_path, monkeypatch):
    async with serving(tmp_path) as server:
        assert (await server.http.get("/ready")).json() == {"status": "ready", "model": "tiny"}
        monkeypatch.setattr(EngineClient, "info", None)
        reply = await server.chat()
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "not_ready"
        assert int(reply.headers["retry-after"]) >= 1
        assert (await server.http.get("/v1/models")).status_code == 200
        assert (await server.http.get("/health")).status_code == 200
        await server.check_accounts()


async def test_ready_says_why_there_is_no_engine(tmp_path):
    async with serving(tmp_path) as server:
        with no_descriptor_left():
            os.kill(server.engine.engine_pid, signal.SIGKILL)
            await until(lambda: server.engine.restarts > 1)
        reply = await server.http.get("/ready")
        assert reply.status_code == 503
        message = reply.json()["error"]["message"]
        assert (
            message
            == "The engine is restarting: the last one died, no process could be started for it (Too many open files)."
        )
        await until(lambda: server.engine.is_ready)
        assert (await server.http.get("/ready")).status_code == 200


async def test_a_model_that_cannot_be_loaded_leaves_a_server_that_says_so(tmp_path):
    async with serving(tmp_path, fake={"refuse_to_load": "weights are bent"}, wait=False) as server:
        with pytest.raises(Exception, match="weights are bent"):
            await server.engine.wait_ready()
        assert (await server.http.get("/health")).status_code == 200
        assert (await server.http.get("/ready")).status_code == 503
        assert (await server.chat()).status_code == 503


async def test_draining_finishes_what_runs_and_refuses_what_comes(tmp_path):
    async with serving(tmp_path, fake=_SLOW, drain_timeout=PATIENCE) as server:
        running = asyncio.create_task(server.chat(max_tokens=150, stream=True))
        await until(lambda: server.engine.counters.running == 1)
        server.server.begin_shutdown()
        await until(lambda: not server.engine.is_ready)
        refused = await server.chat()
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        ready = await server.http.get("/ready")
        assert ready.status_code == 503
        assert (await server.http.get("/health")).status_code == 200
        chunks = events((await running).text)
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        await until(lambda: server.server.should_exit)


async def test_a_drain_has_its_limit(tmp_path):
    async with serving(tmp_path, fake=_SLOW, drain_timeout=0.2) as server:
        running = asyncio.create_task(server.chat(max_tokens=4000, stream=True))
        await until(lambda: server.engine.counters.running == 1)
        server.server.begin_shutdown()
        chunks = events((await running).text)
        assert chunks[-1]["error"]["code"] == NotReady.code
        assert joined(chunks[:-1])


async def test_a_second_signal_stops_at_once(tmp_path):
    async with serving(tmp_path, fake=_SLOW, drain_timeout=1000.0) as server:
        running = asyncio.create_task(server.chat(max_tokens=4000))
        await until(lambda: server.engine.counters.running == 1)
        server.server.begin_shutdown()
        await asyncio.sleep(0)
        assert not server.server.should_exit
        server.server.begin_shutdown()
        assert server.server.force_exit
        running.cancel()
