"""With the real model behind the real server: engines die and hang under eight streams, and the front is killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path

import httpx2
import pytest
from patience import wait_until
from processes import is_gone
from real_server import RealServer, real_server
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


def _changed(model: Path, copy: Path) -> Path:
    """The same model but for some of its weights; of the same size."""
    data = bytearray(model.read_bytes())
    start = len(data) // 2
    data[start : start + (8 << 20)] = bytes(8 << 20)
    copy.write_bytes(data)
    return copy


async def test_a_replaced_file_changes_no_answer(demo_model, alone, tmp_path):
    """Another file is put in the model's place, and the engine is killed: bit for bit the answers of the first one."""
    model = tmp_path / demo_model.name
    shutil.copyfile(demo_model, model)
    other = _changed(demo_model, tmp_path / "other.gguf")
    with real_server(model) as server:
        asking = asyncio.create_task(ask_at_once(server, SPEECHES))
        await asyncio.to_thread(_wait_until_in_the_middle, server)
        other.replace(model)
        os.kill(server.engine_pid, signal.SIGKILL)
        assert await asking == alone
        assert server.wait_idle()["antiphon_engine_restarts_total"] == 1


async def test_a_file_that_was_written_to_ends_requests_and_the_server_says_so(demo_model, tmp_path):
    model = tmp_path / demo_model.name
    shutil.copyfile(demo_model, model)
    with real_server(model) as server:
        body = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        async with server.http() as client, client.stream("POST", "/v1/completions", json=body) as reply:
            lines = reply.aiter_lines()
            await anext(lines)
            os.kill(server.engine_pid, signal.SIGSTOP)
            with model.open("r+b") as file:
                file.seek(model.stat().st_size // 2)
                file.write(bytes(1 << 20))
            os.kill(server.engine_pid, signal.SIGKILL)
            rest = [line async for line in lines if line.startswith("data: ")]
        error = json.loads(rest[-2].removeprefix("data: "))["error"]
        assert (error["code"], rest[-1]) == ("engine_died", "data: [DONE]")
        assert "the server has to be restarted" in error["message"]
        async with server.http() as client:
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).status_code == 200  # the front has the same file mapped, and lives


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
