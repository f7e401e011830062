"""An engine that keeps dying: what is accepted goes on, what comes is refused at once, and one request tries again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest
from http_server import Served, serving, until

from antiphon.engine.fleet.breaker import Breaker, BreakerState
from antiphon.text.template import ChatTemplate
from antiphon.text.tokenizer import Tokenizer

_DELAY = 1000.0  # seconds; the tests set the breaker's clock instead of waiting
_SHED = 'antiphon_shed_requests_total{reason="breaker"}'


def breaker_of(server: Served) -> Breaker:
    """The breaker of the only engine."""
    (engine,) = server.engine._all
    return engine.breaker


async def die_three_times(server: Served) -> None:
    """Kill the engine, and the next two while they load, so that only the first one worked on anything."""
    engine, first = server.engine, server.engine.restarts
    for num_deaths in range(3):
        await until(lambda num=num_deaths: engine.restarts == first + num and engine.engine_pid is not None)
        os.kill(engine.engine_pid, signal.SIGKILL)
    await until(lambda: engine.restarts == first + 3)


async def test_an_engine_that_keeps_dying_takes_no_new_requests_until_one_shows_that_it_works(tmp_path):
    fake = {"step_seconds": 0.01, "load_seconds": 0.5}
    async with serving(tmp_path, fake=fake, breaker_delay=_DELAY, hang_timeout=1000.0) as server:
        breaker = breaker_of(server)
        alone = (await server.complete("Hello", max_tokens=100, temperature=0)).json()["choices"][0]["text"]
        accepted = asyncio.create_task(server.complete("Hello", max_tokens=100, temperature=0))
        await until(lambda: server.engine.counters.running == 1)
        await die_three_times(server)
        assert breaker.state is BreakerState.OPEN
        num_refused = await _everything_is_refused(server)
        assert (await accepted).json()["choices"][0]["text"] == alone
        assert breaker.state is BreakerState.OPEN  # what was accepted before tells nothing new

        breaker._clock = lambda: time.monotonic() + _DELAY
        assert breaker.state is BreakerState.HALF_OPEN
        assert (await server.http.get("/ready")).status_code == 200
        os.kill(server.engine.engine_pid, signal.SIGSTOP)
        asked = [asyncio.create_task(server.complete("Hello", max_tokens=100, temperature=0)) for _ in range(10)]
        await until(lambda: sum(task.done() for task in asked) == 9)
        os.kill(server.engine.engine_pid, signal.SIGCONT)
        replies = [await task for task in asked]
        assert sorted(reply.status_code for reply in replies) == [200, *[503] * 9]
        assert [reply.json()["choices"][0]["text"] for reply in replies if reply.status_code == 200] == [alone]
        assert breaker.state is BreakerState.CLOSED

        now = await server.metrics()
        assert (now["antiphon_breaker_opened_total"], now['antiphon_breaker_state{engine="1"}']) == (1, 0)
        assert now[_SHED] == num_refused + 9
        await server.check_accounts()


async def _everything_is_refused(server: Served) -> int:
    """Ask in the shapes of several APIs, far more than once, while rendering and tokenizing are impossible."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(ChatTemplate, "render")
        patch.delattr(Tokenizer, "encode")
        started = time.process_time()
        for _ in range(20):
            reply = await server.chat("Hello " * 10_000)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
            assert 0 < int(reply.headers["retry-after"]) <= _DELAY
            assert abs(int(reply.headers["retry-after-ms"]) / 1000 - int(reply.headers["retry-after"])) <= 1
        assert (time.process_time() - started) / 20 < 0.05  # the client's own share included
        plain = await server.complete("Hello")
        responses = await server.http.post("/v1/responses", json={"input": "Hello"})
        simple = await server.http.post("/generate", json={"prompt": "Hello"})
        batch = (await server.http.post("/generate-batch", json=[{"prompt": "Hello"}] * 2)).json()
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
        anthropic = await server.http.post("/v1/messages", json=body)
    assert (await server.http.get("/ready")).status_code == 503
    for reply in (plain, responses, simple):
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_unavailable")
    assert [item["error"]["code"] for item in batch["results"]] == ["engine_unavailable"] * 2
    assert (anthropic.status_code, anthropic.json()["error"]["type"]) == (529, "overloaded_error")
    return 20 + 6


async def test_a_server_without_a_breaker_accepts_what_comes_and_waits(tmp_path):
    async with serving(tmp_path, breaker_failures=0) as server:
        await die_three_times(server)
        assert (await server.complete("Hello", max_tokens=3)).status_code == 200


async def test_requests_that_the_engine_fails_open_it_and_those_of_a_grammar_do_not(tmp_path):
    poison = 77
    async with serving(tmp_path, fake={"fail_on": poison}, grammars=True, breaker_delay=_DELAY) as server:
        for _ in range(4):
            reply = await server.complete([poison, 1], max_tokens=3, guided_regex="a+")
            assert reply.status_code == 500
        assert breaker_of(server).outcomes == (0, 0)
        for _ in range(3):
            assert (await server.complete([poison, 1], max_tokens=3)).status_code == 500
        assert (await server.complete("Hello", max_tokens=3)).json()["error"]["code"] == "engine_unavailable"
        await server.check_accounts()
