"""With the real model behind the real server: engines die and hang under eight streams, and the front is killed."""

from __future__ import annotations

import asyncio
import os
import signal

import httpx2
import pytest
from fronts import is_gone
from real_server import RealServer, real_server, wait_until
from voices import SPEECHES, Said, ask_at_once, ask_in_turn

pytestmark = [pytest.mark.model, pytest.mark.slow]

TOKENS = "antiphon_inter_token_latency_seconds_count"


def _wait_until_in_the_middle(server: RealServer) -> None:
    """All eight are running and have many tokens behind them, and before them."""
    wait_until(lambda: server.metrics()[TOKENS] >= 8 * 10, "no tokens come")
    now = server.metrics()
    assert now["antiphon_sequences_running"] == 8
    assert now.get("antiphon_requests_finished_total", 0) == 0


@pytest.fixture(scope="module")
def alone(demo_model) -> list[Said]:
    """What each of the eight is told when nothing happens."""
    with real_server(demo_model) as server:
        return asyncio.run(ask_in_turn(server, SPEECHES))


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=lambda blow: blow.name)
async def test_streams_survive_the_engine(demo_model, alone, blow):
    """A pause, and then bit for bit the text, tokens and log-probabilities that each would have had."""
    with real_server(demo_model) as server:
        asking = asyncio.create_task(ask_at_once(server, SPEECHES))
        await asyncio.to_thread(_wait_until_in_the_middle, server)
        first = server.engine_pid
        os.kill(first, blow)
        assert await asking == alone
        assert server.engine_pid != first
        now = server.wait_idle()
        assert now["antiphon_engine_restarts_total"] == 1
        assert now["antiphon_requests_finished_total"] == 8
        assert now.get("antiphon_requests_failed_total", 0) == 0


@pytest.mark.parametrize("engine_stopped", [False, True], ids=["engine runs", "engine is stopped"])
async def test_no_orphan_when_the_front_is_killed(demo_model, engine_stopped):
    with real_server(demo_model) as server:
        family = server.family
        body = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        async with server.http() as client, client.stream("POST", "/v1/completions", json=body) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            if engine_stopped:
                os.kill(server.engine_pid, signal.SIGSTOP)
            server.process.kill()
            with pytest.raises(httpx2.RemoteProtocolError):
                _ = [line async for line in lines]
        server.process.wait()
        wait_until(lambda: all(map(is_gone, family)), "a process is left over")
